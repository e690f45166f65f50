"""Data sets: the rows of a file, whatever its format.

JSON lines, a JSON list and CSV need no other package; Parquet needs pyarrow, `hf:org/name[:split]`
needs huggingface_hub. What a column means, the callers decide (sessions.py, traces/).
"""

import csv
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec

from llmdyno.errors import UsageError

Row = Mapping[str, Any]

_HUB = "hf:"
_SUFFIXES = (".parquet", ".jsonl", ".csv", ".json")  # .json last: it may be about the data
# The csv module refuses a cell of more than 128 KiB as a mistake; a prompt may be longer.
_CELL_CHARACTERS_MAX = min(sys.maxsize, 2**31 - 1)


def rows(name: str) -> Iterator[tuple[int, Row]]:
    """Yield (place, row) of a data set; the place is a line, or a row's number in other formats.

    Raises:
        UsageError: the file cannot be read, or is not of the format that its name tells; names the
            place.
    """
    path = _download(name) if name.startswith(_HUB) else Path(name)
    try:
        if path.suffix.lower() == ".parquet":
            yield from _parquet(path)
        elif path.suffix.lower() == ".csv":
            yield from _csv(path)
        elif _is_list(path):
            yield from _list(path)
        else:
            yield from _lines(path)
    except OSError as error:
        raise UsageError(f"--dataset {name}: cannot be read: {error.strerror}.") from error
    except UnicodeDecodeError as error:
        raise UsageError(f"--dataset {name}: is not UTF-8 text: {error}.") from error


def _lines(path: Path) -> Iterator[tuple[int, Row]]:
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            try:
                row = msgspec.json.decode(line)
            except msgspec.MsgspecError as error:
                raise UsageError(
                    f"--dataset {path}, line {number}: is not JSON: {error}."
                ) from error
            yield number, row if isinstance(row, dict) else {"prompt": row}


def _is_list(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(64).lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"[")


def _list(path: Path) -> Iterator[tuple[int, Row]]:
    try:
        found = msgspec.json.decode(path.read_bytes().removeprefix(b"\xef\xbb\xbf"))
    except msgspec.MsgspecError as error:
        raise UsageError(f"--dataset {path}: is not JSON: {error}.") from error
    for number, row in enumerate(found, 1):
        yield number, row if isinstance(row, dict) else {"prompt": row}


def _csv(path: Path) -> Iterator[tuple[int, Row]]:
    csv.field_size_limit(_CELL_CHARACTERS_MAX)
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.DictReader(file)
        yield from ((reader.line_num, row) for row in reader)


def _parquet(path: Path) -> Iterator[tuple[int, Row]]:
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
                    yield number, row
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
