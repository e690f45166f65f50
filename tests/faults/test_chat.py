"""A chat stream at one user: what of it counts, what a fault leaves, whose connection it has."""

import asyncio

import pytest

from harness import Answer, answering, raw, run
from scripted_server import DONE, END, HEAD, STOP, Client, chunk, framed, plain

WHOLE = framed(chunk("a") + chunk("b") + STOP + DONE) + END


def body(*parts: bytes) -> Answer:
    """Answer with these parts of a chunked stream, each in a write of its own."""
    return raw(HEAD, *(framed(part) for part in parts), END, pause_s=0.01)


def test_the_words_of_the_server_are_kept() -> None:
    oom = plain("500 Internal Server Error", b'{"error":{"message":"oom"}}')
    busy = plain("429 Too Many Requests", b"slow down")

    assert run(answering(raw(oom)), requests=1)[0].detail == "oom"
    assert run(answering(raw(busy)), requests=1)[0].detail == "slow down"


def test_what_came_last_is_said_of_a_stream_without_end() -> None:
    (record,) = run(answering(body(chunk("a"), b"Internal Server Error")), requests=1)

    assert record.error == "truncated"
    assert record.detail.endswith("Internal Server Error")


def test_a_server_that_stalls_runs_into_the_timeout_and_keeps_what_came() -> None:
    async def answer(client: Client) -> None:
        await client.send(HEAD, framed(chunk("a")))
        await asyncio.sleep(30)

    (record,) = run(answering(answer), requests=1, timeout_s=0.3)

    assert (record.error, record.output_tokens) == ("timeout", 1)


ODD_BUT_WHOLE: dict[str, Answer] = {
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
def test_an_odd_stream_is_whole_and_every_token_counted(name: str) -> None:
    records = run(answering(ODD_BUT_WHOLE[name]), requests=2)

    assert [(record.outcome, record.output_tokens) for record in records] == [("completed", 2)] * 2


def test_a_multibyte_character_may_be_cut_anywhere() -> None:
    stream = framed(chunk("é漢😀") + STOP + DONE) + END
    (record,) = run(
        answering(raw(HEAD, *(stream[i : i + 1] for i in range(len(stream))), pause_s=0.003)),
        requests=1,
    )

    assert (record.outcome, record.output_tokens) == ("completed", 1)


def test_a_role_only_chunk_is_no_first_token() -> None:
    async def answer(client: Client) -> None:
        await client.send(HEAD, framed(b'data: {"choices":[{"delta":{"role":"assistant"}}]}\n\n'))
        await asyncio.sleep(0.2)
        await client.send(WHOLE)

    (record,) = run(answering(answer), requests=1)

    assert 0 < record.first_byte_ns <= record.gaps_ns[0] - 0.2e9


def test_connections_are_used_again_and_a_stale_one_is_replaced() -> None:
    connections = 0

    async def script(client: Client) -> None:
        nonlocal connections
        connections += 1
        for _ in range(2):  # after two responses it hangs up, as idle timeouts do
            await client.request()
            await client.send(HEAD + WHOLE)

    records = run(script, requests=6, think_s=0.05)

    assert [record.outcome for record in records] == ["completed"] * 6
    assert connections == 3
