"""A connection is opened, or its failure has a class; faults/test_connections.py has the rest."""

import asyncio
import errno
import socket

import pytest

from llmdyno.wire import connect as connecting
from llmdyno.wire.connect import ConnectError, as_sent, connect
from llmdyno.wire.exchange import Meter
from llmdyno.wire.grpc import GrpcConnection
from llmdyno.wire.http1 import Connection
from llmdyno.wire.poller import Poller
from llmdyno.wire.target import parse_url
from scripted_server import Client, scripted


async def wait(client: Client) -> None:
    await client.request()


@pytest.mark.parametrize("polled", [False, True])
def test_the_scheme_says_which_protocol_is_spoken(polled: bool) -> None:
    async def main() -> None:
        meter = Meter()
        poller = Poller(meter) if polled else None
        async with scripted(wait) as url:
            plain = await connect(parse_url(url), meter, poller=poller)
            call = await connect(parse_url(url.replace("http", "grpc")), meter, poller=poller)
            assert isinstance(plain, Connection)
            assert isinstance(call, GrpcConnection)
            usable = [plain.usable]
            plain.close()
            call.close()
            assert [*usable, plain.usable] == [True, False]
        if poller is not None:
            poller.close()

    asyncio.run(main())


def test_a_port_where_nobody_listens_refuses() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]

    with pytest.raises(ConnectError, match=f"^127.0.0.1:{port}: ") as raised:
        asyncio.run(connect(parse_url(f"http://127.0.0.1:{port}"), Meter()))

    assert raised.value.kind == "refused"


def test_a_handshake_that_is_never_answered_ends_with_the_timeout() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        target = parse_url(f"https://127.0.0.1:{listener.getsockname()[1]}", insecure=True)
        with pytest.raises(ConnectError, match=r"^no connection in 0.05 s$") as raised:
            asyncio.run(connect(target, Meter(), timeout_s=0.05))

    assert raised.value.kind == "connect-timeout"


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (OSError(errno.EMFILE, "x"), "client-limit"),
        (OSError(errno.EADDRNOTAVAIL, "x"), "client-limit"),
        (OSError(errno.ECONNREFUSED, "x"), "refused"),
        (OSError(errno.ECONNRESET, "x"), "reset"),
        (OSError(errno.ETIMEDOUT, "x"), "connect-timeout"),
        (OSError(errno.EHOSTUNREACH, "x"), "unreachable"),
    ],
)
def test_an_error_of_the_system_has_its_class(error: OSError, kind: str) -> None:
    assert connecting._kind(error) == kind


def test_a_request_is_written_as_its_protocol_wants_it() -> None:
    posted = as_sent(parse_url("http://h"), "/v1/completions", b"{}")
    called = as_sent(parse_url("grpc://h"), "/inference/Infer", b"\0\0\0\0\1x")

    assert posted.startswith(b"POST /v1/completions HTTP/1.1\r\n")
    assert posted.endswith(b"Content-Length: 2\r\n\r\n{}")
    assert b"/inference/Infer" in called
    assert called.endswith(b"\0\0\0\0\1x")
