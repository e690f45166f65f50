"""Where requests go: URLs and options checked, heads written, the API key kept out of words."""

import re
import subprocess
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmdyno.errors import UsageError
from llmdyno.wire.target import parse_url

WRONG = {
    "no TLS": ("http://h:1", {"insecure": True}, "--insecure: only for an https:// URL"),
    "port 0": ("http://h:0", {}, "nobody listens on port 0"),
    "a blank in a name": ("http://a b", {}, "the host's name cannot be one: it has ' ' in it"),
    "another flag": ("x", {"flag": "--metrics-url"}, "--metrics-url x: write http://host:port"),
    "no name": ("http://a..b", {}, "the host's name cannot be one"),
    "a key of two lines": ("http://h", {"api_key": "sk-1\r\nX: y"}, "--api-key-env: the variable"),
    "no file": ("https://h", {"ca_cert": "nowhere.pem"}, "--ca-cert nowhere.pem: is no PEM file"),
    "a certificate without TLS": (
        "http://h:1",
        {"client_cert": "a.pem"},
        "--client-cert: only for",
    ),
    "a key alone": (
        "https://h",
        {"client_key": "k.pem"},
        "--client-key k.pem: needs --client-cert",
    ),
    "no certificate": (
        "https://h",
        {"client_cert": "nowhere.pem"},
        "--client-cert nowhere.pem: cannot be read: No such file",
    ),
    "a proxy of TLS": ("http://h", {"proxy": "https://p:1"}, "write http://host:port"),
    "a proxy without a port": ("http://h", {"proxy": "http://p"}, "write http://host:port"),
    "a secret": ("http://h", {"proxy": "http://u:p@h:1"}, "must not hold a user name or password"),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_does_not_fit_is_said_before_anything_starts(name: str) -> None:
    url, given, words = WRONG[name]

    with pytest.raises(UsageError, match=re.escape(words)):
        parse_url(url, **given)  # type: ignore[arg-type]


@given(st.text("abk", max_size=12), st.lists(st.integers(0, 12), max_size=4))
def test_no_cut_of_a_text_lets_the_key_through(text: str, places: list[int]) -> None:
    key = "kakab"
    edges = [0, *sorted(places), len(text)]
    parts = [text[low:high] for low, high in pairwise(edges)]

    redacted = parse_url("http://h", key).redact_parts(parts)

    assert len(redacted) == len(parts)
    assert key not in "".join(redacted)
    assert "".join(redacted).replace("[API key]", "") in text or key in text


def test_a_path_is_written_as_http_wants_it() -> None:
    assert parse_url("http://h/a b/é/%20/").prefix == "/a%20b/%C3%A9/%20"


@pytest.mark.parametrize(
    ("url", "authority", "tls", "rpc"),
    [
        ("http://h", "h:80", False, False),
        ("https://h/v1/", "h:443", True, False),
        ("grpc://h", "h:8001", False, True),
        ("grpcs://h", "h:443", True, True),
        ("http://[::1]:8000", "[::1]:8000", False, False),
    ],
)
def test_a_scheme_says_how_and_on_which_port(
    url: str, authority: str, tls: bool, rpc: bool
) -> None:
    target = parse_url(url)

    assert (target.authority, target.tls, target.rpc) == (authority, tls, rpc)


def test_a_head_names_the_host_the_length_and_the_key() -> None:
    head = parse_url("http://h:8000/api/", "sk-1").head("/v1/completions", 12)

    assert head.startswith(b"POST /api/v1/completions HTTP/1.1\r\nHost: h:8000\r\n")
    assert b"\r\nContent-Length: 12\r\n" in head
    assert head.endswith(b"\r\nAuthorization: Bearer sk-1\r\n\r\n")


@pytest.mark.parametrize(
    ("text", "redacted"),
    [
        ("no key here", "no key here"),
        ("sk-0123456789 is wrong", "[API key] is wrong"),
        ("wrong: sk-0123", "wrong: [API key]"),  # cut short, as details are
        ("wrong: sk-", "wrong: sk-"),  # so much tells nothing
    ],
)
def test_a_key_is_blanked_out_whole_or_cut_short(text: str, redacted: str) -> None:
    assert parse_url("http://h", "sk-0123456789").redact(text) == redacted


def test_a_certificate_and_the_key_of_another_are_refused(
    certificate: Path, tmp_path: Path
) -> None:
    key = tmp_path / "key.pem"
    for how in ("-aes256", "-pass", "pass:x"), ():
        subprocess.run(
            [
                *("openssl", "genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256"),
                *(*how, "-out", str(key)),
            ],
            check=True,
            capture_output=True,
        )
        with pytest.raises(UsageError, match=r"--client-key .*: must be PEM files of a cert"):
            parse_url(
                "https://h",
                client_cert=str(certificate.with_suffix(".crt")),
                client_key=str(key),
            )
