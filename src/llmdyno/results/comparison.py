"""The comparison document: two sides or more in, a row a level and metric and one sentence out.

The first side is what the others are compared with. The document's keys are a contract; its
version's history:

    llmdyno.compare/1 (29 November 2026): the first. Since the same day "swings" of a row says that
        slow swings of the server make most of its interval. Since the same day "requests": how
        many failed at each level of both sides, and whether that is worse beyond chance.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

import msgspec

from llmdyno.results import comparison_words, doubts, effects, fail_on, lost, metrics
from llmdyno.results.comparison_words import Row
from llmdyno.results.documents import Document, number
from llmdyno.results.effects import Effect
from llmdyno.results.fail_on import Limit
from llmdyno.results.likeness import Difference, Obstacles, differences, obstacles
from llmdyno.results.lost import Losses
from llmdyno.results.metrics import BY_NAME, Metric
from llmdyno.results.sides import Side, in_turns
from llmdyno.results.stats import significant

SCHEMA = "llmdyno.compare/1"
Key = tuple[str, str]  # a metric and its statistic
# The numbers of each level that the sentence on top rests on.
DECIDING: tuple[Key, ...] = (("token_rate", "mean"), ("ttft_ms", "p50"), ("ttft_ms", "p99"))
_SHOWN = ("p50", "p99")  # of every latency
# Doubts that name no metric and mean that a level is not what it should be. The others (few cores,
# a short window) are about how exact it is, and the interval says that.
_SPOILING = frozenset(
    (
        *("stopped-early", "interrupted", "output-length-missed", "rate-not-delivered"),
        *("users-not-reached", "too-long-requests", "gpu-throttled", "server-not-ours-alone"),
        *("preempted-requests", "called-invalid"),
    )
)


class Decided(msgspec.Struct, frozen=True, kw_only=True):
    """What a study's own confirmation found; its verdict stands for the objective's."""

    key: Key
    at: str
    word: Literal["better", "worse", "no difference", "not confirmed"]
    said: str  # its sentence
    settings: Sequence[Difference] = ()  # of its winner and its baseline
    doubts: Sequence[Document] = ()  # the study's own
    stays: bool = False  # the winner is the baseline itself, and there is one run of it


def document(
    before: Side,
    others: Sequence[Side],
    *,
    limits: Sequence[Limit] = (),
    strict: bool = False,
    decided: Decided | None = None,
) -> dict[str, Any]:
    """Return the comparison of a side with others.

    Args:
        before: what the others are compared with.
        others: at least one.
        limits: those of --fail-on.
        strict: whether doubts fail them, too.
        decided: of a study, whose sides are the two arms of its confirmation.
    """
    asked = [limit.key for limit in limits]
    comparisons = [_comparison(before, after, asked, decided) for after in others]
    return {
        "schema": SCHEMA,
        "before": before.told(),
        "comparisons": comparisons,
        "gate": fail_on.judge(limits, comparisons, strict=strict),
    }


def _comparison(
    before: Side, after: Side, asked: Sequence[Key], decided: Decided | None
) -> dict[str, Any]:
    shared = [name for name in before.levels if name in after.levels]
    turns = in_turns(before, after)
    in_the_way = {name: obstacles(before, after, name) for name in shared}
    if decided is not None and decided.stays:
        in_the_way = dict.fromkeys(shared, Obstacles(work=("the baseline stays; it is one run",)))
    swinging = [name for name in shared if _swings(before, after, name)]
    found = {
        (name, key): _effect(
            before, after, name, key, turns, in_the_way[name], swinging=name in swinging
        )
        for name in shared
        for key in _keys(before, after, name, asked)
    }
    rows = _with_verdicts(before, after, found, in_the_way)
    if decided is not None:
        rows = [_as_decided(row, decided) for row in rows]
    unlike = differences(before.first, after.first)
    unlike = unlike if decided is None else [*decided.settings, *unlike]
    losses = [_losses(before, after, name) for name in shared if not in_the_way[name].work]
    words = comparison_words.Words(
        rows=rows,
        losses=losses,
        basis=_basis(before, after, paired=bool(turns)),
        alone=_alone(before, after),
        levels=len(shared),
    )
    return {
        "after": after.told(),
        "paired": bool(turns),
        "verdict": decided.word if decided else words.verdict,
        "said": decided.said if decided else words.sentence,
        "why": words.why,
        "basis": words.basis,
        "rows": [msgspec.to_builtins(row) for row in rows],
        "requests": [one.told for one in losses],
        "only_in_one": _alone(before, after),
        "differences": [{**msgspec.to_builtins(one), "warns": one.warns} for one in unlike],
        "warnings": _warnings(unlike),
        "doubts": list(decided.doubts) if decided else _doubts(found.values(), rows),
    }


def _keys(before: Side, after: Side, name: str, asked: Sequence[Key]) -> list[Key]:
    """Return the metrics and statistics of a level's rows: of those that some side has."""
    usual: list[Key] = [
        (row.name, stat)
        for row in BY_NAME.values()
        for stat in (_SHOWN if row.observe is not None else ("mean",))
    ]
    keys = dict.fromkeys([*DECIDING, *usual, *asked])
    levels = [side.first.levels[name] for side in (before, after)]
    return [
        key
        for key in keys
        if key in asked or any(number(level, *key) is not None for level in levels)
    ]


class _Found(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of a row before its verdict."""

    before: float | None = None
    after: float | None = None
    effect: Effect | None = None
    why: str = ""  # it cannot be compared


def _effect(
    before: Side,
    after: Side,
    name: str,
    key: Key,
    turns: Sequence[bool],
    in_the_way: Obstacles,
    *,
    swinging: bool,
) -> _Found:
    metric, stat = key
    old, new = (side.observations(name, metric, stat) for side in (before, after))
    values = [
        effects.middle([one for start in starts for one in start]) if starts else None
        for starts in (old, new)
    ]
    found = _Found(before=values[0], after=values[1], why=in_the_way.to(metric))
    if found.why:
        return found
    for side, starts in ((before, old), (after, new)):
        if not starts:
            return msgspec.structs.replace(found, why=f"no value in {side.name}")
    assumed = _assumed(BY_NAME[metric], stat)
    effect = effects.effect(old, new, assumed=assumed, row=turns, swinging=swinging)
    why = "" if effect else "one value each, without an interval: nothing tells it from noise"
    return msgspec.structs.replace(found, effect=effect, why=why)


def _swings(before: Side, after: Side, name: str) -> bool:
    """Tell whether one run each shows, by any number that decides, that a level's speed swings."""
    seen = [
        effects.swings_of(*(side.observations(name, *key) for side in (before, after)))
        for key in DECIDING
    ]
    return any(one is not None and one.is_shown for one in seen)


def _assumed(row: Metric, stat: str) -> float:
    """Return the spread between starts that is assumed of a metric's statistic."""
    if stat not in {"mean", "p50"}:
        return effects.ASSUMED_SPREAD_TAIL
    is_first = metrics.resting_on("first token")(row)
    return effects.ASSUMED_SPREAD_FIRST if is_first else effects.ASSUMED_SPREAD


def _with_verdicts(
    before: Side,
    after: Side,
    found: Mapping[tuple[str, Key], _Found],
    in_the_way: Mapping[str, Obstacles],
) -> list[Row]:
    """Return the rows; those that decide, and the others, are each a family of tests (Holm)."""
    luck: dict[tuple[str, Key], float] = {}
    for decide in (True, False):
        own = [
            place
            for place, one in found.items()
            if one.effect is not None and (place[1] in DECIDING) == decide
        ]
        values = effects.holm([found[place].effect.p for place in own])  # type: ignore[union-attr]
        luck |= dict(zip(own, values, strict=True))
    return [
        _row(place, one, luck.get(place), _codes(before, after, place))
        for place, one in found.items()
        if place[0] in in_the_way
    ]


def _row(
    place: tuple[str, Key], found: _Found, adjusted: float | None, codes: Sequence[str]
) -> Row:
    name, (metric, stat) = place
    row = Row(
        at=name,
        metric=metric,
        stat=stat,
        decides=(metric, stat) in DECIDING,
        before=_rounded(found.before),
        after=_rounded(found.after),
        difference_pct=_percent_of(found.before, found.after),
        verdict="not comparable",
        why=found.why,
        doubts=tuple(codes),
        swings=found.effect is not None and found.effect.swings,
    )
    effect = found.effect
    if effect is None or adjusted is None:
        return row
    low, high = effect.ci95
    if effect.is_ratio:
        row = msgspec.structs.replace(
            row,
            ratio=significant(effect.value),
            ratio_ci95=(significant(low), significant(high)),
            ci95_pct=(significant(100 * (low - 1)), significant(100 * (high - 1))),
        )
    else:
        # Of a server that is down afterwards this is -100 %; of a 0 before there is no percentage.
        share = 100 / found.before if found.before else None
        row = msgspec.structs.replace(
            row,
            ci95_pct=(significant(share * low), significant(share * high)) if share else None,
            difference=significant(effect.value),
            difference_ci95=(significant(low), significant(high)),
        )
    if adjusted >= effects.ALPHA:
        within = max(map(abs, row.ci95_pct)) if row.ci95_pct else None
        return msgspec.structs.replace(
            row, verdict="no difference", p=significant(adjusted), within_pct=within
        )
    rises = BY_NAME[metric].better == "higher"
    word: Literal["better", "worse"] = "better" if (effect.mean > 0) == rises else "worse"
    return msgspec.structs.replace(row, verdict=word, p=significant(adjusted))


def _as_decided(row: Row, decided: Decided) -> Row:
    """Give a study's objective the verdict of its confirmation: it was chosen beforehand."""
    is_it = (row.metric, row.stat, row.at) == (*decided.key, decided.at)
    if not is_it or decided.word == "not confirmed" or row.verdict == "not comparable":
        return row
    within = max(map(abs, row.ci95_pct)) if row.ci95_pct else None
    return msgspec.structs.replace(
        row,
        verdict=decided.word,
        within_pct=within if decided.word == "no difference" else None,
    )


def _codes(before: Side, after: Side, place: tuple[str, Key]) -> list[str]:
    """Return the codes of the doubts of either side that spoil a row."""
    name, (metric, _) = place
    return list(
        dict.fromkeys(
            doubt.code
            for side in (before, after)
            for start in side.starts
            for doubt in doubts.of(start.summary)
            if doubt.at in {None, name}
            and (metric in doubt.metrics or (not doubt.metrics and doubt.code in _SPOILING))
        )
    )


def _alone(before: Side, after: Side) -> list[str]:
    """Say which levels only one side has."""
    names = dict.fromkeys([*before.levels, *after.levels])
    return [
        f"{name}: measured in {(after if name in after.levels else before).name} only"
        for name in names
        if (name in before.levels) != (name in after.levels)
    ]


def _losses(before: Side, after: Side, name: str) -> Losses:
    """Return what became of the requests of a level at which the same was asked of both sides."""
    old, new = (
        lost.together(lost.of_level(start.levels[name]) for start in side.starts)
        for side in (before, after)
    )
    return Losses(at=name, before=old, after=new)


def _basis(before: Side, after: Side, *, paired: bool) -> str:
    """Say what the intervals rest on."""
    counts = [len(side.starts) for side in (before, after)]
    if paired:
        return f"{counts[0]} pairs of runs in turns"
    if counts != [1, 1]:
        return f"{counts[0]} {'run' if counts[0] == 1 else 'runs'} against {counts[1]}"
    rounds = [
        max((side.first.rounds(n) for n in side.levels), default=1) for side in (before, after)
    ]
    if rounds == [1, 1]:
        return "one run each"
    return f"one run each, of {rounds[0]} and {rounds[1]} rounds"


def _warnings(unlike: Sequence[Difference]) -> list[str]:
    """Return a line a kind of difference that may explain what is measured."""
    by_kind: dict[str, list[str]] = {}
    for one in unlike:
        if one.warns:
            # What is named as its kind, as the SLOs are, is not named twice.
            said = one.sentence.removeprefix(f"{one.kind}: ")
            by_kind.setdefault(one.kind, []).append(said)
    return [f"{kind}: {'; '.join(said)}" for kind, said in by_kind.items()]


def _doubts(found: Iterable[_Found], rows: Sequence[Row]) -> list[dict[str, Any]]:
    """Return the doubts of the comparison itself, as a summary's document has them."""
    if not any(one.effect is not None and one.effect.assumed for one in found):
        return []
    usual, first, tail = (
        f"{100 * share:g} %"
        for share in (
            effects.ASSUMED_SPREAD,
            effects.ASSUMED_SPREAD_FIRST,
            effects.ASSUMED_SPREAD_TAIL,
        )
    )
    said = (
        f"One run each: what differs between two starts was not measured. A spread of {usual}"
        f" ({first} of TTFT p50, {tail} of p99) is assumed in the intervals; several runs of each,"
        " in turns, would measure it."
    )
    swinging = dict.fromkeys(row.at for row in rows if row.decides and row.swings)
    return [_doubt("single-start", said), *(_of_swings(name) for name in swinging)]


def _of_swings(name: str) -> dict[str, Any]:
    said = (
        f"{name}: the server's speed swings for a good part of the run, so one run each hardly"
        " tells which is faster, and the intervals are wide. Run each several times as long (20"
        " swings would do), or several times, in turns."
    )
    return {**_doubt("slow-swings", said), "at": name}


def _doubt(code: str, said: str) -> dict[str, Any]:
    return {"code": code, "level": None, "at": None, "metrics": [], "text": said}


def _percent_of(before: float | None, after: float | None) -> float | None:
    if not before or after is None:
        return None
    return significant(100 * (after / before - 1))


def _rounded(value: float | None) -> float | None:
    return None if value is None else significant(value)
