"""Compressed bodies, decoded piece by piece, so that every byte keeps the stamp of its read.

We ask for no compression, but proxies and gateways compress all the same. Decoding is done when the
response is over, like all other reading. A server that compresses token by token flushes its
compressor after each, so that what a read brought can be decoded with what came before it.
"""

import zlib
from collections.abc import Mapping, Sequence

from llmdyno.wire.inbox import Piece

DECODED_BYTES_MAX = 256 * 2**20
_ANY_HEADER = 47  # zlib's word for "a gzip or a zlib header, whichever comes"
_NO_HEADER = -15
_GZIP_MAGIC = b"\x1f\x8b"


class CodingError(Exception):
    """A body could not be decoded; the message has the reason."""


def codings(headers: Mapping[str, str]) -> list[str]:
    """Return what a body was compressed with, in the order in which it was done."""
    named = f"{headers.get('content-encoding', '')},{headers.get('transfer-encoding', '')}"
    names = [name.strip().lower() for name in named.split(",")]
    return [name for name in names if name not in {"", "identity", "chunked"}]


def decode(pieces: Sequence[Piece], coding: str) -> tuple[list[Piece], str]:
    """Return the pieces that could be decoded, and why not all; empty if all could."""
    if coding not in {"gzip", "x-gzip", "deflate"}:
        return [], f"the encoding '{coding}' is not known"
    inflater = _Inflater(_has_header(pieces))
    decoded: list[Piece] = []
    try:
        for stamp_ns, data in pieces:
            if plain := inflater.feed(data):
                decoded.append((stamp_ns, plain))
    except (zlib.error, CodingError) as error:
        return decoded, f"{coding}: {error}"
    return decoded, "" if inflater.whole or not pieces else f"{coding}: the body ends in the middle"


def _has_header(pieces: Sequence[Piece]) -> bool:
    """Tell gzip and zlib from the bare deflate that some servers send under that name."""
    start = b"".join(data for _, data in pieces[:2])[:2]  # no piece is empty
    is_zlib = len(start) == 2 and start[0] & 15 == 8 and int.from_bytes(start) % 31 == 0
    return is_zlib or start == _GZIP_MAGIC


class _Inflater:
    def __init__(self, has_header: bool) -> None:
        self._stream = zlib.decompressobj(_ANY_HEADER if has_header else _NO_HEADER)
        self._left = DECODED_BYTES_MAX

    @property
    def whole(self) -> bool:
        return self._stream.eof

    def feed(self, data: bytes) -> bytes:
        plain = b""
        while data:
            if self._stream.eof:
                if data[:1] != _GZIP_MAGIC[:1]:  # padding
                    break
                self._stream = zlib.decompressobj(_ANY_HEADER)  # gzip files may be strung together
            if self._left == 0:
                raise CodingError(f"longer than {DECODED_BYTES_MAX // 2**20} MiB when decoded")
            part = self._stream.decompress(data, self._left)
            self._left -= len(part)
            plain += part
            data = self._stream.unconsumed_tail or self._stream.unused_data
        return plain
