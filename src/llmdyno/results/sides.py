"""The sides of a comparison: one start of what was measured or several, each with its rounds.

A start is one run: what a journal holds, or a summary alone where that is all there is (another
tool's file). Its rounds are those of `--repeat`. Several starts of one side are equal runs.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np

from llmdyno import store
from llmdyno.errors import UsageError
from llmdyno.results import doubts
from llmdyno.results.documents import Document, interval, items, levels, number, part, text
from llmdyno.results.effects import Observation, observation
from llmdyno.results.facts import LevelFacts, by_point, read_run
from llmdyno.results.measures import meeting
from llmdyno.results.metrics import BY_NAME, Metric
from llmdyno.results.slo import Slo, parse_slos
from llmdyno.results.stats import STATISTICS, Floats
from llmdyno.results.summary import summarise
from llmdyno.results.window import steady_window
from llmdyno.store import JOURNAL, SUMMARY

Kind = Literal["run", "import", "rounds of runs", "study"]
_NORMAL = 1.96  # of a 95 % interval
_ROUND_KEYS = {  # what an entry of "repeats" has
    ("token_rate", "mean"): "token_rate",
    ("ttft_ms", "p50"): "ttft_ms_p50",
    ("ttft_ms", "p99"): "ttft_ms_p99",
}


class Lengths(NamedTuple):
    """How many tokens the completed requests of a level have in the mean, each way."""

    mean: float
    error: float  # its standard error; 0: not known


class Start:
    """One run, read once.

    Args:
        folder: of the run, or the file of another tool.
        summary: its document, where that is all there is; None: the folder has it.

    Raises:
        UsageError: the folder holds no run.
        StorageError: what it holds cannot be read.
    """

    def __init__(self, folder: Path, summary: Document | None = None) -> None:
        self.folder = folder
        self._points: dict[str, list[LevelFacts]] = {}
        self._seen: dict[tuple[str, str, str], list[Observation]] = {}
        if summary is not None:
            self.summary: Document = summary
        elif (folder / JOURNAL).exists():
            self.summary = summarise(folder / JOURNAL)
            facts = read_run(folder / JOURNAL)
            self._points = dict(zip(levels(self.summary), by_point(facts.levels), strict=True))
        elif (folder / SUMMARY).exists():
            stored = store.read_document(folder / SUMMARY)
            self.summary = {**stored, "doubts": doubts.entries(stored)}
        else:
            raise UsageError(f"{folder}: holds neither a run nor a study.")
        self.levels = levels(self.summary)
        self._slos = _slos(self.summary)

    @property
    def run(self) -> str:
        """The id by which `dyno runs` lists it; the folder's name where the document has none."""
        return text(self.summary, "run") or self.folder.name

    @property
    def is_imported(self) -> bool:
        """Whether another tool measured it."""
        return bool(part(self.summary, "imported"))

    def rounds(self, name: str) -> int:
        """Return how often a level was run."""
        return max(1, len(self._points.get(name, ())), len(items(self.levels[name], "repeats")))

    def observations(self, name: str, metric: str, stat: str) -> list[Observation]:
        """Return what each round of a level tells of a statistic; none: it has no value."""
        key = (name, metric, stat)
        if key not in self._seen:
            self._seen[key] = self._observed(*key)
        return self._seen[key]

    def lengths(self, name: str) -> dict[str, Lengths]:
        """Return the lengths of a level's "prompts" and "answers", as far as they are known."""
        if name in self._points:
            return _lengths(self._points[name])
        level = self.levels[name]
        completed = number(level, "requests", "completed")
        found = {}
        for what, key in (("prompts", "input"), ("answers", "output")):
            tokens = number(level, "tokens", key)
            if tokens and completed:
                found[what] = Lengths(tokens / completed, 0.0)
        return found

    def _observed(self, name: str, metric: str, stat: str) -> list[Observation]:
        level = self.levels.get(name)
        if level is None or number(level, metric, stat) is None:
            return []
        if name not in self._points:
            return _from_summary(level, metric, stat)
        row = BY_NAME[metric]
        found = [_of_round(facts, row, stat, self._slos) for facts in self._points[name]]
        return [one for one in found if one is not None] if None not in found else []


class Side(NamedTuple):
    """What is compared: a name, and the starts that were measured for it."""

    name: str
    kind: Kind
    starts: Sequence[Start]

    @property
    def first(self) -> Start:
        """The start whose summary stands for all of them where one has to."""
        return self.starts[0]

    @property
    def levels(self) -> list[str]:
        """The names of the levels that all starts have."""
        return [
            name for name in self.first.levels if all(name in one.levels for one in self.starts)
        ]

    def observations(self, name: str, metric: str, stat: str) -> list[list[Observation]]:
        """Return what each start tells of a level's statistic; none: some start has no value."""
        found = [start.observations(name, metric, stat) for start in self.starts]
        return found if all(found) else []

    def told(self) -> dict[str, Any]:
        """Return what a document says of the side."""
        return {
            "name": self.name,
            "kind": self.kind,
            "runs": [start.run for start in self.starts],
            "dirs": [str(start.folder) for start in self.starts],
            "rounds": max((self.first.rounds(name) for name in self.levels), default=0),
        }


def in_turns(before: Side, after: Side) -> list[bool]:
    """Return the starts of two sides in the order in which they were made, True for after.

    Nothing is returned unless they took turns: each two of them hold one of either side.
    """
    made = [
        (text(start.summary, "started"), is_after)
        for side, is_after in ((before, False), (after, True))
        for start in side.starts
    ]
    if len(made) < 4 or not all(started for started, _ in made):
        return []
    row = [is_after for _, is_after in sorted(made)]
    pairs = list(zip(row[::2], row[1::2], strict=False))
    whole = len(pairs) * 2 == len(row)
    return row if whole and all(one != other for one, other in pairs) else []


def _slos(summary: Document) -> tuple[Slo, ...]:
    said = [text(slo, "expr") for slo in items(part(summary, "spec"), "slos")]
    return parse_slos(",".join(one for one in said if one))


def _of_round(facts: LevelFacts, row: Metric, stat: str, slos: Sequence[Slo]) -> Observation | None:
    """Return what one round tells of a statistic; None: it has no value there."""
    window = steady_window(facts)
    statistic = STATISTICS[stat]
    if row.rate is not None:
        rates = row.rate(facts.columns, window, meeting(facts.columns, slos))
        if rates is None or not len(rates):
            return None
        return observation(rates, statistic, float(rates.mean()))
    assert row.observe is not None, "a metric is a latency or a rate"
    seen = row.observe(facts.columns, window)
    values: Floats = np.asarray(seen.values, dtype=np.float64)
    if not len(values):
        return None
    return observation(values, statistic, statistic.of(values, seen.weights))


def _from_summary(level: Document, metric: str, stat: str) -> list[Observation]:
    """Return what a summary alone tells: each round's value, or the one with its interval."""
    key = _ROUND_KEYS.get((metric, stat), "")
    rounds = [number(one, key) for one in items(level, "repeats")]
    if len(rounds) > 1 and all(rounds):
        return [Observation(value) for value in rounds if value is not None]
    value = number(level, metric, stat)
    assert value is not None, "the caller has looked"
    bounds = interval(level, metric, "ci95" if stat == "mean" else f"{stat}_ci95")
    inside = None if bounds is None else ((bounds[1] - bounds[0]) / 2 / _NORMAL) ** 2
    return [Observation(value, inside)]


def _lengths(rounds: Sequence[LevelFacts]) -> dict[str, Lengths]:
    found = {}
    for what in ("prompts", "answers"):
        tokens = np.concatenate([_tokens(facts, what) for facts in rounds]).astype(np.float64)
        if len(tokens):
            error = float(tokens.std()) / len(tokens) ** 0.5
            found[what] = Lengths(float(tokens.mean()), error)
    return found


def _tokens(facts: LevelFacts, what: str) -> Any:
    """Return the tokens of the completed requests; of a prompt that was not counted, none."""
    columns = facts.columns
    completed = columns.outcome == 0
    if what == "answers":
        return columns.output_tokens[completed]
    counted = columns.input_tokens[completed]
    return counted[counted > 0]
