"""The first address that answers, among those that a name has."""

import asyncio
import socket

import pytest

from llmdyno.wire.sockets import Address, connect_first, resolve


def address(port: int) -> Address:
    return (socket.AF_INET, socket.SOCK_STREAM, 0, "", ("127.0.0.1", port))


@pytest.fixture
def deaf_port() -> int:
    """Return a port where nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def test_an_address_where_nobody_listens_is_passed_over(deaf_port: int) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        options = [(socket.SOL_SOCKET, socket.SO_KEEPALIVE)]
        addresses = [address(deaf_port), address(port)]

        with asyncio.run(connect_first(addresses, options)) as channel:
            assert channel.getpeername() == ("127.0.0.1", port)
            assert not channel.getblocking()
            assert channel.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
            assert channel.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)


def test_without_an_answer_the_first_failure_is_told(deaf_port: int) -> None:
    broken: Address = (socket.AF_INET, socket.SOCK_STREAM, 0, "", ("255.255.255.255", 1))

    with pytest.raises(ConnectionRefusedError):
        asyncio.run(connect_first([address(deaf_port), broken]))


def test_a_name_that_nobody_knows_is_told() -> None:
    with pytest.raises(socket.gaierror):
        asyncio.run(resolve("no-such-host.invalid", 80))
