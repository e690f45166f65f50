"""Questions to a server outside any measurement: answered, or one sentence says why not."""

import asyncio
import socket
from collections.abc import Awaitable, Callable

import pytest

from llmdyno.bench.prober import Prober
from llmdyno.errors import TargetError
from llmdyno.wire.exchange import Response
from llmdyno.wire.target import parse_url
from scripted_server import Client, Script, plain, scripted

Ask = Callable[[Prober], Awaitable[Response]]


def asked(script: Script, ask: Ask, timeout_s: float = 10.0) -> Response:
    async def main() -> Response:
        async with scripted(script) as url:
            prober = Prober(parse_url(f"{url}/api", "sk-0123456789"), timeout_s=timeout_s)
            try:
                return await ask(prober)
            finally:
                prober.close()

    return asyncio.run(main())


def always(answer: bytes) -> Script:
    async def script(client: Client) -> None:
        while True:
            await client.request()
            await client.send(answer)

    return script


def test_questions_have_their_method_and_share_a_connection() -> None:
    seen: list[tuple[str, bytes]] = []
    connections = 0

    async def script(client: Client) -> None:
        nonlocal connections
        connections += 1
        while True:
            seen.append(await client.asked())
            await client.send(plain("404 Not Found", b"none"))

    async def ask(prober: Prober) -> Response:
        await prober.reach()
        await prober.ask("POST", "/v1/x", b"{}")
        return await prober.ask("GET", "/v1/models")

    response = asked(script, ask)

    assert seen == [("POST /api/v1/x", b"{}"), ("GET /api/v1/models", b"")]
    assert (response.status, response.body()) == (404, b"none")
    assert connections == 1


def test_a_redirect_says_where_to_without_the_key() -> None:
    script = always(plain("307 X", b"", "Location: https://h/?key=sk-0123456789"))

    with pytest.raises(TargetError, match=r"/api/x: redirects to https://h/\?key=\[API key\]\.$"):
        asked(script, lambda prober: prober.ask("GET", "/x"))


def test_a_server_that_hangs_up_is_an_error_of_a_question_and_an_answer_to_a_look() -> None:
    async def script(client: Client) -> None:
        await client.request()

    with pytest.raises(TargetError, match=r"/api/x: .*without answering \(no-response\)\.$"):
        asked(script, lambda prober: prober.ask("GET", "/x"))
    assert asked(script, lambda prober: prober.look("/x")).error == "no-response"


def test_a_server_that_keeps_silent_is_named() -> None:
    async def script(client: Client) -> None:
        await client.request()
        await client.request()

    with pytest.raises(TargetError, match=r"no answer in 0.05 s.*--endpoint and --model"):
        asked(script, lambda prober: prober.look("/x"), timeout_s=0.05)


def test_nobody_there_is_said_with_the_address() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    prober = Prober(parse_url(f"http://127.0.0.1:{port}"))

    with pytest.raises(TargetError, match=rf"^--url 127.0.0.1:{port}: .* \(refused\)\.$"):
        asyncio.run(prober.reach())
