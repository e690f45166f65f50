"""The addresses of a host: looked up once, and the first one that answers is taken."""

import asyncio
import socket
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import pytest
import uvloop

from llmdyno.wire.sockets import STAGGER_S, Address, Addresses, connect_first, resolve

HOST = "127.0.0.1"


def address(port: int) -> Address:
    return (socket.AF_INET, socket.SOCK_STREAM, 0, "", (HOST, port))


@pytest.fixture
def deaf_port() -> int:
    """Return a port where nobody listens."""
    with socket.create_server((HOST, 0)) as listener:
        return int(listener.getsockname()[1])


@pytest.fixture
def listening() -> Iterator[int]:
    """Yield a port where connections are taken."""
    with socket.create_server((HOST, 0), backlog=128) as listener:
        yield listener.getsockname()[1]


@pytest.fixture
def dead() -> Iterator[int]:
    """Yield a port that answers nothing, not even with a refusal: its queue is full."""
    with socket.create_server((HOST, 0), backlog=0) as listener:
        waiting = [socket.socket() for _ in range(8)]
        for channel in waiting:
            channel.setblocking(False)
            channel.connect_ex(listener.getsockname())
        yield listener.getsockname()[1]
        for channel in waiting:
            channel.close()


def test_an_address_where_nobody_listens_is_passed_over(deaf_port: int, listening: int) -> None:
    options = [(socket.SOL_SOCKET, socket.SO_KEEPALIVE)]
    addresses = [address(deaf_port), address(listening)]

    channel, found = asyncio.run(connect_first(addresses, options))

    with channel:
        assert found is addresses[1]
        assert channel.getpeername() == (HOST, listening)
        assert not channel.getblocking()
        assert channel.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        assert channel.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)


@pytest.mark.parametrize("run", [asyncio.run, uvloop.run])
def test_an_address_that_does_not_answer_holds_up_the_next_one_for_a_moment(
    run: Callable[..., Any], dead: int, listening: int
) -> None:
    before = time.monotonic()

    channel, _ = run(connect_first([address(dead), address(listening)]))

    with channel:
        assert channel.getpeername() == (HOST, listening)
    assert STAGGER_S <= time.monotonic() - before < 10  # the kernel would give up after minutes


def test_the_address_that_answered_is_the_first_one_for_those_after(
    dead: int, listening: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def main() -> list[list[int]]:
        async def lookup(*_: object, **__: object) -> list[Address]:
            return [address(dead), address(listening)]

        async def connect(channel: socket.socket, to: tuple[str, int]) -> None:
            tried[-1].append(to[1])
            await really(channel, to)

        loop = asyncio.get_running_loop()
        really = loop.sock_connect
        monkeypatch.setattr(loop, "getaddrinfo", lookup)
        monkeypatch.setattr(loop, "sock_connect", connect)
        addresses, tried = Addresses(), list[list[int]]()
        for _ in range(2):
            tried.append([])
            (await addresses.connect("twice.test", 80)).close()
        return tried

    assert asyncio.run(main()) == [[dead, listening], [listening]]


def test_who_tries_a_dead_address_gets_the_live_one_though_another_found_it_first(
    dead: int, listening: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def main() -> list[str]:
        async def lookup(*_: object, **__: object) -> list[Address]:
            return [address(dead), address(listening)]

        async def user(number: int) -> str:
            await asyncio.sleep(STAGGER_S / 5 * number)  # most begin before the first is done
            try:
                async with asyncio.timeout(10 * STAGGER_S):
                    (await addresses.connect("twice.test", 80)).close()
            except TimeoutError:
                return "timeout"
            return "connected"

        monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", lookup)
        addresses = Addresses()
        return await asyncio.gather(*(user(number) for number in range(6)))

    assert asyncio.run(main()) == ["connected"] * 6


def test_a_name_that_many_need_is_looked_up_once(
    listening: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    lookups = 0

    async def main() -> None:
        async def lookup(*_: object, **__: object) -> list[Address]:
            nonlocal lookups
            lookups += 1
            await asyncio.sleep(0.1)
            return [address(listening)]

        monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", lookup)
        addresses = Addresses()
        # Who waited no longer does not take it from the others.
        impatient = asyncio.create_task(addresses.connect("slow.test", 80))
        await asyncio.sleep(0.01)
        impatient.cancel()
        for channel in await asyncio.gather(
            *(addresses.connect("slow.test", 80) for _ in range(20))
        ):
            channel.close()

    asyncio.run(main())
    assert lookups == 1


def test_without_an_answer_the_first_failure_is_told(deaf_port: int) -> None:
    broken: Address = (socket.AF_INET, socket.SOCK_STREAM, 0, "", ("255.255.255.255", 1))

    with pytest.raises(ConnectionRefusedError):
        asyncio.run(connect_first([address(deaf_port), broken]))


def moving(monkeypatch: pytest.MonkeyPatch, ports: Iterable[int]) -> Addresses:
    """Return the addresses of hosts that each lookup finds at the next of these ports."""
    places = iter(ports)

    async def lookup(*_: object, **__: object) -> list[Address]:
        return [address(next(places))]

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", lookup)
    return Addresses()


def test_a_host_that_failed_is_looked_up_again(
    deaf_port: int, listening: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def main() -> None:
        addresses = moving(monkeypatch, [deaf_port, listening])
        with pytest.raises(ConnectionRefusedError):
            await addresses.connect("moved.test", 80)
        (await addresses.connect("moved.test", 80)).close()

    asyncio.run(main())


def test_a_host_that_was_silent_for_too_long_is_looked_up_again(
    dead: int, listening: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def main() -> None:
        addresses = moving(monkeypatch, [dead, listening])
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.1):
                await addresses.connect("moved.test", 80)
        async with asyncio.timeout(10):
            (await addresses.connect("moved.test", 80)).close()

    asyncio.run(main())


def test_a_name_that_nobody_knows_is_told() -> None:
    with pytest.raises(socket.gaierror):
        asyncio.run(resolve("no-such-host.invalid", 80))
