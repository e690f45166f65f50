"""Connects a TCP socket to the first address of a host that answers.

The connections of a level share one Addresses: a name is looked up once, however many users need
it. Of several addresses one may be dead in silence, as IPv6 is in many a network; the next one is
tried beside it soon (Happy Eyeballs, RFC 8305).
"""

import asyncio
import socket
from collections.abc import Iterable, Sequence
from typing import Any

Address = tuple[Any, ...]  # as getaddrinfo returns it: family, kind, protocol, name, address
Option = tuple[int, int]  # of a socket, to switch on: level, name

STAGGER_S = 0.25  # RFC 8305, section 5: the connection attempt delay


class Addresses:
    """The addresses of hosts; each host's are looked up once, and kept as long as one answers."""

    def __init__(self) -> None:
        self._lookups: dict[tuple[str, int], asyncio.Task[list[Address]]] = {}

    async def connect(self, host: str, port: int, options: Iterable[Option] = ()) -> socket.socket:
        """Return a non-blocking socket, with TCP_NODELAY, to the first address that answers.

        Args:
            host: a name, which is looked up, or an address.
            port: of the server.
            options: further socket options to switch on before it connects.

        Raises:
            OSError: no address answers; it is the error of the first one. gaierror: the name cannot
                be resolved.
        """
        place = (host, port)
        lookup = self._lookups.get(place)
        if lookup is None:
            lookup = self._lookups[place] = asyncio.create_task(resolve(host, port))
            lookup.add_done_callback(_has_succeeded)  # or asyncio tells of it if nobody waits
        try:
            addresses = await asyncio.shield(lookup)  # others may wait for it, too
            # A copy: another user may reorder the list meanwhile.
            channel, address = await connect_first(tuple(addresses), tuple(options))
        except (OSError, asyncio.CancelledError):  # a silent address ends by the caller's timeout
            # Look again: the host may have moved. A lookup that is under way is left to the others.
            if lookup.done() and self._lookups.get(place) is lookup:
                del self._lookups[place]
            raise
        if address is not addresses[0]:  # who connects later need not wait for a dead one
            addresses.remove(address)
            addresses.insert(0, address)
        return channel


async def resolve(host: str, port: int) -> list[Address]:
    """Return the addresses of a host; it waits for DNS.

    Raises:
        OSError: gaierror: the name cannot be resolved.
    """
    loop = asyncio.get_running_loop()
    return [*await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)]


async def connect_first(
    addresses: Sequence[Address], options: Sequence[Option] = ()
) -> tuple[socket.socket, Address]:
    """Return a non-blocking socket to the first address that answers, and that address.

    Args:
        addresses: at least one. The next one is tried when the one before has failed, or beside
            it after STAGGER_S.
        options: socket options to switch on before it connects, besides TCP_NODELAY.

    Raises:
        OSError: no address answers; it is the error of the first one.
    """
    if len(addresses) == 1:
        return await _connect(addresses[0], options), addresses[0]
    attempts: dict[asyncio.Task[socket.socket], Address] = {}
    won: asyncio.Task[socket.socket] | None = None
    try:
        for number, address in enumerate(addresses, 1):
            attempts[asyncio.create_task(_connect(address, options))] = address
            won = await _first(attempts, STAGGER_S if number < len(addresses) else None)
            if won is not None:
                return won.result(), attempts[won]
        return next(iter(attempts)).result(), addresses[0]  # raises: all have failed
    finally:
        for attempt in attempts:
            attempt.cancel()
            if attempt is not won and _has_succeeded(attempt):
                attempt.result().close()


async def _first(
    attempts: Iterable[asyncio.Task[socket.socket]], timeout_s: float | None
) -> asyncio.Task[socket.socket] | None:
    """Return the first attempt that succeeds; None: none has so far, or all have failed."""
    while waiting := [attempt for attempt in attempts if not attempt.done()]:
        ended, _ = await asyncio.wait(
            waiting, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED
        )
        if not ended:
            return None
        for attempt in ended:
            if _has_succeeded(attempt):
                return attempt
    return None


def _has_succeeded(attempt: asyncio.Task[Any]) -> bool:
    return attempt.done() and not attempt.cancelled() and attempt.exception() is None


async def _connect(address: Address, options: Iterable[Option]) -> socket.socket:
    family, kind, protocol, _, place = address
    channel = socket.socket(family, kind, protocol)
    channel.setblocking(False)
    try:
        channel.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for level, name in options:
            channel.setsockopt(level, name, 1)
        await asyncio.get_running_loop().sock_connect(channel, place)
    except BaseException:  # also a cancellation: the timeout, the end of the level
        channel.close()
        raise
    return channel
