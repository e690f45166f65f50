"""The journal: a line is there for all as soon as it is written; what a full disk leaves."""

import resource
import signal
from pathlib import Path

import pytest

from llmdyno.errors import StorageError
from llmdyno.records.entries import Tick
from llmdyno.records.journal import Journal, read_journal


def _tick(number: int) -> Tick:
    return Tick(level=0, t_ns=number, users=1, in_flight=1, cpu_s=0.0)


def _append_all(journal: Journal, start: int, end: int) -> None:
    for number in range(start, end):
        journal.append(_tick(number))


def test_whoever_reads_finds_each_line_as_soon_as_append_returns(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal.jsonl")
    for number in range(20):
        journal.append(_tick(number))
        assert list(read_journal(journal.path)) == [_tick(n) for n in range(number + 1)]
    journal.close()


def test_a_line_that_found_no_room_leaves_no_half_of_itself(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal.jsonl")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_000, limits[1]))
    try:
        with pytest.raises(StorageError, match="What was measured before is kept"):
            _append_all(journal, 0, 1_000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, before)

    written = len(list(read_journal(journal.path)))
    _append_all(journal, written, 20)  # somebody has made room
    journal.close()

    assert 5 < written < 20
    assert list(read_journal(journal.path)) == [_tick(number) for number in range(20)]
