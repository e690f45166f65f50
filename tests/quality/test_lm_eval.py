"""lm-eval's scores: what is asked of it, what is read, and which differences are called so.

tests/tune/test_exam.py runs lm-eval itself where it is installed.
"""

import json
import math
import random
import stat
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from llmdyno.errors import TargetError, UsageError
from llmdyno.processes.launch import Launch
from llmdyno.quality import lm_eval
from llmdyno.quality.lm_eval import (
    BETTER,
    SAME,
    WORSE,
    Score,
    Scores,
    compare,
    read,
    step,
)
from llmdyno.results.quality import of_tasks, sentences, worse_tasks


def scores(values: Sequence[float], *, higher: bool = True, metric: str = "acc") -> Scores:
    of_each = {str(number): value for number, value in enumerate(values)}
    mean = sum(values) / max(1, len(values))
    one = Score(
        task="t",
        metric=metric,
        filter="none",
        higher_is_better=higher,
        value=mean,
        questions=of_each,
    )
    return Scores(version="0.4.13", scores=[one])


def verdict(before: Scores, after: Scores) -> str:
    (row,) = compare(before, after)["tasks"]
    return str(row["verdict"])


# What is compared.


def test_few_questions_that_fall_to_one_side_show_nothing_and_many_do() -> None:
    # McNemar by hand: of 5 that differ, all to one side, 2 / 2**5 = 0.0625; of 6, 0.03125.
    alike = [1.0] * 14
    (row,) = compare(scores(alike), scores(alike))["tasks"]
    low, high = row["difference"]["ci95"]
    assert low == -high < -0.1  # 14 equal answers do not prove that none would differ
    assert verdict(scores([1.0] * 5 + alike), scores([0.0] * 5 + alike)) == SAME
    assert verdict(scores([1.0] * 6 + alike), scores([0.0] * 6 + alike)) == WORSE
    assert verdict(scores([0.0] * 6 + alike), scores([1.0] * 6 + alike)) == BETTER


def mcnemar(up: int, down: int) -> float:
    n = up + down
    tail = sum(math.comb(n, k) for k in range(min(up, down) + 1))
    return min(1.0, float(2 * tail / (1 << n)))


def test_the_interval_leaves_0_out_where_mcnemars_exact_test_finds_a_difference() -> None:
    for up in range(14):
        for down in range(14):
            after = [1.0] * up + [0.0] * down + [1.0] * 5
            (row,) = compare(scores([0.0] * up + [1.0] * (down + 5)), scores(after))["tasks"]
            low, high = row["difference"]["ci95"]
            assert (not low <= 0 <= high) == (mcnemar(up, down) < 0.05), (up, down)
            assert (row["verdict"] == SAME) == (low <= 0 <= high)
            assert low <= row["difference"]["mean"] <= high


def test_the_interval_is_clopper_and_pearsons_of_the_questions_that_differ() -> None:
    # Their tables: of 10, 8: [0.4439, 0.9748]; those 10 are a quarter of 40.
    after = [1.0] * 8 + [0.0] * 2 + [1.0] * 30
    (row,) = compare(scores([0.0] * 8 + [1.0] * 32), scores(after))["tasks"]
    low, high = row["difference"]["ci95"]
    assert low == pytest.approx((2 * 0.4439 - 1) / 4, abs=1e-4)
    assert high == pytest.approx((2 * 0.9748 - 1) / 4, abs=1e-4)
    many = [1.0] * 3000 + [0.0] * 2800
    (row,) = compare(scores([1.0 - value for value in many]), scores(many))["tasks"]
    assert row["verdict"] == BETTER  # z = 2.6; sums of large numbers stay finite


def test_a_metric_that_should_be_low_is_better_when_it_falls() -> None:
    rng = random.Random(1)
    before = [2.0 + rng.gauss(0, 0.1) for _ in range(50)]
    lower = [value - 0.2 + rng.gauss(0, 0.05) for value in before]
    assert verdict(scores(before, higher=False), scores(lower, higher=False)) == BETTER
    assert verdict(scores(before), scores(lower)) == WORSE
    (row,) = compare(scores(before), scores(lower))["tasks"]
    low, high = row["difference"]["ci95"]
    assert low < -0.2 < high
    assert high - low == pytest.approx(2 * 2.01 * 0.05 / 50**0.5, rel=0.35)


def test_equal_configs_over_several_tasks_are_seldom_called_different() -> None:
    rng = random.Random(2)

    def all_(tasks: int, n: int) -> Scores:
        found = [scores([float(rng.random() < 0.5) for _ in range(n)]) for _ in range(tasks)]
        return Scores(
            version="",
            scores=[
                Score(
                    task=f"t{number}",
                    metric="acc",
                    filter="none",
                    value=one.scores[0].value,
                    questions=one.scores[0].questions,
                )
                for number, one in enumerate(found)
            ],
        )

    called = 0
    for _ in range(200):
        rows = compare(all_(5, 60), all_(5, 60))["tasks"]
        called += any(row["verdict"] != SAME for row in rows)
    assert called <= 16  # 5 % of 200 are 10; more than 16 in one of 30 such sets at most


def test_a_score_without_questions_has_no_interval_and_says_so() -> None:
    document = compare(scores([]), scores([]))
    (said,) = of_tasks(document)
    assert "no interval" in said
    assert document["tasks"][0]["verdict"] is None


def test_only_what_both_have_answered_is_compared() -> None:
    (row,) = compare(scores([1.0] * 20), scores([1.0] * 12))["tasks"]
    assert row["questions"] == 12
    assert compare(scores([1.0] * 20), scores([1.0] * 20, metric="f1"))["tasks"] == []


def test_a_winner_that_is_worse_is_named() -> None:
    worse = compare(scores([1.0] * 20), scores([0.0] * 10 + [1.0] * 10))
    (said,) = worse_tasks({"lm_eval": worse})
    assert said == (
        "lm-eval, t: acc 0.5, the baseline's 1; -0.5 [-0.5, -0.192] over 20 questions: worse."
    )
    assert sentences({"comparison": None, "lm_eval": worse}) == [said]
    assert worse_tasks({"lm_eval": compare(scores([1.0] * 9), scores([1.0] * 9))}) == []


# What is asked and read.


def launch(endpoint: str = "openai-chat", **more: Any) -> Launch:
    return Launch(argv=("x",), url="http://127.0.0.1:9", endpoint=endpoint, model="m", **more)


def test_the_command_asks_completions_and_keeps_our_keys(tmp_path: Path) -> None:
    asks = step(launch(), "m", ["a", "b"], ["--limit=5"], tmp_path)
    line = " ".join(asks.argv)
    assert "--model local-completions " in line
    assert "base_url=http://127.0.0.1:9/v1/completions" in line
    assert "--tasks a,b " in line
    assert asks.argv[-1] == "--limit=5"
    assert "tokenizer_backend=None" in line
    assert asks.environment["OPENAI_API_KEY"] == "none"

    (tmp_path / "tokenizer_config.json").write_text("{}")
    assert f"tokenizer={tmp_path}" in " ".join(
        step(launch(), str(tmp_path), ["a"], [], tmp_path).argv
    )
    chat = step(launch(), "m", ["a"], ["--apply_chat_template"], tmp_path)
    assert "base_url=http://127.0.0.1:9/v1/chat/completions" in " ".join(chat.argv)


def test_a_server_of_another_protocol_is_refused_unless_it_speaks_openais_too(
    tmp_path: Path,
) -> None:
    with pytest.raises(TargetError, match="this server speaks kserve"):
        step(launch("kserve"), "m", ["a"], [], tmp_path)
    also = launch("kserve", also={"openai-chat": "http://127.0.0.1:10/v1"})
    assert "http://127.0.0.1:10/v1/completions" in " ".join(
        step(also, "m", ["a"], [], tmp_path).argv
    )


RESULTS = {
    "results": {
        "math": {"name": "math", "sample_len": 2, "acc,none": 0.5, "acc_stderr,none": 0.5},
        "math_hard": {"exact_match,strict": 1.0, "exact_match_stderr,strict": "N/A"},
    },
    "higher_is_better": {"math": {"acc": True}, "math_hard": {"exact_match": False}},
    "lm_eval_version": "0.4.13",
}


def written(folder: Path) -> Path:
    place = folder / "m"
    place.mkdir(parents=True)
    (place / "results_2026-11-29T22-29-01.1.json").write_text(json.dumps(RESULTS))
    for task, metric, filtered, values in (
        ("math", "acc", "none", [True, False]),
        ("math_hard", "exact_match", "strict", [1.0, 1.0]),
    ):
        lines = [
            {"doc_id": number, "filter": filtered, "metrics": [metric], metric: value}
            for number, value in enumerate(values)
        ]
        file = place / f"samples_{task}_2026-11-29T22-29-01.1.jsonl"
        file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


def test_scores_are_read_with_those_of_each_question(tmp_path: Path) -> None:
    easy, hard = read(written(tmp_path)).scores
    assert (easy.task, easy.metric, easy.value, easy.higher_is_better) == ("math", "acc", 0.5, True)
    assert easy.questions == {"0": 1.0, "1": 0.0}  # not those of math_hard
    assert (hard.filter, hard.higher_is_better, hard.questions) == (
        "strict",
        False,
        {"0": 1.0, "1": 1.0},
    )


def test_results_that_are_none_are_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(TargetError, match="ended without results"):
        read(tmp_path)
    (tmp_path / "results_x.json").write_text("[]")
    with pytest.raises(TargetError, match="is no result of lm-eval"):
        read(tmp_path)
    (tmp_path / "results_x.json").write_text('{"results": {"t": {"alias": "t"}}}')
    with pytest.raises(TargetError, match="no task a score"):
        read(tmp_path)


def test_many_tasks_without_a_score_are_told_in_a_sentence() -> None:
    few = scores([1.0] * 9).without(["a", "b", "c", "d", "e"], "they have none")
    document = compare(few, few)

    assert len(document["tasks"]) == 1
    assert of_tasks(document)[1:] == ["lm-eval has no score of a, b, c and 2 more: they have none."]


# Before anything starts.


def program(folder: Path, script: str) -> None:
    path = folder / "lm_eval"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)


def test_tasks_are_refused_before_anything_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.executable", str(tmp_path / "python"))
    monkeypatch.setenv("PATH", "/bin")
    with pytest.raises(UsageError, match=r"lm-eval is not installed; pip install"):
        lm_eval.require(("one",), ())
    program(tmp_path, 'case "$*" in *known*) exit 0;; esac; echo "Tasks not found: $3"; exit 1')
    lm_eval.require(("known",), ())
    with pytest.raises(
        UsageError, match="--lm-eval strange: Tasks not found: strange; `lm_eval ls"
    ):
        lm_eval.require(("strange",), ())
    with pytest.raises(UsageError, match=r"--lm-eval no\.yaml: there is no such file"):
        lm_eval.require(("no.yaml",), ())
    (tmp_path / "yes.yaml").write_text("")
    lm_eval.require((str(tmp_path / "yes.yaml"),), ())
