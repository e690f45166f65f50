"""The facts of a run and of each of its levels, read from the journal: all numbers come of them."""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec

from llmdyno.errors import StorageError
from llmdyno.faults import is_too_long
from llmdyno.records.columns import Collector, Columns
from llmdyno.records.entries import (
    Calibration,
    CpuEnergy,
    GpuSample,
    LevelEnded,
    LevelStarted,
    Opened,
    Record,
    Scrape,
    Settled,
    Tick,
    WorkerHost,
)
from llmdyno.records.journal import read_journal
from llmdyno.results.energy import of_samples

_Beside = Scrape | GpuSample | CpuEnergy | Settled  # what was seen beside the requests

# From the most trusted to the least. A level is labelled with its least trusted source.
SOURCES = ("usage", "server-tokenizer", "tokenizer", "chunks")


class Prefix(msgspec.Struct, frozen=True):
    """How one prompt begins, where the workload has its prompts hashed."""

    sent_ns: int
    input_tokens: int
    blocks: tuple[int, ...]
    characters: tuple[int, ...]  # of the prompt's parts


class LevelFacts(msgspec.Struct, frozen=True, kw_only=True):
    """What the journal says of one level."""

    started: LevelStarted
    ended: LevelEnded | None = None
    columns: Columns
    errors: Mapping[str, int]
    examples: Mapping[str, str]  # the first detail of each class of errors
    too_long: int = 0  # requests that the server refused for their length
    source: str
    by_source: Mapping[str, int]  # output tokens
    unstreamed: int = 0  # tokens that the server counts beyond them
    oddities: Mapping[str, int] = {}  # completed requests whose stream was odd in such a way
    finishes: Mapping[str, int] = {}  # completed requests by the reason why their answer ended
    # Completed requests by the model that was asked, and the one that the server says answered;
    # without those of which it names none.
    answered_by: Mapping[str, Mapping[str, int]] = {}
    ticks: Sequence[Tick]
    last_ns: int  # the latest time of an entry of the level
    by_model: Mapping[str, Columns] = {}  # where several were asked; the level's columns, divided
    prompts: Sequence[tuple[int, int]] = ()  # of each request: which item, its input tokens
    prefixes: Sequence[Prefix] = ()
    scrapes: Sequence[Scrape] = ()
    gpus: Sequence[GpuSample] = ()
    hosts: Sequence[WorkerHost] = ()
    settled: Settled | None = None  # None: nothing was waited for before it

    @property
    def end_ns(self) -> int:
        """When the level was over, or the journal broke off."""
        return self.ended.end_ns if self.ended else self.last_ns

    @property
    def full_until_ns(self) -> int:
        """When the load began to fall."""
        return self.ended.full_until_ns if self.ended else self.last_ns


class RunFacts(msgspec.Struct, frozen=True, kw_only=True):
    """What the journal says of a run."""

    opened: Opened
    calibration: Calibration | None
    levels: Sequence[LevelFacts]


def read_levels(journal: Path) -> tuple[Opened, list[LevelFacts]]:
    """Read the levels of a run's journal.

    Raises:
        StorageError: it cannot be read, or is no journal.
    """
    facts = read_run(journal)
    return facts.opened, list(facts.levels)


def read_run(journal: Path) -> RunFacts:
    """Read a run's journal.

    Raises:
        StorageError: it cannot be read, or is no journal.
    """
    entries = read_journal(journal)
    opened = next(entries, None)
    if not isinstance(opened, Opened):
        raise StorageError(f"{journal}: is no journal of a run: it lacks the first line.")
    calibration = None
    model = str(opened.spec.get("model") or "")
    open_levels: dict[int, _LevelReader] = {}
    beside: defaultdict[int, list[_Beside]] = defaultdict(list)  # also before the level
    for entry in entries:
        match entry:
            case LevelStarted():
                open_levels[entry.level] = _LevelReader(entry, model)
            case Scrape() | GpuSample() | CpuEnergy() | Settled():
                beside[entry.level].append(entry)
            case Calibration():
                calibration = entry
            case (
                Record() | Tick() | LevelEnded() | WorkerHost()
            ):  # the level's own end holds those of its workers' shares
                open_levels[entry.level].take(entry)
    price = opened.spec.get("price_per_h")
    levels = [
        level.facts(beside[number], price if isinstance(price, int | float) else None)
        for number, level in open_levels.items()
    ]
    return RunFacts(opened=opened, calibration=calibration, levels=levels)


class _LevelReader:
    """Takes in one level's entries and makes its facts of them."""

    def __init__(self, started: LevelStarted, model: str) -> None:
        self._started = started
        self._model = model  # of requests that name none
        self._ended: LevelEnded | None = None
        self._records = Collector()
        self._by_model: defaultdict[str, Collector] = defaultdict(Collector)
        self._errors: Counter[str] = Counter()
        self._examples: dict[str, str] = {}
        self._too_long = 0
        self._by_source: Counter[str] = Counter()
        self._unended_by_source: Counter[str] = Counter()
        self._unstreamed = 0
        self._oddities: Counter[str] = Counter()
        self._finishes: Counter[str] = Counter()
        self._answered_by: defaultdict[str, Counter[str]] = defaultdict(Counter)
        self._ticks: list[Tick] = []
        self._prompts: list[tuple[int, int]] = []
        self._prefixes: list[Prefix] = []
        self._hosts: dict[int, WorkerHost] = {}
        self._last_ns = started.start_ns

    def take(self, entry: Record | Tick | LevelEnded | WorkerHost) -> None:
        if isinstance(entry, Record):
            self._records.add(entry)
            if entry.model:
                self._by_model[entry.model].add(entry)
            self._prompts.append((entry.prompt, entry.input_tokens))
            if entry.blocks and entry.input_tokens > 0:
                self._prefixes.append(
                    Prefix(entry.sent_ns, entry.input_tokens, entry.blocks, entry.characters)
                )
            if entry.error:
                self._errors[entry.error] += 1
                self._examples.setdefault(entry.error, entry.detail)
                self._too_long += is_too_long(entry.error, entry.detail)
            if entry.output_tokens:
                # A request that was cut, or failed, never received its usage. Its source says
                # nothing about the server, so it is counted by itself.
                ended = entry.outcome == "completed"
                counts = self._by_source if ended else self._unended_by_source
                counts[entry.source] += entry.output_tokens
            self._unstreamed += entry.unstreamed
            if entry.outcome == "completed":  # what is odd of a part may be well of the whole
                self._oddities.update(entry.oddities)
                if entry.finish:
                    self._finishes[entry.finish] += 1
                if entry.answered_by:  # some servers and protocols name none
                    self._answered_by[entry.model or self._model][entry.answered_by] += 1
            self._last_ns = max(self._last_ns, entry.sent_ns + entry.end_ns)
        elif isinstance(entry, Tick):
            self._ticks.append(entry)
            self._last_ns = max(self._last_ns, entry.t_ns)
        elif isinstance(entry, WorkerHost):
            self._hosts[entry.worker] = entry
        else:
            self._ended = entry

    def facts(self, beside: Sequence[_Beside], price_per_h: float | None) -> LevelFacts:
        gpus = [entry for entry in beside if isinstance(entry, GpuSample)]
        cpus = [entry for entry in beside if isinstance(entry, CpuEnergy)]
        return LevelFacts(
            started=self._started,
            ended=self._ended,
            columns=msgspec.structs.replace(
                self._records.columns(),
                unsent_due_ns=self._ended.unsent_due_ns if self._ended else (),
                energy=of_samples(gpus, cpus),
                price_per_h=price_per_h,
            ),
            by_model={name: own.columns() for name, own in sorted(self._by_model.items())},
            errors=dict(self._errors.most_common()),
            examples=self._examples,
            too_long=self._too_long,
            source=max(self._by_source or self._unended_by_source or ["usage"], key=SOURCES.index),
            by_source=dict(self._by_source + self._unended_by_source),
            unstreamed=self._unstreamed,
            oddities=dict(self._oddities),
            finishes=dict(self._finishes.most_common()),
            answered_by={
                asked: dict(names.most_common()) for asked, names in self._answered_by.items()
            },
            ticks=self._ticks,
            last_ns=self._last_ns,
            prompts=self._prompts,
            prefixes=self._prefixes,
            scrapes=[entry for entry in beside if isinstance(entry, Scrape)],
            gpus=gpus,
            hosts=list(self._hosts.values()),
            settled=next((entry for entry in beside if isinstance(entry, Settled)), None),
        )


def by_point(levels: Sequence[LevelFacts]) -> list[list[LevelFacts]]:
    """Return the levels of each load point, its repeats together."""
    points: list[list[LevelFacts]] = []
    places: Counter[int] = Counter()  # of a round: how many of its levels have been seen
    for facts in levels:
        place = places[facts.started.repeat]
        places[facts.started.repeat] += 1
        if place == len(points):
            points.append([])
        points[place].append(facts)
    return points
