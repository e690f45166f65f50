"""Text files that people give us, as they are: compressed, with a byte order mark, in UTF-16.

What is inside is found by the first bytes, never by the name. Readers raise FileError with the rest
of a sentence, "is a PDF, not text"; the caller puts the flag and the file's name before it.
"""

import bz2
import codecs
import gzip
import importlib
import io
import lzma
import zlib
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

_SNIFFED_BYTES = 4096
# UTF-32 before UTF-16: the mark of the one begins with that of the other.
_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
# What is no text, by its first bytes, and what to do with it.
_FOREIGN = (
    (b"PK\x03\x04", "is a ZIP archive or an Excel workbook; unpack it, or save it as CSV"),
    (b"7z\xbc\xaf\x27\x1c", "is a 7z archive; unpack it"),
    (b"%PDF", "is a PDF, not text"),
    (b"PAR1", "is a Parquet file, not text"),
    (b"ARROW1", "is an Arrow file; save it as Parquet or JSON lines"),
    (b"\xff\xff\xff\xff", "is an Arrow stream; save it as Parquet or JSON lines"),
    (b"SQLite format 3", "is an SQLite database; save a table as CSV"),
    (b"Obj\x01", "is an Avro file; save it as Parquet or JSON lines"),
    (b"\x89HDF", "is an HDF5 file; save it as Parquet or JSON lines"),
    (b"\x80\x04\x95", "is a Python pickle; save it as JSON lines"),
    (b"version https://git-lfs.github.com", "is a Git LFS pointer; `git lfs pull` gets the data"),
)
_DECODE_FAULTS = (EOFError, zlib.error, lzma.LZMAError)


class FileError(Exception):
    """A file cannot be read as text; the message is the end of a sentence that begins with it."""


@contextmanager
def opened(path: Path) -> Iterator[io.BufferedReader]:
    """Open a file for the `with`, uncompressed if it is compressed (gzip, bzip2, xz, zstd).

    Raises:
        FileError: it cannot be read, its compression is damaged or needs a package, or it is of a
            known format that is not text. Reading within the `with` raises it, too.
    """
    try:
        with path.open("rb") as raw:
            stream = _uncompressed(raw)
            _refuse_foreign(stream.peek(_SNIFFED_BYTES))
            yield stream
    except IsADirectoryError as error:
        raise FileError("is a folder; name a file in it") from error
    except (EOFError, zlib.error, lzma.LZMAError, gzip.BadGzipFile) as error:
        raise FileError(f"is compressed, and cut off or damaged: {_said(error)}") from error
    except OSError as error:
        if error.errno is None:  # of a library that unpacks, not of the system
            raise FileError(f"is compressed, and cut off or damaged: {_said(error)}") from error
        raise FileError(f"cannot be read: {error.strerror}") from error


def _said(error: Exception) -> str:
    return str(error).rstrip(".")


def _uncompressed(raw: io.BufferedReader) -> io.BufferedReader:
    start = raw.peek(8)
    for magic, opener in _COMPRESSIONS:
        if start.startswith(magic):
            return io.BufferedReader(opener(raw))
    return raw


def _zstd(raw: BinaryIO) -> Any:
    """Return a stream that unpacks zstd, by whichever package is there."""
    openers: tuple[tuple[str, Callable[[Any], Any]], ...] = (
        ("compression.zstd", lambda module: module.ZstdFile(raw)),  # Python's own since 3.14
        (
            "zstandard",
            lambda module: module.ZstdDecompressor().stream_reader(raw, read_across_frames=True),
        ),
        ("pyarrow", lambda module: module.CompressedInputStream(raw, "zstd")),
    )
    for name, opener in openers:
        try:
            return opener(importlib.import_module(name))
        except ImportError:
            continue
    raise FileError("is compressed by zstd: pip install 'llmdyno[zstd]', or unpack it with zstd -d")


_COMPRESSIONS: tuple[tuple[bytes, Callable[[BinaryIO], Any]], ...] = (
    (b"\x1f\x8b", lambda raw: gzip.GzipFile(fileobj=raw)),
    (b"BZh", bz2.BZ2File),
    (b"\xfd7zXZ\x00", lzma.LZMAFile),
    (b"\x28\xb5\x2f\xfd", _zstd),
)


def _refuse_foreign(start: bytes) -> None:
    for magic, words in _FOREIGN:
        if start.startswith(magic):
            raise FileError(words)
    if start[257:262] == b"ustar":
        raise FileError("is a tar archive; unpack it, and name a file in it")
    lower = start[:512].lstrip().lower()
    if lower.startswith((b"<!doctype html", b"<html")):
        raise FileError("is a web page (HTML), not data; perhaps that of a login")
    if b"\x00" in start and not _encoding(start).startswith("utf-"):
        raise FileError("is binary, not text")


def _encoding(start: bytes) -> str:
    """Return the encoding of a text by its mark or, of UTF-16 without one, by its zeros."""
    for mark, encoding in _MARKS:
        if start.startswith(mark):
            return encoding
    zeros = [start[:64][parity::2].count(0) for parity in (0, 1)]
    half = len(start[:64]) // 2
    if half and max(zeros) > 0.7 * half and min(zeros) == 0:
        return "utf-16-be" if zeros[0] else "utf-16-le"
    return "binary" if b"\x00" in start else "utf-8"


def lines(path: Path) -> Generator[bytes, None, None]:
    """Yield the lines of a text file in UTF-8, whatever its own encoding, without its mark.

    Raises:
        FileError: it cannot be read, or is no text.
    """
    with opened(path) as stream:
        encoding = _encoding(stream.peek(_SNIFFED_BYTES))
        if encoding.startswith("utf-8"):
            first = stream.readline().removeprefix(codecs.BOM_UTF8)
            if first:
                yield first
            yield from stream
            return
        try:
            with io.TextIOWrapper(stream, encoding, newline="\n") as found:
                for line in found:
                    yield line.encode()
        except UnicodeError as error:
            raise FileError(f"is not {encoding.upper()} text, though it begins so") from error


def content(path: Path) -> bytes:
    """Return a text file in UTF-8, whatever its own encoding, without its mark.

    Raises:
        FileError: it cannot be read, or is no text.
    """
    return b"".join(lines(path))


def text(path: Path) -> str:
    """Return a text file's text, with the ends of its lines as they are.

    Raises:
        FileError: it cannot be read, or is no text in UTF-8, UTF-16 or UTF-32; names the line.
    """
    found = content(path)
    try:
        return found.decode()
    except UnicodeDecodeError as error:
        line = found.count(b"\n", 0, error.start) + 1
        raise FileError(f"line {line} {not_utf8(found, error)}") from error


def not_utf8(found: bytes, error: UnicodeDecodeError) -> str:
    """Say which byte of a text is not UTF-8, and what to do."""
    return f"is not UTF-8 text (byte 0x{found[error.start]:02x}); save it as UTF-8"
