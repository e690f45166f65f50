"""`dyno tune`: wrong input is told before anything starts."""

import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from conftest import last_json
from llmdyno import plugins
from llmdyno.cli.app import app
from llmdyno.cli.flags import study_spec
from llmdyno.cli.tune import _refuse_beside_resume, _terms
from llmdyno.errors import DynoError, StorageError, UsageError
from llmdyno.store import LEDGER
from llmdyno.tune.going_on import extended
from studies import run

WRONG = {
    "engine": (["--engine", "openvinoo"], "Did you mean 'openvino'?"),
    "front": (["--front", "nativ"], "Did you mean 'native'?"),
    "nothing": ([], "say what is tuned: --engine and --model, a study's file, or --quick"),
    "model": (["--model", "huge"], "huge"),
    "objective": (["--objective", "speed"], "--objective speed: no metric"),
    "trials": (["--trials", "0"], "--trials 0: must be at least 1"),
    "pairs": (["--pairs", "1"], "--pairs 1: must be at least 2"),
    "seed": (["--seed", "-1"], "--seed -1: must be at least 0"),
    "large seed": (["--seed", "4294967296"], "--seed 4294967296: must be below 4294967296"),
    "dataset": (["--workload", "file", "--dataset", "nowhere.jsonl"], "cannot be read: No such"),
    "search": (["--search", "cache_size,cache_size"], "--search cache_size: named twice"),
    "knob": (["--set", "max_num_sqs=4"], "Did you mean 'max_num_seqs'?"),
    "value": (["--set", "max_num_batched_tokens=none"], "must be a whole number"),
    "no effect": (["--set", "max_num_seqs=4"], "has no effect while dynamic_split_fuse=true"),
    "engine's word": (["--engine", "vllm", "--model", "a/b", "--engine-arg=--port=1"], "dyno sets"),
    "resume": (["--resume", "nowhere"], "nowhere: no such run or study"),
    "file": (["nowhere.toml"], "nowhere.toml: cannot be read"),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_input_is_one_sentence_and_nothing_starts(name: str, tmp_path: Path) -> None:
    arguments, words = WRONG[name]

    done = run(tmp_path, "tune", *arguments)

    assert done.returncode == 2, done.stderr
    assert words in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert not list(tmp_path.iterdir())


def test_an_unknown_key_in_a_file_names_the_nearest(tmp_path: Path) -> None:
    (tmp_path / "study.toml").write_text("trails = 5\n")

    done = run(tmp_path, "tune", "study.toml")

    assert (done.returncode, done.stderr) == (
        2,
        "dyno: study.toml: unknown key 'trails'. Did you mean 'trials'?\n",
    )


def test_the_whole_baseline_is_checked_not_the_settings_alone(tmp_path: Path) -> None:
    """What --set gives may need what the file has: its knob goes by the baseline of both."""
    (tmp_path / "study.toml").write_text(
        "[baseline]\ndynamic_split_fuse = false\nmax_num_batched_tokens = 512\n"
    )

    done = run(tmp_path, "tune", "study.toml", "--set", "max_num_seqs=4", "--search", "nothing")

    assert done.returncode == 2
    assert done.stderr.startswith("dyno: --search nothing: no such knob.")


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"settings": ["fast=true"]}, "--set fast=true: the study s goes on as it began"),
        ({"quick": True}, "--quick: the study s goes on"),
        ({"out": "elsewhere"}, "--out elsewhere: the study s goes on"),
        ({"file": "study.toml"}, "a study's file study.toml: the study s goes on"),
    ],
)
def test_what_makes_another_study_is_refused_beside_resume(
    given: dict[str, object], said: str
) -> None:
    with pytest.raises(UsageError, match=said):
        _refuse_beside_resume("s", **given)
    _refuse_beside_resume("s", **dict.fromkeys(given))


def test_a_dry_run_prints_the_plan_and_writes_nothing(
    dyno: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path
) -> None:
    asked = ("tune", "--engine", "openvino", "--model", "tiny", "--quick", "--dry-run")
    read, shown = dyno(*asked, "--json"), dyno(*asked)

    assert (read.returncode, shown.returncode) == (0, 0), read.stderr + shown.stderr
    document = last_json(read.stdout)
    assert document["schema"] == "llmdyno.dry-run/1"
    assert [one["phase"] for one in document["phases"]][:3] == ["baseline", "reference", "trials"]
    assert shown.stdout.startswith("Nothing was started. openvino behind native, tiny: token_rate")
    assert not list(tmp_path.iterdir())


def test_a_plan_needs_no_engine_and_the_study_does() -> None:
    if plugins.load("engines", "tgi").version() is not None:
        pytest.skip("tgi is installed here")
    asked = ["tune", "--engine", "tgi", "--model", "org/name"]

    plan = CliRunner().invoke(app, [*asked, "--dry-run"])

    assert plan.exit_code == 0, plan.output
    assert "tgi is not installed here" in " ".join(plan.stdout.split())
    with pytest.raises(UsageError, match="--engine tgi: it is not installed here"):
        CliRunner().invoke(app, asked, catch_exceptions=False)


def test_the_flags_of_a_study_that_goes_on_are_read_by_its_own_terms() -> None:
    """More pairs and a larger number at most, of a study that ends them by their interval."""
    study = study_spec({"pairs": 3, "confirm_until": "3%", "price": "2/h"})

    asked = study_spec({**_terms(study), "pairs": 4, "max_pairs": 20, "budget": "$4"})

    assert (asked.pairs, asked.max_pairs, asked.limit_s) == (4, 20, 7200.0)
    fixed = study_spec({"pairs": 3})
    with pytest.raises(UsageError, match="--max-pairs 20: --pairs 4 says how many there are"):
        study_spec({**_terms(fixed), "pairs": 4, "max_pairs": 20})


@pytest.mark.parametrize("aim", [{"objective": "ttft:p99"}, {"objective": "goodput"}])
def test_a_study_at_a_rate_goes_on_with_its_own_rates(aim: dict[str, str]) -> None:
    """It was refused for want of an objective, which it has."""
    begun = study_spec({"request_rate": "2,8", "slo": "ttft:p99<2s", **aim})

    def goes_on(**given: Any) -> Any:
        return extended(begun, study_spec({**_terms(begun), **given}), given, "s")

    assert goes_on(request_rate="2,8", trials=30).trials == 30
    with pytest.raises(UsageError, match=r"--request-rate 3.*: the study s began with 2.* 8"):
        goes_on(request_rate="3")
    with pytest.raises(UsageError, match="-users 10 50 100: the study s began with none"):
        goes_on(users="10,50,100")


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        ExceptionGroup("of tasks", [MemoryError()]),
        StorageError("cannot write x: No space."),
    ],
)
@pytest.mark.parametrize("begun", [True, False])
def test_a_study_that_ends_for_want_of_something_says_how_it_goes_on_if_there_is_one(
    error: Exception, begun: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "s"

    def run(*_: object, **__: object) -> None:
        if begun:
            folder.mkdir()
            (folder / LEDGER).touch()
        raise error

    monkeypatch.setattr("llmdyno.tune.tuner.Tuner.run", run)
    asked = ["tune", "--engine", "openvino", "--model", "tiny", "--out", str(folder)]
    failed = CliRunner().invoke(app, asked).exception

    if not begun:
        assert failed is error
        return
    assert isinstance(failed, DynoError)
    assert failed.exit_status == 3
    no_memory = "there is no memory left for dyno itself."
    said = str(error) if isinstance(error, StorageError) else no_memory
    assert str(failed).startswith(f"{said} What was measured is kept in {folder};")
    assert str(failed).endswith(f"go on with: dyno tune --resume {folder}")
