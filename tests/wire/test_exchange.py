"""One request on a connection, as far as HTTP and gRPC share it: how it ends."""

import asyncio
import gzip
import ssl

import pytest

from llmdyno.wire.exchange import Exchange, Meter, Response


class Asked(Exchange):
    """An exchange whose reads are the test's own."""

    def send(self, data: bytes) -> asyncio.Future[Response]:
        assert data
        return self._begin()

    def take(self, stamp_ns: int, data: bytes) -> bool:
        assert self._response is not None
        self._stamp_ns = self._response.first_byte_ns = stamp_ns
        self._response.pieces = [*self._response.pieces, (stamp_ns, data)]
        return data.endswith(b"!")

    def parse(self) -> bool:
        if self._response is None or not self._response.body().endswith(b"!"):
            return False
        self._finish()
        return True

    def encoded(self) -> None:
        assert self._response is not None
        self._response.headers = {"content-encoding": "gzip"}


def ended(error: Exception | None, *reads: bytes) -> Response:
    """Return the response when the connection ends so after these reads."""

    async def main() -> Response:
        exchange = Asked(Meter())
        response = exchange.send(b"?")
        for data in reads:
            exchange.data_received(data)
        exchange.connection_lost(error)
        assert not exchange.usable
        return await response

    return asyncio.run(main())


@pytest.mark.parametrize(
    ("error", "reads", "kind"),
    [
        (None, [], "no-response"),
        (None, [b"half"], "truncated"),
        (ConnectionResetError(104, "Connection reset by peer"), [b"half"], "truncated"),
        (ssl.SSLError(1, "bad record"), [], "tls"),
        (None, [b"whole!"], ""),
    ],
)
def test_a_lost_connection_is_the_class_of_its_end(
    error: Exception | None, reads: list[bytes], kind: str
) -> None:
    response = ended(error, *reads)

    assert response.error == kind
    assert response.body() == b"".join(reads)


def test_the_words_of_a_reset_are_the_systems() -> None:
    assert ended(ConnectionResetError(104, "Connection reset by peer")).detail == (
        "Connection reset by peer"
    )


def test_who_gives_up_keeps_what_came_and_its_connection_is_closed() -> None:
    async def main() -> tuple[Response, bool]:
        exchange = Asked(Meter())
        response = exchange.send(b"?")
        exchange.data_received(b"half")
        exchange.give_up("timeout", "no end in 5 s")
        return await response, exchange.usable

    response, usable = asyncio.run(main())

    assert (response.error, response.detail) == ("timeout", "no end in 5 s")
    assert response.body() == b"half"
    assert response.end_ns >= response.sent_ns
    assert not usable


def test_an_end_that_came_in_time_is_not_given_up() -> None:
    async def main() -> Response:
        exchange = Asked(Meter())
        response = exchange.send(b"?")
        exchange.take(7, b"whole!")  # read, not parsed yet
        exchange.give_up("timeout")
        return await response

    response = asyncio.run(main())

    assert (response.error, response.end_ns) == ("", 7)


def test_what_is_newer_than_a_moment_is_not_from_before() -> None:
    async def main() -> None:
        exchange = Asked(Meter())
        assert exchange.came_before(9) == []
        exchange.send(b"?")
        exchange.take(7, b"a")
        assert exchange.came_before(8) == [(7, b"a")]
        assert exchange.came_before(7) == []

    asyncio.run(main())


def test_a_body_that_cannot_be_decoded_is_a_fault_unless_there_is_another() -> None:
    async def main(error: Exception | None, data: bytes) -> Response:
        exchange = Asked(Meter())
        response = exchange.send(b"?")
        exchange.encoded()
        exchange.take(1, data)
        exchange.connection_lost(error) if error else exchange._finish()
        return await response

    whole = asyncio.run(main(None, gzip.compress(b"hello")))
    broken = asyncio.run(main(None, b"no gzip"))
    reset = asyncio.run(main(ConnectionResetError(104, "gone"), b"no gzip"))

    assert (whole.body(), whole.error) == (b"hello", "")
    assert broken.error == "bad-encoding"
    assert reset.error == "truncated"
    assert reset.detail == "the server reset the connection in the middle: gone"
