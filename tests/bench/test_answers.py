"""What a server that did not do what it was asked seems to be: a sentence a case."""

import pytest

from llmdyno.bench.answers import (
    Answer,
    explain,
    foreign_json,
    is_metrics,
    unknown_paths,
    who,
    wrong_model,
)
from llmdyno.wire.exchange import Response
from llmdyno.wire.headers import plain
from llmdyno.wire.target import parse_url

TARGET = parse_url("http://h:8000")
NGINX = b"<html><head><title>502 Bad Gateway</title></head><hr><center>nginx/1.25</center></html>"
HAPROXY = b"<html><body><h1>503 Service Unavailable</h1>\nNo server is available to handle this"
HAPROXY += b" request.\n</body></html>"


def response(status: int = 200, body: bytes = b"", error: str = "", **headers: str) -> Response:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Response(sent_ns=0, status=status, headers=named, pieces=[(0, body)], error=error)


def answer(*given: object, path: str = "/v1/models", **more: object) -> Answer:
    return Answer("GET", path, response(*given, **more))  # type: ignore[arg-type]


CASES: dict[str, tuple[Answer, tuple[str, ...]]] = {
    "not ready": (
        answer(503, b'{"error":{"message":"The model is still being loaded."}}'),
        ("status 503: The model is still being loaded; it is not ready",),
    ),
    "no key": (
        answer(401, b'{"error":{"message":"Missing bearer"}}'),
        ("wants a key, and none was given (status 401): Missing bearer", "--api-key-env"),
    ),
    "no password": (
        answer(401, b"<title>401 Required</title>", www_authenticate='Basic realm="x"'),
        ("wants a password", "--basic-auth-env VARIABLE"),
    ),
    "forbidden by a proxy": (
        answer(403, b"<title>Attention Required! | Cloudflare</title>cloudflare"),
        ("Cloudflare wants a key", "(status 403): Attention Required!"),
    ),
    "a proxy's password": (answer(407), ("--header-env Proxy-Authorization=VARIABLE",)),
    "elsewhere, the same path": (
        answer(308, location="https://h/v1/models"),
        ("redirects to https://h/v1/models (status 308): give https://h as --url",),
    ),
    "elsewhere, a path alone": (
        answer(301, location="/other"),
        ("redirects to http://h:8000/other",),
    ),
    "elsewhere, nowhere": (answer(302), ("does not say where to",)),
    "nginx without a server": (
        answer(502, NGINX, server="nginx/1.25"),
        ("nginx, in front of the server, answered with status 502: 502 Bad Gateway", "not ready"),
    ),
    "HAProxy without a server": (answer(503, HAPROXY), ("HAProxy, in front of the server",)),
    "Caddy without a server": (answer(502, server="Caddy"), ("Caddy, in front of the server",)),
    "a gateway without a name": (answer(504), ("a proxy, in front of the server",)),
    "a server behind nginx": (
        answer(500, b'{"error":"out of memory"}', server="nginx"),
        ("the server behind nginx answered with status 500: out of memory", "its log"),
    ),
    "a server": (
        answer(503, b'{"error":{"message":"Loading model"}}', server="llama.cpp"),
        ("the server (llama.cpp) answered with status 503: Loading model",),
    ),
    "too many": (answer(429, b'{"error":"slow down"}'), ("takes no more requests now", "slow")),
    "plain to nginx's TLS": (
        answer(400, b"<center>The plain HTTP request was sent to HTTPS port</center>"),
        ("the server speaks TLS: give its URL with https://",),
    ),
    "plain to Go's TLS": (
        answer(400, b"Client sent an HTTP request to an HTTPS server."),
        ("give its URL with https://",),
    ),
    "a certificate is wanted": (
        answer(400, b"<title>400 No required SSL certificate was sent</title>"),
        ("--client-cert",),
    ),
    "a web page": (
        answer(200, b"<!DOCTYPE html><html><title>\n Open WebUI\n</title>"),
        ("a web page answers there with the title 'Open WebUI'", "--url"),
    ),
    "a metrics page": (
        answer(200, b"# HELP vllm:x y\n# TYPE vllm:x gauge\nvllm:x 1\n", path="/metrics"),
        ("a page of metrics (Prometheus)", "port"),
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_each_case_has_its_sentence(name: str) -> None:
    given, words = CASES[name]

    said = explain(TARGET, [answer(404, path="/v2"), given])

    assert all(part in said for part in words), said


def test_a_key_that_was_sent_is_wrong_and_is_not_repeated() -> None:
    target = parse_url("http://h", "sk-0123456789", more_headers=[plain("X-Zone: a")])
    refusal = answer(401, b'{"error":{"message":"Incorrect API key provided: sk-0123456789"}}')

    said = explain(target, [refusal])

    assert "does not accept what was sent as Authorization (status 401): Incorrect" in said
    assert "[API key]" in said
    assert "sk-0" not in said


@pytest.mark.parametrize("body", [b'{"object":"list"}', b"", b"hello", b"a: 1"])
def test_what_says_nothing_is_not_explained(body: bytes) -> None:
    assert explain(TARGET, [answer(200, body)]) == ""
    assert not is_metrics(body)


def test_what_is_unknown_everywhere_is_said_with_its_paths() -> None:
    nowhere = [answer(404), answer(405, path="/info"), answer(404)]

    assert "none of these paths: /v1/models, /info; if the path" in unknown_paths(TARGET, nowhere)
    assert unknown_paths(TARGET, [*nowhere, answer(200)]) == ""
    assert unknown_paths(TARGET, []) == ""


def test_json_of_something_else_is_quoted() -> None:
    assert foreign_json([answer(404), answer(200, b'{"a": 1}')]).endswith('else: {"a": 1}')
    assert foreign_json([answer(200, b"text"), answer(500, b"{}")]) == ""


def test_the_models_that_there_are_stand_nearest_first() -> None:
    known = ["gpt-4o", "llama-3-8b-instruct", *(f"other-{number}" for number in range(9))]

    said = wrong_model("Llama-3-8B", known)

    assert said.startswith("--model Llama-3-8B: the server has no such model; it has 'llama-3-8b-i")
    assert said.endswith(" and 3 more")


def test_a_proxy_is_told_from_the_server_behind_it() -> None:
    assert who(response(503, HAPROXY)) == ("HAProxy", True)
    assert who(response(500, b"oops", via="1.1 varnish")) == ("the server behind Varnish", False)
    assert who(response(500, b"{}", server="uvicorn")) == ("the server (uvicorn)", False)
