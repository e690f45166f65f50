"""Text files in every dress: compressed, with a mark, in UTF-16; and what is no text at all."""

import bz2
import codecs
import gzip
import lzma
from collections.abc import Callable
from pathlib import Path

import pytest

from llmdyno.files import FileError, content, lines, text

WORDS = 'Zwölf Boxkämpfer\r\n{"a": "é"}\n'
PLAIN = WORDS.encode()


def zstd(data: bytes) -> bytes:
    """Compress with what is installed: a test without it is skipped."""
    pa = pytest.importorskip("pyarrow", reason="the extra `parquet` is not installed")
    packed: bytes = pa.compress(data, codec="zstd", asbytes=True)
    return packed


DRESSES: dict[str, Callable[[bytes], bytes]] = {
    "as it is": bytes,
    "gzip": gzip.compress,
    "gzip in two members": lambda data: gzip.compress(data[:9]) + gzip.compress(data[9:]),
    "bzip2": bz2.compress,
    "xz": lzma.compress,
    "zstd": zstd,
    "a mark": lambda data: codecs.BOM_UTF8 + data,
    "UTF-16 of Windows": lambda data: codecs.BOM_UTF16_LE + data.decode().encode("utf-16-le"),
    "UTF-16 big-endian": lambda data: codecs.BOM_UTF16_BE + data.decode().encode("utf-16-be"),
    "UTF-16 without a mark": lambda data: data.decode().encode("utf-16-le"),
    "UTF-32": lambda data: data.decode().encode("utf-32"),
    "UTF-16 in gzip": lambda data: gzip.compress(data.decode().encode("utf-16")),
}


@pytest.mark.parametrize("dress", DRESSES)
def test_a_text_is_the_same_in_every_dress(dress: str, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(DRESSES[dress](PLAIN))

    assert list(lines(path)) == PLAIN.splitlines(keepends=True)
    assert (content(path), text(path)) == (PLAIN, WORDS)


def test_an_empty_file_is_an_empty_text(tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    assert text(tmp_path / "file") == ""


FOREIGN: dict[str, tuple[bytes, str]] = {
    "zip": (b"PK\x03\x04....", "is a ZIP archive"),
    "pdf": (b"%PDF-1.7\n", "is a PDF, not text"),
    "web page": (b"\n<!DOCTYPE html><html>", "is a web page"),
    "git lfs": (b"version https://git-lfs.github.com/spec/v1\noid", "`git lfs pull`"),
    "tar in gzip": (gzip.compress(b"n" * 257 + b"ustar\x00"), "is a tar archive"),
    "binary": (bytes(range(256)), "is binary, not text"),
    "latin-1": ("ein\nzwölf".encode("latin-1"), r"line 2 is not UTF-8 text \(byte 0xf6\)"),
    "half a UTF-16": (codecs.BOM_UTF16_LE + b"a\x00b", "is not UTF-16 text"),
    "cut gzip": (gzip.compress(PLAIN)[:-9], "is compressed, and cut off or damaged"),
    "cut xz": (lzma.compress(PLAIN)[:-9], "is compressed, and cut off or damaged"),
    "a damaged gzip": (gzip.compress(PLAIN)[:12] + b"\xff" * 20, "cut off or damaged"),
}


@pytest.mark.parametrize("name", FOREIGN)
def test_what_is_no_text_is_called_what_it_is(name: str, tmp_path: Path) -> None:
    data, words = FOREIGN[name]
    (tmp_path / "file").write_bytes(data)

    with pytest.raises(FileError, match=words):
        text(tmp_path / "file")


def test_what_cannot_be_opened_says_why(tmp_path: Path) -> None:
    with pytest.raises(FileError, match=r"^cannot be read: No such file or directory$"):
        text(tmp_path / "nowhere")
    with pytest.raises(FileError, match=r"^is a folder; name a file in it$"):
        text(tmp_path)


def test_zstd_without_a_package_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def absent(name: str) -> None:
        raise ImportError(name)

    (tmp_path / "file").write_bytes(zstd(PLAIN))
    monkeypatch.setattr("llmdyno.files.importlib.import_module", absent)

    with pytest.raises(FileError, match=r"pip install 'llmdyno\[zstd\]', or unpack it"):
        text(tmp_path / "file")
