"""Workloads: what is asked. One file a workload in kinds/; `WORKLOAD` is its last line.

A workload draws sessions of prompts from a seeded source, checks its part of the spec, and says
what the rest of the program must know of its prompts. One of another package imports from here what
`__all__` names, and proves itself with `llmdyno.testing.workloads.WorkloadContract`.
"""

from collections.abc import Collection

from llmdyno import plugins
from llmdyno.errors import UsageError, nearest
from llmdyno.spec import Load
from llmdyno.spec import Workload as WorkloadSpec
from llmdyno.units import Lengths, percent
from llmdyno.workload._interface import Draws, Workload, drawn_from
from llmdyno.workload.dataset import Row, rows
from llmdyno.workload.sessions import Item, Session, sessions_of
from llmdyno.workload.words import synthetic_text

__all__ = [
    "Draws",
    "Item",
    "Row",
    "Session",
    "Workload",
    "WorkloadSpec",
    "drawn_from",
    "require_dataset",
    "rows",
    "sessions_of",
    "synthetic_text",
]

_PLUGINS = "workload.kinds"
_OWN_TIMES = "trace"  # the arrival of those that say themselves when their requests are due


def load(name: str) -> Workload:
    """Return the workload of this name, or of this module if the name has a dot.

    Raises:
        UsageError: there is none.
    """
    known = plugins.names(_PLUGINS)
    if "." not in name and name not in known:
        raise UsageError(f"--workload {name}: unknown.{nearest(name, known)}")
    workload: Workload = plugins.load(_PLUGINS, name)
    return workload


def implied(fields: Collection[str], arrival: str | None = None) -> str:
    """Return the workload that a user means who names none; the default if nothing tells.

    Args:
        fields: those of the workload's spec that are given.
        arrival: that of the load, if one is given.
    """
    known = [load(name) for name in plugins.names(_PLUGINS)]
    if arrival == _OWN_TIMES:
        return next(one.name for one in known if has_times(one))
    return next(
        (one.name for one in known if getattr(one, "implied_by", "") in fields),
        WorkloadSpec().name,
    )


def check(spec: WorkloadSpec, load_spec: Load) -> None:
    """Refuse a workload that cannot be asked, or not under this load, before anything starts.

    Raises:
        UsageError: names the field, its value and what would be right.
    """
    workload = load(spec.name)
    _check_fields(spec, takes(workload))
    if has_times(workload) != (load_spec.arrival == _OWN_TIMES):
        raise UsageError(
            f"--arrival {load_spec.arrival}: does not go with --workload {spec.name};"
            " a trace has both the times and the prompts."
        )
    if in_turns(workload) and load_spec.is_open:
        raise UsageError(f"--workload {spec.name}: needs users, -c; a turn follows an answer.")
    workload.check(spec)


def _check_fields(spec: WorkloadSpec, taken: Collection[str]) -> None:
    """Refuse the fields that a workload has no use for."""
    if spec.isl is not None and "isl" not in taken:
        kinds = [name for name in plugins.names(_PLUGINS) if "isl" in takes(load(name))]
        raise UsageError(
            f"--isl {spec.isl}: only for --workload {', '.join(kinds)};"
            f" '{spec.name}' has its own prompts."
        )
    if spec.dataset and "dataset" not in taken:
        raise UsageError(f"--dataset {spec.dataset}: '{spec.name}' has its own prompts.")
    if spec.dataset_osl and ("dataset_osl" not in taken or not spec.dataset):
        raise UsageError("--dataset-osl: needs --dataset FILE with answers or their lengths.")
    if spec.dataset_osl and spec.osl is not None:
        raise UsageError(f"--osl {spec.osl}: not together with --dataset-osl.")
    if spec.prefix_share is not None and "prefix_share" not in taken:
        kinds = [name for name in plugins.names(_PLUGINS) if "prefix_share" in takes(load(name))]
        raise UsageError(
            f"--prefix-share {percent(spec.prefix_share)}: only for --workload {', '.join(kinds)}."
        )
    if spec.turns != WorkloadSpec().turns and not in_turns(load(spec.name)):
        kinds = [name for name in plugins.names(_PLUGINS) if in_turns(load(name))]
        raise UsageError(f"--turns {spec.turns}: only for --workload {', '.join(kinds)}.")
    if spec.unique and "unique" not in taken:
        raise UsageError(
            f"--unique: not for --workload {spec.name}, whose prompts are as alike as they are"
            " meant to be."
        )


def require_dataset(spec: WorkloadSpec) -> str:
    """Return the data set of a workload that is nothing without one.

    Raises:
        UsageError: none is given.
    """
    if not spec.dataset:
        raise UsageError(f"--workload {spec.name}: needs --dataset FILE.")
    return spec.dataset


def takes(workload: Workload) -> frozenset[str]:
    """Return which of the spec's optional fields mean something to a workload."""
    found: frozenset[str] = getattr(workload, "takes", frozenset())
    return found


def usual_isl(workload: Workload) -> Lengths | None:
    """Return the input lengths of a workload that takes --isl and does without it, too."""
    return getattr(workload, "usual_isl", None)


def in_turns(workload: Workload) -> bool:
    """Whether its sessions have turns, each after the answer to the one before."""
    return bool(getattr(workload, "in_turns", False))


def alike_on_purpose(workload: Workload) -> bool:
    """Whether its prompts begin alike because those of real users do."""
    return bool(getattr(workload, "alike_on_purpose", False))


def calibrates(workload: Workload) -> bool:
    """Whether it must know how many tokens the server makes of a word."""
    return bool(getattr(workload, "calibrates", False))


def has_times(workload: Workload) -> bool:
    """Whether it says itself when its requests are due."""
    return hasattr(workload, "due_s")


def notes(spec: WorkloadSpec) -> list[str]:
    """Return what of a workload's data set no request carries, a sentence a kind.

    Raises:
        UsageError: there is no such workload, or its data set cannot be read.
    """
    workload = load(spec.name)
    found: list[str] = workload.notes(spec) if hasattr(workload, "notes") else []
    return found


def due_s(workload: Workload, spec: WorkloadSpec) -> list[float]:
    """Return when the requests of a workload with times of its own are due, in seconds."""
    found: list[float] = workload.due_s(spec) if hasattr(workload, "due_s") else []
    return found
