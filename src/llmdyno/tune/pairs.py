"""How many pairs a confirmation measures, and in which order.

--pairs alone gives the number. With --confirm-until pairs are measured until the interval of the
objective's ratio is narrow enough. With neither the noise decides: as many pairs as find an effect
of 10 % in 80 of 100 cases, by what was seen before and in the first three pairs. That is decided
once: to look again after each pair would end the pairs when their runs are alike by luck. The
budget ends all but the first two, however many are asked for. What is asked rests on what the
ledger had before the pairs, and on these, so a study that goes on asks as it did; once the pairs
have ended, only those that are gone are measured, until --resume plans others.
"""

import math
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

import msgspec

from llmdyno.knobs import Value
from llmdyno.results import pairs as statistics
from llmdyno.results import wording
from llmdyno.results.stats import Spread
from llmdyno.tune import going_on, pair_runs, paired
from llmdyno.tune.entries import OUT_OF_BUDGET, Event, Step
from llmdyno.tune.ledger import PLAN_OF_PAIRS, Ledger
from llmdyno.tune.noise import before_pairs, spreads_before
from llmdyno.tune.runner import Runner
from llmdyno.tune.spec import Study
from llmdyno.units import counted

EFFECT = 0.10  # what a confirmation is to find
_HOPELESS = 1.0  # beyond this difference a percentage tells nobody anything
# An interval that looks narrow enough by chance ends the pairs: with fewer than this its width
# itself is known too badly.
UNTIL_PAIRS_MIN = 4
_ERRORS = 2.0  # standard errors that half an interval has, about


class Side(NamedTuple):
    """One of the two configs, and what measures it: in a study over engines each has its own."""

    runner: Runner
    config: Mapping[str, Value]


class Confirmation:
    """The pairs of one would-be winner, each arm on a fresh server.

    Args:
        before: the baseline.
        after: the would-be winner.
        contender: its number.
    """

    def __init__(self, before: Side, after: Side, contender: int) -> None:
        self._before, self._after = before, after
        self._runner = before.runner
        self._contender = contender
        self._out_of_budget = False
        if before.runner is not after.runner:
            before.runner.partner = after.runner.ledger
            after.runner.partner = before.runner.ledger

    def run(
        self, heading: str = "Confirmation", then_s: Callable[[float], float] = lambda _: 0.0
    ) -> None:
        """Measure as many pairs as are planned; it ends early when a run fails, or the budget ends.

        Args:
            heading: begins what is said of it.
            then_s: takes how long it will go on, and returns how long what follows will.
        """
        for pair in self._planned(heading):
            self._foretell(pair, then_s)
            steps = self._measured(pair)
            while steps and len({step.place for step in steps}) > 1:
                steps = self._measured(pair)  # the engine was replaced between the two
            if not steps:
                return
        ledger = self._after.runner.ledger
        why = OUT_OF_BUDGET if self._out_of_budget else "all pairs"
        if self._ended() != why:
            ledger.append(Event(kind="paired", why=why, contender=self._contender))

    def _measured(self, pair: int) -> list[Step]:
        """Measure both runs of a pair, as far as they are not measured; none: one has failed."""
        steps = []
        for place, side in enumerate(self.arms(pair)):
            step = side.runner.step(
                "confirm",
                2 * pair + place,
                side.config,
                side.runner.trial_load(confirm=True),
                contender=self._contender,
            )
            if step.state == "failed":
                return []
            steps.append(step)
        return steps

    def steps(self, contender: int | None = None) -> list[Step]:
        """Return what was measured, in order, each with its arm and the whole path of its run.

        Args:
            contender: the number of another would-be winner; None: of this one.
        """
        number = self._contender if contender is None else contender
        sides = {id(side.runner): side.runner for side in (self._before, self._after)}
        found = [
            msgspec.structs.replace(
                step, arm=self._arm(runner, step), run=str(runner.folder / step.run)
            )
            for runner in sides.values()
            for step in runner.ledger.of("confirm", number)
        ]
        return sorted(found, key=lambda step: step.number)

    def arms(self, pair: int) -> tuple[Side, Side]:
        """Return the sides of a pair in order.

        One that was begun, maybe by a version with another order, keeps its own.
        """
        late, _ = statistics.order(pair)
        for step in self.steps():
            if step.number // 2 == pair:
                late = (step.arm == "after") == (step.number % 2 == 0)
                break
        return (self._after, self._before) if late else (self._before, self._after)

    def _arm(self, runner: Runner, step: Step) -> Literal["before", "after"]:
        is_before = runner is self._before.runner and step.config == dict(self._before.config)
        return "before" if is_before else "after"

    def _planned(self, heading: str) -> Iterator[int]:
        """Yield the numbers of the pairs to measure, one after the other, and tell why so many.

        Where they have ended, these are the pairs that there were: what is gone is made again.
        """
        runner, study = self._runner, self._runner.study
        if ended := self._ended():
            self._out_of_budget = ended == OUT_OF_BUDGET
            yield from range(self._begun())
            return
        noise = statistics.pooled_noise(self._spreads_before())
        runner.say(announcement(study, noise, heading))
        number = 0
        while number < study.pairs_most:
            steps = self.steps()
            if is_enough(study, number, steps, self._spreads_before()):
                return
            begun = any(step.number // 2 == number for step in steps)
            may_end = number >= statistics.PAIRS_MIN and not begun
            if may_end and self._pair_s() > runner.left_s():
                of = f" of {study.pairs}" if study.pairs_fixed else ""
                runner.say(
                    f"The budget has no time for another pair; the confirmation ends with"
                    f" {number}{of}."
                )
                self._out_of_budget = True
                return
            yield number
            number += 1

    def _foretell(self, pair: int, then_s: Callable[[float], float]) -> None:
        """Tell which pair comes, and how long the study will go on; not of one that is there."""
        if sum(step.number // 2 == pair for step in self.steps()) == 2:
            return
        left_s = self.left_s()
        about = "" if self._runner.study.pairs_fixed else "about "
        comes = f"pair {pair + 1} of {about}{self._expected()}"
        self._runner.foretell_proof(comes, left_s + then_s(left_s))

    def left_s(self, before_s: float = 0.0) -> float:
        """Return about how long it will go on; the budget ends all pairs but the first two.

        Args:
            before_s: what is to be done before it.
        """
        done = len(self.steps()) / 2
        pair_s = sum(
            side.runner.lasts_s(side.runner.trial_load(confirm=True))
            for side in (self._before, self._after)
        )
        least_s = max(0.0, statistics.PAIRS_MIN - done) * pair_s
        planned_s = (self._expected() - done) * pair_s
        return max(least_s, min(planned_s, self._runner.left_s() - before_s))

    def _ended(self) -> str:
        return self._after.runner.ledger.pairs_ended(self._contender)

    def _begun(self) -> int:
        """Return how many pairs were begun, those whose runs are gone among them."""
        ledgers = [side.runner.ledger for side in (self._before, self._after)]
        numbers = [
            step.number // 2
            for ledger in ledgers
            for step in (*ledger.steps, *ledger.voided)
            if step.phase == "confirm" and step.contender == self._contender
            if step.state == "measured"  # what a broken machine let fail was never made
        ]
        return 1 + max(numbers, default=-1)

    def _expected(self) -> int:
        if self._ended():
            return self._begun()
        steps = self.steps()
        return pairs_expected(self._runner.study, len(steps) // 2, steps, self._spreads_before())

    def _spreads_before(self) -> list[Spread]:
        """Return how far equal runs lay apart before; nothing if the machine was another one then.

        The winner's trial and its run in full may lie on both sides of the change: that is not
        noise. Once the pairs that decide are made, later ones change nothing here.
        """
        study, steps = self._runner.study, self.steps()
        steps = deciding(steps) if study.pairs_decided else steps
        if pair_runs.shifted(self._before.runner.ledger, steps, lambda step: step.arm):
            return []
        ledgers = {id(side.runner): side.runner.ledger for side in (self._before, self._after)}
        twice = [
            spread
            for ledger in ledgers.values()
            for spread in spreads_before(ledger, self._contender)
        ]
        return [*twice, *self._spreads_of_earlier()]

    def _spreads_of_earlier(self) -> list[Spread]:
        """Return how far runs lay apart in the pairs of earlier would-be winners, in this place.

        That is the place where these pairs began, though the study may have moved since.
        """
        early = {
            str(side.runner.folder / step.run): step
            for side in (self._before, self._after)
            for step in before_pairs(side.runner.ledger, self._contender)
            if step.phase == "confirm"
        }
        own = self.steps()
        place = own[0].place if own else self._before.runner.ledger.place
        found = []
        for contender in sorted({step.contender for step in early.values()}):
            runs = self.steps(contender)
            here = [step for step in runs if step.run in early and step.place == place]
            found.append(statistics.residual_spread(paired.value_runs(here)))
        return [spread for spread in found if spread is not None]

    def _pair_s(self) -> float:
        """Return how long another pair will take."""
        return sum(
            runner.costs().step_s(runner.trial_load(confirm=True), runner.study.warmup_s)
            for runner, _ in (self._before, self._after)
        )


def announcement(study: Study, noise: float, heading: str = "Confirmation") -> str:
    """Say how many pairs there will be, and what they can find."""
    spread = f"equal runs {wording.share(noise, 1)} apart"
    if study.confirm_until is not None:
        return (
            f"{heading}: {least(study)} to {study.pairs_most} interleaved pairs, until the ratio"
            f" is known to {wording.share(study.confirm_until, 2)} to either side. So far {spread}."
        )
    asked, decided = pairs_asked(study, noise), study.pairs_decided
    smallest = statistics.detectable(noise, asked, decided=decided)
    about = "about " if decided else ""
    pairs = f"{heading}: {about}{counted(asked, 'interleaved pair')}"
    if smallest > _HOPELESS:
        return (
            f"{pairs}. With {spread} they miss even twice the speed in more than 20 of 100 cases:"
            " the machine is too busy, or the server too unsteady."
        )
    decides = " The first three decide." if decided else ""
    found = wording.share(smallest)
    told = f"{pairs}. With {spread} they find a difference of {found} in 80 of 100 cases"
    would = pairs_needed(study, noise)
    if smallest <= EFFECT or would <= asked:
        return f"{told}.{decides}"
    enough = statistics.power(EFFECT, noise, would, decided=decided) >= statistics.POWER
    more = "" if enough else "more than "
    needs = f"one of {wording.share(EFFECT)} would need {more}{counted(would, 'pair')}"
    return f"{told}; {needs}.{decides}"


def pairs_asked(study: Study, noise: float) -> int:
    """Return how many pairs the plan asks for at this noise between equal runs."""
    if study.pairs is not None:
        return study.pairs
    return statistics.pairs_for(EFFECT, noise, decided=True, most=study.pairs_most)


def pairs_needed(study: Study, noise: float) -> int:
    """Return how many pairs find EFFECT at this noise, of those that there are in any study."""
    most = max(statistics.PAIRS_MAX, study.pairs_most)
    return statistics.pairs_for(EFFECT, noise, decided=study.pairs_decided, most=most)


def have_ended(
    study: Study, whole: Ledger, ledgers: Sequence[Ledger], none: Collection[int]
) -> bool:
    """Tell whether a would-be winner has its pairs, and --resume asks for no others.

    Args:
        study: as it is asked for now.
        whole: its own ledger.
        ledgers: that with the pairs; of a study over several those of its combinations.
        none: the numbers of the would-be winners that are none.
    """
    plan = PLAN_OF_PAIRS | {"budget_s"}
    if whole.began is None or plan & going_on.changes(whole, study).keys():
        return False
    return any(
        ledger.pairs_ended(step.contender)
        for ledger in ledgers
        for step in ledger.of("confirm")
        if step.contender not in none
    )


def deciding(steps: Sequence[Step]) -> list[Step]:
    """Return the runs of the pairs whose noise decides how many there will be."""
    return [step for step in steps if step.number < 2 * statistics.DECIDING_PAIRS]


def noise_seen(study: Study, steps: Sequence[Step], before: Sequence[Spread]) -> float:
    """Return how far equal runs lie apart, by all that may decide how many pairs there are.

    Args:
        study: that plans them.
        steps: of the confirmation, each with its arm.
        before: how far equal runs lay apart before the confirmation.
    """
    runs = paired.value_runs(steps)
    shown = (
        statistics.deciding_spread(runs)
        if study.pairs_decided
        else statistics.residual_spread(runs)
    )
    return statistics.pooled_noise([*before, shown])


def least(study: Study) -> int:
    """Return after how many pairs --confirm-until may end a confirmation."""
    return study.pairs if study.pairs is not None else min(UNTIL_PAIRS_MIN, study.max_pairs)


def pairs_expected(study: Study, done: int, steps: Sequence[Step], before: Sequence[Spread]) -> int:
    """Return about how many pairs there will be in all, by what those so far have shown.

    Args:
        study: that plans them.
        done: pairs so far; they are not enough.
        steps: of the confirmation, each with its arm.
        before: how far equal runs lay apart before the confirmation.
    """
    noise = noise_seen(study, [step for step in steps if step.number < 2 * done], before)
    asked = pairs_asked(study, noise)
    if study.confirm_until is not None:
        # Half an interval of the ratio of two means of so many runs.
        narrow = math.ceil(2 * (_ERRORS * noise / study.confirm_until) ** 2)
        asked = min(study.pairs_most, max(least(study), narrow))
    return max(done + 1, asked)


def is_enough(study: Study, done: int, steps: Sequence[Step], before: Sequence[Spread]) -> bool:
    """Tell whether so many pairs are enough.

    Args:
        study: that plans them.
        done: pairs so far.
        steps: of the confirmation, each with its arm; those of later pairs are not looked at.
        before: how far equal runs lay apart before the confirmation.
    """
    steps = [step for step in steps if step.number < 2 * done]
    if study.confirm_until is not None:
        return done >= least(study) and half_width(study, steps) <= study.confirm_until
    if study.pairs is not None or done < statistics.DECIDING_PAIRS:
        return False
    return done >= pairs_asked(study, noise_seen(study, steps, before))


def half_width(study: Study, steps: Sequence[Step]) -> float:
    """Return half the width of the interval of the objective's ratio; infinite: there is none.

    Args:
        study: whose objective and SLOs count.
        steps: of the confirmation, each with its arm and the whole path of its run.
    """
    found = paired.Reader(study.slos).series(
        paired.confirmed(Path(), steps, lambda step: step.arm), study.objective
    )
    statistic = study.objective.statistic.over_time
    if not found or not paired.divides(found, statistic):
        return math.inf
    return statistics.compared(paired.runs(found, statistic)).half_width
