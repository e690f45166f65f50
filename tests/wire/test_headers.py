"""Headers of the user: read, checked, kept out of words; secrets come from variables."""

import re
from collections.abc import Callable

import pytest

from llmdyno.errors import UsageError
from llmdyno.wire import headers
from llmdyno.wire.headers import Header
from llmdyno.wire.target import parse_url

VARIABLES = {"KEY": "abc-0123456789", "PAIR": "me:pass word", "EMPTY": " ", "TWO": "a\r\nX: y"}


def from_variables(*header_env: str, basic: str = "", key: str | None = None) -> list[Header]:
    return list(headers.from_variables(header_env, basic, key, VARIABLES))


WRONG: dict[str, tuple[Callable[[], object], str]] = {
    "no colon": (lambda: headers.plain("X-Key=abc"), "--header X-Key: write 'Name: value'"),
    "no value": (lambda: headers.plain("X-Key: "), "--header X-Key: has no value"),
    "no name": (lambda: headers.plain(": abc"), "--header '': is no name of a header"),
    "a blank in the name": (lambda: headers.plain("X Key: a"), "'X Key': is no name of a header"),
    "a line end": (lambda: headers.plain("X: a\r\nHost: b"), "--header X: its value must be"),
    "not ASCII": (lambda: headers.plain("X: ü"), "--header X: its value must be printable ASCII"),
    "of the connection": (
        lambda: headers.plain("Transfer-Encoding: chunked"),
        "--header Transfer-Encoding: belongs to the connection",
    ),
    "the length": (lambda: from_variables("content-length=KEY"), "--header-env content-length"),
    "no variable named": (lambda: from_variables("X-Key"), "--header-env X-Key: write Name=VAR"),
    "not set": (
        lambda: from_variables("X-Key=NOBODY"),
        "--header-env X-Key=NOBODY: there is no such variable",
    ),
    "empty": (lambda: from_variables("X-Key=EMPTY"), "X-Key=EMPTY: the variable is empty"),
    "two lines in a variable": (
        lambda: from_variables("X-Key=TWO"),
        "--header-env X-Key: its value must be",
    ),
    "the key itself": (lambda: from_variables(key="sk-12"), "--api-key-env: what was given is no"),
    "a key like a name": (
        lambda: from_variables(key="hf_AbCdEfGhIjKlMnOpQrStUvWxYz01234567"),
        "--api-key-env: what was given is no",
    ),
    "a value like a name": (
        lambda: from_variables("X-Key=ab12cd34ef56ab12cd34ef56ab12cd34"),
        "--header-env X-Key: what was given is no name of a variable",
    ),
    "the value itself": (
        lambda: from_variables("X-Key=Bearer abc"),
        "--header-env X-Key: what was given is no name of a variable",
    ),
    "no key": (lambda: from_variables(key="NO_KEY"), "--api-key-env NO_KEY: there is no such"),
    "no pair": (lambda: from_variables(basic="KEY"), "--basic-auth-env: the variable must hold"),
    "twice": (
        lambda: headers.check_once(from_variables(basic="PAIR", key="KEY")),
        "Authorization: is set twice",
    ),
    "gRPC's own": (
        lambda: parse_url("grpc://h", more_headers=[headers.plain("Content-Type: a/b")]),
        "--header Content-Type: gRPC sets it itself",
    ),
    "a host for a proxy": (
        lambda: parse_url(
            "http://h", more_headers=[headers.plain("Host: x")], proxy="http://p:3128"
        ),
        "--header Host: the proxy takes the host from the URL",
    ),
    "for a proxy that is not there": (
        lambda: parse_url("http://h", more_headers=[headers.plain("Proxy-Authorization: x")]),
        "name it with --proxy",
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_no_header_can_be_is_refused_by_name(name: str) -> None:
    make, words = WRONG[name]

    with pytest.raises(UsageError, match=re.escape(words)) as caught:
        make()

    assert not any(value in str(caught.value) for value in VARIABLES.values() if value.strip())
    assert not re.search("hf_|ab12", str(caught.value))


def test_headers_are_sent_and_take_the_place_of_ours() -> None:
    given = [headers.plain("X-Tenant:  a: b "), headers.plain("user-agent: mine")]

    head = parse_url("http://h", more_headers=given).head("/x", 0)

    assert b"\r\nX-Tenant: a: b\r\n" in head
    assert b"\r\nuser-agent: mine\r\n" in head
    assert head.lower().count(b"user-agent") == 1


def test_the_host_may_be_another_than_the_one_that_is_connected_to() -> None:
    head = parse_url("http://10.0.0.1", more_headers=[headers.plain("Host: llm.local")]).head(
        "/", 0
    )

    assert b"\r\nHost: llm.local\r\n" in head
    assert head.count(b"Host") == 1


def test_what_variables_hold_is_sent_and_hidden() -> None:
    given = from_variables("api-key=KEY", basic="PAIR")

    target = parse_url("http://h", more_headers=given)

    assert b"\r\napi-key: abc-0123456789\r\n" in target.head("/", 0)
    assert b"\r\nAuthorization: Basic bWU6cGFzcyB3b3Jk\r\n" in target.head("/", 0)
    assert target.redact("abc-0123456789, bWU6cGFzcyB3b3Jk") == "[api-key], [password]"


def test_a_scheme_is_no_part_of_the_secret_and_a_plain_value_is_none() -> None:
    given = [headers.plain("X-Auth-Token: Bearer abcdef"), headers.plain("X-Zone: abcdefgh")]

    target = parse_url("http://h", more_headers=given)

    assert target.redact("abcdef") == "[X-Auth-Token]"
    assert target.redact("abcdefgh") == "[X-Auth-Token]gh"


def test_the_usual_variable_gives_the_key_unless_authorization_is_set_otherwise() -> None:
    variables = {headers.API_KEY_VARIABLE: "sk-1", "PAIR": "a:b"}
    own = headers.plain("authorization: Token x")

    (alone,) = headers.from_variables((), "", None, variables)
    (basic,) = headers.from_variables((), "PAIR", None, variables)

    assert (alone.value, alone.shown) == ("Bearer sk-1", "[API key]")
    assert basic.value.startswith("Basic ")
    assert headers.from_variables((), "", None, variables, [own]) == ()
    assert headers.from_variables((), "", None, {}) == ()


def test_what_is_for_the_proxy_does_not_reach_the_server() -> None:
    given = [headers.plain("Proxy-Authorization: Basic abc")]

    through = parse_url("https://h", more_headers=given, proxy="http://p:3128")
    forwarded = parse_url("http://h", more_headers=given, proxy="http://p:3128")

    assert b"Proxy-Authorization" not in through.head("/", 0)
    assert [header.name for header in through.proxy_headers] == ["Proxy-Authorization"]
    assert b"\r\nProxy-Authorization: Basic abc\r\n" in forwarded.head("/", 0)
