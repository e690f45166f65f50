"""Each doubt of a study or a pair of runs, by its code, from the least that gives cause to it."""

import copy
import html
from collections.abc import Callable
from typing import Any

import pytest

from llmdyno.knobs import Knob
from llmdyno.report import study_page
from llmdyno.results import doubts, study_doubts
from report_samples import GUIDE, level, study

Study = dict[str, Any]


def levels(document: Study) -> Any:
    return document["best"]["summary"]["levels"]


def unconfirmed(document: Study) -> None:
    document["confirmation"] |= {"ratio": {}, "pairs": 0}


def few_pairs(document: Study) -> None:
    document["confirmation"]["pairs"] = 4


def no_interval(document: Study) -> None:
    document["confirmation"]["ratio"]["ttft_ms_p50"]["ci95"] = None


def includes_one(document: Study) -> None:
    document["confirmation"]["ratio"]["token_rate"]["ci95"] = [0.97, 1.31]


def altered(document: Study) -> None:
    document["best"]["config"]["kv_precision"] = "u8"


def failed(document: Study) -> None:
    for trial in document["trials"]:
        trial["state"] = "measured"
    document["trials"][0]["state"] = "failed"


def elsewhere(document: Study) -> None:
    document["best"]["summary"]["environment"]["packages"] = {"openvino-genai": "2026.3.0"}


def one_level_less(document: Study) -> None:
    del levels(document)[0]


def shorter(document: Study) -> None:
    levels(document)[0]["tokens"]["output"] //= 2


def slower(document: Study) -> None:
    for one, sent in zip(
        (document["baseline"]["summary"]["levels"], levels(document)), (5, 4), strict=True
    ):
        one[0]["delivered"] = {"rate": {"due": sent, "sent": sent, "not_sent": 0}}


def moved(document: Study) -> None:
    document["moves"] = ["vllm 0.25 before, 0.26 after"]


def beside(document: Study) -> None:
    document["beside"] = ["/srv/other"]


def in_parallel(document: Study) -> None:
    document["lanes"] = {"devices": ["GPU 0", "GPU 1"], "value": 380.0, "alone": 500.0}
    document["trials"][0]["beside"] = 1


def over_hosts(document: Study) -> None:
    document["lanes"] = {"devices": ["host 1", "host 2"]}


def bound(document: Study) -> None:
    document["trials"][0]["doubts"] = ["few-requests", "client-bound"]


def stopped(document: Study) -> None:
    document["stood"] = [
        {"phase": "reference", "id": 2, "device": "GPU 1", "run": "r", "stood_s": 15.2},
        {"phase": "ablation", "id": 3, "device": None, "run": "r", "stood_s": 20.0},
        {"phase": "trial", "id": 7, "device": None, "run": "r", "stood_s": 9.0},
    ]


def shifted(document: Study) -> None:
    document["confirmation"]["shift"] = {"mean": 0.702, "ci95": [0.61, 0.81]}


OF_STUDY: dict[str, tuple[Callable[[Study], None], str, list[str]]] = {
    "unconfirmed": (unconfirmed, "was not confirmed by repeated pairs", []),
    "few-pairs": (few_pairs, "rests on 4 pairs (fewer than 5)", []),
    "no-interval": (no_interval, "The ratio of TTFT p50 has no interval", ["ttft_ms"]),
    "no-difference-shown": (includes_one, "ratio of token rate includes 1", ["token_rate"]),
    "altered-output": (altered, "kv_precision may alter the tokens themselves", []),
    "failed-trials": (failed, "1 of 25 trials failed", []),
    "doubtful-trials": (bound, "Of 25 trials some have doubts of their own: client-bound in 1", []),
    "dyno-stopped": (stopped, "the same: reference on GPU 1 (15 s), ablation 3 (20 s). What", []),
    "unlike-places": (elsewhere, "not measured in the same place: openvino-genai: 2026.4.1.0", []),
    "measured-once": (one_level_less, "measured in Baseline only", []),
    "unequal-work": (shorter, "answers differ in length, 48.0 against 24.0 output tokens", []),
    "another-place": (moved, "its runs are not alike: vllm 0.25 before, 0.26 after", []),
    "changed-baseline": (shifted, "came to 0.702x [0.610, 0.810] of what it was before", []),
    "parallel-trials": (in_parallel, "at once (GPU 0, GPU 1) and shared memory, its", []),
    "several-hosts": (over_hosts, "Trials ran with 2 workers of other hosts, of the same kind", []),
    "studies-beside": (beside, "Another study ran on this machine at the same time", []),
    "unequal-load": (slower, "the load was not the same: 5.00 against 4.00 requests/s were", []),
}


def clean() -> Study:
    """Return a study that only has the doubts of its runs."""
    document = study()
    for trial in document["trials"]:
        trial["state"] = "measured"
    return document


def codes(document: Study, guide: dict[str, Knob] | None = None) -> list[str]:
    return [one["code"] for one in study_doubts.entries(document, guide or dict(GUIDE))]


def test_a_clean_study_has_none() -> None:
    assert codes(clean()) == []


@pytest.mark.parametrize("code", OF_STUDY)
def test_each_has_a_code_and_stands_on_the_page(code: str) -> None:
    spoil, said, metrics = OF_STUDY[code]
    document = clean()
    spoil(document)

    (found,) = study_doubts.entries(document, GUIDE)

    assert (found["code"], found["metrics"]) == (code, metrics)
    assert said in found["text"]
    assert code in doubts.CODES
    assert found["text"] in html.unescape(study_page(document, GUIDE))


def test_those_of_a_level_name_it() -> None:
    document = clean()
    shorter(document)

    (found,) = study_doubts.find(document, GUIDE)

    level = document["baseline"]["summary"]["levels"][0]
    assert (found.level, found.at) == (level["users"], f"{level['users']} users")


def test_what_stands_in_a_study_is_read_and_an_older_one_is_looked_through() -> None:
    document = clean()
    few_pairs(document)
    stored = {**copy.deepcopy(document), "doubts": []}

    assert study_doubts.of(stored, GUIDE) == []
    assert [doubt.code for doubt in study_doubts.of(document, GUIDE)] == ["few-pairs"]


def test_where_the_baseline_stands_nothing_is_unconfirmed() -> None:
    document = clean()
    document["best"] = copy.deepcopy(document["baseline"])
    unconfirmed(document)

    assert codes(document) == []


def pair(**facts: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return a level, and the same with other facts."""
    one = level(10, rate=420, ttft_ms=510)
    return one, {**copy.deepcopy(one), **facts}


@pytest.mark.parametrize(
    ("facts", "said"),
    [
        (
            {"delivered": {"in_flight": {"users": 10, "expected": 9.9, "peak": 3, "mean": 2.0}}},
            "of After, 10 users were asked, and never more than 3",
        ),
        (
            {"delivered": {"rate": {"due": 10.0, "sent": 7.0, "not_sent": 90}}},
            "of After, 7.00 requests/s were sent where 10.0 were due",
        ),
        (
            {"delivered": {"ttft_trend": {"first_ms": 100, "last_ms": 900, "tau": 1.0}}},
            "of After, TTFT grows with the number of the request",
        ),
        ({"max_concurrency": 8}, "--max-concurrency no limit and 8"),
        ({"users": None, "arrival": "poisson"}, "a file does not tell the load"),
        ({"delivered": {"output_tokens": {"mean": 49.2}}}, "48.0 against 49.2 output tokens"),
    ],
)
def test_levels_of_other_work_or_load_say_why(facts: dict[str, Any], said: str) -> None:
    old, new = pair(**facts)

    ((code, text),) = study_doubts.unequal(old, new, ("Before", "After"))

    assert said in text
    assert code == ("unequal-work" if "output tokens" in said else "unequal-load")
    assert study_doubts.unequal(*pair(), ("Before", "After")) == []


def test_bursts_are_as_large_as_they_have_requests() -> None:
    old, new = pair()
    for one in (old, new):
        one |= {"users": None, "arrival": "burst", "rate": None}
    assert study_doubts.unequal(old, new, ("Before", "After")) == []
    new["requests"] = {**new["requests"], "completed": 2 * new["requests"]["completed"]}
    new["tokens"] = {**new["tokens"], "output": 2 * new["tokens"]["output"]}

    ((_, text),) = study_doubts.unequal(old, new, ("Before", "After"))

    assert "requests at once" in text


def test_what_neighbours_cost_the_baseline_is_said_with_the_lanes() -> None:
    document = study()
    in_parallel(document)
    (said,) = [
        one.text for one in study_doubts.find(document, GUIDE) if one.code == "parallel-trials"
    ]
    assert said.endswith(
        "There the baseline made 0.76 times what it makes alone. The confirmation ran alone."
    )
    del document["confirmation"]
    (said,) = [
        one.text for one in study_doubts.find(document, GUIDE) if one.code == "parallel-trials"
    ]
    assert said.endswith("There the baseline made 0.76 times what it makes alone.")


def test_lanes_of_cores_are_less_than_the_machine() -> None:
    document = clean()
    in_parallel(document)
    document["lanes"]["devices"] = ["cores 0-3", "cores 4-7"]

    (found,) = study_doubts.find(document, GUIDE)

    assert found.text.endswith("Each trial had a part of the cores, what ran alone had all.")


def test_lanes_of_which_one_was_left_shared_nothing() -> None:
    document = clean()
    in_parallel(document)
    document["trials"][0]["beside"] = 0

    assert codes(document) == []
