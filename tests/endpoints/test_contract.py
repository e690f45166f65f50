"""What every endpoint must do, whatever its protocol; a new one is found because it exists.

An endpoint without a stream in endpoint_streams.py fails here with a KeyError: write one.
"""

import itertools
import json
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from endpoint_streams import ASK, STREAMS
from harness import answering, raw, run
from llmdyno import plugins
from llmdyno.endpoints import Ask, Endpoint
from llmdyno.wire.inbox import Piece
from llmdyno.wire.reply import Reply, by_read, count_tokens
from scripted_server import END, HEAD, Client, framed, plain

NAMES = plugins.names("endpoints")
WITH_USAGE = [name for name in NAMES if STREAMS[name].counted is not None]
FRAMED = [name for name in NAMES if STREAMS[name].framed]
# Over the wire, gRPC is tried in faults/test_grpc.py.
HTTP = [name for name in NAMES if not plugins.load("endpoints", name).rpc]

TEXTS = st.lists(
    st.text(st.characters(exclude_categories=["Cs"]), min_size=1), min_size=1, max_size=6
)
every_endpoint = pytest.mark.parametrize("name", NAMES)
every_http_endpoint = pytest.mark.parametrize("name", HTTP)
unhurried = settings(deadline=None, max_examples=60)


def load(name: str) -> Endpoint:
    endpoint: Endpoint = plugins.load("endpoints", name)
    return endpoint


def read(name: str, *bodies: bytes) -> Reply:
    """Read bodies that came one after the other, at 100 ns, 101 ns and so on."""
    return load(name).read([(stamp, body) for stamp, body in enumerate(bodies, 100) if body])


def cut(whole: bytes, at: Sequence[int]) -> list[Piece]:
    """Return a body in pieces that all came with one read."""
    edges = [0, *sorted(at), len(whole)]
    return [(7, whole[low:high]) for low, high in itertools.pairwise(edges)]


# The request.


@every_endpoint
def test_the_body_asks_for_what_is_wanted_and_extra_is_merged(name: str) -> None:
    document = STREAMS[name].asked(load(name).body(ASK))

    assert document | STREAMS[name].fields == document
    assert document["seed"] == 3


@every_endpoint
def test_what_is_extra_wins(name: str) -> None:
    asked = STREAMS[name].asked
    plain_ask = asked(load(name).body(Ask(prompt="p")))
    field = next(iter(plain_ask))

    document = asked(load(name).body(Ask(prompt="p", extra={field: "mine"})))

    assert document == plain_ask | {field: "mine"}


@every_endpoint
def test_what_is_not_asked_for_is_left_to_the_server(name: str) -> None:
    asked_less = load(name).body(Ask(prompt="p", model="m"))

    assert b"null" not in asked_less
    assert b'tokens":' not in asked_less.replace(b'_tokens":true', b"")
    assert b"temperature" not in asked_less


@every_endpoint
def test_the_path_fits_in_a_request_line_whatever_the_model_is_called(name: str) -> None:
    path = load(name).path("org/a model?#é")

    assert path.startswith("/")
    assert path.isascii()
    assert not set(path) & set(" ?#")


# The response.


@every_endpoint
def test_each_text_bears_the_stamp_of_its_piece(name: str) -> None:
    stream = STREAMS[name]

    reply = read(name, stream.text(" a"), stream.text(" bé"), stream.text("c"), stream.end(3))

    assert reply.stamps_ns == [100, 101, 102]
    assert sum(count_tokens(reply)[0]) == 3 + stream.silent_tokens
    assert reply.error == ""
    assert reply.ended is not load(name).ends_with_body


@every_endpoint
def test_an_event_without_text_is_no_first_token(name: str) -> None:
    stream = STREAMS[name]

    reply = read(name, stream.silent, stream.text("a"), stream.end(1))

    assert reply.stamps_ns == [101]


@pytest.mark.parametrize("name", WITH_USAGE)
def test_usage_says_how_many_tokens_a_text_has(name: str) -> None:
    stream = STREAMS[name]
    assert stream.counted is not None

    reply = read(name, stream.counted("abc", 3, 3), stream.counted("d", 2, 5), stream.end(5))

    assert count_tokens(reply) == ([3, 2 + stream.silent_tokens], "usage")
    assert reply.input_tokens == 9


@pytest.mark.parametrize("name", [name for name in NAMES if name not in WITH_USAGE])
def test_without_usage_chunks_are_counted_and_the_source_says_so(name: str) -> None:
    reply = read(name, *map(STREAMS[name].text, "ab"))

    assert count_tokens(reply) == ([1, 1], "chunks")
    assert reply.input_tokens == -1


@every_endpoint
def test_an_error_in_the_stream_has_its_class_and_words_and_is_no_token(name: str) -> None:
    stream = STREAMS[name]

    reply = read(name, stream.text("a"), stream.failure, stream.end(1))

    assert (reply.error, reply.detail) == ("stream-error", "out of memory")
    assert reply.stamps_ns == [100]


@every_endpoint
@unhurried
@given(texts=TEXTS, failed=st.booleans(), data=st.data())
def test_the_body_may_be_cut_anywhere(
    name: str, texts: list[str], failed: bool, data: st.DataObject
) -> None:
    stream = STREAMS[name]
    tail = stream.failure if failed else stream.end(len(texts))
    whole = b"".join(map(stream.text, texts)) + tail
    cuts = data.draw(st.lists(st.integers(0, len(whole)), max_size=12))

    together = load(name).read([(7, whole)])
    apart = load(name).read(cut(whole, cuts))

    assert (apart.error, apart.detail) == (together.error, together.detail)
    assert "".join(apart.texts) == "".join(together.texts) == "".join(texts)
    if stream.framed:
        assert apart == together
        assert len(apart.stamps_ns) == len(texts)


@every_endpoint
def test_a_stream_cut_short_has_not_ended(name: str) -> None:
    stream = STREAMS[name]
    tokens = stream.text("a") + stream.text("é")

    assert not any(read(name, tokens[:length]).ended for length in range(len(tokens) + 1))


@pytest.mark.parametrize("name", FRAMED)
def test_what_cannot_be_read_is_named_and_ends_the_reading(name: str) -> None:
    stream = STREAMS[name]

    reply = read(name, stream.text("a"), stream.garbage, stream.text("b"))

    assert reply.error == stream.garbage_fault
    assert len(reply.detail) > 10
    assert reply.stamps_ns == [100]


HOSTILE = {
    "bottomless": b'{"error":' + b"[" * 100_000,
    "bottomless and unknown": b'{"x":' + b"[" * 100_000,
    "no object": b"[1]",
    "no UTF-8": b'\xff{"error"\xfe',
    "a number without end": b'{"usage":{"completion_tokens":9' + b"9" * 400 + b"}}",
    "a count without end": b'{"num_output_tokens":9' + b"9" * 400 + b"}",
    "details without end": b'{"details":{"generated_tokens":9' + b"9" * 400 + b"}}",
}


@every_endpoint
@pytest.mark.parametrize("hostile", HOSTILE)
def test_no_event_is_an_exception(name: str, hostile: str) -> None:
    stream = STREAMS[name]

    reply = read(name, stream.text("a"), b"data: %s\n\n" % HOSTILE[hostile])

    assert reply.stamps_ns[0] == 100
    assert len(count_tokens(reply)[0]) == len(reply.stamps_ns)


@pytest.mark.parametrize("name", FRAMED)
def test_halves_of_a_character_in_two_events_are_two_tokens(name: str) -> None:
    stream = STREAMS[name]
    halves = [stream.text("{X}").replace(b"{X}", half) for half in (b"\xc3{}", b"\xa9{}")]

    reply = read(name, *halves)

    assert reply.error == ""
    assert reply.stamps_ns == [100, 101]


# Fuzz: nothing that a server can send is an exception.

KEYS = """
    choices delta content reasoning text finish_reason usage prompt_tokens completion_tokens error
    object message token special generated_text details generated_tokens input_length text_output
    num_input_tokens num_output_tokens status
""".split()
VALUES: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3),
    lambda inner: (
        st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from(KEYS), inner, max_size=4)
    ),
    max_leaves=8,
)
EVENTS = st.dictionaries(st.sampled_from(KEYS), VALUES, max_size=5).map(
    lambda document: b"data: %s\n\n" % json.dumps(document).encode()
)
BODIES = st.lists(
    st.binary(max_size=40)
    | EVENTS
    | st.sampled_from([b"data: [DONE]\n\n", b": ping\n\n", b"\r", b"\n\n", b'{"status":"error"}'])
    | st.sampled_from([stream.text("é") for stream in STREAMS.values()])
    | st.sampled_from([stream.end(2) for stream in STREAMS.values()]),
    max_size=8,
)


@every_endpoint
@unhurried
@given(bodies=BODIES)
def test_whatever_comes_there_is_a_reply_and_a_count(name: str, bodies: list[bytes]) -> None:
    reply = read(name, *bodies)
    tokens, source = count_tokens(reply)
    gaps_ns, _ = by_read(reply.stamps_ns, tokens, sent_ns=90)

    assert reply.error in {"", "bad-json", "bad-message", "stream-error"}
    assert len(tokens) == len(reply.stamps_ns) == len(reply.texts)
    assert sum(tokens) == (reply.output_tokens if source == "usage" else len(tokens)) or not tokens
    assert min(gaps_ns, default=1) >= 0
    if not reply.stamps_ns:
        assert gaps_ns == ()


@every_endpoint
@unhurried
@given(refusal=st.binary(max_size=60) | EVENTS)
def test_the_words_of_any_refusal_are_text(name: str, refusal: bytes) -> None:
    assert len(load(name).error_of(refusal)) <= 300


# Over the wire: the endpoint and the transport together find the class of what came.


def outcomes(name: str, *parts: bytes, whole: bool = True) -> tuple[str, str, int]:
    """Answer one request with these parts of a stream; return its outcome, error and tokens."""

    async def answer(client: Client) -> None:
        await client.send(HEAD, *(framed(part) for part in parts if part))
        if not whole:
            raise ConnectionError
        await client.send(END)

    (record,) = run(answering(answer), name, requests=1)
    return record.outcome, record.error, record.output_tokens


@every_http_endpoint
def test_a_whole_stream_is_completed(name: str) -> None:
    stream = STREAMS[name]

    outcome = outcomes(name, stream.text("a"), stream.text("b"), stream.end(2))

    assert outcome == ("completed", "", 2 + stream.silent_tokens)


@every_http_endpoint
def test_a_stream_that_breaks_off_is_truncated(name: str) -> None:
    assert outcomes(name, STREAMS[name].text("a"), whole=False) == ("failed", "truncated", 1)


@every_http_endpoint
def test_a_stream_of_nothing_has_no_tokens(name: str) -> None:
    stream = STREAMS[name]

    assert outcomes(name, stream.silent, stream.end(0))[:2] == ("failed", "no-tokens")


@every_http_endpoint
def test_an_error_in_the_stream_has_failed(name: str) -> None:
    stream = STREAMS[name]

    assert outcomes(name, stream.text("a"), stream.failure) == ("failed", "stream-error", 1)


@every_http_endpoint
@pytest.mark.parametrize(
    ("media_type", "document"),
    [("application/json", b'{"error": "boom"}'), ("text/html; charset=utf-8", b"<html></html>")],
)
def test_a_document_is_not_a_stream(name: str, media_type: str, document: bytes) -> None:
    answer = raw(plain("200 OK", document, f"Content-Type: {media_type}"))

    (record,) = run(answering(answer), name, requests=1)

    assert (record.outcome, record.error) == ("failed", "not-a-stream")


@every_http_endpoint
@pytest.mark.parametrize("said", [b'{"error": "boom"}', b'data: {"error":"boom"}\n\n', b"boom"])
def test_the_words_of_a_refusal_are_kept(name: str, said: bytes) -> None:
    (record,) = run(answering(raw(plain("400 Bad Request", said))), name, requests=1)

    assert (record.error, record.detail) == ("http-400", "boom")
