"""A tunnel through an HTTP proxy, and a proxy that does not make one."""

import asyncio
import socket

import pytest

from llmdyno.wire.headers import Header
from llmdyno.wire.tunnel import ProxyError, open_tunnel
from scripted_server import Client, plain, scripted


def ask_through(answer: bytes, *headers: Header) -> tuple[bytes, bytes]:
    """Return the head that the proxy got, and what then came through the tunnel."""
    heads: list[bytes] = []

    async def proxy(client: Client) -> None:
        await client.request()
        heads.append(client.head)
        await client.send(answer)

    async def main() -> bytes:
        async with scripted(proxy) as url:
            proxy_at = ("127.0.0.1", int(url.rpartition(":")[2]))
            channel = await open_tunnel(proxy_at, "models:443", headers)
            with channel:
                return await asyncio.get_running_loop().sock_recv(channel, 100)

    after = asyncio.run(main())
    return heads[0], after


def test_the_proxy_is_told_where_to_and_then_only_passes_bytes_on() -> None:
    head, after = ask_through(b"HTTP/1.1 200 Connection established\r\n\r\n")

    assert head == b"CONNECT models:443 HTTP/1.1\r\nHost: models:443\r\n\r\n"
    assert after == b""  # it hung up


def test_the_proxy_is_told_who_asks() -> None:
    own = Header("Proxy-Authorization", "Basic abc")

    head, _ = ask_through(b"HTTP/1.1 200 OK\r\n\r\n", own)

    assert head.endswith(b"\r\nProxy-Authorization: Basic abc\r\n\r\n")


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (plain("403 Forbidden", b""), "answered CONNECT with: HTTP/1.1 403 Forbidden"),
        (b"", "answered CONNECT with: nothing"),
        (b"SSH-2.0-OpenSSH\r\n\r\n", "answered CONNECT with: SSH-2.0-OpenSSH"),
        (b"x" * 20_000, f"answered CONNECT with: {'x' * 100}$"),
    ],
)
def test_any_other_answer_is_quoted(answer: bytes, said: str) -> None:
    with pytest.raises(ProxyError, match=said):
        ask_through(answer)


def test_a_proxy_that_is_not_there_is_the_systems_error() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]

    with pytest.raises(ConnectionRefusedError):
        asyncio.run(open_tunnel(("127.0.0.1", port), "models:443"))
