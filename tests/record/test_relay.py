"""The relay: bytes pass unchanged and at once, and what one side does is done to the other."""

import asyncio
import gc
import random
from collections.abc import Coroutine
from time import perf_counter_ns

import pytest

from llmdyno.record.exchange import Exchange
from llmdyno.record.heads import read_head
from llmdyno.wire.target import parse_url
from passing import passing, passing_to, post
from scripted_server import DONE, END, HEAD, STOP, Client, Script, chunk, framed, plain

ASKED = post({"model": "m", "messages": [{"role": "user", "content": "hi"}]})
TARGET = parse_url("http://127.0.0.1:1")
LAST = post({"messages": []}, "Connection: close")
HEAD_OF_SEVEN = b"HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\n"  # of a body that does not come
STREAM = [HEAD, framed(chunk("a")), framed(chunk("b")), framed(STOP) + framed(DONE) + END]


def run(work: Coroutine[None, None, None]) -> None:
    asyncio.run(work)


def test_an_answer_passes_byte_for_byte_as_it_comes() -> None:
    go_on = asyncio.Event()

    async def script(client: Client) -> None:
        await client.request()
        for piece in STREAM:
            await client.send(piece, pause_s=0)
            await go_on.wait()
            go_on.clear()

    async def work() -> None:
        async with passing(script) as proxy:
            reader, writer = await proxy.connect()
            writer.write(ASKED)
            for piece in STREAM:  # the next one is sent only when this one has come
                assert await asyncio.wait_for(reader.readexactly(len(piece)), 5) == piece
                go_on.set()
            (passed,) = await proxy.until_kept()
            writer.close()

        assert (passed.status, passed.error) == (200, "")
        assert passed.body == ASKED.partition(b"\r\n\r\n")[2]
        assert b"".join(data for _, data in passed.pieces).endswith(DONE)
        assert len(passed.pieces) >= 3
        assert passed.asked_ns < passed.pieces[0][0] < passed.end_ns

    run(work())


def test_a_connection_takes_one_request_after_the_other() -> None:
    heads: list[bytes] = []

    async def script(client: Client) -> None:
        while True:
            await client.request()
            heads.append(client.head)
            await client.send(plain("200 OK", b"{}"), pause_s=0)

    async def work() -> None:
        async with passing(script) as proxy:
            reader, writer = await proxy.connect()
            for _ in range(3):
                writer.write(ASKED)
                answer = await asyncio.wait_for(reader.readuntil(b"{}"), 5)
                assert answer == plain("200 OK", b"{}")
            writer.close()
            assert len(await proxy.until_kept(3)) == 3

    run(work())
    assert len(heads) == 3


@pytest.mark.parametrize("cut", range(1, len(END)))
def test_a_long_answer_is_kept_whole_and_its_end_seen_however_it_comes(cut: int) -> None:
    tokens = [framed(chunk(f"{number}")) for number in range(150)]
    end = framed(STOP) + framed(DONE) + END
    pieces = [HEAD, *tokens, end[:-cut], end[-cut:]]

    async def script(client: Client) -> None:
        for _ in range(2):
            await client.request()
            for piece in pieces:
                await client.send(piece, pause_s=0)
                await asyncio.sleep(0)
        await client.request()

    async def work() -> None:
        async with passing(script) as proxy:
            reader, writer = await proxy.connect()
            for asked in range(2):  # the second one only after the first one's end was seen
                writer.write(ASKED)
                came = await asyncio.wait_for(reader.readexactly(sum(map(len, pieces))), 5)
                assert came == b"".join(pieces)
                passed = (await proxy.until_kept(asked + 1))[asked]
                assert passed.error == ""
                body = b"".join(data for _, data in passed.pieces)
                assert body == b"".join([*map(chunk, map(str, range(150))), STOP, DONE])
                stamps = [stamp for stamp, _ in passed.pieces]
                assert stamps == sorted(stamps)
                assert passed.asked_ns < stamps[0] <= stamps[-1] <= passed.end_ns
            writer.close()

    run(work())


def test_parts_that_cannot_be_the_last_are_parsed_many_at_once() -> None:
    exchange = Exchange(read_head(ASKED.partition(b"\r\n\r\n")[0] + b"\r\n\r\n", TARGET))
    assert exchange.note_answer(HEAD, 1)  # how the answer ends is not known yet
    exchange.follow_answer()

    token = framed(chunk("a"))
    soon = [exchange.note_answer(token, number) for number in range(2, 70)]
    assert [number for number, one in enumerate(soon, 1) if one] == [64, 65, 66, 67, 68]
    exchange.follow_answer()
    assert exchange.passed is not None
    assert [stamp for stamp, _ in exchange.passed.pieces] == list(range(2, 70))

    assert exchange.note_answer(END, 70)
    exchange.follow_answer()
    assert exchange.is_answered
    exchange.release()


def test_what_is_not_recorded_passes_too() -> None:
    large = b"x" * 3_000_000

    async def script(client: Client) -> None:
        asked, body = await client.asked()
        if asked.startswith("HEAD"):
            await client.send(HEAD_OF_SEVEN)
        elif asked.startswith("PUT"):
            await client.send(plain("200 OK", body))
        else:
            await client.send(plain("404 Not Found", b"nowhere", "X-Mark: 1"))
        await client.request()

    async def work() -> None:
        async with passing(script) as proxy:
            close = b"Host: h\r\nConnection: close\r\n"
            assert await proxy.ask(b"GET /metrics HTTP/1.1\r\n" + close + b"\r\n") == plain(
                "404 Not Found", b"nowhere", "X-Mark: 1"
            )
            assert await proxy.ask(b"HEAD / HTTP/1.1\r\n" + close + b"\r\n") == HEAD_OF_SEVEN
            put = b"PUT /f HTTP/1.1\r\n" + close + b"Content-Length: 3000000\r\n\r\n"
            assert await proxy.ask(put + large) == plain("200 OK", large)
            assert proxy.kept == []

    run(work())


async def _hang_up_at_once(client: Client) -> None:
    await client.request()
    raise ConnectionError


async def _hang_up_in_the_middle(client: Client) -> None:
    await client.request()
    await client.send(*STREAM[:2])


@pytest.mark.parametrize(
    ("script", "begins", "status", "error"),
    [
        (_hang_up_at_once, b"HTTP/1.1 502 Bad Gateway", 502, "no-response"),
        (_hang_up_in_the_middle, b"".join(STREAM[:2]), 200, "truncated"),
    ],
)
def test_a_server_that_dies_is_told(script: Script, begins: bytes, status: int, error: str) -> None:
    async def work() -> None:
        async with passing(script) as proxy:
            answer = await proxy.ask(ASKED)
            (passed,) = await proxy.until_kept()

        assert answer.startswith(begins)
        assert (passed.status, passed.error) == (status, error)

    run(work())


def test_a_server_that_is_not_there_is_a_502() -> None:
    async def work() -> None:
        async with passing_to("http://127.0.0.1:9") as proxy:
            answer = await proxy.ask(ASKED)
            (passed,) = await proxy.until_kept()

        assert answer.startswith(b"HTTP/1.1 502")
        assert b"127.0.0.1:9 cannot be reached" in answer
        assert (passed.status, passed.error) == (502, "unreachable")

    run(work())


def test_a_client_that_hangs_up_ends_the_request_at_the_server() -> None:
    ended = asyncio.Event()

    async def script(client: Client) -> None:
        await client.request()
        await client.send(*STREAM[:2], pause_s=0)
        try:
            await client.request()
        finally:  # only the end of the connection ends this wait
            ended.set()

    async def work() -> None:
        async with passing(script) as proxy:
            reader, writer = await proxy.connect()
            writer.write(ASKED)
            await reader.readexactly(len(STREAM[0] + STREAM[1]))
            writer.close()
            await asyncio.wait_for(ended.wait(), 5)
            (passed,) = await proxy.until_kept()

        assert (passed.status, passed.error) == (200, "cut")
        assert passed.pieces

    run(work())


def test_a_stale_connection_costs_the_client_nothing() -> None:
    served: list[int] = []

    async def script(client: Client) -> None:
        await client.request()
        served.append(1)
        await client.send(plain("200 OK", b"{}"), pause_s=0)
        if len(served) == 1:  # the next request is read, and then nobody answers it
            await client.request()

    async def work() -> None:
        async with passing(script) as proxy:
            reader, writer = await proxy.connect()
            for _ in range(2):
                writer.write(ASKED)
                answer = await asyncio.wait_for(reader.readuntil(b"{}"), 5)
                assert answer == plain("200 OK", b"{}")
            writer.close()
            assert [one.error for one in await proxy.until_kept(2)] == ["", ""]

    run(work())


def test_an_answer_that_ends_with_its_connection_is_whole() -> None:
    async def script(client: Client) -> None:
        await client.request()
        await client.send(b"HTTP/1.1 200 OK\r\n\r\n", b"data: [DONE]\n\n")

    async def work() -> None:
        async with passing(script) as proxy:
            answer = await proxy.ask(ASKED)
            (passed,) = await proxy.until_kept()

        assert answer == b"HTTP/1.1 200 OK\r\n\r\ndata: [DONE]\n\n"
        assert (passed.error, passed.pieces[0][1]) == ("", b"data: [DONE]\n\n")

    run(work())


def test_an_interim_answer_and_a_chunked_request_pass() -> None:
    async def script(client: Client) -> None:
        await client.request()
        await client.send(b"HTTP/1.1 100 Continue\r\n\r\n")
        assert client.head.lower().count(b"expect: 100-continue") == 1
        await client.send(plain("200 OK", b"{}", "Connection: close"))

    async def work() -> None:
        async with passing(script) as proxy:
            reader, writer = await proxy.connect()
            head = ASKED.partition(b"Content-Length")[0]
            writer.write(head + b"Expect: 100-continue\r\nTransfer-Encoding: chunked\r\n\r\n")
            assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
            writer.write(b"2\r\n{}\r\n0\r\n\r\n")
            assert await reader.read() == plain("200 OK", b"{}", "Connection: close")
            (passed,) = await proxy.until_kept()
            writer.close()

        assert (passed.body, passed.error) == (b"{}", "")

    run(work())


def test_another_protocol_passes_both_ways() -> None:
    async def script(client: Client) -> None:
        await client.request()
        await client.send(
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n"
        )
        said = await client._reader.readexactly(4)
        await client.send(said.upper())

    async def work() -> None:
        async with passing(script) as proxy:
            reader, writer = await proxy.connect()
            writer.write(
                b"GET /v1/realtime HTTP/1.1\r\nHost: h\r\nUpgrade: websocket\r\n"
                b"Connection: Upgrade\r\n\r\n"
            )
            assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 101")
            writer.write(b"ping")
            assert await asyncio.wait_for(reader.read(), 5) == b"PING"
            writer.close()

    run(work())


@pytest.mark.parametrize(
    "data",
    [
        b"hello\r\n\r\n",
        b"POST / HTTP/1.1\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"GET / HTTP/1.1\r\nno header\r\n\r\n",
        b"GET / HTTP/1.1\r\nA: " + b"x" * 300_000,
    ],
)
def test_what_is_no_request_is_refused(data: bytes) -> None:
    async def script(client: Client) -> None:
        await client.request()
        await client.send(plain("200 OK", b""))

    async def work() -> None:
        async with passing(script) as proxy:
            assert (await proxy.ask(data)).startswith(b"HTTP/1.1 400 Bad Request")

    run(work())


def test_a_request_ahead_of_an_answer_is_refused_by_name_and_has_its_time() -> None:
    async def work() -> None:
        async with passing(lambda _: asyncio.sleep(5)) as proxy:
            begun_ns = perf_counter_ns()
            refused = await proxy.ask(post({}) + post({}))
            (kept,) = await proxy.until_kept()

        assert b"a request ahead of the answer to the one before" in refused
        assert begun_ns < kept.asked_ns < perf_counter_ns()

    run(work())


def test_a_slow_client_holds_the_server_back() -> None:
    sent = 0

    async def script(client: Client) -> None:
        nonlocal sent
        await client.request()
        await client.send(HEAD, pause_s=0)
        for _ in range(400):
            await client.send(framed(b"x" * 100_000), pause_s=0)
            sent += 1
        await client.send(END)

    async def work() -> None:
        async with passing(script) as proxy:
            reader, writer = await proxy.connect()
            writer.write(LAST)
            await reader.readexactly(len(HEAD))
            await asyncio.sleep(0.2)
            held_back = sent
            whole = await asyncio.wait_for(reader.read(), 20)
            writer.close()

        assert held_back < 390
        assert whole.endswith(END)
        assert whole.count(b"x") == 400 * 100_000

    run(work())


def test_bytes_keep_their_order_where_a_side_takes_them_late() -> None:
    sent = random.Random(1).randbytes(6_000_000)  # more than two sockets hold
    asked = b""

    async def script(client: Client) -> None:
        nonlocal asked
        await asyncio.sleep(0.1)  # the question waits on its way
        asked = await client.request()
        await client.send(plain("200 OK", sent))

    async def work() -> None:
        async with passing(script) as proxy:
            reader, writer = await proxy.connect()
            head = b"POST /v1/files HTTP/1.1\r\nContent-Length: %d\r\n\r\n" % len(sent)
            writer.write(head + sent)
            await asyncio.sleep(0.2)  # the answer waits, too
            received = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 5)
            assert received.startswith(b"HTTP/1.1 200 OK")
            came = await asyncio.wait_for(reader.readexactly(len(sent)), 5)
            writer.close()
        assert (came == sent, asked == sent) == (True, True)  # too long to be shown

    run(work())


def test_a_request_that_has_passed_leaves_nothing_to_collect() -> None:
    async def script(client: Client) -> None:
        await client.request()
        await client.send(*STREAM, pause_s=0)

    async def work() -> None:
        async with passing(script) as proxy:
            gc.collect()
            gc.disable()
            try:
                await proxy.ask(LAST)
                await proxy.until_kept()
                left = [one for one in gc.get_objects() if isinstance(one, Exchange)]
            finally:
                gc.enable()
        assert left == []

    run(work())


def test_an_end_waits_for_the_answer_under_way() -> None:
    go_on = asyncio.Event()

    async def script(client: Client) -> None:
        await client.request()
        await client.send(*STREAM[:2], pause_s=0)
        await go_on.wait()
        await client.send(*STREAM[2:])
        await client.request()

    async def work() -> None:
        async with passing(script) as proxy:
            reader, writer = await proxy.connect()
            writer.write(ASKED)
            await reader.readexactly(len(STREAM[0] + STREAM[1]))
            (relay,) = proxy.relays
            assert relay.is_busy
            relay.end_when_idle()
            go_on.set()
            assert await asyncio.wait_for(reader.read(), 5) == b"".join(STREAM[2:])
            assert [one.error for one in proxy.kept] == [""]
            writer.close()

    run(work())
