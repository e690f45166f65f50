"""A tunnel through an HTTP proxy: after CONNECT the socket leads to the server itself.

Only TLS and gRPC need one. A plain HTTP request is sent to the proxy with the whole URL in its
first line (`target.Target.head`).
"""

import asyncio
import socket
from collections.abc import Sequence

from llmdyno.wire.headers import Header
from llmdyno.wire.sockets import Addresses

_ANSWER_BYTES_MAX = 16_384


class ProxyError(Exception):
    """The proxy refused to connect; the message quotes its answer."""


async def open_tunnel(
    proxy: tuple[str, int],
    authority: str,
    headers: Sequence[Header] = (),
    addresses: Addresses | None = None,
) -> socket.socket:
    """Return a socket that leads through the proxy to a server; it waits for both.

    Args:
        proxy: host and port.
        authority: of the server, as "host:port".
        headers: for the proxy, such as Proxy-Authorization.
        addresses: where the proxy is; None: it is looked up.

    Raises:
        ProxyError: the proxy did not answer with a status 2xx.
        OSError: the proxy could not be reached.
    """
    channel = await (addresses or Addresses()).connect(*proxy)
    try:
        answer = await _ask(channel, authority, headers)
    except BaseException:
        channel.close()
        raise
    words = answer.split(b"\r\n", 1)[0].decode("latin-1")
    if not words.startswith("HTTP/1.") or words[8:10] != " 2":
        channel.close()
        said = words[:100] or "nothing"
        raise ProxyError(f"the proxy {proxy[0]}:{proxy[1]} answered CONNECT with: {said}")
    return channel


async def _ask(channel: socket.socket, authority: str, headers: Sequence[Header]) -> bytes:
    """Send CONNECT and return the head of the answer; nothing follows it until we send."""
    loop = asyncio.get_running_loop()
    lines = [f"CONNECT {authority} HTTP/1.1", f"Host: {authority}"]
    lines += (f"{header.name}: {header.value}" for header in headers)
    await loop.sock_sendall(channel, ("\r\n".join(lines) + "\r\n\r\n").encode())
    answer = b""
    while b"\r\n\r\n" not in answer and len(answer) < _ANSWER_BYTES_MAX:
        if not (part := await loop.sock_recv(channel, 4096)):
            break
        answer += part
    return answer
