"""Compressed bodies: every byte keeps the stamp of its read, whatever was cut or broken."""

import gzip
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmdyno.wire import compression
from llmdyno.wire.compression import codings, decode

TEXT = b"one two three " * 20


def bare(data: bytes) -> bytes:
    """Deflate without any header, as some servers send under that name."""
    packer = zlib.compressobj(wbits=-15)
    return packer.compress(data) + packer.flush()


PACKED = {
    "gzip": gzip.compress(TEXT),
    "x-gzip": gzip.compress(TEXT),
    "deflate": zlib.compress(TEXT),
    "deflate, bare": bare(TEXT),
}


@pytest.mark.parametrize(
    ("headers", "named"),
    [
        ({}, []),
        ({"content-encoding": "identity", "transfer-encoding": "chunked"}, []),
        ({"content-encoding": "GZIP"}, ["gzip"]),
        ({"content-encoding": "br", "transfer-encoding": "gzip, chunked"}, ["br", "gzip"]),
    ],
)
def test_codings_are_named_in_the_order_in_which_they_were_done(
    headers: dict[str, str], named: list[str]
) -> None:
    assert codings(headers) == named


@given(st.sampled_from(sorted(PACKED)), st.integers(1, 40))
def test_a_body_may_be_cut_anywhere(name: str, step: int) -> None:
    data = PACKED[name]
    pieces = [(at, data[at : at + step]) for at in range(0, len(data), step)]

    decoded, broken = decode(pieces, name.partition(",")[0])

    assert broken == ""
    assert b"".join(part for _, part in decoded) == TEXT


def test_what_a_read_brought_keeps_its_stamp() -> None:
    packer = zlib.compressobj(wbits=31)
    pieces = [
        (stamp_ns, packer.compress(word) + packer.flush(zlib.Z_SYNC_FLUSH))
        for stamp_ns, word in ((5, b"one "), (9, b"two "))
    ]
    pieces.append((12, packer.flush()))

    assert decode(pieces, "gzip") == ([(5, b"one "), (9, b"two ")], "")


def test_files_strung_together_are_one_body_and_padding_is_none() -> None:
    decoded, broken = decode([(1, gzip.compress(b"a") + gzip.compress(b"b") + b"\0\0")], "gzip")

    assert (decoded, broken) == ([(1, b"ab")], "")


def test_what_came_before_the_break_is_kept() -> None:
    data = PACKED["gzip"]

    decoded, broken = decode([(1, data[:-4])], "gzip")
    assert (decoded, broken) == ([(1, TEXT)], "gzip: the body ends in the middle")
    decoded, broken = decode([(1, data[:-8]), (2, b"\xff" * 8)], "gzip")
    assert decoded == [(1, TEXT)]
    assert broken.startswith("gzip: Error -3")


def test_an_empty_body_is_whole() -> None:
    assert decode([], "gzip") == ([], "")


def test_an_encoding_that_we_do_not_know_is_named() -> None:
    assert decode([(1, b"x")], "br") == ([], "the encoding 'br' is not known")


def test_a_body_that_grows_without_end_is_broken_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compression, "DECODED_BYTES_MAX", 2**20)

    decoded, broken = decode([(1, zlib.compress(b"a" * 2**20)), (2, zlib.compress(b"b"))], "gzip")
    assert (len(decoded[0][1]), broken) == (2**20, "")
    decoded, broken = decode([(1, gzip.compress(b"a" * (2**20 + 1)))], "gzip")
    assert (decoded, broken) == ([], "gzip: longer than 1 MiB when decoded")
