"""The ledger of a study: one line for every config that was measured, appended as it is known.

With the runs' own journals it holds all that a study has found out: study.json, the report and
`--resume` are made from it.
"""

import os
from pathlib import Path
from typing import Any, Literal

import msgspec

from llmdyno.errors import StorageError
from llmdyno.knobs import Value
from llmdyno.store import LEDGER
from llmdyno.tune.spec import Study

# "reference" is the baseline once more, measured as a trial is.
Phase = Literal["baseline", "reference", "trial", "best", "confirm", "ablation"]


class Began(msgspec.Struct, frozen=True, kw_only=True, tag="study"):
    """The first line: what is studied."""

    version: int = 1
    study: str
    spec: Study
    environment: dict[str, Any]
    engine_version: str | None = None


class Step(msgspec.Struct, frozen=True, kw_only=True, tag="step"):
    """One config, served and measured, or not."""

    phase: Phase
    number: int
    config: dict[str, Value]
    state: Literal["measured", "failed", "predicted-infeasible"]
    run: str = ""  # its folder within the study's
    value: float | None = None  # of the objective, at the study's level
    slo_met: bool | None = None
    failure_class: str | None = None
    failure_why: str | None = None
    build_s: float = 0.0
    start_s: float = 0.0
    measure_s: float = 0.0
    knob: str = ""  # what an ablation takes back


_decoder: msgspec.json.Decoder[Began | Step] = msgspec.json.Decoder(Began | Step)


class Ledger:
    """A study's ledger: read when it is opened, written by append() alone.

    Raises:
        StorageError: there is one, and it cannot be read.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / LEDGER
        self.began: Began | None = None
        self.steps: list[Step] = []
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
        for number, line in enumerate(whole.splitlines(), 1):
            try:
                entry = _decoder.decode(line)
            except msgspec.MsgspecError as error:
                raise StorageError(
                    f"{self.path}, line {number}: cannot be read: {error}"
                ) from error
            if isinstance(entry, Began):
                self.began = entry
            else:
                self.steps.append(entry)

    def append(self, entry: Began | Step) -> None:
        """Append one line and bring it to the disk.

        Raises:
            StorageError: it cannot be written.
        """
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
        if isinstance(entry, Began):
            self.began = entry
        else:
            self.steps.append(entry)

    def find(self, phase: Phase, number: int) -> Step | None:
        """Return a step that has been done already: its last try; None if it has not been done."""
        found = (s for s in reversed(self.steps) if (s.phase, s.number) == (phase, number))
        return next(found, None)

    def winner(self) -> Step | None:
        """Return the config that the search came to, measured at every level."""
        measured = [step for step in self.of("best") if step.state == "measured"]
        return measured[-1] if measured else None

    def of(self, phase: Phase) -> list[Step]:
        """Return a phase's steps in order."""
        return [step for step in self.steps if step.phase == phase]
