"""The confirmation's pairs as they stand in a ledger: their journals, and the ratio they show."""

import math
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from llmdyno.results import pairs as statistics
from llmdyno.results import stats
from llmdyno.results.facts import LevelFacts, read_levels
from llmdyno.results.measures import series
from llmdyno.results.slo import Objective, Slo
from llmdyno.results.stats import significant
from llmdyno.results.window import steady_window
from llmdyno.store import JOURNAL
from llmdyno.tune.entries import Step

_RESAMPLES = 200  # enough for a variance

Statistic = Callable[[stats.Floats], stats.Floats]  # of resamples, as stats.bootstrap() takes it


class Pair(NamedTuple):
    """The journals of a run before and of one after."""

    before: Path
    after: Path
    positions: tuple[int, int] = (0, 1)  # of the two in the row of all runs
    place: int = 0  # of the study, where both were measured


class Series(NamedTuple):
    """What a pair's runs observed of a metric, in order of time."""

    before: stats.Floats
    after: stats.Floats
    positions: tuple[int, int] = (0, 1)

    @property
    def sides(self) -> tuple[stats.Floats, stats.Floats]:
        """The run before and the run after."""
        return self.before, self.after


def confirmed(folder: Path, steps: Iterable[Step], arm_of: Callable[[Step], str]) -> list[Pair]:
    """Return the pairs of a confirmation of which both runs were measured, in the same place.

    Args:
        folder: of the study.
        steps: of the confirmation.
        arm_of: says whose run a step is: "before" or "after".
    """
    by_number = {step.number: step for step in steps}
    pairs = []
    for number in sorted({number // 2 for number in by_number}):
        two = [by_number.get(2 * number), by_number.get(2 * number + 1)]
        arms = {arm_of(step): step for step in two if step and step.state == "measured"}
        if len(arms) == 2 and arms["before"].place == arms["after"].place:
            before, after = arms["before"], arms["after"]
            first, second = (folder / step.run / JOURNAL for step in (before, after))
            pairs.append(Pair(first, second, (before.number, after.number), before.place))
    return pairs


class Reader:
    """Reads what the runs of pairs observed; each journal once.

    Args:
        slos: of the study.
        decided: whether the noise of a confirmation's first pairs decides how many it has; see
            results.pairs.compared().
    """

    def __init__(self, slos: Sequence[Slo], *, decided: bool = False) -> None:
        self._slos = slos
        self._decided = decided
        self._read: dict[Path, list[LevelFacts]] = {}

    def levels(self, pairs: Sequence[Pair]) -> list[int | None]:
        """Return the number of users of each level that all runs have; None: it has no users.

        The last level, which decides, comes first: ratio() takes their indices.
        """
        journals = [journal for pair in pairs for journal in (pair.before, pair.after)]
        shared = min((len(self._facts(journal)) for journal in journals), default=0)
        return [self._facts(journals[0])[-1 - level].started.users for level in range(shared)]

    def ratio(
        self,
        pairs: Sequence[Pair],
        of: Objective,
        *,
        level: int = 0,
        known: stats.Spread | None = None,
        in_a_row: bool = True,
    ) -> dict[str, Any]:
        """Return after ÷ before: the geometric mean over the pairs and its 95 % interval.

        "before" and "after" are the geometric means of the runs of each arm. Where some run has a
        value of 0 there is no ratio: "difference" then holds after - before.

        Args:
            pairs: of equal configs.
            of: the metric and its statistic.
            level: counted from the last one, which is 0.
            known: how far apart equal runs lie, if other runs have told.
            in_a_row: whether the runs followed one another, so that a trend can be fitted.
        """
        found = self.series(pairs, of, level)
        return ratio(found, of.statistic.over_time, known, in_a_row=in_a_row, decided=self._decided)

    def series(self, pairs: Sequence[Pair], of: Objective, level: int = 0) -> list[Series]:
        """Return what was observed in the windows of the pairs' runs at a level, see ratio()."""
        return [
            Series(
                self._one(pair.before, of, level), self._one(pair.after, of, level), pair.positions
            )
            for pair in pairs
        ]

    def spread(self, pairs: Sequence[Pair], of: Objective) -> stats.Spread | None:
        """Return how far apart equal runs of the pairs lie; None: they do not tell."""
        found = self.series(pairs, of)
        if not found or not divides(found, of.statistic.over_time):
            return None
        before, after = zip(*(one.sides for one in found), strict=True)
        return stats.spread(before, after, of.statistic.over_time)

    def _one(self, journal: Path, of: Objective, level: int) -> stats.Floats:
        facts = self._facts(journal)[-1 - level]
        return series(of.metric, facts.columns, steady_window(facts), self._slos)

    def _facts(self, journal: Path) -> list[LevelFacts]:
        if journal not in self._read:
            self._read[journal] = read_levels(journal)[1]
        return self._read[journal]


def ratio(
    found: Sequence[Series],
    statistic: Statistic,
    known: stats.Spread | None = None,
    *,
    in_a_row: bool = True,
    decided: bool = False,
) -> dict[str, Any]:
    """Return what Reader.ratio() does, of what the runs observed."""
    nothing = {"mean": None, "ci95": None}
    if not found or not all(len(side) for one in found for side in one.sides):
        return nothing
    before, after = zip(*(one.sides for one in found), strict=True)
    if not divides(found, statistic):
        return {**nothing, "difference": _said(*stats.difference(before, after, statistic))}
    arms = {
        arm: significant(_typical(side, statistic))
        for arm, side in (("before", before), ("after", after))
    }
    if known is not None or not in_a_row:
        return {**_said(*stats.ratio(before, after, statistic, known=known)), **arms}
    paired = statistics.compared(runs(found, statistic), decided=decided)
    drift = {} if paired.drift is None else {"drift": significant(paired.drift)}
    return {**_said(paired.mean, paired.ci95), **arms, **drift}


def _typical(arm: Sequence[stats.Floats], statistic: Statistic) -> float:
    """Return the geometric mean of an arm's runs, whose quotient is the ratio without drift."""
    logs = [math.log(float(statistic(side[None, :])[0])) for side in arm]
    return math.exp(math.fsum(logs) / len(logs))


def divides(found: Sequence[Series], statistic: Statistic) -> bool:
    """Tell whether every run has a value above 0."""
    return all(
        len(side) and float(statistic(side[None, :])[0]) > 0 for one in found for side in one.sides
    )


def runs(found: Sequence[Series], statistic: Statistic) -> list[statistics.Run]:
    """Return the runs of pairs in a row, each with the logarithm of its value."""
    made = []
    for one in found:
        for side, position, after in zip(one.sides, one.positions, (False, True), strict=True):
            value = float(statistic(side[None, :])[0])
            inside = float(stats.bootstrap(side, statistic, resamples=_RESAMPLES).var())
            made.append(statistics.Run(position, after, math.log(value), inside / value**2))
    return sorted(made)


def value_runs(steps: Sequence[Step]) -> list[statistics.Run]:
    """Return the measured runs of a confirmation by the ledger's values alone."""
    return [
        statistics.Run(step.number, step.arm == "after", math.log(step.value), 0.0)
        for step in sorted(steps, key=lambda step: step.number)
        if step.state == "measured" and step.value is not None and step.value > 0
    ]


def _said(mean: float, ci95: tuple[float, float] | None) -> dict[str, Any]:
    return {"mean": significant(mean), "ci95": ci95 and [significant(bound) for bound in ci95]}
