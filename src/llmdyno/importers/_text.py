"""Result files as text, however they were saved: UTF-8 or UTF-16, plain or packed by gzip."""

import codecs
import gzip
import re
import zlib
from collections.abc import Sequence
from pathlib import Path

from llmdyno.errors import StorageError, UsageError

_GZIP = b"\x1f\x8b"
# The first bytes of what is no text, and what to call it.
_BINARY = (
    (b"\x28\xb5\x2f\xfd", "packed by zstd: unpack it with `zstd -d` first"),
    (b"BZh", "packed by bzip2: unpack it with `bunzip2` first"),
    (b"\xfd7zXZ", "packed by xz: unpack it with `unxz` first"),
    (
        b"PK\x03\x04",
        "that is a zip archive or an Excel sheet: name the JSON file that it was made from",
    ),
    (b"PAR1", "that is a Parquet file: a data set, perhaps, but no result"),
    (b"SQLite format 3", "that is a SQLite database"),
    (b"\x89PNG", "that is an image"),
    (b"%PDF", "that is a PDF"),
    (b"\x7fELF", "that is a program"),
    (b"\x80\x04", "that is a pickle of Python: it may run code and is not opened"),
)
# UTF-32 first: its mark for little endian begins as that of UTF-16 does.
_MARKS = (
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)


def read_text(path: Path) -> str:
    """Return a file's text, unpacked and without a byte order mark.

    Raises:
        StorageError: the file cannot be read.
        UsageError: it holds no text; the sentence says what it is instead.
    """
    try:
        content = path.read_bytes()
        if content.startswith(_GZIP):
            content = gzip.decompress(content)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise UsageError(f"{path}: is packed by gzip and broken: {error}.") from error
    except OSError as error:
        raise StorageError(f"cannot read {path}: {error.strerror}.") from error
    for magic, name in _BINARY:
        if content.startswith(magic):
            raise UsageError(f"{path}: is not JSON: it looks like a file {name}.")
    encoding = _encoding(content)
    try:
        return content.decode(encoding)
    except UnicodeDecodeError as error:
        raise UsageError(
            f"{path}: is not JSON: it is no text in {encoding.removesuffix('-sig').upper()}"
            f" (byte {error.start:,} does not fit)."
        ) from error


def numbered_lines(text: str) -> list[tuple[int, str]]:
    """Return the lines that are not blank, with their numbers from 1.

    A line ends at a line feed alone: JSON may hold U+2028 or U+0085 in a text.
    """
    lines = enumerate(text.split("\n"), 1)
    return [(number, line.strip()) for number, line in lines if line.strip()]


def place(text: str, offset: int) -> str:
    """Return where an offset is, as an editor counts: "line 2, column 151"."""
    line = text.count("\n", 0, offset) + 1
    column = offset - text.rfind("\n", 0, offset)
    return f"line {line}, column {column}"


def shortened(names: Sequence[str], most: int = 8) -> str:
    """Return names as a list for a sentence: the first few, each of a bearable length."""
    shown = [re.sub(r"\s+", " ", name)[:40] for name in names[:most]]
    return ", ".join(shown) + (", …" if len(names) > most else "")


def _encoding(content: bytes) -> str:
    marked = next((name for mark, name in _MARKS if content.startswith(mark)), None)
    if marked is not None:
        return marked
    # Without a mark: every second byte of ASCII in UTF-16 is zero, and JSON has no zero bytes.
    head = content[:400]
    for start, name in ((1, "utf-16-le"), (0, "utf-16-be")):
        if len(head) >= 4 and not any(head[start : len(head) // 2 * 2 : 2]):
            return name
    return "utf-8"
