"""The way through an HTTP proxy: CONNECT, and then the server itself at the end of a socket.

Only https goes this way. A plain http request is sent to the proxy as it is, with the whole URL in
its first line (`target.Target.head`).
"""

import asyncio
import socket

from llmdyno.wire.sockets import connect_first, resolve

_ANSWER_BYTES_MAX = 16_384


class ProxyError(Exception):
    """The proxy would not connect us; says what it answered."""


async def open_tunnel(proxy: tuple[str, int], authority: str) -> socket.socket:
    """Return a socket whose other end is the server `authority`, "host:port".

    Raises:
        ProxyError: the proxy answered something else than 2xx.
        OSError: the proxy could not be reached.
    """
    channel = await connect_first(await resolve(*proxy))
    try:
        answer = await _ask(channel, authority)
    except BaseException:
        channel.close()
        raise
    words = answer.split(b"\r\n", 1)[0].decode("latin-1")
    if not words.startswith("HTTP/1.") or words[8:10] != " 2":
        channel.close()
        said = words[:100] or "nothing"
        raise ProxyError(f"the proxy {proxy[0]}:{proxy[1]} answered CONNECT with: {said}")
    return channel


async def _ask(channel: socket.socket, authority: str) -> bytes:
    """Send CONNECT; return the header that comes back. The server itself waits for us to speak."""
    loop = asyncio.get_running_loop()
    request = f"CONNECT {authority} HTTP/1.1\r\nHost: {authority}\r\n\r\n"
    await loop.sock_sendall(channel, request.encode())
    answer = b""
    while b"\r\n\r\n" not in answer and len(answer) < _ANSWER_BYTES_MAX:
        if not (part := await loop.sock_recv(channel, 4096)):
            break
        answer += part
    return answer
