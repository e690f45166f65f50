"""Faults of the response and odd but whole ones, each over every endpoint over HTTP."""

import asyncio
import gzip
import itertools
import random
import zlib
from collections.abc import Callable

import pytest

from endpoint_streams import STREAMS
from harness import Answer, answering, body_of, raw, run, silence, tokens_of, whole
from llmdyno import plugins
from llmdyno.faults import meaning
from llmdyno.load import level, sender
from llmdyno.records.entries import Record
from scripted_server import END, HEAD, Client, framed, plain

NAMES = [name for name in plugins.names("endpoints") if not plugins.load("endpoints", name).rpc]
UNMARKED = [name for name in NAMES if plugins.load("endpoints", name).ends_with_body]
UNFRAMED = [name for name in NAMES if not STREAMS[name].framed]
# What is silent is waited for as long as it takes to be sure; all else ends long before.
SILENT_S, PATIENT_S = 0.7, 20.0

Make = Callable[[str], Answer]
OK = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make users come back soon: how long they back off is tested elsewhere."""
    monkeypatch.setattr(level, "BACKOFF_FIRST_S", 0.01)


def _first(endpoint: str) -> bytes:
    return HEAD + framed(STREAMS[endpoint].text("a"))


def _status(line: str, body: bytes = b"{}", *headers: str) -> tuple[str, Make]:
    fault = "redirect" if line.startswith("30") else f"http-{line[:3]}"
    return fault, lambda _: raw(plain(line, body, *headers))


def _packed(endpoint: str, coding: str, packed: bytes) -> bytes:
    assert body_of(endpoint)
    head = OK + f"Content-Encoding: {coding}\r\nContent-Length: {len(packed)}\r\n\r\n".encode()
    return head + packed


def _gzipped(endpoint: str) -> bytes:
    return gzip.compress(b"".join(body_of(endpoint)))


# Name → the class it must have, and the answer, made for an endpoint.
FAULTS: dict[str, tuple[str, Make]] = {
    "closed without an answer": ("no-response", lambda _: raw(close=True)),
    "reset without an answer": ("reset", lambda _: raw(reset=True)),
    "reset in the middle": ("truncated", lambda name: raw(_first(name), reset=True, pause_s=0.05)),
    "reset before any event": ("truncated", lambda _: raw(HEAD, reset=True, pause_s=0.05)),
    "closed before any event": ("truncated", lambda _: raw(HEAD, close=True)),
    "reset inside an event": (
        "truncated",
        lambda name: raw(_first(name) + framed(b"data: {"), reset=True, pause_s=0.05),
    ),
    "closed in the middle": ("truncated", lambda name: raw(_first(name), close=True)),
    "closed inside a character": (
        "truncated",
        lambda name: raw(HEAD, framed(STREAMS[name].text("é").split(b"\xa9")[0]), close=True),
    ),
    "closed inside a chunk": ("truncated", lambda name: raw(_first(name)[:-9], close=True)),
    "closed inside the header": ("truncated", lambda _: raw(HEAD[:30], close=True)),
    "closed before the length": (
        "truncated",
        lambda name: raw(OK + b"Content-Length: 9999\r\n\r\n", STREAMS[name].text("a"), close=True),
    ),
    "never answers": ("timeout", lambda _: silence()),
    "stalls in the header": ("timeout", lambda _: silence(HEAD[:30])),
    "stalls in the stream": ("timeout", lambda name: silence(_first(name))),
    "a header of one byte at a time": (
        "timeout",
        lambda _: raw(*(HEAD[i : i + 1] for i in range(len(HEAD))), pause_s=0.02),
    ),
    "an error in the stream": (
        "stream-error",
        lambda name: raw(_first(name) + framed(STREAMS[name].failure) + END),
    ),
    "an event named error": (
        "stream-error",
        lambda name: raw(_first(name) + framed(b"event: error\ndata: oops\n\n") + END),
    ),
    "an error, and then the end": (
        "stream-error",
        lambda name: raw(_first(name) + framed(STREAMS[name].failure + STREAMS[name].end(1)) + END),
    ),
    "ended inside an event": (
        "truncated",
        lambda name: raw(_first(name) + framed(b'data: {"choices": [{"del') + END),
    ),
    "garbage in the stream": (
        "bad-json",
        lambda name: raw(_first(name) + framed(b"data: {nonsense\n\n") + END),
    ),
    "no end mark": ("truncated", lambda name: raw(_first(name) + END)),
    "nothing in the stream": (
        "no-tokens",
        lambda name: raw(HEAD + framed(STREAMS[name].end(0) or b"\n\n") + END),
    ),
    "no HTTP": ("bad-http", lambda _: raw(b"SSH-2.0-OpenSSH_9.2\r\n\r\n")),
    "HTTP/2": ("bad-http", lambda _: raw(b"\x00\x00\x12\x04\x00\x00\x00\x00\x00")),
    "a length that is no number": ("bad-http", lambda _: raw(OK + b"Content-Length: x\r\n\r\n")),
    "a length below zero": ("bad-http", lambda _: raw(OK + b"Content-Length: -5\r\n\r\n")),
    "a length of too many digits": (
        "bad-http",
        lambda _: raw(OK + b"Content-Length: " + b"9" * 30 + b"\r\n\r\n"),
    ),
    "two lengths": (
        "bad-http",
        lambda _: raw(OK + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\n"),
    ),
    "chunked and a length": (
        "bad-http",
        lambda _: raw(HEAD[:-2] + b"Content-Length: 5\r\n\r\n" + END),
    ),
    "a chunk size that is none": ("bad-http", lambda name: raw(_first(name) + b"zz\r\n\r\n")),
    "switches protocols": (
        "bad-http",
        lambda _: raw(
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n"
        ),
    ),
    "TLS where HTTP is spoken": ("tls", lambda _: raw(b"\x15\x03\x01\x00\x02\x02\x16")),
    "too many headers": (
        "header-too-large",
        lambda _: raw(OK + b"X-Filler: 0123456789\r\n" * 30_000),
    ),
    "a header without end": ("header-too-large", lambda _: raw(OK + b"X: " + b"x" * 600_000)),
    "interim responses without end": (
        "header-too-large",
        lambda _: raw(b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n" * 20_000),
    ),
    "a JSON document": (
        "not-a-stream",
        lambda _: raw(plain("200 OK", b'{"error": "x"}', "Content-Type: application/json")),
    ),
    "an HTML page": (
        "not-a-stream",
        lambda _: raw(plain("200 OK", b"<html></html>", "Content-Type: text/html")),
    ),
    "broken gzip": ("bad-encoding", lambda name: raw(_packed(name, "gzip", b"no gzip"))),
    "half of a gzip": (
        "bad-encoding",
        lambda name: raw(_packed(name, "gzip", _gzipped(name)[:-9])),
    ),
    "an encoding that we do not know": (
        "bad-encoding",
        lambda name: raw(_packed(name, "br", b"\x0b\x02\x80")),
    ),
    "redirected": _status("307 Temporary Redirect", b"", "Location: https://elsewhere/v1"),
    "redirected nowhere": _status("302 Found"),
    "204": ("http-204", lambda _: raw(b"HTTP/1.1 204 No Content\r\n\r\n")),
    "401": _status("401 Unauthorized"),
    "404": _status("404 Not Found", b"<html></html>"),
    "413, closed": ("http-413", lambda _: raw(plain("413 Too Large", b"x"), close=True)),
    "429": _status("429 Too Many Requests"),
    "500": _status("500 Internal Server Error", b'{"error":{"message":"oom"}}'),
    "502": _status("502 Bad Gateway", b"<html></html>", "Connection: close"),
    "503 without a body": _status("503 Service Unavailable", b""),
    "a status that is none": ("http-999", lambda _: raw(plain("999 Odd", b"x"))),
}
# The body's end is all there is to go by; and where nothing marks an event, any text is a token.
NO_FAULT = {
    name: {"no end mark"}
    | (
        {
            *("garbage in the stream", "nothing in the stream"),
            *("an event named error", "ended inside an event"),
        }
        if name in UNFRAMED
        else set()
    )
    for name in UNMARKED
}


def _cases(table: dict[str, object], none: dict[str, set[str]]) -> list[tuple[str, str]]:
    return [(name, fault) for name in NAMES for fault in table if fault not in none.get(name, ())]


@pytest.mark.parametrize(("endpoint", "name"), _cases({**FAULTS}, NO_FAULT))
def test_a_fault_has_its_class_and_the_user_goes_on(endpoint: str, name: str) -> None:
    fault, make = FAULTS[name]

    failed, completed = run(
        answering(make(endpoint), whole(endpoint)),
        endpoint,
        requests=2,
        timeout_s=SILENT_S if fault == "timeout" else PATIENT_S,
    )

    assert (failed.outcome, failed.error) == ("failed", fault), failed.detail
    assert meaning(failed.error)
    assert (completed.outcome, completed.error) == ("completed", ""), completed.detail
    assert completed.output_tokens == tokens_of(endpoint)


MARKED = [name for name in NAMES if name not in UNMARKED]


@pytest.mark.parametrize("reset", [False, True])
@pytest.mark.parametrize("endpoint", MARKED)
def test_a_connection_that_breaks_after_the_end_mark_costs_nothing(
    endpoint: str, reset: bool
) -> None:
    answer = raw(HEAD + framed(_body(endpoint)), close=not reset, reset=reset, pause_s=0.05)

    records = run(answering(answer), endpoint, requests=2)

    assert [record.outcome for record in records] == ["completed"] * 2
    assert {record.output_tokens for record in records} == {tokens_of(endpoint)}


@pytest.mark.parametrize("endpoint", MARKED)
def test_a_body_that_never_ends_after_its_end_mark_holds_nobody_up(
    endpoint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Twice, for the second request must be looked at as well as the first."""
    monkeypatch.setattr(sender, "_AFTER_THE_END_NS", 1_200_000_000)
    endless = silence(HEAD + b"".join(map(framed, body_of(endpoint))))

    records = run(answering(endless), endpoint, requests=2, timeout_s=20.0, interval_s=0.25)

    assert [(record.outcome, record.output_tokens) for record in records] == [
        ("completed", tokens_of(endpoint))
    ] * 2
    assert "never ended" in records[0].detail
    assert all(record.end_ns < 5e9 for record in records)


def test_a_body_that_never_ends_after_an_error_holds_nobody_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sender, "_AFTER_THE_END_NS", 300_000_000)
    endless = silence(_first("openai-chat") + framed(STREAMS["openai-chat"].failure))

    (record,) = run(answering(endless), "openai-chat", requests=1, timeout_s=20.0, interval_s=0.25)

    assert (record.error, record.detail) == ("stream-error", "out of memory")
    assert record.end_ns < 5e9


def test_there_are_enough_faults() -> None:
    assert len(FAULTS) >= 25


def _gzip_flushed(endpoint: str) -> list[bytes]:
    """Return gzip with a flush after each part, as servers do that compress a stream."""
    packer = zlib.compressobj(wbits=31)
    parts = [packer.compress(part) + packer.flush(zlib.Z_SYNC_FLUSH) for part in body_of(endpoint)]
    return [*parts, packer.flush()]


def _chunked(*extra: bytes) -> bytes:
    return b"".join([HEAD[:-2], *(line + b"\r\n" for line in extra), b"\r\n"])


def _stream(name: str) -> bytes:
    return b"".join(framed(part) for part in body_of(name)) + END


def _cut(name: str) -> Answer:
    data = HEAD + _stream(name)
    edges = [0, *sorted(random.Random(name).sample(range(1, len(data)), 40)), len(data)]
    return raw(*(data[low:high] for low, high in itertools.pairwise(edges)))


def _body(name: str) -> bytes:
    return b"".join(body_of(name))


def _raw_deflate(data: bytes) -> bytes:
    packer = zlib.compressobj(wbits=-15)
    return packer.compress(data) + packer.flush()


ODD_BUT_WHOLE: dict[str, Make] = {
    "one write": lambda name: raw(HEAD + _stream(name)),
    "cut anywhere": _cut,
    "the end in splinters": lambda name: raw(
        HEAD, _stream(name)[:-5], b"0", b"\r\n", b"\r", b"\n", pause_s=0.005
    ),
    "chunk extensions": lambda name: raw(
        HEAD + b"".join(framed(p).replace(b"\r\n", b";a=b\r\n", 1) for p in body_of(name)),
        b"0;x=y\r\n\r\n",
    ),
    "trailers": lambda name: raw(
        HEAD + _stream(name)[:-2], b"X-Time: 1\r", b"\nX-More: 2\r\n\r", b"\n", pause_s=0.005
    ),
    "upper case": lambda name: raw(
        b"HTTP/1.1 200 OK\r\nTRANSFER-ENCODING: CHUNKED\r\nCONTENT-TYPE: text/EVENT-STREAM\r\n\r\n",
        _stream(name),
    ),
    "no content type": lambda name: raw(
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + _stream(name)
    ),
    "text/plain": lambda name: raw(plain("200 OK", _body(name), "Content-Type: text/plain")),
    "with a length": lambda name: raw(plain("200 OK", _body(name))),
    "until close": lambda name: raw(OK + b"\r\n", *body_of(name), close=True, pause_s=0.01),
    "HTTP/1.0": lambda name: raw(
        b"HTTP/1.0 200 OK\r\n\r\n", *body_of(name), close=True, pause_s=0.01
    ),
    "closes after each": lambda name: raw(_chunked(b"Connection: close") + _stream(name)),
    "says so and does not close": lambda name: raw(
        _chunked(b"Connection: close") + _stream(name), close=False
    ),
    "an interim response first": lambda name: raw(
        b"HTTP/1.1 100 Continue\r\n\r\n", b"HTTP/1.1 103 Early Hints\r\n\r\n", HEAD + _stream(name)
    ),
    "an empty line after the end": lambda name: raw(HEAD + _stream(name) + b"\r\n"),
    "garbage after the end": lambda name: raw(HEAD + _stream(name) + b"garbage"),
    "half a response after the end": lambda name: raw(HEAD + _stream(name) + HEAD[:40]),
    "two responses at once": lambda name: raw((HEAD + _stream(name)) * 2),
    "gzip at once": lambda name: raw(_packed(name, "gzip", _gzipped(name))),
    "gzip as it comes": lambda name: raw(
        _chunked(b"Content-Encoding: gzip"), *map(framed, _gzip_flushed(name)), END
    ),
    "gzip of two members": lambda name: raw(
        _packed(name, "x-gzip", b"".join(map(gzip.compress, body_of(name))))
    ),
    "gzip as a transfer coding": lambda name: raw(
        OK + b"Transfer-Encoding: gzip, chunked\r\n\r\n" + framed(_gzipped(name)) + END
    ),
    "deflate": lambda name: raw(_packed(name, "deflate", zlib.compress(_body(name)))),
    "bare deflate": lambda name: raw(_packed(name, "deflate", _raw_deflate(_body(name)))),
    "encoded in no way": lambda name: raw(_packed(name, "identity", _body(name))),
    "CRLF and comments": lambda name: raw(
        HEAD + framed(b": ping\r\n\r\n" + _body(name).replace(b"\n", b"\r\n")) + END
    ),
    "CR alone": lambda name: raw(HEAD + framed(_body(name).replace(b"\n", b"\r")) + END),
    "event names and ids": lambda name: raw(
        HEAD + framed(_body(name).replace(b"data:", b"event: x\nid: 7\nretry: 9\ndata:")) + END
    ),
}
NOT_WHOLE = {name: {"CRLF and comments"} for name in UNFRAMED}


@pytest.mark.parametrize(("endpoint", "name"), _cases({**ODD_BUT_WHOLE}, NOT_WHOLE))
def test_an_odd_response_is_whole_and_every_token_counted(endpoint: str, name: str) -> None:
    records = run(answering(ODD_BUT_WHOLE[name](endpoint)), endpoint, requests=2, timeout_s=5.0)

    for record in records:
        assert (record.outcome, record.error) == ("completed", ""), record.detail
        if STREAMS[endpoint].framed:  # else a token is a read, however it was cut
            assert record.output_tokens == tokens_of(endpoint)
    assert len(records) == 2


# What takes longer is tried with one endpoint: nothing of it is the endpoint's business.


def _one(answer: Answer, *, timeout_s: float = 10.0) -> Record:
    (record,) = run(answering(answer), requests=1, timeout_s=timeout_s)
    return record


@pytest.mark.parametrize("extra", [b"\r\n", b"garbage", b"HTTP/1.1 200 OK\r\n"])
def test_an_end_that_hides_among_other_bytes_is_found_within_seconds(extra: bytes) -> None:
    parts = [framed(part) for part in body_of("openai-chat")]

    record = _one(raw(HEAD, *parts, END + extra, pause_s=0.02))

    assert (record.outcome, record.output_tokens) == ("completed", 2)
    assert record.end_ns < 1e9  # though it was found later: the stamp is that of the read


def test_a_broken_frame_in_the_middle_is_found_within_seconds() -> None:
    record = _one(silence(HEAD, framed(STREAMS["openai-chat"].text("a")), b"zz\r\nrubbish"))

    assert (record.error, record.output_tokens) == ("bad-http", 1)
    assert record.end_ns < 4e9


def test_compressed_tokens_bear_the_stamps_of_their_reads() -> None:
    parts = _gzip_flushed("openai-chat")

    record = _one(raw(_chunked(b"Content-Encoding: gzip"), *map(framed, parts), END, pause_s=0.1))

    assert record.output_tokens == 2
    assert min(record.gaps_ns) > 0.09e9


@pytest.mark.parametrize("pieces", [1, 5_000])
def test_a_huge_event_takes_no_quadratic_time(pieces: int) -> None:
    event = STREAMS["openai-chat"].text("x" * 5_000_000)
    step = len(event) // pieces + 1
    frames = [framed(event[at : at + step]) for at in range(0, len(event), step)]
    rest = b"".join(map(framed, body_of("openai-chat"))) + END

    record = _one(raw(HEAD + b"".join(frames) + rest))

    assert (record.outcome, record.output_tokens) == ("completed", 2)
    assert record.end_ns < 5e9


def test_a_bomb_is_named() -> None:
    packed = gzip.compress(gzip.compress(bytes(300 * 2**20), 1), 1)
    head = OK + b"Content-Encoding: gzip, gzip\r\nContent-Length: %d\r\n\r\n" % len(packed)

    record = _one(raw(head + packed))

    assert record.error == "bad-encoding"
    assert "256 MiB" in record.detail


def test_the_words_of_a_compressed_refusal_are_kept() -> None:
    packed = gzip.compress(b'{"error": {"message": "out of memory"}}')

    record = _one(raw(plain("500 Oops", packed, "Content-Encoding: gzip")))

    assert (record.error, record.detail) == ("http-500", "out of memory")


def test_where_a_redirect_leads_is_said() -> None:
    record = _one(FAULTS["redirected"][1]("openai-chat"))

    assert (record.detail, record.status) == ("https://elsewhere/v1", 307)


@pytest.mark.parametrize(
    ("greeting", "fault"),
    [
        (b"SSH-2.0-OpenSSH_9.2\r\n", "bad-http"),
        (b"220 mail.example ESMTP\r\n", "bad-http"),
        (plain("503 Service Unavailable", b"too many connections"), "http-503"),
        (b"", "no-response"),
    ],
)
def test_a_server_that_speaks_or_hangs_up_before_it_is_asked(greeting: bytes, fault: str) -> None:
    async def script(client: Client) -> None:
        await client.send(greeting)

    records = run(script, requests=3, timeout_s=2.0)

    # Hanging up on a request that was sent is a reset to some kernels, and as true.
    assert {record.error for record in records} <= {fault, "reset"}
    assert all(record.first_byte_ns >= -1 for record in records)


def test_an_answer_that_nobody_asked_for_is_not_taken_for_the_next_one() -> None:
    """Servers say 408 on an idle connection before they close it."""

    async def script(client: Client) -> None:
        await client.request()
        await whole("openai-chat")(client)
        await asyncio.sleep(0.05)
        await client.send(plain("408 Request Timeout", b""))
        await asyncio.sleep(60)

    records = run(script, requests=3, timeout_s=5.0, think_s=0.3)

    assert [record.error for record in records] == ["", "", ""]


def test_an_answer_before_the_request_was_read_is_the_answer() -> None:
    async def script(client: Client) -> None:
        await client.send(plain("429 Too Many Requests", b"no", "Connection: close"))
        await client.request()

    records = run(script, requests=2, timeout_s=5.0)

    assert [record.error for record in records] == ["http-429", "http-429"]
