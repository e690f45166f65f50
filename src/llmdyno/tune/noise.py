"""How far equal runs of a study lie apart, by what it has measured twice."""

import math
from collections.abc import Sequence
from itertools import takewhile

from llmdyno.results.pairs import PRIOR
from llmdyno.results.stats import Spread, student_quantile
from llmdyno.tune.entries import Step
from llmdyno.tune.ledger import Ledger

_FAR_MIN = 2 * 0.01  # of a run's value: equal runs never agree better than to 1 %


def spreads_before(
    ledger: Ledger, contender: int | None = None, *, across_lanes: bool = False
) -> list[Spread]:
    """Return the spread of each config that was measured twice before the confirmation.

    The baseline was in full and as a trial is, and so was the winner. Runs on different machines,
    of different versions of the engine, or on different parts of a machine are not equal.

    Args:
        ledger: of the study.
        contender: what was measured before the pairs of this would-be winner alone counts, so that
            it comes to the same whenever it is asked; None: all counts.
        across_lanes: whether runs in different lanes count as equal, as they do where trials of
            different lanes are compared.
    """
    values: dict[tuple[str, int, int, str], list[float]] = {}
    odd = _left_out(ledger)
    for step in ledger.steps if contender is None else before_pairs(ledger, contender):
        if (step.place, step.device) in odd:  # it was left out because it is unlike the others
            continue
        early = step.phase in {"baseline", "reference", "trial", "best"}
        if early and step.state == "measured" and step.value is not None and step.value > 0:
            # A run beside others, or on a part of the machine, is slower: that is no noise.
            where = "a lane" if step.device and across_lanes else step.device
            alike = (repr(sorted(step.config.items())), step.place, step.beside, where)
            values.setdefault(alike, []).append(step.value)
    return [_spread([math.log(one) for one in same]) for same in values.values() if len(same) > 1]


def before_pairs(ledger: Ledger, contender: int) -> list[Step]:
    """Return what was measured before the first run of a would-be winner's pairs."""
    return list(
        takewhile(lambda step: step.phase != "confirm" or step.contender != contender, ledger.steps)
    )


def _left_out(ledger: Ledger) -> set[tuple[int, str]]:
    """Return the parts of a machine that were left out, each with the place where it was."""
    found, place = set(), 0
    for event in ledger.events:
        place += event.kind == "moved"
        if event.kind == "lane":
            found |= {(place, name) for name in event.devices}
    return found


def _spread(logs: Sequence[float]) -> Spread:
    mean = sum(logs) / len(logs)
    return Spread(sum((one - mean) ** 2 for one in logs) / (len(logs) - 1), len(logs) - 1)


def noise_so_far(ledger: Ledger, *, across_lanes: bool = False) -> Spread:
    """Return how far equal runs lie apart, by the study and by what is believed before it.

    Args:
        ledger: of the study.
        across_lanes: as spreads_before() takes it.
    """
    return _pooled([PRIOR, *spreads_before(ledger, across_lanes=across_lanes)])


def _pooled(known: Sequence[Spread]) -> Spread:
    freedom = sum(one.freedom for one in known)
    return Spread(sum(one.variance * one.freedom for one in known) / freedom, freedom)


def matters(effect: float, noise_of_run: Spread, pairs: int) -> bool:
    """Tell whether the mean effect of some pairs is beyond their noise; see beyond()."""
    return abs(effect) > beyond(noise_of_run, pairs)


def beyond(noise_of_run: Spread, *pairs: int) -> float:
    """Return how far a sum of mean effects of equal configs is from 0 in 19 of 20 cases at most.

    By Student's t: the noise itself is known from few runs.

    Args:
        noise_of_run: of the logarithm of a run's value; see noise_of().
        pairs: so many were measured of each effect.
    """
    far = student_quantile(noise_of_run.freedom) * math.sqrt(noise_of_run.variance)
    return max(far, _FAR_MIN) * math.sqrt(sum(2 / max(1, one) for one in pairs))


def noise_of(confirmed: Sequence[Step]) -> Spread:
    """Return how far the logarithms of the values of equal runs lie apart."""
    arms: dict[str, list[float]] = {}
    for step in confirmed:
        if step.state == "measured" and step.value and step.value > 0:
            key = f"{step.engine} {step.front} {sorted(step.config.items())}"
            arms.setdefault(key, []).append(math.log(step.value))
    known = [_spread(logs) for logs in arms.values() if len(logs) > 1]
    return _pooled(known) if known else PRIOR
