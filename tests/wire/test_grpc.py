"""gRPC over HTTP/2 straight into the connection; faults/test_grpc.py has servers and faults."""

import asyncio
import struct
from typing import Any

import hpack
import pytest

from llmdyno.wire.exchange import Meter, Response
from llmdyno.wire.grpc import GrpcConnection, call
from llmdyno.wire.target import Target, parse_url

DATA, HEADERS, RST_STREAM, SETTINGS, PING, WINDOW_UPDATE = 0, 1, 3, 4, 6, 8
END_STREAM, END_HEADERS, ACK = 1, 4, 1
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
MESSAGE = b"\0\0\0\0\3abc"
HEAD = [(":status", "200"), ("content-type", "application/grpc")]


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    return len(payload).to_bytes(3, "big") + struct.pack(">BBI", kind, flags, stream) + payload


def frames(data: bytes) -> list[tuple[int, int, int, bytes]]:
    """Return (kind, flags, stream, payload) of each frame."""
    found = []
    while data:
        size = int.from_bytes(data[:3], "big")
        kind, flags, stream = struct.unpack(">BBI", data[3:9])
        found.append((kind, flags, stream, data[9 : 9 + size]))
        data = data[9 + size :]
    return found


class Wire(asyncio.Transport):
    """Takes what is written."""

    def __init__(self) -> None:
        super().__init__()
        self.written = b""
        self.closed = False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.written += data

    def is_closing(self) -> bool:
        return self.closed

    def abort(self) -> None:
        self.closed = True

    def sent(self) -> list[tuple[int, int, int, bytes]]:
        """Return the frames written since the last time."""
        data, self.written = self.written.removeprefix(PREFACE), b""
        return frames(data)


class Server:
    """Writes what a server would, with the compressor of one connection."""

    def __init__(self) -> None:
        self._encoder = hpack.Encoder()

    def headers(self, stream: int, *fields: tuple[str, str], end: bool = False) -> bytes:
        flags = END_HEADERS | (END_STREAM if end else 0)
        return frame(HEADERS, flags, stream, self._encoder.encode(fields))


def asked(message: bytes = MESSAGE) -> tuple[GrpcConnection, Wire, asyncio.Future[Response]]:
    """Return a connection with a call under way."""
    connection, wire = GrpcConnection(Meter()), Wire()
    connection.connection_made(wire)
    done = connection.send(call(parse_url("grpc://h"), "/s/M", message))
    return connection, wire, done


def read(connection: GrpcConnection, stamp_ns: int, data: bytes) -> None:
    if connection.take(stamp_ns, data):
        connection.parse()


@pytest.mark.parametrize(
    ("target", "scheme"),
    [(parse_url("grpc://h:8001"), "http"), (parse_url("grpcs://h:8001", "sk-1"), "https")],
)
def test_a_call_is_headers_that_any_decoder_reads(target: Target, scheme: str) -> None:
    (kind, flags, stream, block), *_ = frames(call(target, "/s/" + "M" * 200, b""))

    assert (kind, flags, stream) == (HEADERS, END_HEADERS, 0)
    fields: dict[Any, Any] = dict(hpack.Decoder().decode(block))
    assert fields[":method"] == "POST"
    assert fields[":scheme"] == scheme
    assert fields[":path"] == "/s/" + "M" * 200
    assert fields[":authority"] == "h:8001"
    assert fields["te"] == "trailers"
    assert fields.get("authorization") == ("Bearer sk-1" if scheme == "https" else None)


def test_messages_bear_the_stamps_of_their_reads_and_trailers_end_the_call() -> None:
    async def main() -> tuple[Response, bool]:
        connection, wire, done = asked()
        server = Server()
        kinds = [kind for kind, *_ in wire.sent()]
        assert kinds == [SETTINGS, WINDOW_UPDATE, HEADERS, DATA]
        read(connection, 3, frame(SETTINGS, 0, 0) + server.headers(1, *HEAD))
        read(connection, 5, frame(DATA, 0, 1, MESSAGE))
        read(connection, 8, frame(DATA, 0, 1, MESSAGE))
        read(connection, 9, server.headers(1, ("grpc-status", "0"), end=True))
        return await asyncio.wait_for(done, 5), connection.usable

    response, usable = asyncio.run(main())

    assert (response.status, response.error) == (200, "")
    assert response.pieces == [(5, MESSAGE), (8, MESSAGE)]
    assert (response.first_byte_ns, response.end_ns) == (3, 9)
    assert usable


def test_a_status_is_the_class_and_its_message_is_unquoted() -> None:
    async def main() -> Response:
        connection, _, done = asked()
        fields = [*HEAD, ("grpc-status", "14"), ("grpc-message", "no%20model")]
        read(connection, 3, Server().headers(1, *fields, end=True))
        return await asyncio.wait_for(done, 5)

    response = asyncio.run(main())

    assert (response.error, response.detail) == ("grpc-unavailable", "no model")


def test_settings_and_pings_are_acknowledged() -> None:
    async def main() -> None:
        connection, wire, _ = asked()
        wire.sent()
        read(connection, 3, frame(SETTINGS, 0, 0) + frame(PING, 0, 0, b"12345678"))
        assert wire.sent() == [(SETTINGS, ACK, 0, b""), (PING, ACK, 0, b"12345678")]
        connection.close()

    asyncio.run(main())


def test_a_message_waits_for_the_window_and_is_sent_in_frames() -> None:
    async def main() -> None:
        connection, wire, _ = asked(b"x" * 70_000)
        first = [payload for kind, _, _, payload in wire.sent() if kind == DATA]
        assert sum(map(len, first)) == 65_535
        assert max(map(len, first)) <= 16_384
        grown = struct.pack(">I", 10_000)
        read(connection, 3, frame(WINDOW_UPDATE, 0, 0, grown))
        assert wire.sent() == []  # the stream's own window is still closed
        read(connection, 4, frame(WINDOW_UPDATE, 0, 1, grown))
        ((kind, flags, stream, rest),) = wire.sent()
        assert (kind, flags, stream, len(rest)) == (DATA, END_STREAM, 1, 70_000 - 65_535)
        connection.close()

    asyncio.run(main())


def test_what_is_no_http2_has_its_class() -> None:
    async def main(data: bytes) -> tuple[Response, bool]:
        connection, _, done = asked()
        read(connection, 3, data)
        return await asyncio.wait_for(done, 5), connection.usable

    response, usable = asyncio.run(main(b"HTTP/1.1 400 Bad Request\r\n\r\n"))
    assert response.error == "bad-grpc"
    assert not usable
    response, usable = asyncio.run(main(b"\x15\x03\x03\x00\x02\x02\x46 and so on"))
    assert response.error == "tls"
    assert not usable
