"""The head of a request: what is changed on its way, and what is not."""

import pytest

from llmdyno.record.heads import BadRequestError, read_head, split_head
from llmdyno.wire.target import parse_url

TARGET = parse_url("http://server:8000/base")


def lines(data: bytes) -> list[str]:
    return data.decode().removesuffix("\r\n\r\n").split("\r\n")


def test_only_the_host_and_the_prefix_are_changed() -> None:
    head = read_head(
        b"POST /v1/x?key=1 HTTP/1.1\r\nHost: a:1\r\nX-Odd:  b \r\nAuthorization: Bearer k\r\n\r\n",
        TARGET,
    )

    assert lines(head.forward) == [
        *("POST /base/v1/x?key=1 HTTP/1.1", "Host: server:8000"),
        *("X-Odd:  b ", "Authorization: Bearer k"),
    ]
    assert (head.method, head.path) == ("POST", "/v1/x")
    assert head.headers["x-odd"] == "b"


def test_a_key_is_added_only_where_the_client_has_none() -> None:
    target = parse_url("http://server:8000", "ours")

    without = read_head(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", target)
    with_one = read_head(b"GET / HTTP/1.1\r\nauthorization: Bearer theirs\r\n\r\n", target)

    assert lines(without.forward)[-1] == "Authorization: Bearer ours"
    assert b"ours" not in with_one.forward
    assert b"authorization" not in "".join(without.headers).encode()


@pytest.mark.parametrize(
    ("url", "path", "sent"),
    [
        ("http://s/v1", "/v1/models", "/v1/models"),
        ("http://s/v1", "/models", "/v1/models"),
        ("http://s/v1", "/v10", "/v1/v10"),
        ("http://s", "http://s/v1/models", "/v1/models"),
        ("http://s", "*", "*"),
    ],
)
def test_the_path_is_the_servers(url: str, path: str, sent: str) -> None:
    head = read_head(f"GET {path} HTTP/1.1\r\nHost: a\r\n\r\n".encode(), parse_url(url))

    assert lines(head.forward)[0] == f"GET {sent} HTTP/1.1"


def test_an_offer_of_http2_is_not_passed_on_but_a_websocket_is() -> None:
    offer = (
        b"POST / HTTP/1.1\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n"
        b"HTTP2-Settings: AAMAAABkAAQBAAAAAAIAAAAA\r\nContent-Length: 2\r\n\r\n"
    )
    socket = b"GET / HTTP/1.1\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"

    assert b"pgrade" not in read_head(offer, TARGET).forward
    assert b"Upgrade: websocket" in read_head(socket, TARGET).forward
    assert b"pgrade" not in read_head(socket, TARGET).framing


def test_a_head_ends_with_an_empty_line() -> None:
    assert split_head(b"GET / HTTP/1.1\r\n") == -1
    assert split_head(b"GET / HTTP/1.1\r\n\r\nbody") == 18
    with pytest.raises(BadRequestError, match="256 KiB"):
        split_head(b"x" * 300_000)
