"""The ledger of a study: one line for every config that was measured, appended as it is known.

With the runs' own journals it holds all that a study has found out: study.json, the report and
`--resume` are made from it.
"""

import os
import shlex
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from time import monotonic
from typing import Any

import msgspec

from llmdyno.errors import StorageError
from llmdyno.store import LEDGER, RUNS
from llmdyno.tune import commands
from llmdyno.tune.entries import (
    OUT_OF_BUDGET,
    VERSION,
    Began,
    Entry,
    Event,
    Key,
    Out,
    Phase,
    Step,
    key,
)
from llmdyno.tune.spec import Study
from llmdyno.units import counted

_OF_CONTENDERS: frozenset[Phase] = frozenset({"best", "confirm", "ablation"})
_PLAN_OF_PAIRS = frozenset({"pairs", "max_pairs", "confirm_until"})  # fields of the spec
_decoder: msgspec.json.Decoder[Entry] = msgspec.json.Decoder(Entry)


class _Version(msgspec.Struct):
    version: int = VERSION


class Ledger:
    """A study's ledger: read when it is opened, written by append() alone.

    Raises:
        StorageError: there is one, and it cannot be read.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / LEDGER
        self.began: Began | None = None
        # But for the failures that were the machine's, and for what is gone.
        self.steps: list[Step] = []
        self.voided: list[Step] = []  # those
        self.events: list[Event] = []
        self.spent_s = 0.0  # by all steps, those that do not count too, and by what was asked
        self.stopped: Event | None = None  # why nothing was measured since
        self._begun: dict[Key, Out] = {}  # beside others, in that order
        self._ended: set[Key] = set()  # of those
        # Why some of those, and of what was to be measured again, never will be.
        self.withdrawn: dict[Key, str] = {}
        self._torn_at: int | None = None
        if self.path.exists():
            self._read()

    def _read(self) -> None:
        try:
            content = self.path.read_bytes()
        except OSError as error:
            raise StorageError(f"cannot read {self.path}: {error.strerror}.") from error
        whole, _, torn = content.rpartition(b"\n")
        if torn:  # a kill in the middle of a line: what it said is lost, the next takes its place
            self._torn_at = len(content) - len(torn)
        bad: dict[int, str] = {}
        lines = whole.split(b"\n") if whole else []
        for number, line in enumerate(lines, 1):
            try:
                self._refuse_newer(line)
                entry = _decoder.decode(line)
            except (msgspec.MsgspecError, UnicodeDecodeError) as error:
                bad[number] = str(error)
            else:
                self._take(entry)
        if bad:
            raise StorageError(self._damaged(bad, len(lines)))

    def _damaged(self, bad: Mapping[int, str], lines: int) -> str:
        """Say which lines cannot be read, what is kept, and how to go on."""
        first = next(iter(bad))
        named = f"line {first}" if len(bad) == 1 else f"lines {', '.join(map(str, bad))}"
        said = f"{self.path}, {named}: cannot be read: {bad[first]}"
        said = f"{said.rstrip('.')}. "
        if self.began is None:
            return said + (
                "What is studied stood there, so the study cannot go on; the runs in"
                f" {self.path.parent / RUNS} are whole (dyno report RUN). Begin another study."
            )
        kept = counted(lines - len(bad), "other line")
        cut = ";".join(f"{number}d" for number in bad)
        return said + (
            f"{kept[0].upper()}{kept[1:]} can be, and nothing was changed. If a newer llmdyno wrote"
            " it, use that one. If it is damaged, go on without; a run that stood there is"
            f" measured again, and an event is lost: sed -i.damaged '{cut}'"
            f" {shlex.quote(str(self.path))} && {commands.resume(self.path.parent)}"
        )

    def _refuse_newer(self, line: bytes) -> None:
        """Refuse a ledger whose lines may mean something else."""
        version = msgspec.json.decode(line, type=_Version).version
        if version != VERSION:
            raise StorageError(
                f"{self.path}: is a ledger of version {version}; this llmdyno reads version"
                f" {VERSION}. Use the llmdyno that wrote it, or begin another study."
            )

    def _take(self, entry: Entry) -> None:
        if isinstance(entry, Began):
            self.began = entry
        elif isinstance(entry, Step):
            self.steps.append(entry)
            self.spent_s += entry.charged_s
            self.stopped = None
            self._ended.add(key(entry))
        elif isinstance(entry, Out):
            self._begun.pop(key(entry), None)  # what fails beside others may be begun once more
            self._begun[key(entry)] = entry
            self._ended.discard(key(entry))
            self.withdrawn.pop(key(entry), None)
        else:
            self.events.append(entry)
            self.spent_s += entry.charged_s
            if entry.kind == "withdrawn":
                self.withdrawn |= dict.fromkeys(entry.void, entry.why)
                return
            if entry.kind == "extended" and reopens(entry.changes):
                self.withdrawn.clear()
            gone = entry.kind == "gone"
            void = [s for s in self.steps if key(s) in entry.void and (gone or s.state == "failed")]
            self.voided += void
            self.steps = [s for s in self.steps if not any(s is one for one in void)]
            self._ended -= {*entry.void}
            if entry.kind == "machine":
                self.stopped = entry

    def append(self, entry: Entry) -> None:
        """Append one line and bring it to the disk.

        Raises:
            StorageError: it cannot be written, or is not there any more.
        """
        # One without a beginning would hold what no study goes on with.
        if self.began is not None:
            self.see_that_it_is_there()
        try:
            with self.path.open("ab") as file:
                if self._torn_at is not None:
                    file.truncate(self._torn_at)
                    self._torn_at = None
                file.write(msgspec.json.encode(entry) + b"\n")
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise StorageError(f"cannot write {self.path}: {error.strerror}.") from error
        self._take(entry)

    def see_that_it_is_there(self) -> None:
        """Refuse to go on without the ledger: what is measured then would be lost.

        Raises:
            StorageError: it is gone: the study's folder was renamed or removed while it ran.
        """
        if not self.path.exists():
            raise StorageError(
                f"{self.path} is gone: the study's folder was renamed or removed while the study"
                " ran. Put it back, or go on where it is now: dyno tune --resume FOLDER"
            )

    @contextmanager
    def charged(self, why: str) -> Iterator[None]:
        """Charge what is done within to the study, however it ends; a kill alone loses it.

        Args:
            why: what is done, in words.

        Raises:
            StorageError: it cannot be written.
        """
        begin_s = monotonic()
        try:
            yield
        finally:
            took_s = round(monotonic() - begin_s, 3)
            self.append(Event(kind="asked", why=why, charged_s=took_s))

    @property
    def out(self) -> list[Out]:
        """What was begun beside others and has not ended, or must be measured again."""
        closed = self._ended | self.withdrawn.keys()
        return [out for of, out in self._begun.items() if of not in closed]

    def begun(self, of: Key) -> Out | None:
        """Return how a step was last begun beside others; None: it was not."""
        return self._begun.get(of)

    @property
    def spec(self) -> Study:
        """What is studied, with all that --resume has added since it began."""
        assert self.began is not None
        spec = self.began.spec
        for event in self.events:
            if event.kind == "extended":
                spec = msgspec.structs.replace(spec, **event.changes)
        return spec

    @property
    def place(self) -> int:
        """How often the study has moved: to another machine or another version of the engine."""
        return sum(event.kind == "moved" for event in self.events)

    @property
    def environment(self) -> dict[str, Any]:
        """Where the study runs now, as environment.describe() has it."""
        assert self.began is not None
        moved = [event.environment for event in self.events if event.environment is not None]
        return moved[-1] if moved else self.began.environment

    @property
    def engine_version(self) -> str | None:
        """The engine's version with which the study runs now; None: it is not known."""
        assert self.began is not None
        moved = [event for event in self.events if event.kind == "moved"]
        return moved[-1].engine_version if moved else self.began.engine_version

    def ended(self, why: str) -> bool:
        """Tell whether the trials ended for this reason, and nothing was added since."""
        return (last := self.last_end) is not None and last.why == why

    @property
    def last_end(self) -> Event | None:
        """How the trials ended; None: they did not, or something was added since."""
        for event in reversed(self.events):
            if event.kind == "ended":
                return event
            if event.kind == "extended" and reopens(event.changes):
                return None
        return None

    @property
    def lanes(self) -> tuple[str, ...]:
        """The parts of the machine that measured at once last, wherever; empty: none yet."""
        at = self._lanes_at
        if at is None:
            return ()
        out = {name for e in self.events[at:] if e.kind == "lane" for name in e.devices}
        return tuple(name for name in self.events[at].devices if name not in out)

    @property
    def lanes_missing(self) -> list[Event]:
        """Which parts were left out where `lanes` measured, and why."""
        at = self._lanes_at
        if at is None:
            return self.lanes_left_out
        moves = [n for n, event in enumerate(self.events[:at]) if event.kind == "moved"]
        return [e for e in self.events[moves[-1] if moves else 0 :] if e.kind == "lane"]

    @property
    def _lanes_at(self) -> int | None:
        """Which event tells that lanes are alike, if the ledger still has what they measured."""
        had = {step.device for step in self.steps if step.phase == "reference"}
        told = [n for n, e in enumerate(self.events) if e.kind == "lanes" and had >= {*e.devices}]
        return told[-1] if told else None

    @property
    def lanes_left(self) -> tuple[str, ...]:
        """The same where they measured in the place where the study is now; else empty."""
        at = self._lanes_at
        return self.lanes if at is not None and at >= len(self.events) - len(self._here) else ()

    @property
    def lanes_left_out(self) -> list[Event]:
        """Which parts of the machine measure nothing, where the study is now, and why."""
        return [event for event in self._here if event.kind == "lane"]

    @property
    def _here(self) -> list[Event]:
        """What befell the study since it came to the place where it is."""
        moves = [n for n, event in enumerate(self.events) if event.kind == "moved"]
        return self.events[moves[-1] + 1 :] if moves else self.events

    def fell_out(self, contender: int) -> str | None:
        """Return why a would-be winner is none, beside its runs; None: it was not so."""
        kinds = {"alone", "died"}
        whys = [e.why for e in self.events if e.kind in kinds and e.contender == contender]
        return whys[-1] if whys else None

    @property
    def settled(self) -> bool:
        """Whether every would-be winner was tried, and none is one."""
        kinds = [event.kind for event in self.events if event.kind in {"settled", "extended"}]
        return bool(kinds) and kinds[-1] == "settled"

    @property
    def next_contender(self) -> int:
        """The number of the next would-be winner: nothing that was of another one has it."""
        steps = [s for s in (*self.steps, *self.voided) if s.phase in _OF_CONTENDERS]
        events = [event for event in self.events if event.kind in {"alone", "died", "paired"}]
        taken = [step.contender for step in steps] + [event.contender for event in events]
        return 1 + max(taken, default=-1)

    @property
    def mended(self) -> int:
        """How often the machine has mended by itself after trials had failed with it."""
        return sum(event.kind == "mended" for event in self.events)

    @property
    def next_check(self) -> int:
        """The number of the next check: that of none before, whether it counts or not."""
        checks = (step.number for step in (*self.steps, *self.voided) if step.phase == "check")
        return 1 + max(checks, default=-1)

    def has_its_pairs(self, contender: int) -> bool:
        """Tell whether a confirmation of an open number of pairs has come to its planned end.

        Another plan, which --resume may bring, has an end of its own.
        """
        return bool(self.pairs_ended(contender))

    def pairs_ended(self, contender: int) -> str:
        """Return why a confirmation has ended: OUT_OF_BUDGET, or by its plan; empty: it has not.

        A larger budget goes on with what the smaller one ended.
        """
        more_budget = False
        for event in reversed(self.events):
            if event.kind == "paired" and event.contender == contender:
                return "" if more_budget and event.why == OUT_OF_BUDGET else event.why
            if event.kind == "extended":
                if _PLAN_OF_PAIRS & event.changes.keys():
                    return ""
                more_budget |= "budget_s" in event.changes or not event.changes
        return ""

    def winner(self) -> Step | None:
        """Return the config that the search came to last, measured at every level.

        Whether it stands after its confirmation is the document's to say.
        """
        measured = [step for step in self.of("best") if step.state == "measured"]
        return measured[-1] if measured else None

    def find(self, phase: Phase, number: int, contender: int = 0) -> Step | None:
        """Return a step that has been done already: its last try; None if it has not been done."""
        tries = self.tries((phase, contender, number))
        return tries[-1] if tries else None

    def tries(self, of: Key) -> list[Step]:
        """Return every try of a step, in order."""
        return [step for step in self.steps if key(step) == of]

    def of(self, phase: Phase, contender: int | None = None) -> list[Step]:
        """Return a phase's steps in order, of each its last try.

        Args:
            phase: which one.
            contender: of this one alone; None: of all.
        """
        last: dict[Key, Step] = {}
        for step in self.steps:
            if step.phase == phase and contender in {None, step.contender}:
                last[key(step)] = step
        return list(last.values())


def reopens(changes: Mapping[str, Any]) -> bool:
    """Tell whether what --resume adds to a study may bring further trials, not pairs alone."""
    return bool(changes.keys() - _PLAN_OF_PAIRS)
