"""HTTP/1.1 read with a stamp a read: framings, ends and limits, straight into the connection."""

import asyncio

import pytest

from llmdyno.wire import http1
from llmdyno.wire.exchange import Meter, Response
from llmdyno.wire.http1 import Connection
from scripted_server import END, HEAD, framed, plain

Reads = list[tuple[int, bytes]]


class Wire(asyncio.Transport):
    """Takes what is written, and says whether it was closed."""

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


def answered(reads: Reads, *, end: bool = False) -> tuple[Response, Connection]:
    """Return the response to a request that these reads answer; then the server may hang up."""

    async def main() -> tuple[Response, Connection]:
        connection = Connection(Meter())
        wire = Wire()
        connection.connection_made(wire)
        response = connection.send(b"GET / HTTP/1.1\r\n\r\n")
        assert wire.written == b"GET / HTTP/1.1\r\n\r\n"
        for stamp_ns, data in reads:
            if connection.take(stamp_ns, data):
                connection.parse()
        if end:
            connection.connection_lost(None)
        return await asyncio.wait_for(response, 5), connection

    return asyncio.run(main())


def test_chunks_bear_the_stamps_of_their_reads() -> None:
    response, connection = answered([(3, HEAD), (5, framed(b"a")), (8, framed(b"b") + END)])

    assert (response.status, response.error) == (200, "")
    assert (response.first_byte_ns, response.end_ns) == (3, 8)
    assert response.pieces == [(5, b"a"), (8, b"b")]
    assert response.reads == 3
    assert connection.usable
    assert connection.served == 1


def test_a_body_of_a_known_length_ends_with_its_last_byte() -> None:
    whole = plain("404 Not Found", b"no such model")

    response, connection = answered([(3, whole[:-4]), (9, whole[-4:])])

    assert (response.status, response.body(), response.end_ns) == (404, b"no such model", 9)
    assert connection.usable


def test_a_body_without_a_length_ends_with_the_connection() -> None:
    response, connection = answered([(3, b"HTTP/1.1 200 OK\r\n\r\nabc")], end=True)

    assert (response.body(), response.error) == (b"abc", "")
    assert not connection.usable


def test_a_body_that_is_cut_off_is_truncated() -> None:
    response, _ = answered([(3, HEAD + framed(b"abc"))], end=True)

    assert (response.body(), response.error) == (b"abc", "truncated")


def test_an_interim_response_is_none() -> None:
    response, _ = answered(
        [(3, b"HTTP/1.1 103 Early Hints\r\nX: 1\r\n\r\n"), (4, plain("200 OK", b"x"))]
    )

    assert (response.status, response.body()) == (200, b"x")
    assert "x" not in response.headers


def test_a_header_that_comes_twice_is_both() -> None:
    response, _ = answered([(3, plain("200 OK", b"", "X-A: 1", "x-a: 2"))])

    assert response.headers["x-a"] == "1, 2"


def test_who_says_close_is_not_asked_again() -> None:
    _, connection = answered([(3, plain("200 OK", b"", "Connection: close"))])

    assert not connection.usable


@pytest.mark.parametrize(
    ("data", "error"),
    [
        (b"SSH-2.0-OpenSSH_9\r\n\r\n", "bad-http"),
        (b"\x15\x03\x03\x00\x02\x02\x46", "tls"),
        (b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: Upgrade\r\n\r\n",
         "bad-http"),
    ],
)  # fmt: skip
def test_what_is_no_http_has_its_class(data: bytes, error: str) -> None:
    response, connection = answered([(3, data)])

    assert response.error == error
    assert not connection.usable


def test_a_header_without_end_is_broken_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http1, "HEADER_BYTES_MAX", 1000)

    response, _ = answered([(3, b"HTTP/1.1 200 OK\r\n"), (4, b"X: " + b"y" * 1000)])

    assert (response.error, response.detail) == ("header-too-large", "no end after 1020 bytes")


def test_a_body_without_end_is_broken_off_and_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http1, "RESPONSE_BYTES_MAX", 1000)

    response, _ = answered([(3, b"HTTP/1.1 200 OK\r\n\r\n"), (4, b"y" * 1000)])

    assert (response.error, response.pieces) == ("too-large", [])


def test_what_ends_in_so_odd_a_form_that_it_goes_unseen_is_read_after_a_second() -> None:
    odd = END[:-2] + b"Trailer: x\r\n\r\n "  # the blank hides the empty line

    async def main() -> Response:
        connection = Connection(Meter())
        connection.connection_made(Wire())
        response = connection.send(b"?")
        for stamp_ns, data in ((1, HEAD), (2, framed(b"a")), (3, odd)):
            if connection.take(stamp_ns, data):
                connection.parse()
        assert not response.done()
        connection.look_after(500_000_000)
        assert not response.done()
        connection.look_after(2_000_000_000)
        return await asyncio.wait_for(response, 5)

    response = asyncio.run(main())

    assert (response.body(), response.error) == (b"a", "")
