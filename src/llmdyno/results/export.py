"""Export: the requests of a run as a table, CSV or Parquet, for whatever tool comes next.

It reads the journal and nothing else, some records at a time, so that a run of a million requests
needs no more memory than a run of a thousand. One row a request. A latency is filled in exactly
where the summary counts the request for it: TTFT of those that completed or were cut, E2E and TPOT
of those that completed. So the mean of a column is the mean in the summary's `whole`, and nobody
averages a failure by accident.
"""

import csv
import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from itertools import islice
from pathlib import Path
from typing import Literal

import msgspec

from llmdyno.errors import StorageError, UsageError
from llmdyno.records.columns import Collector
from llmdyno.records.entries import LevelStarted, Record
from llmdyno.records.journal import read_journal
from llmdyno.results import metrics
from llmdyno.results.metrics import Metric
from llmdyno.store import JOURNAL

Cell = int | float | str | None
Row = tuple[Cell, ...]

# Rows in one row group of Parquet, held in memory at once: enough to compress well.
_ROWS_IN_GROUP = 50_000
_RECORDS_AT_ONCE = 500


class Column(msgspec.Struct, frozen=True):
    """One column of what a record says itself: its name, its type in Parquet, and its value."""

    name: str
    kind: Literal["int64", "float64", "string"]
    value: Callable[[Record, int | None], Cell]  # of a record, and its level's users


# Times count from the start of the run. A cell is empty where nothing was reported or measured.
_WHEN = (
    Column("level", "int64", lambda record, _: record.level),
    Column("users", "int64", lambda _, users: users),
    Column("request", "int64", lambda record, _: record.request),
    Column("user", "int64", lambda record, _: record.user),
    Column("prompt", "int64", lambda record, _: record.prompt),
    Column("due_s", "float64", lambda record, _: record.due_ns / 1e9),
    Column("sent_s", "float64", lambda record, _: record.sent_ns / 1e9),
)
# The columns of latencies stand before these.
_WHAT = (
    Column("input_tokens", "int64", lambda record, _: _unless(record.input_tokens, -1)),
    Column("output_tokens", "int64", lambda record, _: record.output_tokens),
    Column("asked_tokens", "int64", lambda record, _: _unless(record.asked_tokens, -1)),
    Column("unstreamed", "int64", lambda record, _: record.unstreamed),
    Column("source", "string", lambda record, _: record.source),
    Column("outcome", "string", lambda record, _: record.outcome),
    Column("error", "string", lambda record, _: _unless(record.error, "")),
    Column("status", "int64", lambda record, _: _unless(record.status, 0)),
    Column("finish", "string", lambda record, _: _unless(record.finish, "")),
    Column("reads", "int64", lambda record, _: record.reads),
)


def columns() -> list[tuple[str, str]]:
    """Return the name of each column and its type in Parquet."""
    latencies = [(row.name, "float64") for row in _latencies()]
    return [
        *((column.name, column.kind) for column in _WHEN),
        *latencies,
        *((column.name, column.kind) for column in _WHAT),
    ]


def _latencies() -> list[Metric]:
    """Return the latencies of single requests. Those from due are due_s and sent_s away."""
    return metrics.of_requests(open_loop=False)


def write_csv(folder: Path, target: Path) -> int:
    """Write the requests of the run in a folder as CSV and return how many there are.

    Raises:
        UsageError: the folder has no journal.
        StorageError: the journal cannot be read or the target not be written; then there is none.
    """
    rows = _rows(folder)
    with _replacing(target) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow([name for name, _ in columns()])
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
    schema = pa.schema(columns())
    count = 0
    with _replacing(target) as temporary, parquet.ParquetWriter(temporary, schema) as writer:
        while group := list(islice(rows, _ROWS_IN_GROUP)):
            fields = zip(schema, zip(*group, strict=True), strict=True)
            writer.write_table(
                pa.table(
                    [pa.array(values, type=field.type) for field, values in fields],
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
    records: list[Record] = []
    for entry in read_journal(journal):
        if isinstance(entry, LevelStarted):
            users[entry.level] = entry.users
        elif isinstance(entry, Record):
            records.append(entry)
            if len(records) == _RECORDS_AT_ONCE:
                yield from _written(records, users)
                records.clear()
    yield from _written(records, users)


def _written(records: Sequence[Record], users: Mapping[int, int | None]) -> Iterator[Row]:
    """Yield the rows of some records; their latencies are computed for all of them at once."""
    collector = Collector()
    for record in records:
        collector.add(record)
    taken = collector.columns()
    latencies = [row.of_request(taken) for row in _latencies() if row.of_request is not None]
    for place, record in enumerate(records):
        level_users = users[record.level]
        yield (
            *(column.value(record, level_users) for column in _WHEN),
            *(_milliseconds(values[place]) for values in latencies),
            *(column.value(record, level_users) for column in _WHAT),
        )


def _milliseconds(value_ms: float) -> float | None:
    """Return a latency to the nanosecond, or nothing if the request has none."""
    return None if math.isnan(value_ms) else round(float(value_ms), 6)


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
