"""Data sets: the rows of a file, whatever its format.

JSON (a row a line, a list, or a document that wraps one), CSV and TSV need no other package, nor do
gzip, bzip2 and xz around them; Parquet needs pyarrow, `hf:org/name[:split]` needs huggingface_hub.
What a column means, the callers decide (sessions.py, traces/).
"""

import csv
import json
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import closing
from itertools import chain
from pathlib import Path
from typing import Any

import msgspec

from llmdyno import files
from llmdyno.errors import UsageError
from llmdyno.workload import _documents

Row = Mapping[str, Any]

_HUB = "hf:"
_SUFFIXES = (".parquet", ".jsonl", ".csv", ".json")  # .json last: it may be about the data
_PARQUET = b"PAR1"
_PACKED = (".gz", ".zst", ".bz2", ".xz")
_TABLES = (".csv", ".tsv")
_DELIMITERS = ",\t;"  # the first goes where a header has none of them
# The csv module refuses a cell of more than 128 KiB as a mistake; a prompt may be longer.
_CELL_CHARACTERS_MAX = min(sys.maxsize, 2**31 - 1)
_SHOWN_CHARACTERS = 40


class Place(int):
    """Where a row stands: its line in the file or, where rows have no lines, its number from 1."""

    word = "line"

    @property
    def name(self) -> str:
        """The place in words: "line 3" or "row 3"."""
        return f"{self.word} {int(self)}"


class _Number(Place):
    word = "row"


def rows(name: str) -> Iterator[tuple[Place, Row]]:
    """Yield (place, row) of a data set.

    Raises:
        UsageError: the file cannot be read, or is not of the format that its name tells; names the
            place.
    """
    path = _download(name) if name.startswith(_HUB) else Path(name)
    try:
        yield from _reader(path)(path)
    except files.FileError as error:
        raise UsageError(f"--dataset {name}: {error}.") from error
    except OSError as error:
        raise UsageError(f"--dataset {name}: cannot be read: {error.strerror}.") from error


def _reader(path: Path) -> Callable[[Path], Iterator[tuple[Place, Row]]]:
    suffixes = [suffix.lower() for suffix in path.suffixes]
    if suffixes and suffixes[-1] in _PACKED:
        suffixes.pop()
    last = suffixes[-1] if suffixes else ""
    if last == ".parquet":
        return _parquet
    if path.is_file():
        with path.open("rb") as file:
            if file.read(len(_PARQUET)) == _PARQUET:
                return _parquet
    return _table if last in _TABLES else _json


def _json(path: Path) -> Iterator[tuple[Place, Row]]:
    """Yield the rows of JSON lines or, where the first line is not all of it, of a document."""
    with closing(files.lines(path)) as source:
        lines = ((number, line) for number, line in enumerate(source, 1) if line.strip())
        number, first = next(lines, (0, b""))
        second = next(lines, None)
        fault = None
        try:
            row = _decode(first) if first else []
        except ValueError as error:
            fault = error
        if fault is None and (second or not _documents.is_wrapper(row)):
            yield Place(number), _documents.row_of(row)
            yield from _json_lines(path, chain([second] if second else [], lines))
            return
    if fault is None:
        yield from _numbered(_documents.rows_of(row))
    else:
        yield from _document(path, fault)


def _json_lines(path: Path, lines: Iterable[tuple[int, bytes]]) -> Iterator[tuple[Place, Row]]:
    for number, line in lines:
        try:
            row = _decode(line)
        except ValueError as error:
            raise UsageError(
                f"--dataset {path}, line {number}: {_not_json(line, error)}."
            ) from error
        yield Place(number), _documents.row_of(row)


def _decode(text: bytes) -> Any:
    """Decode JSON; NaN and infinity, which Python writes into it, are taken as well.

    Raises:
        ValueError: it is not JSON, with where and why.
    """
    try:
        return msgspec.json.decode(text)
    except msgspec.MsgspecError:
        return json.loads(text)
    except RecursionError as error:
        raise ValueError("it is nested too deep") from error


def _not_json(text: bytes, error: ValueError) -> str:
    """Say why a text is not JSON, in a line."""
    shown = text.strip().decode(errors="replace")
    if not shown.startswith(("{", "[", '"')):
        start = shown.splitlines()[0][:_SHOWN_CHARACTERS] if shown else ""
        return (
            f"is not JSON but text, {start!r}; a data set is JSON lines, JSON, Parquet, or CSV in a"
            " file that is named .csv"
        )
    if isinstance(error, UnicodeDecodeError):
        return files.not_utf8(text, error)
    if not isinstance(error, json.JSONDecodeError):
        return f"is not JSON: {error}"
    if error.pos >= len(error.doc.rstrip()) or error.msg.startswith("Unterminated string"):
        return "is not JSON: it ends in the middle of a value, as if it was cut off"
    return f"is not JSON: {error.msg} (column {error.colno})"


def _document(path: Path, fault: ValueError) -> Iterator[tuple[Place, Row]]:
    """Yield the rows of a document of many lines, or of several one after the other.

    Args:
        path: the file.
        fault: why its first line alone is not JSON.

    Raises:
        UsageError: it is no document either; names the line.
    """
    content = files.text(path).encode()
    try:
        found = [_decode(content)]
    except ValueError as error:
        several = _documents.one_after_the_other(content.decode())
        if several is None:
            raise UsageError(f"--dataset {path}, {_fault(content, fault, error)}.") from error
        found = several
    if len(found) == 1:
        yield from _numbered(_documents.rows_of(found[0]))
    else:
        yield from _numbered(map(_documents.row_of, found))


def _fault(content: bytes, first: ValueError, whole: ValueError) -> str:
    """Say where a file is not JSON: in its first line, if the second is a row, or as a whole."""
    lines = [line for line in content.splitlines() if line.strip()]
    if len(lines) > 1 and len(lines[0].strip()) > 1:
        try:
            is_lines = isinstance(_decode(lines[1]), dict | list)
        except ValueError:
            is_lines = False
        if is_lines:
            return f"line 1: {_not_json(lines[0], first)}"
    line = whole.lineno if isinstance(whole, json.JSONDecodeError) else 1
    return f"line {line}: {_not_json(content, whole)}"


def _numbered(found: Iterable[Row]) -> Iterator[tuple[Place, Row]]:
    for number, row in enumerate(found, 1):
        yield _Number(number), row


def _decoded(path: Path) -> Iterator[str]:
    with closing(files.lines(path)) as lines:
        for number, line in enumerate(lines, 1):
            try:
                yield line.decode()
            except UnicodeDecodeError as error:
                raise UsageError(
                    f"--dataset {path}, line {number}: {files.not_utf8(line, error)}."
                ) from error


def _table(path: Path) -> Iterator[tuple[Place, Row]]:
    """Yield the rows of a CSV, whose cells commas, tabs or semicolons divide."""
    csv.field_size_limit(_CELL_CHARACTERS_MAX)
    lines = _decoded(path)
    header = next(lines, "")
    delimiter = max(_DELIMITERS, key=header.count)
    reader = csv.DictReader(chain([header], lines), delimiter=delimiter)
    try:
        for row in reader:
            if any(row.get(None) or ()):
                raise UsageError(
                    f"--dataset {path}, line {reader.line_num}: has more cells than the header;"
                    " put a text that holds the delimiter in double quotes."
                )
            yield Place(reader.line_num), row
    except csv.Error as error:
        raise UsageError(
            f"--dataset {path}, line {reader.line_num}: is not CSV: {error}."
        ) from error


def _parquet(path: Path) -> Iterator[tuple[Place, Row]]:
    try:
        import pyarrow as pa
        from pyarrow import parquet
    except ImportError as error:
        raise UsageError(
            f"--dataset {path}: Parquet needs pyarrow: pip install 'llmdyno[parquet]'."
        ) from error
    number = 0
    try:
        with parquet.ParquetFile(path) as file:
            for batch in file.iter_batches():
                for row in batch.to_pylist():
                    number += 1
                    yield _Number(number), row
    except pa.ArrowInvalid as error:
        raise UsageError(f"--dataset {path}: is not Parquet: {error}.") from error


def _download(name: str) -> Path:
    """Return the first data file of a data set on the hub, fetched if it is not here yet."""
    repository, _, split = name.removeprefix(_HUB).partition(":")
    try:
        from huggingface_hub import snapshot_download
        from huggingface_hub.errors import HFValidationError
    except ImportError as error:
        raise UsageError(
            f"--dataset {name}: needs huggingface_hub: pip install huggingface_hub."
        ) from error
    try:
        folder = snapshot_download(
            repository,
            repo_type="dataset",
            allow_patterns=[f"*{split}*{suffix}" for suffix in _SUFFIXES],
        )
    except HFValidationError as error:
        raise UsageError(f"--dataset {name}: write hf:org/name or hf:org/name:split.") from error
    except OSError as error:  # no network, no such data set: the library's are OSError
        raise UsageError(
            f"--dataset {name}: cannot be fetched from the hub: is there such a data set, and a"
            " network?"
        ) from error
    for suffix in _SUFFIXES:
        if found := sorted(Path(folder).rglob(f"*{split}*{suffix}")):
            return found[0]
    kinds = ", ".join(_SUFFIXES)
    raise UsageError(f"--dataset {name}: the data set has no such file in {kinds}.")
