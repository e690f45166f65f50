"""A study as Optuna reads it: values, parameters, states, distributions."""

import os
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import msgspec
import optuna
import pytest

import lab
from llmdyno import store
from llmdyno.errors import StorageError, UsageError
from llmdyno.tune.ledger import Ledger
from llmdyno.tune.optuna_export import add_to_database, write_optuna
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


@contextmanager
def opened(url: str) -> Iterator[optuna.storages.RDBStorage]:
    """Open a database, and close its connections."""
    storage = optuna.storages.RDBStorage(url)
    yield storage
    storage.engine.dispose()


@pytest.fixture(params=["sqlite", "postgresql"])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of an empty database; of PostgreSQL where LLMDYNO_POSTGRESQL names one."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/team.db"
    url = os.environ.get("LLMDYNO_POSTGRESQL")
    if url is None:
        pytest.skip("LLMDYNO_POSTGRESQL names no database, such as postgresql+psycopg://me@host/db")
    with opened(url) as storage:
        for name in optuna.get_all_study_names(storage):
            optuna.delete_study(study_name=name, storage=storage)
    return url


def test_a_team_has_its_studies_in_one_database(results: Path, database: str) -> None:
    folder, other = results / lab.STUDY, results / "studies/t"
    shutil.copytree(folder, other)
    clash = results / "elsewhere/s"
    shutil.copytree(folder, clash)
    ledger = (clash / store.LEDGER).read_text()
    (clash / store.LEDGER).write_text(ledger.replace('version":"1.0"', 'version":"2.0"'))

    counts = [add_to_database(one, database) for one in (folder, other)]
    ledger_of_one = Ledger(folder)
    ledger_of_one.append(msgspec.structs.replace(ledger_of_one.of("trial")[0], number=1))
    counts.append(add_to_database(folder, database))  # once more, with what came since
    with pytest.raises(UsageError, match="has another study called s; rename the folder"):
        add_to_database(clash, database)

    assert counts == [2, 2, 3]
    with opened(database) as storage:
        names = optuna.get_all_study_names(storage)
        found = [optuna.load_study(study_name=name, storage=storage) for name in names]
        assert {study.study_name: len(study.trials) for study in found} == {"s": 3, "t": 2}
        assert {study.user_attrs["engine_version"] for study in found} == {"1.0"}


@pytest.mark.parametrize(
    ("url", "kind", "words"),
    [
        ("nonsense://me:secret@host/db", UsageError, "is no URL of a database"),
        ("postgresql+pg8000://me:secret@host/db", UsageError, "driver is not installed"),
        ("postgresql+pg8000://me:a/secret@host/db", UsageError, "driver is not installed"),
        ("postgresql+pg8000://host/db?user=me&password=secret", UsageError, "driver is not"),
        ("postgresql+pg8000://me:a@secret@host/db", UsageError, "driver is not installed"),
        ("sqlite:////no/such/folder/team.db", StorageError, "unable to open database file"),
    ],
)
def test_a_database_that_cannot_be_had_is_told_without_its_password(
    results: Path, url: str, kind: type[Exception], words: str
) -> None:
    with pytest.raises(kind, match=words) as raised:
        add_to_database(results / lab.STUDY, url)

    assert "secret" not in str(raised.value)


def test_a_database_of_another_optuna_is_told_in_a_sentence(results: Path, tmp_path: Path) -> None:
    file = tmp_path / "team.db"
    add_to_database(results / lab.STUDY, f"sqlite:///{file}")
    with closing(sqlite3.connect(file)) as connection:
        connection.execute("UPDATE alembic_version SET version_num = 'v0.9.0.a'")
        connection.commit()

    with pytest.raises(StorageError, match=r"cannot write sqlite:///.*: The runtime optuna"):
        add_to_database(results / lab.STUDY, f"sqlite:///{file}")
