"""A study as Optuna and its dashboard read it, in a file or a team's database.

Optuna wants one distribution a parameter for all trials of a study. It is the range that was
searched, widened by values that were given. A knob that has no effect in a trial, or is left to the
engine, is not among that trial's parameters; its whole config is in its attributes.
"""

import hashlib
import os
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from llmdyno.errors import StorageError, UsageError
from llmdyno.knobs import Knob, Value, default
from llmdyno.store import LEDGER, STACKS
from llmdyno.tune.database import without_password
from llmdyno.tune.entries import Step
from llmdyno.tune.folder import stack_of
from llmdyno.tune.ledger import Ledger
from llmdyno.tune.reference import reference_of
from llmdyno.tune.search import space
from llmdyno.tune.spec import Study
from llmdyno.tune.steps import excess

if TYPE_CHECKING:  # it takes half a second to import
    from optuna.distributions import BaseDistribution
    from optuna.storages import RDBStorage
    from optuna.trial import FrozenTrial

_IDENTITY = "llmdyno_study"
_STAMP_LENGTH = len("20261129-120000")


class _NoUrlError(Exception):
    """What was given is no URL of a database."""


def write_optuna(folder: Path, file: Path) -> int:
    """Write a study's baseline and trials to an SQLite file; return how many there are.

    A study over several engines and fronts becomes a study each, named NAME/ENGINE+FRONT.

    Raises:
        UsageError: the folder holds no study, or nothing was measured yet.
        StorageError: its ledger cannot be read, or the file cannot be written.
    """
    import optuna
    from sqlalchemy.exc import SQLAlchemyError

    studies = _studies(folder)
    temporary = file.with_name(f".{file.name}.{os.getpid()}")
    temporary.unlink(missing_ok=True)
    try:
        with _storage(f"sqlite:///{temporary}") as storage:
            count = sum(_write(storage, *study) for study in studies)
        temporary.replace(file)
    except (OSError, SQLAlchemyError, optuna.exceptions.OptunaError) as error:
        raise StorageError(f"cannot write {file}: {_why(error)}.") from error
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
    return count


def add_to_database(folder: Path, url: str) -> int:
    """Add a study to a database that Optuna's storage takes, such as a team's PostgreSQL.

    What was written there before of the same study is replaced. Nobody else's is touched.

    Args:
        folder: of the study.
        url: as SQLAlchemy has it; its password is never shown.

    Returns:
        How many trials there are, the baseline among them.

    Raises:
        UsageError: the folder holds no study, the URL is none or needs a driver that is not
            installed, or the database has another study of that name.
        StorageError: the study's ledger cannot be read, or the database cannot be written.
    """
    import optuna
    from sqlalchemy.exc import SQLAlchemyError

    studies = _studies(folder)
    shown = without_password(url)
    try:
        with _storage(url) as storage:
            known = {one.study_name: one for one in storage.get_all_studies()}
            for name, _, ledger in studies:
                if name not in known:
                    continue
                if known[name].user_attrs.get(_IDENTITY) != _identity(ledger):
                    raise UsageError(
                        f"--optuna {shown}: has another study called {name}; rename the folder"
                        f" {folder}, or delete that one."
                    )
                optuna.delete_study(study_name=name, storage=storage)
            return sum(_write(storage, *study) for study in studies)
    except ImportError as error:
        raise UsageError(
            f"--optuna {shown}: the database's driver is not installed; for PostgreSQL:"
            " pip install 'llmdyno[postgresql]', and begin the URL with"
            " postgresql+psycopg://."
        ) from error
    except _NoUrlError as error:
        raise UsageError(
            f"--optuna {shown}: is no URL of a database; write"
            " postgresql+psycopg://USER@HOST/DATABASE."
        ) from error
    except (SQLAlchemyError, optuna.exceptions.OptunaError) as error:
        raise StorageError(f"cannot write {shown}: {_why(error)}.") from error


@contextmanager
def _storage(url: str) -> "Iterator[RDBStorage]":
    """Open a database as Optuna's storage."""
    import optuna
    from sqlalchemy.exc import ArgumentError

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        storage = optuna.storages.RDBStorage(url)
    except (ValueError, ArgumentError) as error:
        raise _NoUrlError from error
    except RuntimeError as error:  # tables of another version of Optuna, says its first line
        raise StorageError(f"cannot write {without_password(url)}: {_why(error)}.") from error
    try:
        yield storage
    finally:
        storage.engine.dispose()


def _write(storage: "RDBStorage", name: str, place: Path, ledger: Ledger) -> int:
    """Write one study; return how many trials it has."""
    import optuna

    spec = ledger.spec
    written = optuna.create_study(
        storage=storage,
        study_name=name,
        direction="maximize" if spec.objective.maximise else "minimize",
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        written.set_metric_names([str(spec.objective)])  # what its dashboard's axes say
    for key, value in _about(spec, ledger).items():
        written.set_user_attr(key, value)
    trials = _trials(place, ledger)
    written.add_trials(trials)
    return len(trials)


def _why(error: Exception) -> str:
    if isinstance(error, OSError):
        return str(error.strerror)
    cause = error.__cause__ or error  # Optuna wraps what its database says
    return str(getattr(cause, "orig", None) or getattr(error, "orig", None) or cause).splitlines()[
        0
    ]


def _identity(ledger: Ledger) -> str:
    """Return what tells a study from another one of its name: a hash of how it began."""
    return hashlib.sha256(msgspec.json.encode(ledger.began)).hexdigest()[:16]


def _studies(folder: Path) -> list[tuple[str, Path, Ledger]]:
    """Return the name, the folder and the ledger of each study that a folder holds."""
    whole = Ledger(folder) if (folder / LEDGER).exists() else None
    if whole is None or whole.began is None:
        raise UsageError(f"{folder}: holds no study; `dyno runs` lists them.")
    name, spec = folder.resolve().name, whole.spec
    found = [(name, folder, whole)]
    if spec.combines:
        parts = [f"{engine}+{front}" for engine, front in product(spec.engines, spec.fronts)]
        places = [(part, folder / STACKS / part) for part in parts]
        found = [(f"{name}/{part}", place, Ledger(place)) for part, place in places]
    found = [one for one in found if one[2].began is not None and one[2].steps]
    if not found:
        raise UsageError(f"{folder}: nothing was measured yet.")
    return found


def _about(spec: Study, ledger: Ledger) -> dict[str, Any]:
    return {
        "engine": spec.engine,
        "engine_version": ledger.engine_version,
        "front": spec.front,
        "model": spec.model,
        "objective": str(spec.objective),
        "slo": [slo.expr for slo in spec.slos],
        _IDENTITY: _identity(ledger),
    }


def _trials(folder: Path, ledger: Ledger) -> "list[FrozenTrial]":
    """Return the baseline, as trials are measured, and the trials, for Optuna."""
    spec = ledger.spec
    stack = stack_of(spec)
    knobs = space(
        stack.knobs,
        only=spec.search,
        allow_altered_output=spec.tries_altered_output,
        baseline=spec.baseline,
    )
    first = reference_of(ledger)
    steps = [*([first] if first else []), *ledger.of("trial")]
    configs = [_parameters(step.config, knobs, ledger.engine_version) for step in steps]
    distributions = {knob.name: _distribution(knob, configs) for knob in knobs}
    return [
        _trial(spec, folder, step, values, distributions)
        for step, values in zip(steps, configs, strict=True)
    ]


def _parameters(
    config: Mapping[str, Value], knobs: Sequence[Knob], version: str | None
) -> dict[str, Value | None]:
    """Return the values of the knobs that have an effect; numbers that are unset are left out."""
    known = {knob.name: config.get(knob.name, default(knob, version)) for knob in knobs}
    found = {}
    for knob in knobs:
        value = known[knob.name]
        if knob.needs is not None and known.get(knob.needs[0], knob.needs[1]) != knob.needs[1]:
            continue
        if value is not None or knob.kind in {"bool", "choice"}:
            found[knob.name] = value
    return found


def _distribution(knob: Knob, configs: Sequence[Mapping[str, Value | None]]) -> "BaseDistribution":
    from optuna import distributions

    seen = [config[knob.name] for config in configs if knob.name in config]
    if knob.kind in {"bool", "choice"}:
        choices: list[Value | None] = list(knob.search)
        choices += [value for n, value in enumerate(seen) if value not in [*choices, *seen[:n]]]
        return distributions.CategoricalDistribution(choices)
    numbers = [float(value) for value in (*knob.search, *seen) if isinstance(value, int | float)]
    low, high = min(numbers), max(numbers)
    log = knob.search_log and low > 0
    if knob.kind == "int":
        return distributions.IntDistribution(int(low), int(high), log=log)
    return distributions.FloatDistribution(low, high, log=log)


def _trial(
    spec: Study,
    folder: Path,
    step: Step,
    values: Mapping[str, Value | None],
    distributions: "Mapping[str, BaseDistribution]",
) -> "FrozenTrial":
    from optuna.trial import TrialState, create_trial

    measured = step.state == "measured" and step.value is not None
    state = TrialState.COMPLETE if measured else TrialState.FAIL
    if step.state == "pruned":
        state = TrialState.PRUNED
    attributes: dict[str, Any] = {
        "step": step.phase if step.phase != "trial" else f"trial {step.number + 1}",
        "state": step.state,
        "config": dict(step.config),
        "run": step.run,
        "cost_s": step.took_s,
    }
    if step.failure_class:
        attributes["failure"] = f"{step.failure_class}: {step.failure_why}"
    if step.pruned_why:
        attributes["pruned"] = step.pruned_why
    trial = create_trial(
        state=state,
        value=step.value if measured else None,
        params=dict(values),
        distributions={name: distributions[name] for name in values},
        user_attrs=attributes,
        intermediate_values={} if measured or step.value is None else {0: step.value},
        constraints=excess(spec, folder, step) if measured and spec.slos else None,
    )
    began = _began(folder, step)
    if began is not None:
        trial.datetime_start = began
        trial.datetime_complete = began + timedelta(seconds=step.took_s)
    return trial


def _began(folder: Path, step: Step) -> datetime | None:
    """Return when a step began, by the name of its run, as Optuna has it: local, without a zone."""
    stamp = (folder / step.run).name[:_STAMP_LENGTH]
    try:
        moment = datetime.strptime(stamp, "%Y%m%d-%H%M%S").replace(tzinfo=UTC)
    except ValueError:
        return None
    return moment.astimezone().replace(tzinfo=None)
