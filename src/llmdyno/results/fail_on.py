"""`--fail-on`: by how much a metric may be worse before a comparison ends with status 1.

A limit is missed only if the whole 95 % interval lies beyond it, so what is noise fails nothing.
`--fail-on-doubt` turns that round: what the interval cannot exclude, what cannot be compared and
what a doubt spoils fails as well. A limit that was judged nowhere never passes: status 3.

At a level where requests fail that the first side serves, beyond chance, every limit is missed: the
others are quick because these are refused. Goodput, where it has a value, counts them by itself.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import msgspec

from llmdyno.errors import UsageError, nearest
from llmdyno.results.documents import Document, interval, items, number, text, texts
from llmdyno.results.metrics import BY_NAME, by_flag

State = Literal["passed", "failed", "doubtful", "not comparable"]
EXIT_FAILED, EXIT_NOTHING_JUDGED = 1, 3
_SHAPE = re.compile(r"(\w+)(?::(\w+))?\s*:\s*([+-]?)\s*(\d+(?:\.\d+)?)\s*(%?)")
_EXAMPLE = "token_rate:-5% or ttft:p99:+10%"


class Limit(msgspec.Struct, frozen=True, kw_only=True):
    """One limit, e.g. token_rate:-5%."""

    expr: str
    metric: str  # a name of the metrics table
    stat: str
    share: float  # signed: -0.05 allows 5 % less

    @property
    def key(self) -> tuple[str, str]:
        """The metric and its statistic."""
        return self.metric, self.stat


class Judged(msgspec.Struct, frozen=True, kw_only=True):
    """What a level says of a limit. Its fields are the keys of a gate's "limits"."""

    expr: str
    after: str  # the name of the side that was judged
    at: str
    state: State
    fails: bool
    said: str


def parse_limits(given: str | None) -> tuple[Limit, ...]:
    """Read 'token_rate:-5%,ttft:p99:+10%'; semicolons divide as commas do.

    Raises:
        UsageError: names the expression and what would be right.
    """
    if given is None:
        return ()
    parts = [part.strip() for part in re.split(r"[,;]", given) if part.strip()]
    if not parts:
        raise UsageError(f"--fail-on '{given}': names no metric; write {_EXAMPLE}.")
    limits = tuple(_parse(part) for part in parts)
    for place, limit in enumerate(limits):
        if limit.key in {other.key for other in limits[:place]}:
            raise UsageError(f"--fail-on {limit.expr}: that metric has a limit already; give one.")
    return limits


def _parse(expr: str) -> Limit:
    match = _SHAPE.fullmatch(expr)
    if match is None:
        raise UsageError(
            f"--fail-on {expr}: write metric:change or metric:stat:change, {_EXAMPLE}."
        )
    name, stat, sign, digits, percent = match.groups()
    known = by_flag()
    metric = name if name in BY_NAME else known.get(name)
    if metric is None:
        raise UsageError(f"--fail-on {expr}: no metric '{name}'.{nearest(name, known)}")
    row = BY_NAME[metric]
    stat = stat or ("p99" if row.observe is not None else "mean")
    if stat not in row.statistics:
        allowed = ", ".join(row.statistics)
        raise UsageError(f"--fail-on {expr}: '{stat}' is no statistic of {name}; use {allowed}.")
    worse = "-" if row.better == "higher" else "+"
    if sign != worse:
        way = "falls" if worse == "-" else "rises"
        raise UsageError(
            f"--fail-on {expr}: {name} is worse when it {way}; write {worse}{digits}%."
        )
    if not percent:
        raise UsageError(f"--fail-on {expr}: is a share; write {sign}{digits}%.")
    share = float(digits) / 100
    if worse == "-" and share >= 1:
        raise UsageError(f"--fail-on {expr}: nothing falls by {digits}%; write less than 100%.")
    return Limit(expr=expr, metric=metric, stat=stat, share=-share if worse == "-" else share)


def judge(
    limits: Sequence[Limit], comparisons: Sequence[Document], *, strict: bool
) -> dict[str, Any] | None:
    """Judge comparisons by limits; None: there are none.

    Returns:
        The "gate" of a comparison's document: "status" is what the command ends with.
    """
    if not limits:
        return None
    judged = [
        _judged(limit, comparison, row, strict=strict)
        for comparison in comparisons
        for limit in limits
        for row in items(comparison, "rows")
        if (row["metric"], row["stat"]) == limit.key
    ]
    judged += [
        _of_one_side(limit, text(comparison, "after", "name"), alone, strict=strict)
        for comparison in comparisons
        for limit in limits
        for alone in texts(comparison, "only_in_one")
    ]
    unjudged = [
        (limit.expr, text(comparison, "after", "name"), _why_unjudged(limit, comparison))
        for comparison in comparisons
        for limit in limits
        if not any(
            one.state != "not comparable"
            for one in judged
            if (one.expr, one.after) == (limit.expr, text(comparison, "after", "name"))
        )
    ]
    failed = [one for one in judged if one.fails]
    if failed or (strict and unjudged):
        status = EXIT_FAILED
    else:
        status = EXIT_NOTHING_JUDGED if unjudged else 0
    return {
        "fail_on": [limit.expr for limit in limits],
        "strict": strict,
        "status": status,
        "said": _said(failed, unjudged, judged, status),
        "limits": [msgspec.to_builtins(one) for one in judged],
    }


def _judged(limit: Limit, comparison: Document, row: Mapping[str, Any], *, strict: bool) -> Judged:
    after = text(comparison, "after", "name")
    state, said = _state(limit, row)
    counts_them = limit.metric == "goodput" and state != "not comparable"
    if not counts_them and (lost := _lost(comparison, row["at"])):
        state, said = "failed", lost
    spoilt = texts(row, "doubts")
    fails = state == "failed" or (strict and state != "passed")
    if strict and not fails and spoilt:
        fails, state = True, "doubtful"
        said = f"{said}, but {', '.join(spoilt)} spoils it"
    return Judged(expr=limit.expr, after=after, at=row["at"], state=state, fails=fails, said=said)


def _lost(comparison: Document, at: str) -> str:
    """Say which share of a level's requests fails that the first side serves; empty: none."""
    return next(
        (
            text(one, "said")
            for one in items(comparison, "requests")
            if one["at"] == at and one["verdict"] == "worse"
        ),
        "",
    )


def _of_one_side(limit: Limit, after: str, alone: str, *, strict: bool) -> Judged:
    """Judge a level that one side lacks: "3 users: measured in b only"."""
    at, _, why = alone.rpartition(": ")
    said = f"not comparable: {why}"
    return Judged(
        expr=limit.expr, after=after, at=at, state="not comparable", fails=strict, said=said
    )


def _state(limit: Limit, row: Document) -> tuple[State, str]:
    bounds, mean = interval(row, "ci95_pct"), number(row, "difference_pct")
    if row["verdict"] == "not comparable" or bounds is None or mean is None:
        why = text(row, "why") or "0 in some run: there is no percentage"
        return "not comparable", f"not comparable: {why}"
    allowed = 100 * limit.share
    told = f"{mean:+.3g} % [{bounds[0]:+.3g}, {bounds[1]:+.3g}], and {allowed:+g} % is allowed"
    falls = BY_NAME[limit.metric].better == "higher"  # when it is worse
    beyond = [bound < allowed if falls else bound > allowed for bound in bounds]
    if all(beyond):
        return "failed", told
    return ("doubtful", f"{told}: more cannot be excluded") if any(beyond) else ("passed", told)


def _why_unjudged(limit: Limit, comparison: Document) -> str:
    """Say why a limit was judged nowhere."""
    for row in items(comparison, "rows"):
        if (row["metric"], row["stat"]) == limit.key:
            return text(row, "why") or "0 in some run: there is no percentage"
    return text(comparison, "why") or "no level has a value of it"


def _said(
    failed: Sequence[Judged],
    unjudged: Sequence[tuple[str, str, str]],
    judged: Sequence[Judged],
    status: int,
) -> str:
    """Say in a sentence what a gate found."""
    if failed:
        shown = "; ".join(f"{one.expr} at {one.at} ({one.said})" for one in failed[:3])
        more = f"; and {len(failed) - 3} more" if len(failed) > 3 else ""
        return f"--fail-on failed: {shown}{more}."
    if status:
        shown = "; ".join(f"{expr} ({why})" for expr, _, why in unjudged)
        return f"--fail-on compared nothing for {shown}: this is no pass."
    left = [one for one in judged if one.state == "not comparable"]
    less = f"; {len(left)} of {len(judged)} could not be compared" if left else ""
    return f"--fail-on passed: no limit is shown to be missed{less}."
