"""Every fault is a named class on the record; users survive it and go on."""

import asyncio
from collections.abc import Awaitable, Callable
from time import perf_counter_ns

import pytest

from llmdyno import plugins, spec
from llmdyno.load import Level, Plan, Progress
from llmdyno.records import Entry, Record
from llmdyno.transport import Meter, parse_url
from llmdyno.workload import Prompts
from scripted_server import DONE, END, HEAD, STOP, Client, chunk, framed, plain, scripted

Answer = Callable[[Client], Awaitable[None]]


async def records_of(url: str, load: spec.Load, *, endpoint: str = "openai-chat") -> list[Record]:
    """Run one level against a URL; return its records."""
    entries: list[Entry] = []
    plan = Plan(
        level=0,
        users=load.users[0],
        load=load,
        target=parse_url(url),
        endpoint=plugins.load("endpoints", endpoint),
        model="m",
    )
    level = Level(
        plan,
        Prompts(spec.Workload()),
        zero_ns=perf_counter_ns(),
        sink=entries.append,
        meter=Meter(),
        progress=Progress(),
    )
    await level.run()
    return [entry for entry in entries if isinstance(entry, Record)]


def run_level(
    answer: Answer, *, endpoint: str = "openai-chat", requests: int = 2, timeout_s: float = 5.0
) -> list[Record]:
    """Run one user against a script that answers every request in the same way."""

    async def script(client: Client) -> None:
        while True:
            await client.request()
            await answer(client)

    async def main() -> list[Record]:
        load = spec.Load(users=(1,), requests=requests, ramp_s=0.0, timeout_s=timeout_s)
        async with scripted(script) as url:
            return await records_of(url, load, endpoint=endpoint)

    return asyncio.run(main())


def body(*parts: bytes) -> Answer:
    """Answer with these parts of a chunked stream, each in a write of its own."""

    async def answer(client: Client) -> None:
        await client.send(HEAD, *(framed(part) for part in parts), END)

    return answer


def raw(*pieces: bytes, close: bool = False, reset: bool = False) -> Answer:
    """Answer with these very bytes; then close or reset the connection if asked."""

    async def answer(client: Client) -> None:
        await client.send(*pieces)
        if reset:
            client.reset()
        if close or reset:
            raise ConnectionError

    return answer


WHOLE = framed(chunk("a") + chunk("b") + STOP + DONE) + END

FAULTS: dict[str, tuple[str, Answer]] = {
    "no answer at all": ("no-response", raw(close=True)),
    "reset before an answer": ("reset", raw(reset=True)),
    "reset in the middle": ("reset", raw(HEAD, framed(chunk("a")), reset=True)),
    "closed in the middle": ("truncated", raw(HEAD, framed(chunk("a")), close=True)),
    "closed inside an event": ("truncated", raw(HEAD, framed(chunk("a")[:20]), close=True)),
    "ended without a finish reason": ("truncated", body(chunk("a"))),
    "ended without a token": ("no-tokens", body(STOP, DONE)),
    "error in the stream": (
        "stream-error",
        body(chunk("a"), b'data: {"error":{"message":"x"}}\n\n'),
    ),
    "garbage in the stream": ("bad-json", body(chunk("a"), b"data: {nonsense\n\n", DONE)),
    "not HTTP": ("bad-http", raw(b"SSH-2.0-OpenSSH_9.2\r\n\r\n", close=True)),
    "JSON instead of a stream": (
        "not-a-stream",
        raw(plain("200 OK", b'{"error": "boom"}', "Content-Type: application/json")),
    ),
    "an HTML page": (
        "not-a-stream",
        raw(plain("200 OK", b"<html></html>", "Content-Type: text/html")),
    ),
    "429": ("http-429", raw(plain("429 Too Many Requests", b"slow down"))),
    "500": ("http-500", raw(plain("500 Internal Server Error", b'{"error":{"message":"oom"}}'))),
    "503 without a body": ("http-503", raw(plain("503 Service Unavailable", b""))),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_has_its_class_and_the_user_goes_on(name: str) -> None:
    error, answer = FAULTS[name]

    records = run_level(answer)

    assert [record.error for record in records] == [error, error]
    assert [record.outcome for record in records] == ["failed", "failed"]


def test_the_words_of_the_server_are_kept() -> None:
    assert run_level(FAULTS["500"][1], requests=1)[0].detail == "oom"
    assert run_level(FAULTS["429"][1], requests=1)[0].detail == "slow down"


def test_a_server_that_stalls_runs_into_the_timeout_and_keeps_what_came() -> None:
    async def answer(client: Client) -> None:
        await client.send(HEAD, framed(chunk("a")))
        await asyncio.sleep(30)

    (record,) = run_level(answer, requests=1, timeout_s=0.3)

    assert (record.error, record.output_tokens) == ("timeout", 1)


ODD_BUT_WHOLE: dict[str, Answer] = {
    "one write": raw(HEAD + WHOLE),
    "cut at every byte": raw(HEAD, *(WHOLE[i : i + 1] for i in range(len(WHOLE)))),
    "the end in splinters": raw(HEAD, WHOLE[:-5], b"0", b"\r\n", b"\r", b"\n"),
    "until close": raw(
        b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n",
        chunk("a") + chunk("b"),
        STOP + DONE,
        close=True,
    ),
    "with a length": raw(plain("200 OK", chunk("a") + chunk("b") + STOP + DONE)),
    "closes after each": raw(HEAD.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"), WHOLE),
    "trailers": raw(HEAD, WHOLE[:-2] + b"X-Time: 1\r\n\r\n"),
    "an interim response first": raw(b"HTTP/1.1 100 Continue\r\n\r\n" + HEAD, WHOLE),
    "CRLF and comments": body(
        b": keep-alive\r\n\r\n" + (chunk("a") + chunk("b")).replace(b"\n", b"\r\n"), STOP, DONE
    ),
    "no finish reason but an end mark": body(chunk("a") + chunk("b"), DONE),
    "role first, usage last": body(
        b'data: {"choices":[{"delta":{"role":"assistant","content":""}}]}\n\n',
        chunk("a"),
        chunk("b"),
        STOP,
        b'data: {"choices":[],"usage":{"prompt_tokens":7,"completion_tokens":2}}\n\n',
        DONE,
    ),
    "reasoning before content": body(
        b'data: {"choices":[{"delta":{"reasoning_content":"hm"}}]}\n\n', chunk("b"), STOP, DONE
    ),
}


@pytest.mark.parametrize("name", ODD_BUT_WHOLE)
def test_an_odd_response_is_whole_and_every_token_counted(name: str) -> None:
    records = run_level(ODD_BUT_WHOLE[name])

    assert [(record.outcome, record.output_tokens) for record in records] == [("completed", 2)] * 2


def test_a_multibyte_character_may_be_cut_anywhere() -> None:
    stream = framed(chunk("é漢😀") + STOP + DONE) + END
    (record,) = run_level(raw(HEAD, *(stream[i : i + 1] for i in range(len(stream)))), requests=1)

    assert (record.outcome, record.output_tokens) == ("completed", 1)


def test_a_role_only_chunk_is_no_first_token() -> None:
    async def answer(client: Client) -> None:
        await client.send(HEAD, framed(b'data: {"choices":[{"delta":{"role":"assistant"}}]}\n\n'))
        await asyncio.sleep(0.2)
        await client.send(WHOLE)

    (record,) = run_level(answer, requests=1)

    assert record.gaps_ns[0] >= 0.2e9
    assert 0 < record.first_byte_ns < 0.2e9


def test_connections_are_used_again_and_a_stale_one_is_replaced() -> None:
    connections = 0

    async def script(client: Client) -> None:
        nonlocal connections
        connections += 1
        for _ in range(2):  # after two responses it hangs up, as idle timeouts do
            await client.request()
            await client.send(HEAD + WHOLE)

    async def main() -> list[Record]:
        load = spec.Load(users=(1,), requests=6, ramp_s=0.0, think_s=0.05)
        async with scripted(script) as url:
            return await records_of(url, load)

    records = asyncio.run(main())

    assert [record.outcome for record in records] == ["completed"] * 6
    assert connections == 3


def test_nobody_listens() -> None:
    async def refuse(_: Client) -> None:
        raise AssertionError

    async def main() -> list[Record]:
        async with scripted(refuse) as url:
            pass
        return await records_of(url, spec.Load(users=(2,), requests=4, ramp_s=0.0))

    records = asyncio.run(main())

    assert [record.error for record in records] == ["refused"] * 4
