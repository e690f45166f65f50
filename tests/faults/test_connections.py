"""Faults on the way to the server: names, ports, TLS, proxies, and servers that come and go."""

import asyncio
import os
import resource
import socket
import ssl
import subprocess
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import uvloop

from conftest import last_json
from harness import answering, come, drive, overheard, raw, whole
from llmdyno.processes.ports import free_port
from llmdyno.records.entries import Record
from llmdyno.wire import http1
from llmdyno.wire.target import parse_url
from scripted_server import END, HEAD, STOP, Client, chunk, framed, plain, scripted

Dyno = Callable[..., subprocess.CompletedProcess[str]]
WHOLE = answering(whole("openai-chat"))


def run(make: Callable[[], Awaitable[list[Record]]]) -> list[Record]:
    async def main() -> list[Record]:
        return await make()

    return uvloop.run(main())


# Names and ports.


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])  # the second may be two addresses
def test_nobody_listens(host: str) -> None:
    records = run(lambda: drive(f"http://{host}:{free_port()}", users=2, requests=4))

    assert [record.error for record in records] == ["refused"] * 4


def test_a_name_that_nobody_knows() -> None:
    (record,) = run(lambda: drive("http://nobody.invalid:8000", requests=1))

    assert record.error == "dns"
    assert record.detail.startswith("nobody.invalid: ")


def _full(listener: socket.socket) -> list[socket.socket]:
    """Fill a listener's queue, so that the next connection gets no answer."""
    waiting = []
    for _ in range(8):
        channel = socket.socket()
        channel.setblocking(False)
        channel.connect_ex(listener.getsockname())
        waiting.append(channel)
    return waiting


@pytest.mark.parametrize(
    ("load", "outcomes", "limit_s"),
    [
        ({"requests": 1, "timeout_s": 0.5}, {"connect-timeout"}, 3),
        ({"duration_s": 0.5, "grace_s": 0.3}, {""}, 3),  # cut
    ],
)
def test_a_connection_that_hangs_ends_with_the_timeout_or_the_level(
    load: dict[str, Any], outcomes: set[str], limit_s: float
) -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=0) as listener:
        waiting = _full(listener)
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        records = run(lambda: drive(url, users=2, **load))
        for channel in waiting:
            channel.close()

    assert {record.error for record in records} == outcomes
    assert max(record.end_ns for record in records) < limit_s * 1e9


def test_a_server_that_dies_and_returns() -> None:
    port = free_port()

    async def script(client: Client) -> None:
        await client.request()
        await whole("openai-chat")(client)
        client.reset()

    async def main() -> list[Record]:
        with overheard() as records:
            async with scripted(script, port=port) as url:
                running = asyncio.create_task(drive(url, users=3, duration_s=600.0, think_s=0.02))
                await come(records, "", 3)
            await come(records, "refused", 3)
            async with scripted(script, port=port):
                await come(records, "", 3)
                running.cancel()
                await asyncio.wait([running])
        return records

    errors = {record.error for record in run(main)}

    assert errors <= {"", "refused", "reset", "no-response", "truncated"}


# TLS.


def server_context(certificate: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    return context


def by_name(url: str) -> str:
    return url.replace("127.0.0.1", "localhost")


def test_a_certificate_that_we_are_given_is_trusted_and_the_name_is_sent(certificate: Path) -> None:
    names: list[str | None] = []
    context = server_context(certificate)
    context.sni_callback = lambda _socket, name, _context: names.append(name)

    async def main() -> list[Record]:
        async with scripted(WHOLE, tls=context) as url:
            target = parse_url(by_name(url), ca_cert=str(certificate.with_suffix(".crt")))
            return await drive(url, target=target, requests=3)

    assert [record.outcome for record in run(main)] == ["completed"] * 3
    assert names == ["localhost"]  # one connection


def test_nobody_is_asked_for_a_certificate_if_the_user_says_so(certificate: Path) -> None:
    async def main() -> list[Record]:
        async with scripted(WHOLE, tls=server_context(certificate)) as url:
            return await drive(url, target=parse_url(url, insecure=True), requests=2)

    assert [record.outcome for record in run(main)] == ["completed"] * 2


@pytest.mark.parametrize(
    ("host", "trusted", "words"),
    [("localhost", False, "self-signed"), ("127.0.0.1", True, "127.0.0.1")],
)
def test_a_certificate_that_is_not_to_be_trusted(
    certificate: Path, host: str, trusted: bool, words: str
) -> None:
    async def main() -> list[Record]:
        async with scripted(WHOLE, tls=server_context(certificate)) as url:
            ca_cert = str(certificate.with_suffix(".crt")) if trusted else None
            target = parse_url(url.replace("127.0.0.1", host), ca_cert=ca_cert)
            return await drive(url, target=target, requests=2)

    records = run(main)

    assert [record.error for record in records] == ["tls-certificate"] * 2
    assert words in records[0].detail.replace("self signed", "self-signed")


def test_a_certificate_that_is_not_trusted_names_the_flags(certificate: Path) -> None:
    async def main() -> list[Record]:
        async with scripted(WHOLE, tls=server_context(certificate)) as url:
            found = await drive(by_name(url), target=parse_url(by_name(url)), requests=1)
            trusted = str(certificate.with_suffix(".crt"))
            return found + await drive(url, target=parse_url(url, ca_cert=trusted), requests=1)

    untrusted, of_another_host = run(main)

    assert "--ca-cert FILE, or any certificate with --insecure" in untrusted.detail
    assert "give a host that it names in --url, or write --insecure" in of_another_host.detail


@pytest.mark.parametrize("shown", [True, False])
def test_a_server_that_wants_to_know_who_asks(certificate: Path, shown: bool) -> None:
    context = server_context(certificate)
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_verify_locations(certificate.with_suffix(".crt"))

    async def main() -> list[Record]:
        async with scripted(WHOLE, tls=context) as url:
            own = str(certificate) if shown else None
            target = parse_url(url, insecure=True, client_cert=own)
            return await drive(url, target=target, requests=1)

    (record,) = run(main)

    assert record.outcome == ("completed" if shown else "failed")
    if not shown:
        assert record.error in {"tls", "reset", "no-response"}


def test_tls_spoken_to_a_server_without_says_which_url() -> None:
    async def main() -> list[Record]:
        async with scripted(raw(plain("400 Bad Request", b""), close=True)) as url:
            target = parse_url(url.replace("http", "https"), insecure=True)
            return await drive(url, target=target, requests=1)

    assert "give its URL with http://" in run(main)[0].detail


def test_tls_spoken_to_a_server_without() -> None:
    async def main() -> list[Record]:
        async with scripted(raw(plain("400 Bad Request", b""), close=True)) as url:
            target = parse_url(url.replace("http", "https"), insecure=True)
            return await drive(url, target=target, requests=1)

    assert run(main)[0].error == "tls"


def test_plain_http_spoken_to_a_tls_server(certificate: Path) -> None:
    async def main() -> list[Record]:
        async with scripted(WHOLE, tls=server_context(certificate)) as url:
            return await drive(url.replace("https", "http"), requests=1)

    # What a server does then is its own affair; it says so, or it hangs up.
    assert run(main)[0].error in {"tls", "no-response", "reset"}


def test_a_server_that_hangs_up_in_the_handshake() -> None:
    async def hang_up(client: Client) -> None:
        client.reset()

    async def main() -> list[Record]:
        async with scripted(hang_up) as url:
            target = parse_url(url.replace("http", "https"), insecure=True)
            return await drive(url, target=target, requests=1)

    assert run(main)[0].error == "reset"


# Proxies.


def test_a_plain_request_goes_to_the_proxy_with_its_whole_url() -> None:
    heads: list[bytes] = []

    async def proxy(client: Client) -> None:
        while True:
            await client.request()
            heads.append(client.head)
            await whole("openai-chat")(client)

    async def main() -> list[Record]:
        async with scripted(proxy) as proxy_url:
            target = parse_url("http://models.invalid:8000/api", proxy=proxy_url)
            return await drive("", target=target, requests=2)

    assert [record.outcome for record in run(main)] == ["completed"] * 2
    assert heads[0].startswith(b"POST http://models.invalid:8000/api/v1/chat/completions HTTP/1.1")
    assert b"\r\nHost: models.invalid:8000\r\n" in heads[0]


def test_tls_goes_through_the_proxy_to_the_server_itself(certificate: Path) -> None:
    asked: list[bytes] = []

    async def main() -> list[Record]:
        async with scripted(WHOLE, tls=server_context(certificate)) as url:
            port = int(url.rpartition(":")[2])

            async def proxy(client: Client) -> None:
                await client.request()
                asked.append(client.head)
                await client.send(b"HTTP/1.1 200 Connection established\r\n\r\n")
                await client.relay("127.0.0.1", port)

            async with scripted(proxy) as proxy_url:
                target = parse_url(
                    by_name(url), ca_cert=str(certificate.with_suffix(".crt")), proxy=proxy_url
                )
                records = await drive(url, target=target, requests=3)
            assert asked[0].startswith(f"CONNECT localhost:{port} HTTP/1.1\r\n".encode())
        return records

    assert [record.outcome for record in run(main)] == ["completed"] * 3
    assert len(asked) == 1


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (plain("407 Proxy Authentication Required", b""), "407 Proxy Authentication"),
        (b"", "nothing"),
    ],
)
def test_a_proxy_that_refuses_is_named_with_its_words(answer: bytes, words: str) -> None:
    async def main() -> list[Record]:
        async with scripted(answering(raw(answer, close=True))) as proxy_url:
            target = parse_url("https://models.invalid", proxy=proxy_url)
            return await drive("", target=target, requests=1)

    (record,) = run(main)

    assert record.error == "proxy"
    assert words in record.detail


def test_a_proxy_that_is_not_there_is_named() -> None:
    proxy = f"http://127.0.0.1:{free_port()}"
    target = parse_url("https://models.invalid", proxy=proxy)

    (record,) = run(lambda: drive("", target=target, requests=1))

    assert record.error == "refused"
    assert record.detail.startswith("the proxy 127.0.0.1:")


def test_the_flags_reach_the_wire(dyno: Dyno, certificate: Path) -> None:
    asked: list[bytes] = []

    async def main() -> subprocess.CompletedProcess[str]:
        async with scripted(WHOLE, tls=server_context(certificate)) as url:
            port = int(url.rpartition(":")[2])

            async def proxy(client: Client) -> None:
                await client.request()
                asked.append(client.head)
                await client.send(b"HTTP/1.1 200 OK\r\n\r\n")
                await client.relay("127.0.0.1", port)

            async with scripted(proxy) as proxy_url:
                return await asyncio.to_thread(
                    dyno,
                    *("bench", "--url", by_name(url), "--endpoint", "openai-chat", "--model", "m"),
                    *("--ca-cert", str(certificate.with_suffix(".crt")), "--proxy", proxy_url),
                    *("-c", "1", "--requests", "4", "--no-scrape", "--no-calibration", "--json"),
                )

    done = asyncio.run(main())

    assert done.returncode == 0, done.stderr
    assert last_json(done.stdout)["levels"][0]["requests"]["completed"] == 4
    assert len(asked) == 2  # is anybody there? and the user


def test_a_server_that_is_not_trusted_is_said_before_the_load(
    dyno: Dyno, certificate: Path
) -> None:
    async def main() -> subprocess.CompletedProcess[str]:
        async with scripted(WHOLE, tls=server_context(certificate)) as url:
            return await asyncio.to_thread(dyno, "bench", "--url", by_name(url))

    done = asyncio.run(main())

    assert done.returncode == 3
    assert "tls-certificate" in done.stderr
    assert len(done.stderr.splitlines()) == 1


# What is ours.


def test_a_host_that_cannot_be_reached() -> None:
    (record,) = run(lambda: drive("http://255.255.255.255:9", requests=1))

    assert record.error == "unreachable"


def test_a_limit_of_this_machine_is_not_blamed_on_the_server() -> None:
    async def main() -> list[Record]:
        async with scripted(WHOLE) as url:
            limits = resource.getrlimit(resource.RLIMIT_NOFILE)
            os.close(lowest_free := os.dup(0))
            running = asyncio.create_task(drive(url, requests=1))
            await asyncio.sleep(0)  # it has read its files, and its user is about to begin
            resource.setrlimit(resource.RLIMIT_NOFILE, (lowest_free, limits[1]))
            try:
                return await running
            finally:
                resource.setrlimit(resource.RLIMIT_NOFILE, limits)

    (record,) = run(main)

    assert record.error == "client-limit", record.detail


def test_a_response_without_end_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http1, "RESPONSE_BYTES_MAX", 1_000_000)

    async def endless(client: Client) -> None:
        await client.request()
        await client.send(HEAD)
        while True:
            await client.send(framed(b"x" * 60_000) * 4, pause_s=0)

    async def main() -> list[Record]:
        async with scripted(endless) as url:
            return await drive(url, requests=1, timeout_s=20.0)

    (record,) = run(main)

    assert record.error == "too-large"
    assert record.end_ns < 10e9


def test_a_server_that_repeats_the_api_key_does_not_get_it_into_a_record() -> None:
    key = "sk-0123456789"
    told = f"{'no such key ' * 3}{key} {'x' * (300 - 36 - len(key) - 8)}{key}"
    refusal = raw(plain("401 Unauthorized", told.encode()))
    at_once = raw(HEAD + framed(chunk(key) + STOP) + END)
    spread = ("a ", key[:4], key[4:7], f"{key[7:]} b")
    in_pieces = raw(
        HEAD, *(framed(chunk(part)) for part in spread), framed(STOP) + END, pause_s=0.02
    )

    async def main() -> list[Record]:
        async with scripted(answering(refusal, at_once, in_pieces)) as url:
            return await drive(url, target=parse_url(url, f"{key}\n"), requests=3)

    records = run(main)

    assert [record.error for record in records] == ["http-401", "", ""]
    for record in records:
        assert "[API key]" in repr(record)
        assert key[:6] not in repr(record)
    assert records[2].texts == ("a ", "[API key]", "", " b")
