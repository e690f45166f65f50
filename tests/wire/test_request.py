"""A request with a time limit, on a connection that is kept: in virtual time."""

import asyncio

import pytest

from llmdyno.wire.connect import ConnectError
from llmdyno.wire.exchange import Exchange, Response
from llmdyno.wire.request import KeptConnection, answered
from virtual_time import Reply, Server, run


def asked(server: Server, times: int) -> list[Response]:
    """Return the responses to so many requests, one after the other on a kept connection."""

    async def main() -> list[Response]:
        kept = KeptConnection(server.dial)
        return [
            await kept.request(lambda exchange: answered(exchange, b"?", 5.0)) for _ in range(times)
        ]

    return run(main())


def test_an_answer_in_time_is_an_answer() -> None:
    (response,) = asked(Server([Reply(4.9)]), 1)

    assert (response.status, response.error, response.end_ns) == (200, "", 4_900_000_000)


def test_without_an_answer_in_time_the_connection_is_given_up() -> None:
    server = Server([Reply(5.1)])

    first, second = asked(server, 2)

    assert (first.error, first.detail) == ("timeout", "no answer in 5 s")
    assert (first.end_ns, second.end_ns) == (5_000_000_000, 10_000_000_000)
    assert len(server.exchanges) == 2


def test_the_caller_says_what_the_timeout_means() -> None:
    async def main() -> Response:
        exchange = await Server([Reply(9.0)]).dial()
        return await answered(exchange, b"?", 1.0, "no end within a second")

    assert run(main()).detail == "no end within a second"


def test_who_is_cancelled_leaves_no_answer_under_way() -> None:
    async def main() -> Exchange:
        exchange = await Server([Reply(9.0)]).dial()
        asking = asyncio.create_task(answered(exchange, b"?", 100.0))
        await asyncio.sleep(1.0)
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        return exchange

    assert not run(main()).usable


def test_a_connection_is_opened_once_and_kept() -> None:
    server = Server([Reply(0.1)], connect_s=1.0)

    responses = asked(server, 3)

    assert len(server.exchanges) == 1
    assert [response.end_ns / 1e9 for response in responses] == pytest.approx([1.1, 1.2, 1.3])


@pytest.mark.parametrize("error", ["reset", "no-response"])
def test_a_kept_connection_that_was_closed_is_opened_anew_and_the_request_sent_again(
    error: str,
) -> None:
    server = Server([Reply(0.1), Reply(0.1, error=error), Reply(0.1)])

    responses = asked(server, 2)

    assert [response.error for response in responses] == ["", ""]
    assert (server.requests, len(server.exchanges)) == (3, 2)
    # From the first sending on: 0.1 s until the connection ended, and 0.1 s for the answer.
    assert responses[1].end_ns - responses[1].sent_ns == pytest.approx(0.2e9)


@pytest.mark.parametrize("error", ["reset", "no-response"])
def test_a_request_that_a_server_lost_after_a_wait_has_failed(error: str) -> None:
    server = Server([Reply(0.1), Reply(3.0, error=error), Reply(0.1)])

    _, second = asked(server, 2)

    assert (second.error, second.end_ns - second.sent_ns) == (error, 3_000_000_000)
    assert server.requests == 2


@pytest.mark.parametrize("replies", [[Reply(error="reset")], [Reply(), Reply(error="truncated")]])
def test_what_a_new_connection_or_another_fault_brings_is_the_answer(replies: list[Reply]) -> None:
    server = Server(replies)

    *_, last = asked(server, len(replies))

    assert last.error in {"reset", "truncated"}
    assert server.requests == len(replies)


def test_a_connection_that_cannot_be_made_is_tried_anew_by_the_next_request() -> None:
    server = Server([Reply()], refused=1)

    async def main() -> Response:
        kept = KeptConnection(server.dial)
        with pytest.raises(ConnectError, match="nobody listens"):
            await kept.open()
        return await kept.request(lambda exchange: answered(exchange, b"?", 5.0))

    assert run(main()).status == 200


def test_a_closed_connection_is_opened_anew() -> None:
    server = Server([Reply()])

    async def main() -> tuple[bool, bool]:
        kept = KeptConnection(server.dial)
        await kept.open()
        _, reused = await kept.open()
        kept.close()
        kept.close()
        _, reused_after = await kept.open()
        return reused, reused_after

    assert run(main()) == (True, False)
    assert len(server.exchanges) == 2
