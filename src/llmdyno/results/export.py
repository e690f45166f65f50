"""Export: the requests of a run as a table, CSV or Parquet, for whatever tool comes next.

It reads the journal and nothing else, one record at a time, so that a run of a million requests
needs no more memory than a run of ten. One row a request. A latency is filled in exactly where the
summary counts the request for it: TTFT of those that completed or were cut, E2E and TPOT of those
that completed. So the mean of a column is the mean in the summary's `whole`, and nobody averages a
failure by accident.
"""

import csv
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from itertools import islice
from pathlib import Path
from typing import Literal

import msgspec

from llmdyno.errors import StorageError, UsageError
from llmdyno.records.entries import COMPLETED, FAILED, OUTCOMES, LevelStarted, Record
from llmdyno.records.journal import read_journal
from llmdyno.store import JOURNAL

Cell = int | float | str | None
Row = tuple[Cell, ...]

# Rows that are in memory at once on the way to Parquet: enough for its compression to bite.
_ROWS_IN_GROUP = 50_000


class Column(msgspec.Struct, frozen=True):
    """One column of the table: its name, its type in Parquet, and its value for a request."""

    name: str
    kind: Literal["int64", "float64", "string"]
    value: Callable[[Record, int | None], Cell]  # of a record, and its level's users


def _ttft_ms(record: Record, _users: int | None) -> Cell:
    if record.outcome == OUTCOMES[FAILED] or not record.gaps_ns:
        return None
    return record.gaps_ns[0] / 1e6


def _e2e_ms(record: Record, _users: int | None) -> Cell:
    if record.outcome != OUTCOMES[COMPLETED] or not record.gaps_ns:
        return None
    return sum(record.gaps_ns) / 1e6


def _tpot_ms(record: Record, _users: int | None) -> Cell:
    if record.outcome != OUTCOMES[COMPLETED] or not record.gaps_ns:
        return None
    later_tokens = record.output_tokens - (record.tokens[0] if record.tokens else 1)
    return sum(record.gaps_ns[1:]) / later_tokens / 1e6 if later_tokens > 0 else None


# Times count from the start of the run. An empty cell is what nobody said or measured.
COLUMNS = (
    Column("level", "int64", lambda record, _: record.level),
    Column("users", "int64", lambda _, users: users),
    Column("request", "int64", lambda record, _: record.request),
    Column("user", "int64", lambda record, _: record.user),
    Column("prompt", "int64", lambda record, _: record.prompt),
    Column("due_s", "float64", lambda record, _: record.due_ns / 1e9),
    Column("sent_s", "float64", lambda record, _: record.sent_ns / 1e9),
    Column("ttft_ms", "float64", _ttft_ms),
    Column("e2e_ms", "float64", _e2e_ms),
    Column("tpot_ms", "float64", _tpot_ms),
    Column("input_tokens", "int64", lambda record, _: _unless(record.input_tokens, -1)),
    Column("output_tokens", "int64", lambda record, _: record.output_tokens),
    Column("source", "string", lambda record, _: record.source),
    Column("outcome", "string", lambda record, _: record.outcome),
    Column("error", "string", lambda record, _: _unless(record.error, "")),
    Column("status", "int64", lambda record, _: _unless(record.status, 0)),
    Column("finish", "string", lambda record, _: _unless(record.finish, "")),
    Column("reads", "int64", lambda record, _: record.reads),
)


def write_csv(folder: Path, target: Path) -> int:
    """Write the requests of the run in a folder as CSV and return how many there are.

    Raises:
        UsageError: the folder has no journal.
        StorageError: the journal cannot be read or the target not be written; then there is none.
    """
    rows = _rows(folder)
    with _replacing(target) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow([column.name for column in COLUMNS])
        count = 0
        for row in rows:
            writer.writerow(row)
            count += 1
    return count


def write_parquet(folder: Path, target: Path) -> int:
    """Write the requests of the run in a folder as Parquet and return how many there are.

    Raises:
        UsageError: pyarrow is not installed, or the folder has no journal.
        StorageError: the journal cannot be read or the target not be written; then there is none.
    """
    try:
        import pyarrow as pa
        from pyarrow import parquet
    except ImportError as error:
        raise UsageError(
            "--parquet: needs pyarrow. Install it with: pip install 'llmdyno[parquet]'"
        ) from error
    rows = _rows(folder)
    schema = pa.schema([(column.name, column.kind) for column in COLUMNS])
    count = 0
    with _replacing(target) as temporary, parquet.ParquetWriter(temporary, schema) as writer:
        while group := list(islice(rows, _ROWS_IN_GROUP)):
            columns = zip(schema, zip(*group, strict=True), strict=True)
            writer.write_table(
                pa.table(
                    [pa.array(values, type=field.type) for field, values in columns],
                    schema=schema,
                )
            )
            count += len(group)
    return count


def _rows(folder: Path) -> Iterator[Row]:
    """Refuse a folder without a journal now; read the journal when asked for rows."""
    journal = folder / JOURNAL
    if not journal.exists():
        raise UsageError(
            f"{folder}: has no {JOURNAL}; only the requests of a run that was measured here can be"
            " exported, not those of a study or of an imported run."
        )
    return _rows_of(journal)


def _rows_of(journal: Path) -> Iterator[Row]:
    users: dict[int, int | None] = {}
    for entry in read_journal(journal):
        if isinstance(entry, LevelStarted):
            users[entry.level] = entry.users
        elif isinstance(entry, Record):
            yield tuple(column.value(entry, users[entry.level]) for column in COLUMNS)


def _unless(value: Cell, absent: Cell) -> Cell:
    """Return the value, or nothing if it is the journal's mark for "not there"."""
    return None if value == absent else value


@contextmanager
def _replacing(target: Path) -> Iterator[Path]:
    """Give a path to write to that becomes the target at the end, or nothing if that fails.

    Raises:
        StorageError: the target cannot be written.
    """
    temporary = target.with_name(f".{target.name}.{os.getpid()}")
    try:
        yield temporary
        temporary.replace(target)
    except OSError as error:
        raise StorageError(f"cannot write {target}: {error.strerror or error}.") from error
    finally:
        with suppress(OSError):
            temporary.unlink()
