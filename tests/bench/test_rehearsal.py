"""One request as the run will send it: what a server refuses is found before the run."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from llmdyno import endpoints, spec
from llmdyno.bench import rehearsal
from llmdyno.bench.prober import Prober
from llmdyno.bench.rehearsal import rehearse
from llmdyno.errors import TargetError
from llmdyno.units import lengths
from llmdyno.wire.target import parse_url
from scripted_server import DONE, END, HEAD, STOP, Client, chunk, framed, plain, scripted

TOKEN = HEAD + framed(chunk("a") + STOP + DONE) + END
Body = dict[str, Any]
Answer = Callable[[Body], bytes]


def refusal(words: str, status: str = "400 Bad Request") -> bytes:
    return plain(status, json.dumps({"error": {"message": words}}).encode())


def rehearsed(answer: Answer, **given: Any) -> tuple[spec.Bench, list[Body]]:
    """Rehearse at a server that has the model "llama"; return the spec and what was asked."""
    asked: list[Body] = []

    async def server(client: Client) -> None:
        while True:
            body = await client.request()
            if client.path == "/v1/models":
                listed = {"data": [{"id": "llama"}, {"id": "mistral"}]}
                await client.send(plain("200 OK", json.dumps(listed).encode()), pause_s=0)
                continue
            asked.append(json.loads(body))
            await client.send(answer(asked[-1]), pause_s=0)

    async def main() -> spec.Bench:
        async with scripted(server) as url:
            bench = spec.Bench(**{"url": url, "endpoint": "openai-chat", "model": "llama", **given})
            prober = Prober(parse_url(url))
            try:
                return await rehearse(bench, prober, endpoints.load(bench.endpoint), {})
            finally:
                prober.close()

    return asyncio.run(main()), asked


EXACT = spec.Workload(osl=lengths("7", "--osl"))


def test_the_rehearsal_has_the_fields_of_the_run_and_another_prompt() -> None:
    bench, (body,) = rehearsed(lambda _body: TOKEN, workload=EXACT)

    assert bench.renamed == {}
    assert (body["max_tokens"], body["ignore_eos"], body["model"]) == (7, True, "llama")
    assert body["stream_options"] == {"include_usage": True}


def rehearsed_once(serve: Callable[[Client], Awaitable[None]], **given: Any) -> bool:
    """Rehearse once at a server; return whether it was hung up on."""

    async def main() -> bool:
        async with scripted(serve) as url:
            bench = spec.Bench(url=url, endpoint="openai-chat", model="m", **given)
            prober = Prober(parse_url(url))
            assert await rehearse(bench, prober, endpoints.load("openai-chat"), {}) == bench
            return prober.has_hung_up

    return asyncio.run(asyncio.wait_for(main(), 10))


def test_an_answer_that_ends_soon_is_read_whole() -> None:
    hung_up_on = None

    async def slow_to_hear(client: Client) -> None:
        nonlocal hung_up_on
        await client.request()
        await client.send(HEAD + framed(chunk("a")))
        try:
            hung_up_on = await asyncio.wait_for(client.some(), 0.3) == b""
        except TimeoutError:
            hung_up_on = False
        await client.send(framed(chunk("b") + STOP + DONE) + END)

    rehearsed_once(slow_to_hear)

    assert hung_up_on is False


@pytest.mark.parametrize(("max_tokens", "whole"), [(4, True), (4000, False)])
def test_an_answer_whose_end_is_near_is_read_on(
    monkeypatch: pytest.MonkeyPatch, max_tokens: int, whole: bool
) -> None:
    monkeypatch.setattr(rehearsal, "READS_ON_S", 0.05)
    monkeypatch.setattr(rehearsal, "READS_TO_S", 2.0)

    async def steady(client: Client) -> None:
        await client.request()
        await client.send(HEAD, *[framed(chunk("a"))] * 4, pause_s=0.05)
        while max_tokens > 4:
            await client.send(framed(chunk("a")), pause_s=0.05)
        await client.send(framed(STOP + DONE) + END)

    hung_up = rehearsed_once(steady, workload=spec.Workload(max_tokens=max_tokens))

    assert hung_up is not whole


def test_a_long_answer_is_hung_up_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rehearsal, "READS_ON_S", 0.1)

    async def endless(client: Client) -> None:
        await client.request()
        await client.send(HEAD + framed(chunk("a")))
        await client.request()  # raises once the client has hung up
        raise AssertionError("it was kept waiting")

    rehearsed_once(endless)


@pytest.mark.parametrize(
    "words",
    [
        "Unrecognized request argument supplied: ignore_eos",
        "ignore_eos and stream_options: extra inputs are not permitted",
        "bad request",  # then it is asked whether it takes any other length
    ],
)
def test_a_server_that_takes_no_exact_length_is_found(words: str) -> None:
    def strict(body: Body) -> bytes:
        return refusal(words, "422 X") if "ignore_eos" in body else TOKEN

    with pytest.raises(TargetError) as caught:
        rehearsed(strict, workload=EXACT)

    assert str(caught.value).startswith("--osl 7: the server takes no request for an answer of an")
    assert words in str(caught.value)
    assert "write --max-tokens 7 instead" in str(caught.value)
    at_most, _ = rehearsed(strict, workload=spec.Workload(max_tokens=7))
    assert at_most.renamed == {}


def test_a_server_with_other_names_for_our_fields_gets_them() -> None:
    def reasoning(body: Body) -> bytes:
        if "max_tokens" in body:
            return refusal("Unsupported parameter: 'max_tokens'. Use 'max_completion_tokens'.")
        if "stream_options" in body:
            return refusal("unknown field stream_options", "422 X")
        return TOKEN

    bench, asked = rehearsed(reasoning, workload=spec.Workload(max_tokens=9))

    assert bench.renamed == {"max_tokens": "max_completion_tokens", "stream_options": ""}
    assert asked[-1]["max_completion_tokens"] == 9
    assert not {"max_tokens", "stream_options"} & asked[-1].keys()


REFUSED: dict[str, tuple[bytes, dict[str, Any], tuple[str, ...]]] = {
    "a wrong model": (
        refusal("The model `lama` does not exist.", "404 Not Found"),
        {"model": "lama"},
        ("--model lama: the server has no such model; it has 'llama', 'mistral'", "not exist"),
    ),
    "a wrong path": (
        plain("404 Not Found", b'{"detail":"Not Found"}'),
        {},
        ("/v1/chat/completions: Not Found (status 404)", "--endpoint openai-chat"),
    ),
    "too long": (
        refusal("This model's maximum context length is 64 tokens"),
        {},
        ("refuses a request of this run (status 400): This model's maximum context",),
    ),
    "too long, behind a proxy that speaks in lines": (
        refusal("The prompt is too long.\n\nModel group 'llama' failed. No fallback was tried.."),
        {},
        ("too long. Model group 'llama' failed. No fallback was tried.",),
    ),
    "a key": (refusal("no key", "401 Unauthorized"), {}, ("wants a key", "--api-key-env")),
    "elsewhere": (
        plain("307 X", b"", "Location: https://x/v1/chat/completions"),
        {},
        ("give https://x as --url",),
    ),
    "one whole body": (
        plain("200 OK", b'{"choices":[]}', "Content-Type: application/json"),
        {},
        ("not with a stream of openai-chat",),
    ),
    "a page": (
        plain("200 OK", b"<html><title>Login</title>", "Content-Type: text/html"),
        {},
        ("a web page answers there with the title 'Login'",),
    ),
}


def test_a_page_is_no_stream_of_text() -> None:
    page = plain("200 OK", b"<html><title>Login</title>", "Content-Type: text/html")

    with pytest.raises(TargetError, match="a web page answers there with the title 'Login'"):
        rehearsed(lambda _body: page, endpoint="bentoml")


@pytest.mark.parametrize("name", REFUSED)
def test_what_every_request_would_meet_is_told_before_the_run(name: str) -> None:
    answer, given, words = REFUSED[name]

    with pytest.raises(TargetError) as caught:
        rehearsed(lambda _body: answer, **given)

    assert all(part in str(caught.value) for part in words), str(caught.value)


@pytest.mark.parametrize(
    "answer",
    [
        refusal("busy", "503 Service Unavailable"),
        refusal("slow down", "429 Too Many Requests"),
        HEAD + framed(b'data: {"error": {"message": "overloaded"}}\n\n') + END,
        HEAD + framed(DONE) + END,
    ],
)
def test_what_may_pass_is_left_to_the_run(answer: bytes) -> None:
    bench, asked = rehearsed(lambda _body: answer)

    assert bench.renamed == {}
    assert len(asked) == 1
