"""Compressed bodies, decoded piece by piece, so that every byte keeps the stamp of its read.

We ask for no compression, but some proxies and gateways compress anyway. exchange.py decodes when
the response has ended, as it parses: never while tokens stream in. A server that compresses a
stream flushes its compressor after each token, so each read can be decoded from the bytes so far.
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
    """Return the compressions of a body in the order in which the server applied them.

    Args:
        headers: of the response, with names in lower case.
    """
    named = f"{headers.get('content-encoding', '')},{headers.get('transfer-encoding', '')}"
    names = [name.strip().lower() for name in named.split(",")]
    return [name for name in names if name not in {"", "identity", "chunked"}]


def decode(pieces: Sequence[Piece], coding: str) -> tuple[list[Piece], str]:
    """Decode a body in one compression.

    Args:
        pieces: the body, each part with the stamp of its read.
        coding: one of the names that `codings` returns.

    Returns:
        The decoded pieces up to the first fault, and that fault in words (empty: there is none).
    """
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
    """Return whether the body is gzip or zlib; some servers send bare deflate under these names."""
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
                if data[:1] != _GZIP_MAGIC[:1]:  # padding after the last member
                    break
                self._stream = zlib.decompressobj(_ANY_HEADER)  # the next gzip member
            if self._left == 0:
                raise CodingError(f"longer than {DECODED_BYTES_MAX // 2**20} MiB when decoded")
            part = self._stream.decompress(data, self._left)
            self._left -= len(part)
            plain += part
            data = self._stream.unconsumed_tail or self._stream.unused_data
        return plain
