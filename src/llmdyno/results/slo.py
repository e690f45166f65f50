"""Thresholds and objectives: one statistic of one metric, as the command line writes it.

The table of metrics is imported where it is read: it brings numpy, and a help does without.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

import msgspec

from llmdyno.errors import UsageError, nearest
from llmdyno.results.documents import level_name

if TYPE_CHECKING:
    from llmdyno.results.stats import Statistic


class Slo(msgspec.Struct, frozen=True, kw_only=True):
    """One threshold, e.g. ttft:p99<2s. `limit` is in the metric's own unit."""

    expr: str
    metric: str  # a name of the metrics table
    stat: str  # mean, p50, p90, p95, p99, max
    relation: Literal["<", ">"]
    limit: float


def read_stat(document: Mapping[str, Any], metric: str, stat: str) -> float | None:
    """Return one statistic of one metric from a level of a summary; None if it has no value."""
    values = document.get(metric)
    return None if values is None else values.get(stat)


class Judged(msgspec.Struct, frozen=True, kw_only=True):
    """What a level says of an SLO."""

    met: bool
    value: float | None  # None: nothing was measured, or it lies beyond all that was seen
    at_least: float | None = None  # the lower bound of a value beyond all that was seen
    failed_share: float | None = None  # of the requests, if so many failed that it is missed


# A level of which more failed than this has no p99: they had no answer, however long one waited.
_FAILED_SHARE_MAX = 0.01


def judge(slo: Slo, level: Mapping[str, Any]) -> Judged:
    """Judge a level of a summary by an SLO.

    A latency is missed, however quick the others were, where so many requests failed that the
    statistic is one of those: more than 1 % for p99, mean and max, 10 % for p90, half for p50.
    """
    judged = _judge_answered(slo, level)
    share = failed_beyond(slo, level)
    if judged.met and share is not None:
        return msgspec.structs.replace(judged, met=False, failed_share=round(share, 6))
    return judged


def failed_beyond(slo: Slo, level: Mapping[str, Any]) -> float | None:
    """Return which share of the requests failed, where an SLO is missed for that; else None.

    It is of those that ended: nobody knows what would have become of one that the level's end cut.
    """
    requests = level.get("requests") or {}
    failed, completed = requests.get("failed") or 0, requests.get("completed") or 0
    share = failed / (failed + completed) if failed else 0.0
    return share if share > _failed_share_max(slo) else None


def verdicts(slos: Iterable[Slo], level: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Judge a level of a summary by each SLO, as entries of the summary's `slo`."""
    found = []
    for slo in slos:
        judged = judge(slo, level)
        beside = {"at_least": judged.at_least, "failed_share": judged.failed_share}
        found.append(
            {
                "expr": slo.expr,
                "level": level["rate"] if level["users"] is None else level["users"],
                "at": level_name(level),
                "value": judged.value,
                "met": judged.met,
                **{name: value for name, value in beside.items() if value is not None},
            }
        )
    return found


def shift(met: Mapping[str, Sequence[bool]]) -> float:
    """Return by how much more of the runs with some settings met all SLOs than of those without.

    Args:
        met: whether each run did, of those "with" the settings and "without".

    Returns:
        -1 to 1; 0 where one of the two has no run.
    """
    whole, without = met.get("with") or (), met.get("without") or ()
    return sum(whole) / len(whole) - sum(without) / len(without) if whole and without else 0.0


def _failed_share_max(slo: Slo) -> float:
    """Return the largest share of failed requests with which an SLO may be met."""
    from llmdyno.results.metrics import BY_NAME
    from llmdyno.results.stats import STATISTICS

    if BY_NAME[slo.metric].observe is None:  # rates count what was completed
        return 1.0
    share = STATISTICS[slo.stat].share
    return _FAILED_SHARE_MAX if share is None else max(_FAILED_SHARE_MAX, round(1 - share, 9))


def _judge_answered(slo: Slo, level: Mapping[str, Any]) -> Judged:
    """Judge a level by those that were answered, and those that waited at the window's end.

    The latter count by Kaplan and Meier. Where they put the value beyond all that was seen, the SLO
    is missed, unless it would be met with the values that these requests had after the window.
    """
    value = read_stat(level, slo.metric, slo.stat)
    counted = (level.get(slo.metric) or {}).get("kaplan_meier") or {}
    if slo.stat not in (level.get(slo.metric) or {}).get("moved", counted):
        return Judged(met=_meets(slo, value), value=value)
    if counted[slo.stat] is not None:
        return Judged(met=_meets(slo, counted[slo.stat]), value=counted[slo.stat])
    bounds = level[slo.metric]
    later = bounds.get("answered_later", {}).get(slo.stat)
    if _meets(slo, later):
        return Judged(met=True, value=later)
    return Judged(met=False, value=None, at_least=bounds.get("at_least", {}).get(slo.stat))


def _meets(slo: Slo, value: float | None) -> bool:
    if value is None:
        return False
    return value < slo.limit if slo.relation == "<" else value > slo.limit


_UNITS_MS = {"us": 1e-3, "ms": 1.0, "s": 1e3, "m": 60e3}


_SLO = re.compile(r"(\w+)\s*(?::\s*(\w+))?\s*([<>])\s*=?\s*(.*)")
_LIMIT = re.compile(r"(\d+(?:\.\d+)?)\s*([^\W\d]*(?:/\w+)?)")
_DIVIDER = re.compile(r";|,(?!\d)")  # before a digit a comma is a part of a number
# What llm-optimizer of BentoML, whose constraints are written alike, calls what we have.
_OTHER_METRICS = {"e2e_latency": "e2e"}
_OTHER_STATS = {"median": "p50", "avg": "mean"}


def parse_slos(text: str | None) -> tuple[Slo, ...]:
    """Read 'ttft:p99<2s,tpot:p95<50ms,token_rate>1000'; semicolons divide as commas do.

    A comma that a digit follows divides nothing: of '1,5s' it is a part, which is no number here.

    Raises:
        UsageError: names the expression and what would be right.
    """
    return tuple(_parse_slo(part.strip()) for part in _DIVIDER.split(text or "") if part.strip())


def _parse_slo(expr: str) -> Slo:
    from llmdyno.results.metrics import BY_NAME, by_flag

    match = _SLO.fullmatch(expr)
    if match is None:
        raise UsageError(f"--slo {expr}: write metric:stat<limit, e.g. ttft:p99<2s.")
    name, stat, relation, given = match.groups()
    name, stat = name.lower(), (stat or "").lower()
    read = _LIMIT.fullmatch(given.lower())
    if read is None:
        raise UsageError(f"--slo {expr}: '{given}' is no limit; write a number, e.g. 200ms or 2s.")
    number, unit = read.groups()
    name, stat = _OTHER_METRICS.get(name, name), _OTHER_STATS.get(stat, stat)
    known = by_flag()
    metric = name if name in BY_NAME else known.get(name)
    if metric is None:
        raise UsageError(f"--slo {expr}: no metric '{name}'.{nearest(name, known)}")
    latency = BY_NAME[metric].unit == "ms"
    stat = stat or ("p99" if latency else "mean")
    allowed = BY_NAME[metric].statistics
    if stat not in allowed:
        raise UsageError(
            f"--slo {expr}: '{stat}' is no statistic of {name}; use {', '.join(allowed)}."
        )
    if (BY_NAME[metric].better == "lower") != (relation == "<"):
        wanted = "<" if relation == ">" else ">"
        raise UsageError(f"--slo {expr}: {name} is better {BY_NAME[metric].better}; use {wanted}.")
    if latency != bool(unit):
        hint = f"is in {BY_NAME[metric].unit}; write the number alone"
        if latency:
            hint = "needs a unit, e.g. 200ms or 2s"
        raise UsageError(f"--slo {expr}: {name} {hint}.")
    if latency and unit not in _UNITS_MS:
        raise UsageError(f"--slo {expr}: '{unit}' is no unit here; write us, ms, s or m.")
    limit = float(number) * (_UNITS_MS[unit] if latency else 1.0)
    if relation == "<" and limit <= 0:
        raise UsageError(f"--slo {expr}: nothing is below {number}{unit}; give a larger limit.")
    better: Literal["<", ">"] = "<" if relation == "<" else ">"
    return Slo(expr=expr, metric=metric, stat=stat, relation=better, limit=limit)


class Objective(msgspec.Struct, frozen=True, kw_only=True):
    """What the tuner makes better: one statistic of one metric."""

    metric: str
    stat: str

    @property
    def statistic(self) -> "Statistic":
        """What makes its value of observations."""
        from llmdyno.results.stats import STATISTICS

        return STATISTICS[self.stat]

    @property
    def key(self) -> str:
        """The name of its ratio in study.json: "token_rate", "goodput", "ttft_ms_p50"."""
        from llmdyno.results.metrics import BY_NAME

        return self.metric if BY_NAME[self.metric].rate else f"{self.metric}_{self.stat}"

    @property
    def maximise(self) -> bool:
        """Whether larger is better."""
        from llmdyno.results.metrics import BY_NAME

        return BY_NAME[self.metric].better == "higher"

    def __str__(self) -> str:
        """Write it as the command line takes it."""
        # The same as Metric.flag, without importing the table: a command's help shows the default
        # objective, and must not wait for numpy.
        return f"{self.metric.removesuffix('_ms')}:{self.stat}"


def parse_objective(text: str) -> Objective:
    """Read 'token_rate', 'ttft:p50' and the like.

    Raises:
        UsageError: names the text and what would be right.
    """
    from llmdyno.results.metrics import BY_NAME, by_flag

    name, _, stat = text.partition(":")
    known = by_flag()
    metric = name if name in BY_NAME else known.get(name)
    if metric is None:
        raise UsageError(f"--objective {text}: no metric '{name}'.{nearest(name, known)}")
    allowed = BY_NAME[metric].statistics
    stat = stat or allowed[min(1, len(allowed) - 1)]
    if stat not in allowed:
        raise UsageError(
            f"--objective {text}: '{stat}' is no statistic of {name}; use {', '.join(allowed)}."
        )
    return Objective(metric=metric, stat=stat)


# The metrics that every comparison of two configs reports, whatever the objective is.
HEADLINES = (
    Objective(metric="token_rate", stat="mean"),
    Objective(metric="ttft_ms", stat="p50"),
)
