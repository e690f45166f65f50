"""What a step of a study costs, known before it begins.

The flags say how long it puts a server under load. How long its server takes to be built and to
start, the study's own steps say: a mean that follows the last ones.
"""

from collections.abc import Collection, Mapping, Sequence

import msgspec

from llmdyno.spec import Load
from llmdyno.tune.entries import Step

_RECENT = 0.3  # the weight of the last step in a moving mean
# Where nothing was measured. The engines that we know start in 5 s (a small model, on a CPU) to
# several minutes (a large one, with graphs to capture).
UNKNOWN_START_S = 60.0


class Costs(msgspec.Struct, frozen=True, kw_only=True):
    """What goes before the load of a step: means that follow the last steps."""

    build_s: float
    start_s: float
    other_s: float  # of the measurement, beside warm-up and load
    steps: int  # on which it rests; 0: it is a guess

    def step_s(self, load: Load, warmup_s: float) -> float:
        """Return how long a step with this load will take."""
        return self.build_s + self.start_s + warmup_s + loaded_s(load) + self.other_s


def costs(
    steps: Sequence[Step],
    loads: Mapping[str, Load],
    warmup_s: float,
    *,
    guess_s: float = UNKNOWN_START_S,
) -> Costs:
    """Return what steps have cost lately, but for their load.

    Args:
        steps: of the ledger, in order.
        loads: of each phase, as planned.
        warmup_s: of each step.
        guess_s: what a start is taken to last until one was measured.
    """
    build_s, start_s, other_s = 0.0, guess_s, 0.0
    known = 0
    for step in steps:
        if step.state != "measured" or step.phase not in loads:  # it ended before its time
            continue
        share = _RECENT if known else 1.0
        build_s += share * (step.build_s - build_s)
        start_s += share * (step.start_s - start_s)
        beside_s = max(0.0, step.measure_s - warmup_s - loaded_s(loads[step.phase]))
        other_s += share * (beside_s - other_s)
        known += 1
    return Costs(build_s=build_s, start_s=start_s, other_s=other_s, steps=known)


def usual_s(steps: Sequence[Step], phases: Collection[str]) -> float | None:
    """Return how long steps of these phases have taken lately, in s; None: none was measured."""
    found = None
    for step in steps:
        if step.state == "measured" and step.phase in phases:
            found = step.took_s if found is None else found + _RECENT * (step.took_s - found)
    return found


def lasts_s(steps: Sequence[Step], loads: Mapping[str, Load], load: Load) -> float | None:
    """Return about how long a step with this load will take, by how long others took; None: none.

    Costs.step_s() allows for all the grace of each level. This goes by what was used of it.

    Args:
        steps: of the ledger, in order.
        loads: of each phase, as planned.
        load: of the step to come.
    """
    beside_s = None
    for step in steps:
        if step.state != "measured" or step.phase not in loads:
            continue
        over_s = max(0.0, step.took_s - _levels_s(loads[step.phase]))
        beside_s = over_s if beside_s is None else beside_s + _RECENT * (over_s - beside_s)
    return None if beside_s is None else beside_s + _levels_s(load)


def _levels_s(load: Load) -> float:
    return len(load.points) * load.duration_s


def loaded_s(load: Load) -> float:
    """Return how long a load lasts in all: its levels, each with its grace."""
    return len(load.points) * (load.duration_s + load.grace_s)
