"""Connects a TCP socket to the first address of a host that answers.

The poller and the proxy tunnel need a bare socket, which the event loop's own connect keeps.
"""

import asyncio
import socket
from collections.abc import Iterable, Sequence
from typing import Any

Address = tuple[Any, ...]  # as getaddrinfo returns it: family, kind, protocol, name, address


async def resolve(host: str, port: int) -> list[Address]:
    """Return the addresses of a host; it waits for DNS.

    Raises:
        OSError: gaierror: the name cannot be resolved.
    """
    loop = asyncio.get_running_loop()
    return [*await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)]


async def connect_first(
    addresses: Sequence[Address], options: Iterable[tuple[int, int]] = ()
) -> socket.socket:
    """Return a non-blocking socket, with TCP_NODELAY, to the first address that answers.

    Args:
        addresses: at least one, tried in order.
        options: further socket options to switch on before it connects, as (level, name).

    Raises:
        OSError: no address answers; it is the error of the first one.
    """
    failure: OSError | None = None
    for family, kind, protocol, _, address in addresses:
        channel = socket.socket(family, kind, protocol)
        channel.setblocking(False)
        try:
            channel.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            for level, name in options:
                channel.setsockopt(level, name, 1)
            await asyncio.get_running_loop().sock_connect(channel, address)
        except OSError as error:
            channel.close()
            failure = failure or error
        except BaseException:  # also a cancellation: the timeout, the end of the level
            channel.close()
            raise
        else:
            return channel
    assert failure is not None, "getaddrinfo gives an address or raises"
    raise failure
