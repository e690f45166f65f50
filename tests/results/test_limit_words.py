"""Measured against predicted, and the share of the limit, in one line."""

from typing import Any

from llmdyno.results.limit_words import distance, line, near

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
        " 43.5 [30.0, 60.0]; TPOT p50 6.81 ms, predicted 6.70 [6.00, 7.50]; 61 % of what this GPU's"
        " memory bandwidth allows; bound by host."
    )


def test_a_level_of_which_nothing_is_known_says_nothing() -> None:
    assert line({name: value for name, value in LEVEL.items() if name != "limit"}) == ""


def test_the_limit_is_the_nearer_of_the_two() -> None:
    limit = {"mbu": 0.1, "mfu": 0.4, "share": 0.4, "bound_by": "compute", "machine": "CPU"}
    assert distance(limit) == "40 % of what this CPU's FLOP/s allows; bound by compute"


def limited(share: float, **also: object) -> dict[str, Any]:
    return {"limit": {"share": share, "mbu": 0.1, "mfu": share, "machine": "CPU", **also}}


def test_what_a_prefix_cache_saves_explains_a_smaller_share() -> None:
    assert near(limited(0.57, cached=0.0), limited(0.16, cached=0.93, cached_by="server"), ()) == (
        "It now uses about 16 % of what the CPU's FLOP/s allows, 57 % before; the prefix cache held"
        " 93 % of the prompts' tokens, which were not computed. A smaller share is less work for"
        " each token here, not a slower server."
    )
    assert near(limited(0.57, cached=0.93), limited(0.16, cached=0.93), ()) == (
        "It now uses about 16 % of what the CPU's FLOP/s allows, 57 % before."
    )
    assert distance({**limited(0.16, cached=0.93)["limit"], "bound_by": "compute"}) == (
        "16 % of what this CPU's FLOP/s allows; bound by compute; 93 % of the prompts' tokens"
        " repeat, which the prefix cache saves it from computing"
    )


def test_shares_of_two_resources_are_told_apart() -> None:
    assert near(limited(0.57, mbu=0.57, mfu=0.1), limited(0.16), ()).startswith(
        "It now uses about 16 % of what the CPU's FLOP/s allows, 57 % of its memory bandwidth"
        " before."
    )


def test_it_is_said_when_the_peaks_were_measured() -> None:
    peaks = {"measured": "2026-11-29T19:38:45+00:00", "with_result": True}
    assert near({}, limited(0.16, peaks=peaks), ()).endswith(
        " What the CPU can do at most was measured on 2026-11-29."
    )
    assert near({}, limited(0.16, peaks=peaks | {"with_result": False}), ()).endswith(
        " What the CPU can do at most was not kept with it; it was measured here on 2026-11-29."
    )
