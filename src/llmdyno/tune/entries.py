"""The lines of a study's ledger: how it began, what is measured, what was, and what befell it."""

from typing import Any, Literal

import msgspec

from llmdyno.knobs import Value
from llmdyno.tune.spec import Study
from llmdyno.tune.spend import Spend

# "reference" is the baseline once more, measured as a trial is; "check" is the baseline again, to
# tell a broken machine from configs that fail; or a winner that failed when it was asked.
Phase = Literal["baseline", "reference", "trial", "check", "best", "confirm", "ablation"]

VERSION = 1


class Began(msgspec.Struct, frozen=True, kw_only=True, tag="study"):
    """The first line: what is studied."""

    version: int = VERSION
    study: str
    spec: Study
    environment: dict[str, Any]
    engine_version: str | None = None
    hosts: bool | None = None  # whether trials run over hosts; None: a version that did not say


class Step(msgspec.Struct, frozen=True, kw_only=True, tag="step"):
    """One config, served and measured, or not."""

    phase: Phase
    number: int
    config: dict[str, Value]
    state: Literal["measured", "failed", "predicted-infeasible", "pruned"]
    run: str = ""  # its folder within the study's
    value: float | None = None  # of the objective, at the study's level
    slo_met: bool | None = None
    interval: tuple[float, float] | None = None  # of the value; of a pruned one, if it is known
    pruned_why: str = ""  # why it was ended early
    failure_class: str | None = None
    failure_why: str | None = None
    build_s: float = 0.0
    start_s: float = 0.0
    measure_s: float = 0.0
    knob: str = ""  # what an ablation takes back
    contender: int = 0  # which would-be winner a confirmation or an ablation is of
    engine: str = ""  # of a study over several, and front; empty: the study has one
    front: str = ""
    arm: Literal["", "before", "after"] = ""  # of its confirmation; empty: the config tells
    place: int = 0  # how often the machine or the engine's version had changed before
    beside: int = 0  # how many other servers were measured meanwhile, at most
    device: str = ""  # what part of the machine it had, if not all: "GPU 1", "cores 0-3"
    sitting: str = ""  # which process of dyno measured it; empty: a version that did not say
    # Of the study's time, by the clock, what is charged to it; None: all that it took.
    wall_s: float | None = None
    dropped_s: float = 0.0  # what runs took that were made again for it, as dyno was stopped
    stood_s: float = 0.0  # so long dyno was stopped in this one, which counts all the same
    whole: bool = False  # measured alone at every level; False, too: a version that did not say

    @property
    def took_s(self) -> float:
        """How long it was built, started and measured."""
        return self.build_s + self.start_s + self.measure_s

    @property
    def charged_s(self) -> float:
        """The machine's time that it cost; of those that ran at once each has a share."""
        return self.dropped_s + (self.took_s if self.wall_s is None else self.wall_s)


def label(phase: Phase, number: int) -> str:
    """Return what a step is called: "baseline", "trial 3"."""
    return phase if phase in {"baseline", "reference"} else f"{phase} {number + 1}"


Key = tuple[Phase, int, int]  # phase, contender, number


class Out(msgspec.Struct, frozen=True, kw_only=True, tag="out"):
    """A config whose measurement was begun beside others; a step of the same number ends it."""

    phase: Phase
    number: int
    config: dict[str, Value]
    device: str  # what part of the machine it has
    why: str = ""  # it is tried, in words
    alone: bool = False  # nothing else is to run meanwhile
    contender: int = 0


Kind = Literal[
    "machine",
    "mended",
    "ended",
    "extended",
    "moved",
    "beside",
    "left",
    "settled",
    "paired",
    "lane",
    "lanes",
    "alone",
    "died",
    "withdrawn",
    "gone",
    "asked",
]


OUT_OF_BUDGET = "the budget has no time for another pair"


class Event(msgspec.Struct, frozen=True, kw_only=True, tag="event"):
    """What befell the study between two steps.

    machine    the machine failed, not a config: it stopped, and the failures in `void` do not count
    mended     the baseline failed beside the trials in `void`, or these found no GPU, so that their
               failures do not count: the machine had failed, and has mended by itself
    ended      no further trial will be: "budget", "space", "hand" (a person had enough of them) or
               "patience"; the last with the `gain` that the next one was expected to have, if the
               search says so
    extended   --resume asked for more: `changes` are fields of the spec; without any it is the
               budget that a combination shares with others
    moved      it went on with another engine, driver or machine
    beside     another study ran on this machine at the same time
    lane       a part of the machine, `devices`, was left out of a study that measures many at once;
               the failures in `void`, which it had last, do not count; with a `stack` it is a host
               that cannot measure this combination, and stays in the others
    lanes      all parts that are left, `devices`, have measured the baseline, and are alike
    alone      a would-be winner, `contender`, did no better than the baseline once it ran alone
    died       a would-be winner, `contender`, died when it was asked for its answers
    withdrawn  the trials in `void`, begun or to be measured again, were not: no host was there, and
               the trials had ended; they are open again once the study is extended
    gone       the runs in `void`, which were measured, are not in the folder any more, and count as
               not measured
    asked      a server gave answers, or lm-eval asked it: that took `charged_s` of the study's time
    left       a combination, `stack`, was left out of a study over several
    settled    every would-be winner was tried or refused, and none is one
    paired     the confirmation of `contender` has had all pairs that were planned, or affordable:
               why is OUT_OF_BUDGET then
    """

    kind: Kind
    why: str
    failure_class: str | None = None
    void: tuple[Key, ...] = ()
    changes: dict[str, int | float | Spend] = {}
    environment: dict[str, Any] | None = None
    engine_version: str | None = None
    stack: str = ""
    contender: int = 0
    gain: float | None = None
    devices: tuple[str, ...] = ()
    charged_s: float = 0.0  # of the study's time, beside what its steps took


Entry = Began | Step | Out | Event


def key(step: Step | Out) -> Key:
    """Return what a step is found by."""
    return step.phase, step.contender, step.number
