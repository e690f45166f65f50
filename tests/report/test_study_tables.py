"""The tables of a study."""

from llmdyno import report
from llmdyno.results import conclusions
from report.page_text import words
from report_samples import GUIDE, study


def test_failed_trials_are_told_with_their_class() -> None:
    text = words(report.study_page(study(), GUIDE))
    assert "failed out-of-memory: std::bad_alloc while loading the model" in text
    assert "2 of 25 trials failed" in text
    assert "predicted-infeasible does-not-fit: needs 64 GB of 24 GB" in text


def test_values_have_the_objectives_unit() -> None:
    text = words(report.study_page(study(), GUIDE))
    assert "token rate, tok/s SLOs" in text
    assert "1,310 ms met" in text


def test_the_method_counts_what_was_started_and_says_who_has_put_back_a_single_setting() -> None:
    found = study()
    text = words(report.study_page(found, GUIDE))
    assert "24 configs were tried" in text  # the 25th cannot work
    assert "put back in the winner one at a time" in text

    alone = {**found, "trials": found["trials"][:1], "ablation": found["ablation"][:1]}
    text = words(report.study_page(alone, GUIDE))
    assert "1 config was tried" in text
    assert "the pairs have put it back" in text
    assert "one at a time" not in text


def test_lm_evals_tasks_without_a_winner_are_told() -> None:
    said = "lm-eval, gsm8k: not asked; the baseline stays, so there is no winner to compare."
    found = {**study(), "spec": {"lm_eval": ["gsm8k"]}, "outcome": {"state": "nothing better"}}
    assert said in conclusions.remarks(found)

    confirmed = {**found, "outcome": {"state": "confirmed"}}
    assert said not in conclusions.remarks(confirmed)
    for tie in ("shown_equal", "no_better"):
        tied = {**found["confirmation"], "verdict": "no difference", tie: True}
        assert said in conclusions.remarks({**confirmed, "confirmation": tied})
    asked = {"lm_eval": {"tasks": [{"task": "gsm8k"}]}}
    assert said not in conclusions.remarks({**found, "quality": asked})


def test_a_trial_says_what_held_it_back() -> None:
    found = study()
    found["trials"][0]["bottleneck"] = {"name": "kv", "why": "the KV cache was 99 % full"}

    assert "KV cache the KV cache was 99 % full" in words(report.study_page(found, GUIDE))


def test_settings_that_work_only_together_are_named() -> None:
    why = "a and b: work only together (1.50x); neither does alone."
    together = {
        "knobs": ["a", "b"],
        "kind": "only together",
        "why": why,
        "effect": {"token_rate": {"ratio": 1.5, "ci95": [1.4, 1.6]}},
        "pairs": 2,
    }
    alone = {**together, "kind": "independent", "why": "each does its own part."}
    found = {**study(), "interactions": [together]}

    text = words(report.study_page(found, GUIDE))
    assert f"a, b only together {why}" in text
    assert text.count("1.50x") == 4  # in the finding, its answer, the table, and as the ratio
    assert why in conclusions.remarks(found)
    assert conclusions.remarks({**found, "interactions": [alone]}) == []


def test_what_the_quality_gate_found_is_told() -> None:
    alone = {
        "unit": "tokens",
        "prompts": 24,
        "same_answers": {"mean": 0.5},
        "disagreement": {"mean": 0.01},
    }
    refused = {"config": {"kv_cache_precision": "u8"}, "said": ["Output: differs."]}
    found = study()
    found["quality"] = {
        "verdict": "within the engine's own noise",
        "comparison": {"alone": alone},
        "excess": {"mean": 0.002, "ci95": [-0.001, 0.005]},
        "refused": [refused],
    }

    said = "Output: within the engine's own noise. 50 % of 24 greedy answers equal the baseline's"
    text = words(report.study_page(found, GUIDE))
    assert said in text
    assert "kv_cache_precision=u8 Kept out. Output: differs." in text
    first, last = conclusions.remarks(found)
    assert first.startswith(said)
    assert last == "The quality gate kept 1 config out, as the output differs."
