"""Measured against predicted, and the share of the limit, in one line."""

from llmdyno.results.limit_words import distance, line

LEVEL = {
    "users": 50,
    "arrival": "closed",
    "token_rate": {"mean": 7004.2},
    "ttft_ms": {"p50": 41.26},
    "tpot_ms": {"p50": 6.812},
    "limit": {
        "mbu": 0.61,
        "mfu": 0.08,
        "share": 0.61,
        "bound_by": "host",
        "predicted": {
            "token_rate": {"mean": 7104.0, "ci80": [6300.0, 8000.0]},
            "ttft_ms_p50": {"mean": 43.5, "ci80": [30.0, 60.0]},
            "tpot_ms_p50": {"mean": 6.7, "ci80": [6.0, 7.5]},
        },
    },
}


def test_a_level_is_one_line() -> None:
    assert line(LEVEL) == (
        "50 users: 7,000 tok/s, predicted 7,100 [6,300, 8,000]; TTFT p50 41.3 ms, predicted"
        " 43.5 [30.0, 60.0]; TPOT p50 6.81 ms, predicted 6.70 [6.00, 7.50]; 61% of what this GPU's"
        " bandwidth allows; bound by host."
    )


def test_a_level_of_which_nothing_is_known_says_nothing() -> None:
    assert line({name: value for name, value in LEVEL.items() if name != "limit"}) == ""


def test_the_limit_is_the_nearer_of_the_two() -> None:
    limit = {"mbu": 0.1, "mfu": 0.4, "share": 0.4, "bound_by": "compute", "machine": "CPU"}
    assert distance(limit) == "40% of what this CPU's FLOP/s allows; bound by compute"
