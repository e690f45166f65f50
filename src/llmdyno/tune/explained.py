"""What an ablation has shown, for the study document: effects of knobs, and of knobs together.

An effect is winner ÷ winner with the knobs taken back, as a ratio with its interval over all pairs
in which they were. Whether an effect matters is decided by the noise of the confirmation's runs.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec

from llmdyno.knobs import Value
from llmdyno.results import wording
from llmdyno.results.slo import Objective
from llmdyno.results.stats import Spread
from llmdyno.tune.ablation import SHOWN_RUNS, PairOfRuns, decides_slo, meets
from llmdyno.tune.noise import beyond, matters

# Takes pairs of runs (without, whole) and returns a ratio with its interval.
Ratio = Callable[[Sequence[tuple[str, str]], Objective], dict[str, Any]]


class Explained(msgspec.Struct, frozen=True, kw_only=True):
    """The ablation of one winner, ready to be told."""

    pairs: Sequence[PairOfRuns]
    objectives: Sequence[Objective]  # the study's comes first
    noise: Spread  # of the logarithm of a run's value
    ratio: Ratio
    value: Callable[[str, bool], Value | None]  # of a knob; in the winner, or else before

    def rows(self) -> list[dict[str, Any]]:
        """Return by how much each single change moves the objective, largest first."""
        rows = []
        for names in self._groups(single=True):
            (name,) = names
            pairs = self._pairs(names)
            told = {
                "knob": name,
                "from": self.value(name, False),
                "to": self.value(name, True),
                "effect": self._effects(pairs),
                "pairs": len(pairs),
            }
            mean = self._mean(names)
            met = meets(pairs)
            decides = decides_slo(met, runs=SHOWN_RUNS)
            if mean is not None:
                told["matters"] = matters(mean, self.noise, len(pairs)) or decides
            if any(met.values()):
                told["slo_met"] = met | {"decides": decides}
            rows.append(told)
        key = self.objectives[0].key
        return sorted(rows, key=lambda row: _size(row["effect"][key]))

    def interactions(self) -> list[dict[str, Any]]:
        """Return what knobs do that were taken back together, each with a kind and a sentence.

        The kinds: "slo", "no effect", "harm", "small parts", "either is enough", "some together"
        (of more than two), where none has an effect alone; else "only together", "help one
        another", "replace one another", "independent".
        """
        told = []
        for names in self._groups(single=False):
            pairs = self._pairs(names)
            kind, why = self._kind(names)
            told.append(
                {
                    "knobs": list(names),
                    "kind": kind,
                    "why": why,
                    "effect": self._effects(pairs),
                    "pairs": len(pairs),
                }
            )
        return told

    def _groups(self, *, single: bool) -> list[tuple[str, ...]]:
        names = dict.fromkeys(pair.knobs for pair in self.pairs)
        return [one for one in names if (len(one) == 1) == single and self._pairs(one)]

    def _pairs(self, names: tuple[str, ...]) -> list[PairOfRuns]:
        return [pair for pair in self.pairs if pair.knobs == names and pair.is_measured]

    def _effects(self, pairs: Sequence[PairOfRuns]) -> dict[str, Any]:
        runs = [(p.without.run, p.whole.run) for p in pairs if p.without and p.whole]
        found = {one.key: self.ratio(runs, one) for one in self.objectives}
        return {key: {"ratio": effect.pop("mean"), **effect} for key, effect in found.items()}

    def _mean(self, names: tuple[str, ...]) -> float | None:
        """Return the mean improvement as a logarithm; None: no pair has one."""
        sign = 1.0 if self.objectives[0].maximise else -1.0
        known = [pair.effect for pair in self._pairs(names) if pair.effect is not None]
        return sign * sum(known) / len(known) if known else None

    def _beyond(self, *groups: tuple[str, ...]) -> float:
        """Return how far a sum of the effects of these groups may be from 0 by noise."""
        return beyond(self.noise, *(len(self._pairs(one)) for one in groups))

    def _kind(self, names: tuple[str, ...]) -> tuple[str, str]:
        whole = self._mean(names)
        singles = [self._mean((name,)) for name in names]
        listed = " and ".join((", ".join(names[:-1]), names[-1]))
        if whole is None or None in singles:
            return "unknown", f"{listed}: some run has no value."
        alone = [single for single in singles if single is not None]
        shown = [
            matters(one, self.noise, len(self._pairs((name,))))
            for name, one in zip(names, alone, strict=True)
        ]
        if not any(shown):
            if self._decide_slo(names):
                why = f"{listed}: whether the SLOs are met hangs on them, whatever they cost."
                return "slo", why
            return self._of_idle(names, listed, whole, sum(alone))
        return self._of_two(names, listed, whole, alone)

    def _decide_slo(self, names: tuple[str, ...]) -> bool:
        """Tell whether the SLOs seem to hang on some knobs, together or on one of them.

        One pair is enough: what may meet an SLO is not to be called idle, or harm.
        """
        groups = (names, *((name,) for name in names))
        return any(decides_slo(meets(self._pairs(one))) for one in groups)

    def _of_idle(
        self, names: tuple[str, ...], listed: str, whole: float, alone: float
    ) -> tuple[str, str]:
        """Tell what knobs do together of which none has an effect of its own beyond the noise.

        Small effects add up: only what goes beyond their sum shows that one replaces another.
        """
        gain = f"{math.exp(whole):.2f}x"
        if not matters(whole, self.noise, len(self._pairs(names))):
            hidden = math.expm1(abs(whole) + self._beyond(names))
            return "no effect", (
                f"{listed}: no effect beyond the noise, even together; up to"
                f" {wording.share(hidden)} is not ruled out."
            )
        if whole < 0:
            return "harm", f"{listed}: together they cost ({gain}); the winner does better without."
        if whole - alone <= self._beyond(names, *((name,) for name in names)):
            return "small parts", (
                f"{listed}: together {gain}; what each gives is too small to be told by its runs."
            )
        if len(names) == 2:
            why = (
                f"{listed}: one of them is enough; putting back either alone loses nothing, and"
                f" both together give {gain}."
            )
            return "either is enough", why
        return "some together", (
            f"{listed}: putting back one alone loses nothing, and all together give {gain}."
        )

    def _of_two(
        self, names: tuple[str, ...], listed: str, whole: float, alone: Sequence[float]
    ) -> tuple[str, str]:
        groups = [names, *((name,) for name in names)]
        beyond = self._beyond(*groups)
        surplus = whole - sum(alone)
        if abs(surplus) <= beyond:
            return (
                "independent",
                f"{listed}: that either gives more or less with the other is not shown.",
            )
        if surplus > 0:
            return "replace one another", (
                f"{listed}: each does a part of what the other does; putting back both costs more"
                " than putting back one and the other."
            )
        left = [whole - other for other in alone]  # what one gives where the other is not
        if all(abs(one) <= self._beyond(names, names) for one in left):
            gain = f"{math.exp(whole):.2f}x"
            return "only together", f"{listed}: work only together ({gain}); neither does alone."
        return "help one another", f"{listed}: each gives more where the other is set."


def of_confirmation(
    names: Sequence[str], effect: Mapping[str, Mapping[str, Any]], explained: Explained
) -> list[dict[str, Any]]:
    """Return the row of the only knob that changed: the confirmation has taken it back."""
    if len(names) != 1 or not effect:
        return []
    (name,) = names
    return [
        {
            "knob": name,
            "from": explained.value(name, False),
            "to": explained.value(name, True),
            "effect": {
                key: {"ratio": one["mean"], **{k: v for k, v in one.items() if k != "mean"}}
                for key, one in effect.items()
            },
        }
    ]


def _size(effect: Mapping[str, Any]) -> float:
    """Return by what effects are sorted, the largest first and those without a ratio last."""
    return -abs(math.log(effect["ratio"])) if effect["ratio"] else math.inf
