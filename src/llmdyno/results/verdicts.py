"""What a study's confirmation found, in words: the same for terminal, lists, pages and bundles.

The words themselves stand in study.json and are a contract.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import msgspec

from llmdyno.results import wording
from llmdyno.results.documents import Document, interval, level_name, number, part, text, texts
from llmdyno.results.slo import HEADLINES
from llmdyno.results.titles import title, unit
from llmdyno.units import counted

Word = Literal["better", "worse", "no difference", "not confirmed"]


# Where the whole interval of what decides is so near 1, the two are shown to be equal.
EQUAL_WITHIN = 0.01

# How a sentence that tells a verdict begins. "not confirmed" has no such sentence.
OPENINGS: Mapping[str, str] = {
    "better": "Better",
    "no difference": "No difference shown",
    "worse": "Worse",
}
_RARE = 0.05  # what is rarer by chance is no chance
_SHOWN_EQUAL = f"Shown equal within {wording.share(EQUAL_WITHIN)}"


def verdict(ratio: Mapping[str, Any], *, maximise: bool) -> Word:
    """Return what a ratio with its interval shows.

    "no difference": the interval holds 1 (of a difference: 0). "not confirmed": some run has no
    value, so there is nothing to compare; or there is no interval, as of one pair.

    Args:
        ratio: "mean" and "ci95" of after ÷ before; where some run has 0, those of "difference".
        maximise: whether larger is better.
    """
    measured, nothing = ratio, 1.0
    if ratio["mean"] is None:
        measured, nothing = ratio.get("difference", ratio), 0.0
    if measured["mean"] is None or measured["ci95"] is None:
        return "not confirmed"
    low, high = measured["ci95"]
    if low <= nothing <= high:
        return "no difference"
    return "better" if (low > nothing) == maximise else "worse"


def with_slo(word: Word, runs: Sequence[Mapping[str, Any]]) -> Word:
    """Return a verdict that counts the SLOs before the objective.

    A config that meets them in every run is better than one that never does, whatever its speed.
    Near a limit a run or two that miss it show nothing: where both arms meet them in most runs, or
    neither does, and the rest may be chance, the objective decides. Else the two must not
    contradict each other.

    Args:
        word: what the objective's ratio shows.
        runs: as judged() returns them: "arm" and "slo_met", null without an SLO.
    """
    before, after = slo_met(runs)
    if not before or not after:
        return word
    old, new = sum(before) / len(before), sum(after) / len(after)
    if old == new:
        return word
    shown: Word = "better" if new > old else "worse"
    if {old, new} == {0.0, 1.0} or word == shown:
        return shown
    alike = (old - 0.5) * (new - 0.5) > 0 and may_be_alike(before, after)
    return word if alike else "not confirmed"


def slo_met(runs: Sequence[Mapping[str, Any]]) -> tuple[list[bool], list[bool]]:
    """Return of the runs before and of those after whether each met the SLOs, where it is known.

    Args:
        runs: of a confirmation: "arm" and "slo_met", null without an SLO or a measurement.
    """
    before, after = (
        [bool(run["slo_met"]) for run in runs if run["arm"] == arm and run["slo_met"] is not None]
        for arm in ("before", "after")
    )
    return before, after


def judged(confirmation: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Return the runs by which it is judged who meets the SLOs, as with_slo() takes them.

    Beside those of the confirmation they are the baseline's in the pairs of earlier would-be
    winners.
    """
    earlier = confirmation.get("baseline_before", ())
    return [*confirmation["runs"], *({"arm": "before", "slo_met": met} for met in earlier)]


def may_be_alike(one: Sequence[bool], other: Sequence[bool]) -> bool:
    """Tell whether runs that met SLOs, or did not, may be those of one config on one machine."""
    return not one or not other or _by_chance(one, other) > _RARE


def _meets_oftener(runs: Sequence[Mapping[str, Any]]) -> bool:
    """Tell whether the SLOs, which come first, speak for a config, though they show nothing."""
    before, after = slo_met(runs)
    return bool(before and after) and sum(after) / len(after) > sum(before) / len(before)


def _by_chance(before: Sequence[bool], after: Sequence[bool]) -> float:
    """Return how often runs that are alike meet SLOs so unequally, to this side (Fisher 1935)."""
    fewer, more = sorted((before, after), key=lambda runs: sum(runs) / len(runs))
    met, runs = sum(fewer) + sum(more), len(fewer) + len(more)
    ways = sum(
        math.comb(len(more), count) * math.comb(len(fewer), met - count)
        for count in range(sum(more), min(len(more), met) + 1)
    )
    return ways / math.comb(runs, met)


def stands_above(one: Mapping[str, Any], other: Mapping[str, Any], *, maximise: bool) -> bool:
    """Tell which of two would-be winners, compared with the same baseline, has the better claim.

    The verdict comes first, then how often the SLOs were met, then the objective's ratio. A run of
    which it is not known whether it met them tells nothing.

    Args:
        one: its confirmation, as study.json has it.
        other: that of the other one.
        maximise: whether larger is better.
    """

    def rank(found: Mapping[str, Any]) -> tuple[int, float, float]:
        _, met = slo_met(found["runs"])
        ratio = found["ratio"].get(found["decided_by"], {}).get("mean")
        times = 0.0 if ratio is None else ratio if maximise else 1 / max(ratio, 1e-9)
        rising: tuple[Word, ...] = ("worse", "not confirmed", "no difference", "better")
        return rising.index(found["verdict"]), sum(met) / max(1, len(met)), times

    return rank(one) > rank(other)


def shown_equal(word: Word, ratio: Mapping[str, Any], runs: Sequence[Mapping[str, Any]]) -> bool:
    """Tell whether two configs are shown to be equal: then the one that changes nothing is best.

    A difference that is shown, however small, is one. A config that met the SLOs in more of its
    runs than the baseline is not equal to it, even where that may be chance.

    Args:
        word: the verdict, by objective and SLOs.
        ratio: as verdict() takes it; a difference of values that are 0 shows nothing equal.
        runs: as with_slo() takes them.
    """
    if word != "no difference" or ratio["mean"] is None or ratio["ci95"] is None:
        return False
    low, high = ratio["ci95"]
    within = low >= 1 - EQUAL_WITHIN and high <= 1 + EQUAL_WITHIN
    return bool(within) and not _meets_oftener(runs)


def no_better(
    word: Word,
    ratio: Mapping[str, Any],
    runs: Sequence[Mapping[str, Any]],
    *,
    maximise: bool,
) -> bool:
    """Tell whether nothing speaks for a config: no difference is shown, and the mean is no better.

    The pairs are the only runs that no search has chosen, so the baseline is the better guess then,
    unless the config met the SLOs in more of its runs.

    Args:
        word: the verdict, by objective and SLOs.
        ratio: as verdict() takes it.
        runs: as with_slo() takes them.
        maximise: whether larger is better.
    """
    if word != "no difference" or _meets_oftener(runs):
        return False
    mean, nothing = ratio["mean"], 1.0
    if mean is None:
        mean, nothing = ratio.get("difference", ratio)["mean"], 0.0
    return mean is not None and bool(mean <= nothing if maximise else mean >= nothing)


class Confirmed(msgspec.Struct, frozen=True, kw_only=True):
    """The confirmation of a study, ready to be told."""

    word: str  # as study.json has it
    pairs: float  # 0: there was nothing to confirm
    level: str  # "100 users"; empty: it is not known
    decided_by: str  # the key of the ratio that decides, e.g. "ttft_ms_p50"
    ratios: Document
    is_equal: bool = False  # whether both are shown to be equal, so that the baseline stays
    is_no_better: bool = False  # whether nothing speaks for it, so that the baseline stays
    config: Document = {}  # what was told against the baseline; empty: an older study's
    earlier: float = 0  # pairs that were measured before the study moved to where it is now
    since: tuple[str, ...] = ()  # what has changed since
    asked: float | None = None  # pairs, by --pairs; None: their number was open
    ended_by_budget: bool = False

    @property
    def opening(self) -> str:
        """How a sentence that tells the verdict begins; it must be one of OPENINGS."""
        return _SHOWN_EQUAL if self.is_equal else OPENINGS[self.word]

    @property
    def stays(self) -> str:
        """Why a config that is no better than the baseline is not the best; empty: it is best."""
        stays = self.is_equal or self.is_no_better
        return "the baseline stays, as nothing speaks for a change" if stays else ""

    @property
    def basis(self) -> str:
        """What it rests on: "6 interleaved pairs, 95 % intervals", and where some are earlier."""
        moved = f"; {self.moved}" if self.moved else ""
        ended = ""
        if self.ended_by_budget:
            of = f"{wording.count(self.asked)} were asked for, " if self.asked else ""
            ended = f" ({of}the budget ended them)"
        pairs = f"{wording.count(self.pairs)} interleaved {self._pairs}{ended}"
        return f"{pairs}, 95 % intervals{moved}"

    @property
    def moved(self) -> str:
        """That pairs are of another machine or version than the study is of; empty: none is."""
        if not self.earlier:
            return ""
        all_of_it = "it" if self.pairs == 1 else "all"
        return self._moved(all_of_it if self._all_earlier else f"{self.earlier:g} of them")

    @property
    def pairs_moved(self) -> str:
        """The same where nothing was said of the pairs: "2 of 3 pairs were measured before …"."""
        if not self.earlier:
            return ""
        all_of_it = f"all {self.pairs:g} pairs"
        if self.pairs < 3:
            all_of_it = "the only pair" if self.pairs == 1 else "both pairs"
        some = f"{self.earlier:g} of {counted(self.pairs, 'pair')}"
        return self._moved(all_of_it if self._all_earlier else some)

    def _moved(self, pairs: str) -> str:
        verb = "was" if self.earlier == 1 else "were"
        return f"{pairs} {verb} measured before the study moved: {'; '.join(self.since)}"

    @property
    def _all_earlier(self) -> bool:
        return self.earlier == self.pairs

    @property
    def _pairs(self) -> str:
        return "pair" if self.pairs == 1 else "pairs"

    @property
    def gain(self) -> str:
        """What decided, with its interval: "token rate 3.11x [2.79, 3.42]"; empty: no value."""
        said = told(part(self.ratios, self.decided_by), unit(self.decided_by))
        return f"{title(self.decided_by)} {said}" if said else ""

    @property
    def times(self) -> str:
        """The same for prose: "3.11 times the token rate [2.79, 3.42]"."""
        ratio = part(self.ratios, self.decided_by)
        mean, bounds = number(ratio, "mean"), interval(ratio, "ci95")
        if mean is None:
            return self.gain
        said = f"{mean:.3g} times the {title(self.decided_by)}"
        return f"{said} [{bounds[0]:.3g}, {bounds[1]:.3g}]" if bounds else said


def confirmed(study: Document) -> Confirmed:
    """Read the confirmation of a study, an old one or an unfinished one too."""
    found = part(study, "confirmation")
    return Confirmed(
        word=text(found, "verdict"),
        pairs=number(found, "pairs") or 0,
        level=_level(found),
        # Studies of the first version were all decided by the token rate.
        decided_by=text(found, "decided_by") or HEADLINES[0].key,
        ratios=part(found, "ratio"),
        is_equal=found.get("shown_equal") is True,
        is_no_better=found.get("no_better") is True,
        config=part(found, "config"),
        earlier=number(found, "earlier_pairs") or 0,
        since=tuple(texts(found, "moved_since")),
        asked=number(found, "pairs_asked"),
        ended_by_budget=text(found, "pairs_ended_by") == "budget",
    )


def _level(confirmation: Document) -> str:
    arrival, load = text(confirmation, "arrival") or "closed", number(confirmation, "level")
    return "" if load is None and arrival != "trace" else named_level(arrival, load)


def named_level(arrival: str, load: float | None) -> str:
    """Return what a summary calls the level of a load: "10 users", "poisson 2/s".

    Args:
        arrival: when requests are due.
        load: users of a closed loop, requests per second of an open one; None: a trace has neither.
    """
    key = "users" if arrival == "closed" else "rate"
    return level_name({"arrival": arrival, key: load})


def told(ratio: Document, of_unit: str) -> str:
    """Return a ratio with its interval as text, or the difference where a run had 0.

    The text is empty if there is neither.

    Args:
        ratio: an entry of a confirmation's "ratio".
        of_unit: the unit of its metric.
    """
    mean, bounds = number(ratio, "mean"), interval(ratio, "ci95")
    if mean is not None:
        return wording.with_interval(mean, bounds, wording.ratio)
    difference = part(ratio, "difference")
    mean, bounds = number(difference, "mean"), interval(difference, "ci95")
    if mean is None:
        return ""
    sign = "+" if mean > 0 else ""
    return f"{sign}{wording.with_interval(mean, bounds)} {of_unit}"
