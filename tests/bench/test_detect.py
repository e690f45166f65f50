"""What a server speaks is found out by asking; the servers answer as the real ones do."""

import asyncio
import json
import ssl
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from llmdyno import endpoints, plugins
from llmdyno.bench.detect import detect
from llmdyno.bench.prober import Prober
from llmdyno.errors import TargetError
from llmdyno.wire.target import parse_url
from scripted_server import DONE, END, HEAD, STOP, Client, chunk, framed, plain, scripted

MODELS = {"object": "list", "data": [{"id": "llama", "object": "model"}]}
TOKEN = HEAD + framed(chunk("a") + STOP + DONE) + END
TEXT_MODEL = {"inputs": [{"name": "text_input"}], "outputs": [{"name": "text_output"}]}
TRITON = {"GET /v2": {"name": "triton", "version": "2.51.0", "extensions": []}}
SERVICE = {
    "name": "Llama",
    "type": "service",
    "routes": [{"route": "/generate", "output": {"type": "string", "is_stream": True}}],
}


def index(*names: str, state: str = "READY") -> dict[str, Any]:
    return {
        "POST /v2/repository/index": [
            {"name": name, "version": "1", "state": state} for name in names
        ]
    }


Answers = Mapping[str, Any]  # by method and path; what is not there is 404

SERVERS: dict[str, tuple[Answers, tuple[str, str]]] = {
    "openai": (
        {"GET /v1/models": MODELS, "POST /v1/chat/completions": TOKEN},
        ("openai-chat", "llama"),
    ),
    "no chat template": (
        {
            "GET /v1/models": MODELS,
            "POST /v1/chat/completions": plain("400 Bad Request", b'{"error": "no template"}'),
            "POST /v1/completions": TOKEN,
        },
        ("openai-completions", "llama"),
    ),
    "triton, TensorRT-LLM's ensemble": (
        {**TRITON, **index("preprocessing", "tensorrt_llm", "tensorrt_llm_bls", "ensemble")},
        ("triton-generate", "ensemble"),
    ),
    "triton, its scripted twin": (
        {**TRITON, **index("preprocessing", "tensorrt_llm", "tensorrt_llm_bls")},
        ("triton-generate", "tensorrt_llm_bls"),
    ),
    "triton, one model of text": (
        {
            **TRITON,
            **index("helper", "my llm"),
            "GET /v2/models/my%20llm": TEXT_MODEL,
            "GET /v2/models/helper": {"inputs": [{"name": "text_input"}], "outputs": []},
        },
        ("triton-generate", "my llm"),
    ),
    "tgi": (
        {"GET /info": {"model_id": "meta/llama", "max_total_tokens": 4096}},
        ("tgi", "meta/llama"),
    ),
    "tgi that speaks OpenAI too": (
        {
            "GET /info": {"model_id": "meta/llama", "max_total_tokens": 4096},
            "GET /v1/models": MODELS,
            "POST /v1/chat/completions": TOKEN,
        },
        ("openai-chat", "llama"),
    ),
    "bentoml": ({"GET /schema.json": SERVICE}, ("bentoml", "")),
    "bentoml with OpenAI's routes": (
        {
            "GET /schema.json": SERVICE,
            "GET /v1/models": MODELS,
            "POST /v1/chat/completions": TOKEN,
        },
        ("openai-chat", "llama"),
    ),
    "bentoml whose other paths are no UTF-8": (
        {"GET /v1/models": plain("200 OK", b"\xff\xfe{}"), "GET /schema.json": SERVICE},
        ("bentoml", ""),
    ),
}


def detected(
    answers: Answers, endpoint: str = "auto", model: str = "", heard: list[str] | None = None
) -> tuple[str, str]:
    async def script(client: Client) -> None:
        while True:
            asked, _ = await client.asked()
            if heard is not None:
                heard.append(asked)
            answer = answers.get(asked, plain("404 Not Found", b"Not Found"))
            if not isinstance(answer, bytes):
                answer = plain("200 OK", json.dumps(answer).encode())
            await client.send(answer, pause_s=0)

    async def ask() -> tuple[str, str]:
        async with scripted(script) as url:
            prober = Prober(parse_url(url), timeout_s=5.0)
            try:
                return await detect(prober, endpoint, model)
            finally:
                prober.close()

    return asyncio.run(ask())


@pytest.mark.parametrize("name", SERVERS)
def test_a_server_is_known_by_what_it_answers(name: str) -> None:
    answers, right = SERVERS[name]

    assert detected(answers) == right


def test_a_model_that_was_named_is_taken() -> None:
    answers, _ = SERVERS["openai"]

    assert detected(answers, model="other") == ("openai-chat", "other")
    assert detected(TRITON, model="llm") == ("triton-generate", "llm")
    assert detected({"POST /v1/completions": TOKEN}, model="m") == ("openai-completions", "m")


def test_an_endpoint_that_was_named_needs_only_its_model() -> None:
    triton, _ = SERVERS["triton, one model of text"]

    assert detected({}, "bentoml") == ("bentoml", "")
    assert detected({}, "tgi") == ("tgi", "")
    assert detected(triton, "triton-generate") == ("triton-generate", "my llm")
    assert detected({"GET /v1/models": MODELS}, "openai-chat") == ("openai-chat", "llama")


def test_no_page_is_looked_at_twice() -> None:
    answers, right = SERVERS["no chat template"]
    heard: list[str] = []

    assert detected(answers, heard=heard) == right
    assert heard == [
        "GET /v2",
        "GET /v1/models",
        "POST /v1/chat/completions",
        "POST /v1/completions",
    ]


def test_every_endpoint_of_ours_has_a_place_of_its_own_in_the_order() -> None:
    tried = [endpoints.detectable(rpc=rpc) for rpc in (False, True)]

    assert sorted(one.name for each in tried for one in each) == plugins.names("endpoints")
    for each in tried:
        assert len({one.detect_order for one in each}) == len(each)


def test_an_url_without_a_scheme_gets_the_one_that_its_endpoint_needs() -> None:
    assert endpoints.full_url("triton-grpc", "host:8001") == "grpc://host:8001"
    assert endpoints.full_url("triton-grpc", "grpcs://host:8001") == "grpcs://host:8001"
    assert endpoints.full_url("openai-chat", "host:8000") == "host:8000"
    assert endpoints.full_url("auto", "host:8000") == "host:8000"


WRONG: dict[str, tuple[Answers, str, str]] = {
    "nothing known": ({}, "auto", "/v1/models: status 404"),
    "two models of text": (
        {
            **TRITON,
            **index("a", "b"),
            "GET /v2/models/a": TEXT_MODEL,
            "GET /v2/models/b": TEXT_MODEL,
        },
        "auto",
        "these that do: a, b",
    ),
    "no model is ready": ({**TRITON, **index("ensemble", state="UNAVAILABLE")}, "auto", "none"),
    "garbage for models": (
        {"GET /v1/models": plain("200 OK", b"\xff\xfe")},
        "openai-chat",
        "name one with --model",
    ),
    "a refusal names the flag": (
        {"GET /v1/models": plain("401 Unauthorized", b'{"error": "no key"}')},
        "auto",
        "wants a key, and none was given (status 401): no key; put it into a variable, and write",
    ),
    "a named endpoint's refusal, too": (
        {"GET /v1/models": plain("403 Forbidden", b"<title>Stop</title>", "Server: cloudflare")},
        "openai-chat",
        "Cloudflare wants a key, and none was given (status 403): Stop",
    ),
    "elsewhere": (
        {"GET /v2": plain("301 X", b"", "Location: https://h/api/v2")},
        "auto",
        "redirects to https://h/api/v2 (status 301): give https://h/api as --url",
    ),
    "a proxy alone": (
        {"GET /v1/models": plain("502 Bad Gateway", b"<center>nginx</center>")},
        "auto",
        "nginx, in front of the server, answered with status 502",
    ),
    "a metrics port": (
        {"GET /metrics": plain("200 OK", b"# HELP x y\n# TYPE x gauge\nx 1\n")},
        "auto",
        "a page of metrics (Prometheus) answers there",
    ),
    "a web page": (
        {"GET /": plain("200 OK", b"<!DOCTYPE html><title>Grafana</title>")},
        "auto",
        "a web page answers there with the title 'Grafana'",
    ),
    "JSON of something else": (
        {"GET /v1/models": {"hello": "world"}},
        "auto",
        'it answers GET /v1/models with JSON of something else: {"hello":',
    ),
    "a refusal has its words": (
        {
            "GET /v1/models": MODELS,
            "POST /v1/chat/completions": plain("401 Unauthorized", b'{"error": "no key"}'),
        },
        "auto",
        "openai-chat: status 401 no key",
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_is_not_clear_is_said(name: str) -> None:
    answers, endpoint, words = WRONG[name]

    with pytest.raises(TargetError) as caught:
        detected(answers, endpoint)

    assert words in str(caught.value)


def test_a_wrong_model_is_told_with_those_that_there_are() -> None:
    answers = {
        "GET /v1/models": {"data": [{"id": "zephyr"}, {"id": "llama-3"}]},
        "POST /v1/chat/completions": plain("404 Not Found", b'{"error": "no such model"}'),
        "POST /v1/completions": plain("404 Not Found", b'{"error": "no such model"}'),
    }

    with pytest.raises(TargetError, match=r"--model lama: .* it has 'llama-3', 'zephyr' "):
        detected(answers, model="lama")


def test_a_model_that_wants_its_length_called_otherwise_speaks_all_the_same() -> None:
    words = b'{"error": {"message": "use \'max_completion_tokens\' instead"}}'
    reasoning = {
        "GET /v1/models": MODELS,
        "POST /v1/chat/completions": plain("400 Bad Request", words),
    }

    assert detected(reasoning) == ("openai-chat", "llama")


def test_a_prefix_that_is_none_is_named() -> None:
    async def script(client: Client) -> None:
        while True:
            asked, _ = await client.asked()
            known = plain("200 OK", json.dumps(MODELS).encode())
            await client.send(known if asked == "GET /v1/models" else plain("404 X", b""))

    async def main() -> None:
        async with scripted(script) as url:
            prober = Prober(parse_url(f"{url}/wrong"))
            try:
                await detect(prober, "auto", "")
            finally:
                prober.close()

    with pytest.raises(TargetError, match="no endpoint below /wrong, but one without it"):
        asyncio.run(main())


async def _words(url: str) -> str:
    prober = Prober(parse_url(url), timeout_s=5.0)
    try:
        with pytest.raises(TargetError) as caught:
            await detect(prober, "auto", "")
    finally:
        prober.close()
    return str(caught.value)


def test_plain_http_to_a_server_of_tls_names_the_scheme(certificate: Path) -> None:
    async def hang_up(client: Client) -> None:
        await client.request()

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)

    async def main() -> str:
        async with scripted(hang_up, tls=context) as url:
            return await _words(url.replace("https", "http"))

    assert "give its URL with https://" in asyncio.run(main())


@pytest.mark.parametrize("first", [b"", b"\0\0\x06\x04\0\0\0\0\0\0\x04\0\0\xff\xff"])
def test_http_to_a_server_of_grpc_names_the_scheme(first: bytes) -> None:
    settings = b"\0\0\0\x04\0\0\0\0\0"
    trailers = b"\x88\0\x0bgrpc-status\x0212"  # :status 200 from the static table
    refusal = b"\0\0" + bytes([len(trailers)]) + b"\x01\x05\0\0\0\x01" + trailers

    async def script(client: Client) -> None:
        if first:
            await client.send(first)
        if not (await client.some()).startswith(b"PRI * HTTP/2.0"):
            return
        await client.send(settings + refusal, pause_s=0.2)

    async def main() -> str:
        async with scripted(script) as url:
            return await _words(url)

    assert "give its URL with grpc://" in asyncio.run(main())


def test_grpc_to_a_server_of_http_names_the_scheme() -> None:
    async def script(client: Client) -> None:
        await client.some()
        await client.send(plain("400 Bad Request", b""))

    async def main() -> str:
        async with scripted(script) as url:
            return await _words(url.replace("http", "grpc"))

    assert "http://" in asyncio.run(main())


def test_a_server_that_keeps_silent_is_not_asked_four_times() -> None:
    asked: list[str] = []
    heard = asyncio.Event()

    async def silent(client: Client) -> None:
        asked.append((await client.asked())[0])
        heard.set()
        await asyncio.sleep(30)

    async def main() -> None:
        async with scripted(silent) as url:
            prober = Prober(parse_url(url), timeout_s=0.3)
            try:
                await detect(prober, "auto", "")
            finally:
                prober.close()
                await asyncio.wait_for(heard.wait(), 30)

    with pytest.raises(TargetError, match=r"/v2: no answer in 0.3 s: name what the server is"):
        asyncio.run(main())
    assert asked == ["GET /v2"]
