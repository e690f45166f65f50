"""What a study found, in sentences."""

from typing import Any

import pytest

from llmdyno.results import findings, study_doubts
from report_samples import GUIDE, study


def told(document: dict[str, Any]) -> list[str]:
    return findings.key_findings(document, study_doubts.changed_settings(document, GUIDE))


def test_three_sentences_say_what_by_what_and_why() -> None:
    first, second, third = told(study())
    assert first == (
        "In 6 interleaved pairs of runs at 100 users, the token rate is 3.1 times as high (2.8 to"
        " 3.4), from 525 to 1,630 tok/s; the median time to first token is 4.7 times"
        " shorter (4.2 to 5.3), from 4.30 s to 910 ms."
    )
    assert second == (
        "What did it is enable_prefix_caching (false → true): with it the token rate is 2.9 times"
        " as high (2.6 to 3.2). max_num_batched_tokens is not shown to have an effect of its own;"
        " up to 13 % in the token rate is not ruled out."
    )
    assert third.startswith("Before as after, decode held the server back at 100 users: a request")
    assert "not known" in third


def test_a_setting_that_nobody_took_back_is_named() -> None:
    document = study()
    names = [*study_doubts.changed_settings(document, GUIDE), "max_num_seqs"]

    _, second, _ = findings.key_findings(document, names)
    assert second.endswith(
        " What max_num_seqs gave is not known: the winner was not measured again without it."
    )
    _, second, _ = findings.key_findings(document, [*names, "cache_size"])
    assert second.endswith(
        " What max_num_seqs and cache_size gave is not known: the winner was not measured again"
        " with one of them put back."
    )


def test_words_for_the_engine_are_why_its_limit_is_not_known() -> None:
    document = study()
    document["engine_args"] = ["--sampling-backend=pytorch"]
    assert findings.near_the_limit(document).endswith(
        "is not known: dyno cannot tell what --sampling-backend=pytorch does to it."
    )


def test_the_metric_that_decides_comes_first() -> None:
    document = study()
    document["confirmation"]["decided_by"] = "ttft_ms_p50"
    assert findings.verdict(document).sentence == (
        "Better: at 100 users the median time to first token is 4.7 times shorter (4.2 to 5.3)."
    )


def test_a_page_has_the_verdict_as_its_heading_and_the_rest_below() -> None:
    document = study() | {"slo": ["ttft:p99<2s"], "slo_outcome": {"met_by_some": False}}
    document["confirmation"] |= {
        "verdict": "no difference",
        "no_better": True,
        "config": {"fast": True},
    }

    said = findings.verdict(document)

    assert said.heading.endswith("; the baseline stays, as nothing speaks for a change.")
    assert said.rest == "Compared was fast=true. No config that was tried meets ttft:p99<2s."
    whole = said.heading.removesuffix(".") + "; " + said.rest[0].lower() + said.rest[1:]
    assert said.sentence == whole


def test_the_values_beside_a_ratio_are_those_of_the_pairs_that_gave_it() -> None:
    document = study()
    document["confirmation"]["ratio"]["token_rate"] |= {"before": 500.0, "after": 1555.0}

    assert ", from 500 to 1,560 tok/s; the median" in told(document)[0]


@pytest.mark.parametrize(
    ("objective", "said"),
    [
        ("ttft:p99", "whose 99th-percentile time to first token is 4.94 s at 100 users; it gives"),
        ("goodput", "whose goodput is 2.40 req/s at 100 users; it gives"),
        ("token_rate", "beat the baseline, which gives"),
    ],
)
def test_a_baseline_that_stands_is_told_by_the_objective(objective: str, said: str) -> None:
    document = study() | {"objective": objective}
    document["best"] = document["baseline"]
    level = document["baseline"]["summary"]["levels"][-1]
    level["goodput"] = {"mean": 2.4}
    level["ttft_ms"]["p99"] = 4940.0

    assert said in told(document)[0]


def test_an_interval_that_holds_one_is_not_told_as_a_gain() -> None:
    document = study()
    document["confirmation"] |= {"verdict": "no difference"}
    document["confirmation"]["ratio"]["token_rate"] = {"mean": 1.02, "ci95": [0.97, 1.07]}
    said = findings.verdict(document)
    assert said.tone == "same"
    assert said.sentence == (
        "No difference shown: at 100 users the token rate is 2 % higher (3 % lower to 7 % higher)."
    )
    assert "the token rate is not shown to differ: 2 % higher" in told(document)[0]
    assert findings.how_sure(document).endswith("its interval includes “no difference”.")


def test_without_pairs_nothing_is_sure() -> None:
    document = study()
    del document["confirmation"]
    assert told(document)[0].startswith(
        "In one run each at 100 users, which may be luck, the token rate is 3.1 times as high, from"
    )
    assert findings.how_sure(document).startswith("Not sure")
    assert findings.verdict(document).tone == "open"


def test_a_value_of_zero_has_a_difference_and_no_ratio() -> None:
    document = study()
    document["confirmation"]["ratio"]["token_rate"] = {
        "mean": None,
        "ci95": None,
        "difference": {"mean": 2.1, "ci95": [1.9, 2.3]},
    }
    assert "the token rate differs by +2.10 [1.90, 2.30] tok/s" in told(document)[0]


def test_without_an_ablation_it_is_not_known_which_setting_did_it() -> None:
    document = study() | {"ablation": []}
    assert told(document)[1].startswith(
        "Which of the 2 changed settings (enable_prefix_caching and max_num_batched_tokens) did it"
        " is not known"
    )
    document["best"]["config"] = {"enable_prefix_caching": True}
    assert told(document)[1] == (
        "One setting differs, enable_prefix_caching, so whatever differs is its doing."
    )


def test_the_limit_is_told_where_it_is_known() -> None:
    document = study()
    for arm, share in (("baseline", 0.21), ("best", 0.64)):
        document[arm]["summary"]["levels"][-1]["limit"] = {"share": share, "mbu": share, "mfu": 0.1}
    said = findings.near_the_limit(document)
    assert said == "It now uses about 64 % of what the GPU's memory bandwidth allows, 21 % before."


def test_a_baseline_that_stands_is_compared_with_nothing() -> None:
    document = study()
    document["best"] = document["baseline"]
    document["confirmation"] = {"pairs": 0, "ratio": {}, "verdict": "no difference", "runs": []}
    first, second, _ = told(document)
    assert first == (
        "None of 24 trials is shown to beat the baseline, which gives 525 tok/s at 100 users, with"
        " a median time to first token of 4.30 s."
    )
    assert second == "No setting differs from the baseline's."
    held, near = findings.why(document)
    assert held.startswith("What held the server back at 100 users is ")
    assert near.startswith("How near")
    assert findings.how_sure(document).startswith("Each config ran once, nothing was repeated")


def test_a_study_that_was_stopped_names_its_best_trial() -> None:
    document = study() | {"outcome": {"state": "unfinished"}, "objective": "token_rate:mean"}
    document["best"] = document["baseline"]
    document["confirmation"] = {"pairs": 0, "ratio": {}, "verdict": "not confirmed", "runs": []}
    document["trials"] = [
        {"id": number, "state": state, "value": value, "slo_met": met}
        for number, (state, value, met) in enumerate(
            (
                ("measured", 700.0, True),
                ("measured", 900.0, False),
                ("pruned", 950.0, None),
                ("failed", None, None),
            ),
            start=1,
        )
    ]
    said = told(document)[0]
    assert said.endswith(
        "The best so far is trial 1, which meets the SLOs: token_rate:mean 700 tok/s in one run,"
        " which proves nothing yet."
    )
    assert "best so far" not in told(document | {"outcome": {"state": "nothing better"}})[0]


@pytest.mark.parametrize("document", [{}, {"baseline": None, "best": None}, {"best": {}}])
def test_a_study_of_nothing_has_sentences(document: dict[str, Any]) -> None:
    assert findings.verdict(document).sentence.startswith("No comparison")
    assert told(document)
