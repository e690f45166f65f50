"""One conversation: text is shown as it comes, what was said goes along, a fault is a sentence."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
import pytest

from llmdyno import endpoints
from llmdyno.bench.chat import Chat, begin
from llmdyno.errors import TargetError
from llmdyno.testing.scripted_server import answering, raw
from llmdyno.wire.target import parse_url
from scripted_server import DONE, END, HEAD, STOP, Client, Script, chunk, framed, plain, scripted

USAGE = b'data: {"choices":[],"usage":{"prompt_tokens":31,"completion_tokens":4}}\n\n'
WHOLE = HEAD + b"".join(map(framed, (chunk("no"), chunk(" way"), STOP, USAGE, DONE))) + END


def unseen(text: str) -> None:
    """Show nothing of an answer."""


def talk(
    script: Script, work: Callable[[Chat], Awaitable[None]], endpoint: str = "openai-chat"
) -> None:
    async def run() -> None:
        async with scripted(script) as url:
            chat = Chat(parse_url(url), endpoints.load(endpoint), "m", system_prompt="be brief")
            try:
                await work(chat)
            finally:
                chat.close()

    asyncio.run(run())


def test_text_is_shown_as_it_comes_and_once() -> None:
    shown: list[str] = []
    seen = asyncio.Event()

    async def script(client: Client) -> None:
        await client.request()
        await client.send(HEAD, framed(chunk("no")))
        await asyncio.wait_for(seen.wait(), 5)  # the answer goes on when its beginning is shown
        await client.send(framed(chunk(" way")) + framed(STOP) + framed(DONE) + END)

    def show(text: str) -> None:
        shown.append(text)
        seen.set()

    async def work(chat: Chat) -> None:
        turn = await chat.ask("why?", show)
        assert (turn.output_tokens, turn.source, turn.finish) == (2, "chunks", "stop")
        assert 0 < turn.ttft_ms < turn.e2e_ms
        assert turn.token_rate is not None

    talk(script, work)
    assert shown == ["no", " way"]


def test_a_turn_carries_what_was_said_but_not_what_failed() -> None:
    bodies: list[Any] = []

    async def script(client: Client) -> None:
        for answer in (WHOLE, plain("500 Internal Server Error", b'{"error":"oh"}'), WHOLE):
            bodies.append(msgspec.json.decode(await client.request()))
            await client.send(answer)
        await client.request()

    async def work(chat: Chat) -> None:
        turn = await chat.ask("one", unseen)
        assert (turn.input_tokens, turn.output_tokens, turn.source) == (31, 4, "usage")
        with pytest.raises(TargetError, match="status 500: oh"):
            await chat.ask("two", unseen)
        await chat.ask("three", unseen)

    talk(script, work)
    said = [(m["role"], m["content"]) for m in bodies[2]["messages"]]
    assert said == [
        *(("system", "be brief"), ("user", "one")),
        *(("assistant", "no way"), ("user", "three")),
    ]


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (plain("401 Unauthorized", b'{"error":{"message":"no key"}}'), "status 401: no key"),
        (plain("307 Temporary Redirect", b"", "Location: /x"), "redirects to /x"),
        (HEAD + framed(chunk("a")) + END, "truncated"),
        (HEAD + framed(b'data: {"error":"gone"}\n\n'), "stream-error: gone"),
        (HEAD + framed(STOP) + framed(DONE) + END, "no-tokens"),
        (b"", "no-response"),
        (plain("200 OK", b'{"choices":[]}', "Content-Type: application/json"), "not-a-stream"),
    ],
)
def test_an_answer_that_is_none_is_said_in_a_sentence(answer: bytes, words: str) -> None:
    async def work(chat: Chat) -> None:
        with pytest.raises(TargetError) as error:
            await chat.ask("why?", unseen)
        assert words in str(error.value)
        assert str(error.value).endswith(".")

    talk(answering(raw(answer, close=True)), work)


def test_what_was_not_streamed_and_what_came_at_once_is_told() -> None:
    hidden = USAGE.replace(b'"completion_tokens":4', b'"completion_tokens":4,"total_tokens":235')

    async def script(client: Client) -> None:
        await client.request()
        await client.send(WHOLE.replace(framed(USAGE), framed(hidden)))
        await client.request()

    async def work(chat: Chat) -> None:
        turn = await chat.ask("one", unseen)
        assert (turn.output_tokens, turn.unstreamed, turn.reads) == (4, 200, 1)

    talk(script, work)


def test_a_server_is_asked_what_it_is() -> None:
    models = plain("200 OK", b'{"data":[{"id":"llama"}]}')

    async def script(client: Client) -> None:
        while True:
            asked, _ = await client.asked()
            if asked == "GET /v1/models":
                await client.send(models)
            elif asked == "POST /v1/chat/completions":
                await client.send(WHOLE)
            else:
                await client.send(plain("404 Not Found", b""))

    async def run() -> None:
        async with scripted(script) as url:
            chat = await begin(parse_url(url), "auto", "", system_prompt="", max_tokens=5)
            assert (chat.endpoint.name, chat.model) == ("openai-chat", "llama")
            assert (await chat.ask("hi", unseen)).output_tokens == 4
            chat.close()

    asyncio.run(run())
