"""The ablation of a winner: which changed knobs make the difference, and which only together.

Each changed knob is taken back in a pair of runs: the winner without it beside the winner. A knob
whose effect lies within the noise of the confirmation is not measured again. All such knobs are
taken back together in one pair more: where that matters though none does alone, either of some two
is enough. Those that matter get pairs while the budget lasts, and two of them are taken back
together, which shows whether they work only together.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations
from typing import TYPE_CHECKING

import msgspec
import numpy as np

from llmdyno.errors import UsageError
from llmdyno.knobs import Knob, Value
from llmdyno.results.slo import shift
from llmdyno.tune.blame import is_open
from llmdyno.tune.candidates import changed, effective
from llmdyno.tune.entries import Step
from llmdyno.tune.ledger import Ledger
from llmdyno.tune.noise import matters, noise_of
from llmdyno.tune.reference import valued_reference_of

if TYPE_CHECKING:  # it brings the load generator with it, which readers of a study do without
    from llmdyno.tune.runner import Runner

BUDGET_SHARE = 0.8  # past this much of the budget, no pair of the ablation starts
BETWEEN = ","  # the names of knobs that a step takes back together
PAIRS = 3  # of a knob that matters, where the confirmation's number is open
_SHARE_OF_RUNS = 0.5  # by more than this the runs that meet the SLOs differ, if a knob decides
SHOWN_RUNS = 2  # with a knob, and without it, that show that it does
_TOGETHER_MAX = 3  # combinations of knobs that matter that are tried


class PairOfRuns(msgspec.Struct, frozen=True):
    """The winner without some knobs, and the winner beside it; a run that is not done is None."""

    number: int
    without: Step | None
    whole: Step | None

    @property
    def knobs(self) -> tuple[str, ...]:
        """The knobs that were taken back."""
        step = self.without or self.whole
        return tuple(step.knob.split(BETWEEN)) if step else ()

    @property
    def is_measured(self) -> bool:
        """Whether both runs were measured."""
        return all(step and step.state == "measured" for step in (self.without, self.whole))

    @property
    def effect(self) -> float | None:
        """The logarithm of winner ÷ winner without; None: a run has no value, or 0."""
        values = [step.value if step else None for step in (self.without, self.whole)]
        if not values[0] or not values[1] or min(values[0], values[1]) <= 0:
            return None
        return math.log(values[1] / values[0])


def pairs_of(ledger: Ledger, contender: int) -> list[PairOfRuns]:
    """Return the pairs of a would-be winner's ablation in the order in which they were made.

    Two runs of different machines, or versions of the engine, are no pair.
    """
    steps = {step.number: step for step in ledger.of("ablation", contender)}
    pairs = [
        PairOfRuns(number, steps.get(2 * number), steps.get(2 * number + 1))
        for number in sorted({at // 2 for at in steps})
    ]
    return [p for p in pairs if not (p.without and p.whole and p.without.place != p.whole.place)]


def died(ledger: Ledger, best: Step, knobs: Sequence[Knob]) -> Step | None:
    """Return the run of an ablation in which the would-be winner itself died.

    It died if it failed twice and the baseline worked after that. A run that is still to be tried
    again, because the study was stopped before, tells nothing.

    Args:
        ledger: of the study.
        best: the would-be winner, measured in full.
        knobs: of what is tuned.
    """
    return next(
        (
            step
            for step in ledger.of("ablation", best.contender)
            if step.state == "failed"
            and step.config == best.config
            and not _is_open(ledger, step, knobs)
        ),
        None,
    )


def _is_open(ledger: Ledger, step: Step, knobs: Sequence[Knob]) -> bool:
    return step.state == "failed" and is_open(ledger, step, ledger.spec.baseline, knobs)


def deaths(ledger: Ledger, knobs: Sequence[Knob]) -> dict[int, Step]:
    """Return the runs of an ablation in which would-be winners died, by contender."""
    found = {best.contender: died(ledger, best, knobs) for best in ledger.of("best")}
    return {contender: step for contender, step in found.items() if step is not None}


def without(
    names: Sequence[str],
    before: Mapping[str, Value],
    after: Mapping[str, Value],
    knobs: Sequence[Knob],
) -> dict[str, Value]:
    """Return the winner with some knobs, and those that only act with them, as they were."""
    dependents = [knob.name for knob in knobs if knob.needs and knob.needs[0] in names]
    back = dict.fromkeys((*names, *dependents))
    kept = {name: value for name, value in after.items() if name not in back}
    return kept | {name: before[name] for name in back if name in before}


def pairs_to_come(
    unknown: int,
    mattering: Sequence[int],
    idle: int,
    pairs_most: int,
    *,
    together: int = 0,
    fewest: int = 2,
) -> int:
    """Return about how many pairs an ablation will make.

    Args:
        unknown: knobs of which no pair was made; one of them is taken to matter if none is known.
        mattering: pairs that were made of each knob that matters.
        idle: knobs that have no effect.
        pairs_most: of a knob that matters.
        together: pairs that were made of several knobs.
        fewest: of fewer changed knobs than these the confirmation tells.
    """
    if unknown + len(mattering) + idle < fewest:
        return 0
    taken = [*mattering, *([1] if unknown and not mattering else [])]
    several = min(_TOGETHER_MAX, math.comb(len(taken), 2))
    if unknown + idle - (len(taken) - len(mattering)) > 1:
        several += 1
    again = sum(max(0, pairs_most - made) for made in taken)
    return unknown + max(0, several - together) + again


class Ablation:
    """Explains a winner by runs without some of its changes.

    Args:
        runner: measures the runs.
        before: the baseline's config.
        best: the winner, measured in full.
        one_stack: whether the confirmation is of the same stack: it has taken a single change back.
    """

    def __init__(
        self,
        runner: "Runner",
        before: Mapping[str, Value],
        best: Step,
        *,
        one_stack: bool = True,
    ) -> None:
        self._fewest = 2 if one_stack else 1
        self._runner = runner
        self._before = before
        self._best = best
        self._after = after = best.config
        self._contender = best.contender
        knobs = runner.stack.knobs
        self._changed = self._most_missed(
            changed(effective(before, knobs), effective(after, knobs))
        )
        self._noise = noise_of(runner.ledger.of("confirm", best.contender))
        self._pairs_most = runner.study.pairs or PAIRS
        self._left = len(self._changed) + self._pairs_most  # pairs, where no budget is given

    def _most_missed(self, names: Sequence[str]) -> list[str]:
        """Return knobs, first the one without which the trials did worst: a budget may end it all.

        Of a knob that every trial has changed the reference alone is known.
        """
        runner, knobs = self._runner, self._runner.stack.knobs
        before = effective(self._before, knobs)
        steps = (valued_reference_of(runner.ledger), *runner.ledger.of("trial"))
        tried = [
            (effective(step.config, knobs), step.value)
            for step in steps
            if step is not None and step.state == "measured" and step.value is not None
        ]
        sign = 1.0 if runner.study.objective.maximise else -1.0

        def without_it(name: str) -> float:
            found = [sign * value for at, value in tried if at.get(name) == before.get(name)]
            return max(found, default=-math.inf)

        return sorted(names, key=without_it)

    def run(self) -> None:
        """Measure pairs until every change is explained, or the budget is nearly used up."""
        if len(self._changed) < self._fewest:  # the confirmation has taken it back already
            return
        for names in self._wanted():
            done = len(self._found(names))
            if not self._servable(names):
                continue
            if self._runner.over_budget(BUDGET_SHARE):
                self._runner.say("The budget is nearly used up; the ablation ends here.")
                return
            self._runner.foretell_proof(f"without {' and '.join(names)}", self.left_s())
            self._pair(names, done)
            if died(self._runner.ledger, self._best, self._runner.stack.knobs) is not None:
                return  # it is no winner: its changes need no explanation

    def left_s(self, before_s: float = 0.0) -> float:
        """Return about how long it will go on; a budget ends it.

        Args:
            before_s: what is to be done before it.
        """
        runner = self._runner
        pair_s = 2 * runner.lasts_s(runner.trial_load(confirm=True))
        kept_s = (1 - BUDGET_SHARE) * (runner.study.limit_s or 0.0)
        room_s = runner.left_s() - before_s - kept_s
        if room_s <= 0:
            return 0.0
        return min(self._pairs_to_come() * pair_s, room_s + pair_s)

    def _pairs_to_come(self) -> int:
        whole = self._whole_pairs()
        known = {name: [p for p in whole if p.knobs == (name,)] for name in self._changed}
        mattering = [len(pairs) for name, pairs in known.items() if self._matters((name,))]
        pairs = pairs_to_come(
            sum(not pairs for pairs in known.values()),
            mattering,
            sum(self._matters((name,)) is False for name in known),
            self._pairs_most,
            together=sum(len(pair.knobs) > 1 for pair in whole),
            fewest=self._fewest,
        )
        if self._runner.study.budget_s is None:
            pairs = min(pairs, max(1, self._left - len(whole)))
        return pairs + self._parts_to_come()

    def _parts_to_come(self) -> int:
        """Return how many parts of a group that has an effect together are still to be tried."""
        group = tuple(name for name in self._changed if self._matters((name,)) is False)
        if len(group) < 3 or not self._matters(group):
            return 0
        return sum(not self._found(part) for part in _parts(group))

    def _wanted(self) -> Iterator[tuple[str, ...]]:
        """Yield what to take back next; what was measured before is yielded as it was then."""
        for name in self._changed:
            yield from self._once((name,))
        mattering = [name for name in self._changed if self._matters((name,))]
        idle = [name for name in self._changed if self._matters((name,)) is False]
        yield from self._group(idle)
        suspects = sorted(
            combinations(mattering, 2),
            key=lambda two: -min(abs(self._effect((name,)) or 0.0) for name in two),
        )
        for two in suspects[:_TOGETHER_MAX]:
            yield from self._once(two)
        for _ in range(1, self._pairs_most):
            for name in mattering:
                if len(self._found((name,))) < self._pairs_most and self._affordable():
                    yield (name,)

    def _group(self, idle: Sequence[str]) -> Iterator[tuple[str, ...]]:
        """Take back together what has no effect alone; look closer while the group has one."""
        group = tuple(idle)
        while len(group) > 1:
            yield from self._once(group)
            if not self._matters(group) or len(group) == 2:
                return
            parts = _parts(group)
            for part in parts:
                yield from self._once(part)
            group = next((part for part in parts if self._matters(part)), ())

    def _once(self, names: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
        alone = (self._config((name,)) for name in names)
        if not self._found(names) and (len(names) == 1 or self._config(names) not in alone):
            yield names

    def _affordable(self) -> bool:
        """Whether another pair may be made: without a budget their number is bounded."""
        return self._runner.study.budget_s is not None or len(self._whole_pairs()) < self._left

    def _found(self, names: Sequence[str]) -> list[PairOfRuns]:
        """Return the whole pairs in which these knobs were taken back."""
        return [pair for pair in self._whole_pairs() if pair.knobs == tuple(names)]

    def _whole_pairs(self) -> list[PairOfRuns]:
        """Return the pairs of which neither run is still to be measured."""
        return [p for p in pairs_of(self._runner.ledger, self._contender) if self._is_whole(p)]

    def _is_whole(self, pair: PairOfRuns) -> bool:
        runner = self._runner
        return all(
            step is not None and not _is_open(runner.ledger, step, runner.stack.knobs)
            for step in (pair.without, pair.whole)
        )

    def _effect(self, names: Sequence[str]) -> float | None:
        effects = [pair.effect for pair in self._found(names)]
        known = [effect for effect in effects if effect is not None]
        return float(np.mean(known)) if known else None

    def _matters(self, names: Sequence[str]) -> bool | None:
        """Tell whether an effect is beyond the noise, or the SLOs hang on it; None: not known."""
        if decides_slo(meets(self._found(names))):
            return True
        effect = self._effect(names)
        if effect is None:
            return None
        return matters(effect, self._noise, len(self._found(names)))

    def _servable(self, names: Sequence[str]) -> bool:
        try:
            self._runner.stack.check(self._config(names))
        except UsageError:
            return False
        return True

    def _config(self, names: Sequence[str]) -> dict[str, Value]:
        return without(names, self._before, self._after, self._runner.stack.knobs)

    def _pair(self, names: Sequence[str], turn: int) -> None:
        """Measure one pair, each arm on a fresh server; the order changes from pair to pair."""
        pairs = pairs_of(self._runner.ledger, self._contender)
        torn = [p.number for p in pairs if p.knobs == tuple(names) and not self._is_whole(p)]
        taken = {step.number // 2 for step in self._runner.ledger.of("ablation", self._contender)}
        number = torn[0] if torn else max(taken, default=-1) + 1
        arms = [(0, self._config(names)), (1, dict(self._after))]
        load = self._runner.trial_load(confirm=True)
        for place, arm in arms if turn % 2 == 0 else reversed(arms):
            self._runner.step(
                "ablation",
                2 * number + place,
                arm,
                load,
                knob=BETWEEN.join(names),
                contender=self._contender,
            )


def meets(pairs: Sequence[PairOfRuns]) -> dict[str, list[bool]]:
    """Return whether each run of some pairs met the SLOs: the winner's ("with"), and "without"."""
    found: dict[str, list[bool]] = {"without": [], "with": []}
    for pair in (pair for pair in pairs if pair.is_measured):
        for arm, step in (("without", pair.without), ("with", pair.whole)):
            if step is not None and step.slo_met is not None:
                found[arm].append(step.slo_met)
    return found


def decides_slo(met: Mapping[str, Sequence[bool]], *, runs: int = 1) -> bool:
    """Tell whether the winner meets the SLOs more often, or less, in at least so many runs each.

    Near a limit one run says little: it asks for more pairs, and shows nothing.
    """
    return min(map(len, met.values())) >= runs and abs(shift(met)) > _SHARE_OF_RUNS


def _parts(group: tuple[str, ...]) -> list[tuple[str, ...]]:
    """Return the halves of a group; of three knobs each two."""
    middle = len(group) // 2
    return [group[:middle], group[middle:]] if len(group) > 3 else list(combinations(group, 2))
