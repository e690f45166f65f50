"""The journal of a run: a file of JSON lines, one `Entry` a line, appended to as things happen.

A process killed at any moment leaves at worst one torn last line, which readers leave out. Where a
level is spread over workers, each worker writes a file of its own beside the journal; a reader gets
all of them in order of time, as if one process had written them.
"""

import contextlib
import fcntl
import heapq
import os
from collections.abc import Iterator
from itertools import chain, islice
from pathlib import Path

import msgspec

from llmdyno.errors import StorageError
from llmdyno.records.entries import (
    Entry,
    GpuSample,
    LevelEnded,
    LevelStarted,
    Record,
    Scrape,
    ShareEnded,
    Tick,
)

_decoder: msgspec.json.Decoder[Entry] = msgspec.json.Decoder(Entry)


class Journal:
    """The append-only file of a run. A line is with the operating system when append() returns.

    Raises:
        StorageError: the file cannot be opened for writing.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._encoder = msgspec.json.Encoder()
        try:
            self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        except OSError as error:
            raise StorageError(f"cannot write {path}: {error.strerror}.") from error
        with contextlib.suppress(OSError):  # it tells others that the run goes on; see catalog
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)

    def append(self, entry: Entry) -> None:
        """Append one line.

        Raises:
            StorageError: the disk is full or gone; what was written before is safe.
        """
        line = self._encoder.encode(entry) + b"\n"
        written = 0
        try:
            while written < len(line):
                written += os.write(self._file, line[written:])
        except OSError as error:
            # What was written of the line is removed. If the disk has room again later, the next
            # entry must not continue it.
            with contextlib.suppress(OSError):
                os.ftruncate(self._file, os.fstat(self._file).st_size - written)
            raise StorageError(
                f"cannot write {self.path}: {error.strerror}. What was measured before is kept."
            ) from error

    def close(self) -> None:
        """Bring the file to the disk and close it.

        Raises:
            StorageError: the disk did not take what it had seemed to take.
        """
        try:
            os.fsync(self._file)
        except OSError as error:
            raise StorageError(f"cannot write {self.path}: {error.strerror}.") from error
        finally:
            os.close(self._file)


def worker_journal(path: Path, worker: int) -> Path:
    """Return where a worker writes, beside the journal of the run."""
    return path.with_name(f"{path.stem}-{worker}{path.suffix}")


def read_journal(path: Path) -> Iterator[Entry]:
    """Yield the entries of a journal and of its workers' files, leaving out torn last lines.

    In order of time, but for the records whose tokens were not counted again: they come last.

    Raises:
        StorageError: there is no such file, or a line other than the last one cannot be read.
    """
    uncounted: dict[tuple[int, int], Record] = {}
    for entry in _read_all(path):
        if isinstance(entry, Record):
            if entry.texts:
                uncounted[entry.level, entry.request] = entry
                continue
            if uncounted:
                uncounted.pop((entry.level, entry.request), None)
        yield entry
    yield from uncounted.values()


def _read_all(path: Path) -> Iterator[Entry]:
    """Yield the entries of the run's own file and of its workers' files, merged by time.

    At equal times a worker's entry comes first: the journal has what was made of it later.
    """
    workers = [
        file
        for file in path.parent.glob(f"{path.stem}-*{path.suffix}")
        if file.stem.removeprefix(f"{path.stem}-").isdecimal()
    ]
    own = _read_lines(path)
    if not workers:
        return own
    opened = list(islice(own, 1))  # the first line comes before all entries of workers
    timed = [_timed(_read_lines(file)) for file in sorted(workers)]
    merged = heapq.merge(*timed, _timed(own), key=lambda pair: pair[0])
    return chain(opened, (entry for _, entry in merged))


def _timed(entries: Iterator[Entry]) -> Iterator[tuple[int, Entry]]:
    """Yield each entry with its time, which is never earlier than that of an entry before it."""
    latest_ns = 0
    for entry in entries:
        latest_ns = max(latest_ns, _moment_ns(entry))
        yield latest_ns, entry


def _moment_ns(entry: Entry) -> int:
    match entry:
        case LevelStarted():
            return entry.start_ns
        case Record():
            return entry.sent_ns + entry.end_ns
        case Tick() | Scrape() | GpuSample():
            return entry.t_ns
        case LevelEnded() | ShareEnded():
            return entry.end_ns
        case _:  # the first lines of a journal
            return 0


class Follower:
    """Reads a growing file of entries: what has been added since the last look."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._offset = path.stat().st_size if path.exists() else 0

    def new_entries(self) -> list[Entry]:
        """Return the entries of the lines completed since the last call; none without a file."""
        try:
            with self._path.open("rb") as file:
                file.seek(self._offset)
                added = file.read()
        except FileNotFoundError:
            return []
        whole = added[: added.rfind(b"\n") + 1]
        self._offset += len(whole)
        return [_decoder.decode(line) for line in whole.splitlines()]


def _read_lines(path: Path) -> Iterator[Entry]:
    try:
        file = path.open("rb")
    except OSError as error:
        raise StorageError(f"cannot read {path}: {error.strerror}.") from error
    with file:
        for number, line in enumerate(file, 1):
            try:
                yield _decoder.decode(line)
            except msgspec.MsgspecError as error:
                if not line.endswith(b"\n"):
                    return
                raise StorageError(
                    f"{path}, line {number}: not a journal entry: {error}"
                ) from error
