"""How many pairs a confirmation measures, and in which order.

--pairs alone gives the number. With --confirm-until pairs are measured until the interval of the
objective's ratio is narrow enough. With neither the noise decides: as many pairs as find an effect
of 10 % in 80 of 100 cases, judged again after each pair by what the pairs themselves have shown.
The budget ends all but the least number. What is asked rests on the ledger alone, so a study that
goes on asks as it did.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence

from llmdyno.knobs import Value
from llmdyno.results import pairs as statistics
from llmdyno.results.pairs import Run
from llmdyno.results.stats import Spread
from llmdyno.tune import paired
from llmdyno.tune.ledger import Ledger, Step
from llmdyno.tune.runner import Runner
from llmdyno.tune.spec import Study
from llmdyno.units import counted

EFFECT = 0.10  # what a confirmation is to find
# An interval that looks narrow enough by chance ends the pairs: with fewer than this its width
# itself is known too badly.
UNTIL_PAIRS_MIN = 4


def planned(runner: Runner, steps: Callable[[], Sequence[Step]]) -> Iterator[int]:
    """Yield the numbers of the pairs to measure, one after the other, and tell why so many.

    Args:
        runner: measures them.
        steps: returns those of this confirmation that are in the ledger.
    """
    study = runner.study
    noise = noise_before(runner.ledger)
    runner.say(announcement(study, noise))
    number = 0
    while number < study.pairs_most and not is_enough(runner, number, steps(), noise):
        if number >= study.pairs_least and runner.ledger.find("confirm", 2 * number) is None:
            load = runner.trial_load(confirm=True)
            if 2 * runner.costs().step_s(load, study.warmup_s) > runner.left_s():
                runner.say(
                    f"The budget has no time for another pair; the confirmation ends with {number}."
                )
                return
        yield number
        number += 1


def arms(
    ledger: Ledger, pair: int, before: Mapping[str, Value], after: Mapping[str, Value]
) -> tuple[Mapping[str, Value], Mapping[str, Value]]:
    """Return the configs of a pair in order; of a pair that was begun the other one is second."""
    first, second = (after if late else before for late in statistics.order(pair))
    begun = ledger.find("confirm", 2 * pair)
    if begun is not None and begun.config == second != first:  # by a version with another order
        return second, first
    return first, second


def announcement(study: Study, noise: float) -> str:
    """Say how many pairs there will be, and what they can find."""
    spread = f"equal runs {noise:.1%} apart"
    if study.confirm_until is not None:
        return (
            f"Confirmation: {least(study)} to {study.pairs_most} interleaved pairs, until the ratio"
            f" is known to {study.confirm_until:.2%} to either side. So far {spread}."
        )
    asked = pairs_asked(study, noise)
    smallest = statistics.detectable(noise, asked)
    told = (
        f"Confirmation: {counted(asked, 'interleaved pair')}. With {spread} they find a"
        f" difference of {smallest:.0%} in 80 of 100 cases"
    )
    would = statistics.pairs_for(EFFECT, noise)
    if smallest <= EFFECT or would <= asked:
        return f"{told}."
    enough = statistics.power(EFFECT, noise, would) >= statistics.POWER
    more = "" if enough else "more than "
    return f"{told}; one of {EFFECT:.0%} would need {more}{counted(would, 'pair')}."


def pairs_asked(study: Study, noise: float) -> int:
    """Return how many pairs the plan asks for at this noise between equal runs."""
    if study.pairs is not None:
        return study.pairs
    return min(study.pairs_most, max(study.pairs_least, statistics.pairs_for(EFFECT, noise)))


def least(study: Study) -> int:
    """Return after how many pairs --confirm-until may end a confirmation."""
    return study.pairs if study.pairs is not None else min(UNTIL_PAIRS_MIN, study.max_pairs)


def is_enough(runner: Runner, done: int, steps: Sequence[Step], before: float) -> bool:
    """Tell whether so many pairs are enough.

    Args:
        runner: of the study.
        done: pairs so far.
        steps: of the confirmation; those of later pairs are not looked at.
        before: the noise as it was known before the confirmation.
    """
    study = runner.study
    steps = [step for step in steps if step.number < 2 * done]
    if study.confirm_until is not None:
        return done >= least(study) and half_width(runner, steps) <= study.confirm_until
    if study.pairs is not None or done < study.pairs_least:
        return False
    spreads = [*spreads_before(runner.ledger), statistics.residual_spread(value_runs(study, steps))]
    return done >= pairs_asked(study, statistics.pooled_noise(spreads) if done else before)


def half_width(runner: Runner, steps: Sequence[Step]) -> float:
    """Return half the width of the interval of the objective's ratio; infinite: there is none."""
    study, objective = runner.study, runner.study.objective

    def arm_of(step: Step) -> str:
        return "before" if step.config == study.baseline else "after"

    found = paired.Reader(study.slos).series(
        paired.confirmed(runner.folder, steps, arm_of), objective
    )
    statistic = objective.statistic.over_time
    if not found or not paired.divides(found, statistic):
        return math.inf
    return statistics.compared(paired.runs(found, statistic)).half_width


def noise_before(ledger: Ledger) -> float:
    """Return how far equal runs lie apart, by the configs that were measured more than once."""
    return statistics.pooled_noise(spreads_before(ledger))


def spreads_before(ledger: Ledger) -> list[Spread]:
    """Return the spread of each config that was measured twice before the confirmation.

    The baseline was in full and as a trial is, and so was the winner.
    """
    values: dict[str, list[float]] = {}
    for step in ledger.steps:
        early = step.phase in {"baseline", "reference", "trial", "best"}
        if early and step.state == "measured" and step.value is not None and step.value > 0:
            values.setdefault(repr(sorted(step.config.items())), []).append(step.value)
    return [_spread([math.log(one) for one in same]) for same in values.values() if len(same) > 1]


def _spread(logs: Sequence[float]) -> Spread:
    mean = sum(logs) / len(logs)
    return Spread(sum((one - mean) ** 2 for one in logs) / (len(logs) - 1), len(logs) - 1)


def value_runs(study: Study, steps: Sequence[Step]) -> list[Run]:
    """Return the measured runs of a confirmation by the ledger's values alone."""
    return [
        Run(step.number, step.config != study.baseline, math.log(step.value), 0.0)
        for step in sorted(steps, key=lambda step: step.number)
        if step.state == "measured" and step.value is not None and step.value > 0
    ]
