"""A client's connection to the server of known timing: requests as they arrive."""

import socket
from collections.abc import Iterator

import pytest

from llmdyno.streamer.connection import Connection

POST = b"POST /v1/completions HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n"


@pytest.fixture
def ends() -> Iterator[tuple[Connection, socket.socket]]:
    """A connection, and the client's end of it."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield Connection(ours), theirs


def test_a_request_waits_once_it_is_whole(ends: tuple[Connection, socket.socket]) -> None:
    connection, _ = ends

    connection.parser.feed_data(POST + b"\r\nhel")
    assert not connection.waiting
    connection.parser.feed_data(b"lo")

    (request,) = connection.waiting
    assert (request.method, request.path) == ("POST", "/v1/completions")
    assert request.body == b"hello"
    assert request.keep_alive


def test_requests_sent_ahead_wait_in_order(ends: tuple[Connection, socket.socket]) -> None:
    connection, _ = ends

    connection.parser.feed_data(b"GET /a HTTP/1.1\r\n\r\n" + POST + b"\r\nhello")

    assert [request.path for request in connection.waiting] == ["/a", "/v1/completions"]
    assert [bytes(request.body) for request in connection.waiting] == [b"", b"hello"]


def test_who_says_close_gets_no_second_reply(ends: tuple[Connection, socket.socket]) -> None:
    connection, _ = ends

    connection.parser.feed_data(b"GET / HTTP/1.1\r\nConnection: close\r\n\r\n")

    assert not connection.waiting[0].keep_alive


def test_who_asks_first_is_told_to_go_on(ends: tuple[Connection, socket.socket]) -> None:
    connection, client = ends

    connection.parser.feed_data(POST + b"Expect: 100-continue\r\n\r\n")

    assert client.recv(100) == b"HTTP/1.1 100 Continue\r\n\r\n"
    assert not connection.waiting
