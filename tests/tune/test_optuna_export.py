"""A study as Optuna reads it: values, parameters, states, distributions."""

from pathlib import Path

import msgspec
import optuna
import pytest

from llmdyno.errors import UsageError
from llmdyno.tune.ledger import Ledger
from llmdyno.tune.optuna_export import write_optuna
from study_lab import Start, StudyLab, fast


def read(file: Path) -> list[optuna.Study]:
    storage = f"sqlite:///{file}"
    names = optuna.get_all_study_names(storage)
    return [optuna.load_study(study_name=name, storage=storage) for name in names]


def test_optuna_reads_every_trial(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def world(start: Start) -> tuple[float, float] | str:
        return "died" if start.config.get("itl_ms") == 39 else fast(start)

    made = StudyLab(tmp_path / "s", monkeypatch)
    candidates = [{"itl_ms": 39}, {"fast": True}]
    asked = made.study(search="fast,itl_ms", trials=5, candidates=candidates, slo="ttft:p99<12ms")
    document = made.run(world, asked)

    (tmp_path / "study.db").write_text("an older export, or anything else")

    count = write_optuna(made.folder, tmp_path / "study.db")

    (study,) = read(tmp_path / "study.db")
    first, *trials = study.get_trials()
    assert count == 1 + len(trials) == 6
    assert study.study_name == "s"
    assert study.direction == optuna.study.StudyDirection.MAXIMIZE
    assert study.user_attrs["engine"] == asked.engine
    assert first.user_attrs["step"] == "baseline"
    for written, trial in zip(trials, document["trials"], strict=True):
        assert written.value == trial["value"]
        assert written.user_attrs["config"] == trial["config"]
        assert trial["config"].items() <= written.params.items()
        assert written.datetime_start is not None
        assert written.datetime_complete is not None
        assert written.datetime_complete >= written.datetime_start
    assert [trial.state.name for trial in trials[:2]] == ["FAIL", "COMPLETE"]
    assert trials[0].user_attrs["failure"].startswith("died: ")
    assert set(trials[1].params) == {"fast", "itl_ms"}
    choices = trials[1].distributions["fast"]
    assert isinstance(choices, optuna.distributions.CategoricalDistribution)
    assert set(choices.choices) == {True, False}
    numbers = trials[1].distributions["itl_ms"]
    assert isinstance(numbers, optuna.distributions.IntDistribution)
    assert numbers.low <= 39 <= numbers.high
    missed = {number: trial["slo_met"] for number, trial in enumerate(document["trials"])}
    assert {False, True} <= set(missed.values())
    for number, met in missed.items():
        if met is not None:
            limits = trials[number].constraints.values()
            assert all(value <= 0 for value in limits) is met
    assert sorted(path.name for path in tmp_path.glob("*study.db*")) == ["study.db"]
    assert study.best_trial.user_attrs["config"] == document["best"]["config"]


def test_a_folder_without_a_study_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="holds no study"):
        write_optuna(tmp_path, tmp_path / "study.db")
    assert not list(tmp_path.iterdir())


def test_a_trial_that_was_ended_early_is_a_pruned_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = StudyLab(tmp_path / "s", monkeypatch)
    made.run(fast, made.study())
    ledger = Ledger(made.folder)
    (trial,) = ledger.of("trial")
    ledger.append(
        msgspec.structs.replace(trial, number=1, state="pruned", value=9.0, pruned_why="too slow")
    )

    write_optuna(made.folder, tmp_path / "study.db")

    ((*_, pruned),) = [study.get_trials() for study in read(tmp_path / "study.db")]
    assert (pruned.state.name, pruned.value, pruned.user_attrs["pruned"]) == (
        *("PRUNED", None, "too slow"),
    )
    assert pruned.intermediate_values == {0: 9.0}
