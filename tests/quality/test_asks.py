"""What a server is asked, and how much of its tokens it is made to tell; servers of every grade."""

import asyncio
import json
from collections.abc import Callable
from typing import Any

import pytest

from llmdyno.errors import TargetError
from llmdyno.quality.answers import Answers
from llmdyno.quality.asks import ask_server
from llmdyno.testing.scripted_server import Client, scripted
from llmdyno.wire.target import parse_url

ASKED = ("one", "two", "three")
Grade = Callable[[dict[str, Any]], tuple[int, Any]]


def ask(
    grade: Grade, endpoint: str = "openai-completions", **how: Any
) -> tuple[Answers, list[Any]]:
    """Ask a server that answers by a function of the request's body; return all it was asked."""
    bodies: list[Any] = []

    async def script(client: Client) -> None:
        while True:
            body = json.loads(await client.request())
            bodies.append(body)
            status, answer = grade(body)
            data = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
            kind = b"text/event-stream" if body.get("stream") else b"application/json"
            head = b"HTTP/1.1 %d X\r\ncontent-type: %s\r\ncontent-length: %d\r\n\r\n"
            await client.send(head % (status, kind, len(data)) + data, pause_s=0)

    async def whole() -> Answers:
        async with scripted(script) as url:
            return await ask_server(
                parse_url(url), endpoint=endpoint, model="m", prompts=ASKED, concurrency=2, **how
            )

    return asyncio.run(whole()), bodies


def refused(name: str) -> tuple[int, Any]:
    return 400, {"error": {"message": f"'{name}' is not supported", "type": "x"}}


def completion(body: dict[str, Any], top: int) -> dict[str, Any]:
    likeliest = {"A": -0.1, **{f"x{number}": -3.0 for number in range(1, top)}}
    logprobs = {"tokens": ["A"], "token_logprobs": [-0.1], "top_logprobs": [likeliest]}
    text = f"A {body['prompt']}"
    return {"choices": [{"text": text, "logprobs": logprobs, "finish_reason": "stop"}]}


def stream(text: str) -> bytes:
    events = [{"choices": [{"text": text}]}, {"choices": [{"text": "", "finish_reason": "stop"}]}]
    return b"".join(b"data: " + json.dumps(one).encode() + b"\n\n" for one in events) + (
        b"data: [DONE]\n\n"
    )


def test_a_server_that_tells_everything_is_asked_for_it_greedily() -> None:
    said, bodies = ask(lambda body: (200, completion(body, 5)))

    assert said.alone[0].tokens == ("A",)
    assert len(said.alone[0].top[0]) == 5
    assert [one.text for one in said.alone] == [one.text for one in said.loaded]
    assert [one.text for one in said.loaded] == ["A one", "A two", "A three"]
    assert len(bodies) == 1 + 3 * 3  # to find out how much it tells, then three passes
    for body in bodies:
        assert (body["temperature"], body["seed"], body["stream"]) == (0.0, 0, False)
        assert body["logprobs"] == 5
        assert "stream_options" not in body


def test_a_server_that_refuses_fields_is_asked_for_less() -> None:
    def grade(body: dict[str, Any]) -> tuple[int, Any]:
        if "return_tokens_as_token_ids" in body:
            return refused("return_tokens_as_token_ids")
        return refused("logprobs") if body["logprobs"] > 1 else (200, completion(body, 1))

    said, bodies = ask(grade)
    assert said.alone[0].logprobs == (-0.1,)
    assert said.alone[0].top == ()
    assert bodies[-1]["logprobs"] == 1


def test_a_server_that_ignores_or_refuses_all_of_it_gives_text() -> None:
    def grade(body: dict[str, Any]) -> tuple[int, Any]:
        if body["stream"]:
            return 200, stream(f"A {body['prompt']}")
        if body["logprobs"] == 5:
            return 200, {"choices": [{"text": "A", "logprobs": None}]}
        return refused("logprobs")

    said, bodies = ask(grade, again=False)
    assert [one.text for one in said.alone] == ["A one", "A two", "A three"]
    assert said.again == []
    assert said.alone[0].tokens == ()
    assert "logprobs" not in bodies[-1]


def test_another_endpoint_is_asked_as_its_plug_in_writes() -> None:
    def grade(body: dict[str, Any]) -> tuple[int, Any]:
        assert "logprobs" not in body
        return 200, b'data: {"text_output": "A"}\n\n'

    said, _ = ask(grade, endpoint="triton-generate")
    assert [one.text for one in said.alone] == ["A"] * 3


@pytest.mark.parametrize("when", ["alone", "loaded"])
def test_a_server_that_fails_in_between_ends_it_with_a_sentence(when: str) -> None:
    count = 0

    def grade(body: dict[str, Any]) -> tuple[int, Any]:
        nonlocal count
        count += 1
        if count > (3 if when == "alone" else 8):
            return 500, {"error": {"message": "out of memory"}}
        return 200, completion(body, 5)

    with pytest.raises(TargetError, match=r"/v1/completions: status 500: .*out of memory"):
        ask(grade)
