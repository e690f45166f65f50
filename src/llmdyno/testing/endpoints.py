"""What every endpoint must do, whatever its protocol.

An endpoint proves itself with a description of how its server speaks:

    from llmdyno.testing.endpoints import EndpointContract, Stream
    from my_package.my_endpoint import ENDPOINT

    class TestMine(EndpointContract):
        endpoint = ENDPOINT
        stream = Stream(fields=…, text=…, silent=…, failure=…, end=…)
"""

import asyncio
import itertools
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from llmdyno.bench.prober import Prober
from llmdyno.endpoints import Ask, Detection, Endpoint
from llmdyno.testing.load import run
from llmdyno.testing.scripted_server import (
    END,
    HEAD,
    Client,
    answering,
    framed,
    plain,
    raw,
    scripted,
)
from llmdyno.wire.inbox import Piece
from llmdyno.wire.reply import Reply, by_read, count_tokens, unstreamed
from llmdyno.wire.target import parse_url

# The request whose body must have the fields of `Stream.fields`.
ASK = Ask(
    prompt='A "quoted" é\n',
    system_prompt="Be brief.",
    model="m",
    max_tokens=7,
    exact_length=True,
    temperature=0.5,
    extra={"seed": 3},
)


class Stream(msgspec.Struct, frozen=True, kw_only=True):
    """How one endpoint's server speaks, as the bytes of its events."""

    fields: Mapping[str, Any]  # in the body of ASK
    text: Callable[[str], bytes]  # an event that brings this text
    silent: bytes  # an event without text, as servers send one first
    failure: bytes  # an error event with the words "out of memory"
    end: Callable[[int], bytes]  # the end of a stream of so many tokens
    silent_tokens: int = 0  # tokens without text that the end brings
    # An event that brings a text: (text, its tokens, tokens of the stream so far). None: no usage.
    counted: Callable[[str, int, int], bytes] | None = None
    wants_length: bool = False  # of every request: the protocol has no default
    framed: bool = True  # the protocol marks the end of each event
    asked: Callable[[bytes], Any] = json.loads  # a request's body, as the server reads it
    garbage: bytes = b"data: {nonsense\n\n"  # an event that cannot be read, and its class
    garbage_fault: str = "bad-json"


HOSTILE = {
    "bottomless": b'{"error":' + b"[" * 100_000,
    "bottomless and unknown": b'{"x":' + b"[" * 100_000,
    "no object": b"[1]",
    "no UTF-8": b'\xff{"error"\xfe',
    "a number without end": b'{"usage":{"completion_tokens":9' + b"9" * 400 + b"}}",
    "a count without end": b'{"num_output_tokens":9' + b"9" * 400 + b"}",
    "details without end": b'{"details":{"generated_tokens":9' + b"9" * 400 + b"}}",
}

# Fuzz: nothing that a server can send is an exception.
_KEYS = """
    choices delta content reasoning text finish_reason usage prompt_tokens completion_tokens error
    object message token special generated_text details generated_tokens input_length text_output
    num_input_tokens num_output_tokens status
""".split()
_VALUES: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3),
    lambda inner: (
        st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from(_KEYS), inner, max_size=4)
    ),
    max_leaves=8,
)
EVENTS = st.dictionaries(st.sampled_from(_KEYS), _VALUES, max_size=5).map(
    lambda document: b"data: %s\n\n" % json.dumps(document).encode()
)
TEXTS = st.lists(
    st.text(st.characters(exclude_categories=["Cs"]), min_size=1), min_size=1, max_size=6
)
_ODD = [b"data: [DONE]\n\n", b": ping\n\n", b"\r", b"\n\n", b'{"status":"error"}']
# Several classes inherit each test, which hypothesis takes for a fault without this.
unhurried = settings(
    deadline=None, max_examples=30, suppress_health_check=[HealthCheck.differing_executors]
)


def bodies_of(streams: Sequence[Stream]) -> st.SearchStrategy[list[bytes]]:
    """Return a strategy for the reads of a response: parts of these streams, and random bytes."""
    known = [part for one in streams for part in (one.text("é"), one.end(2)) if part]
    part = st.binary(max_size=40) | EVENTS | st.sampled_from(_ODD) | st.sampled_from(known)
    return st.lists(part, max_size=8)


def assert_reads_as_something(endpoint: Endpoint, bodies: Sequence[bytes]) -> None:
    """Check that an endpoint makes a valid reply of these bytes, whatever they are."""
    reply = _read(endpoint, *bodies)
    tokens, source = count_tokens(reply)
    gaps_ns, _ = by_read(reply.stamps_ns, tokens, sent_ns=90)

    assert reply.error in {"", "bad-json", "bad-message", "stream-error", "truncated"}
    assert len(tokens) == len(reply.stamps_ns) == len(reply.texts)
    counted = sum(tokens)
    if tokens and source == "usage":
        assert counted + unstreamed(reply, counted) == reply.output_tokens
    else:
        assert counted == len(tokens)
    assert min(gaps_ns, default=1) >= 0
    if not reply.stamps_ns:
        assert gaps_ns == ()


def _read(endpoint: Endpoint, *bodies: bytes) -> Reply:
    """Read bodies that came one after the other, at 100 ns, 101 ns and so on."""
    return endpoint.read([(stamp, body) for stamp, body in enumerate(bodies, 100) if body])


def _cut(whole: bytes, at: Sequence[int]) -> list[Piece]:
    """Return a body in pieces that all came with one read."""
    edges = [0, *sorted(at), len(whole)]
    return [(7, whole[low:high]) for low, high in itertools.pairwise(edges)]


class EndpointContract:
    """The tests of one endpoint; a subclass names it and its stream."""

    endpoint: ClassVar[Endpoint]
    stream: ClassVar[Stream]

    # The request.

    def test_the_body_asks_for_what_is_wanted_and_extra_is_merged(self) -> None:
        """Every field of the request, and the user's own, must stand in the body."""
        document = self.stream.asked(self.endpoint.body(ASK))

        assert document | self.stream.fields == document
        assert document["seed"] == 3

    def test_what_is_extra_wins(self) -> None:
        """The user's own field must replace the endpoint's field of the same name."""
        asked = self.stream.asked
        plain_ask = asked(self.endpoint.body(Ask(prompt="p")))
        field = next(iter(plain_ask))

        document = asked(self.endpoint.body(Ask(prompt="p", extra={field: "mine"})))

        assert document == plain_ask | {field: "mine"}

    def test_what_is_not_asked_for_is_left_to_the_server(self) -> None:
        """A field that the request leaves open must not be in the body."""
        asked_less = self.endpoint.body(Ask(prompt="p", model="m"))

        assert b"null" not in asked_less
        if not self.stream.wants_length:
            assert b'tokens":' not in asked_less.replace(b'_tokens":true', b"")
        assert b"temperature" not in asked_less

    def test_the_history_is_sent_in_order(self) -> None:
        """The turns before must stand in the body in the order in which they were said."""
        history = (("First.", "Second."),)
        ask = Ask(prompt="Third.", system_prompt="Zeroth.", history=history, model="m")

        body = self.endpoint.body(ask).decode(errors="replace")

        assert "Zeroth." in body
        places = [body.index(word) for word in ("First.", "Second.", "Third.")]
        assert places == sorted(places)

    def test_the_path_fits_in_a_request_line_whatever_the_model_is_called(self) -> None:
        """A model's name must be escaped where it is part of the path."""
        path = self.endpoint.path("org/a model?#é")

        assert path.startswith("/")
        assert path.isascii()
        assert not set(path) & set(" ?#")

    # The response.

    def test_each_text_bears_the_stamp_of_its_piece(self) -> None:
        """A token's time must be that of the read which completed its event, in ns."""
        text, end = self.stream.text, self.stream.end

        reply = _read(self.endpoint, text(" a"), text(" bé"), text("c"), end(3))

        assert reply.stamps_ns == [100, 101, 102]
        assert sum(count_tokens(reply)[0]) == 3 + self.stream.silent_tokens
        assert reply.error == ""
        assert reply.ended is not self.endpoint.ends_with_body

    def test_an_event_without_text_is_no_first_token(self) -> None:
        """TTFT must not end at an event that brings no text."""
        stream = self.stream

        reply = _read(self.endpoint, stream.silent, stream.text("a"), stream.end(1))

        assert reply.stamps_ns == [101]

    def test_usage_says_how_many_tokens_a_text_has(self) -> None:
        """The server's own counts must be taken, and the source be called "usage"."""
        counted = self.stream.counted
        if counted is None:
            pytest.skip("the protocol has no usage")

        reply = _read(self.endpoint, counted("abc", 3, 3), counted("d", 2, 5), self.stream.end(5))

        assert count_tokens(reply) == ([3, 2 + self.stream.silent_tokens], "usage")
        assert reply.input_tokens == 9

    def test_without_usage_chunks_are_counted_and_the_source_says_so(self) -> None:
        """Each chunk must count as one token, and the source be called "chunks"."""
        if self.stream.counted is not None:
            pytest.skip("the protocol has usage")

        reply = _read(self.endpoint, *map(self.stream.text, "ab"))

        assert count_tokens(reply) == ([1, 1], "chunks")
        assert reply.input_tokens == -1

    def test_an_error_in_the_stream_has_its_class_and_words_and_is_no_token(self) -> None:
        """An error event must give `error` and `detail`, and no stamp."""
        stream = self.stream

        reply = _read(self.endpoint, stream.text("a"), stream.failure, stream.end(1))

        assert (reply.error, reply.detail) == ("stream-error", "out of memory")
        assert reply.stamps_ns == [100]

    @unhurried
    @given(texts=TEXTS, failed=st.booleans(), data=st.data())
    def test_the_body_may_be_cut_anywhere(
        self, texts: list[str], failed: bool, data: st.DataObject
    ) -> None:
        """Where the network cuts the body must not change what is read from it."""
        stream = self.stream
        tail = stream.failure if failed else stream.end(len(texts))
        whole = b"".join(map(stream.text, texts)) + tail
        cuts = data.draw(st.lists(st.integers(0, len(whole)), max_size=12))

        together = self.endpoint.read([(7, whole)])
        apart = self.endpoint.read(_cut(whole, cuts))

        assert (apart.error, apart.detail) == (together.error, together.detail)
        assert "".join(apart.texts) == "".join(together.texts) == "".join(texts)
        if stream.framed:
            assert apart == together
            assert len(apart.stamps_ns) == len(texts)

    def test_a_stream_cut_short_has_not_ended(self) -> None:
        """`Reply.ended` must be false for every part of a stream that lacks its end."""
        tokens = self.stream.text("a") + self.stream.text("é")

        assert not any(
            _read(self.endpoint, tokens[:length]).ended for length in range(len(tokens) + 1)
        )

    def test_what_cannot_be_read_is_named_and_ends_the_reading(self) -> None:
        """An unreadable event must give its error class; no later event may be read."""
        stream = self.stream
        if not stream.framed:
            pytest.skip("all bytes are text")

        reply = _read(self.endpoint, stream.text("a"), stream.garbage, stream.text("b"))

        assert reply.error == stream.garbage_fault
        assert len(reply.detail) > 10
        assert reply.stamps_ns == [100]

    @pytest.mark.parametrize("hostile", HOSTILE)
    def test_no_event_is_an_exception(self, hostile: str) -> None:
        """A hostile event must not raise, and must leave the tokens before it."""
        reply = _read(self.endpoint, self.stream.text("a"), b"data: %s\n\n" % HOSTILE[hostile])

        assert reply.stamps_ns[0] == 100
        assert len(count_tokens(reply)[0]) == len(reply.stamps_ns)

    def test_halves_of_a_character_in_two_events_are_two_tokens(self) -> None:
        """Bytes that are no whole UTF-8 must still count as tokens."""
        if not self.stream.framed:
            pytest.skip("half a character completes none")
        text = self.stream.text
        halves = [text("{X}").replace(b"{X}", half) for half in (b"\xc3{}", b"\xa9{}")]

        reply = _read(self.endpoint, *halves)

        assert reply.error == ""
        assert reply.stamps_ns == [100, 101]

    @unhurried
    @given(data=st.data())
    def test_whatever_comes_there_is_a_reply_and_a_count(self, data: st.DataObject) -> None:
        """`Endpoint.read` must return a reply that can be counted, whatever the bytes."""
        assert_reads_as_something(self.endpoint, data.draw(bodies_of([self.stream])))

    @unhurried
    @given(refusal=st.binary(max_size=60) | EVENTS)
    def test_the_words_of_any_refusal_are_text(self, refusal: bytes) -> None:
        """`Endpoint.error_of` must return at most 300 characters, whatever the bytes."""
        assert len(self.endpoint.error_of(refusal)) <= 300

    # Over the wire: the endpoint and the connection together find the class of what came. A gRPC
    # server cannot be scripted so simply.

    def test_a_server_that_knows_no_path_is_not_taken_for_its_own(self) -> None:
        """`Endpoint.detect` must not recognise a server that answers 404 everywhere."""
        self._require_http()
        detect = getattr(self.endpoint, "detect", None)
        if detect is None:
            pytest.skip("--endpoint auto never picks it")

        async def ask() -> Detection:
            async with scripted(answering(raw(plain("404 Not Found", b"Not Found")))) as url:
                prober = Prober(parse_url(url), timeout_s=5.0)
                try:
                    found: Detection = await detect(prober, "m")
                    return found
                finally:
                    prober.close()

        assert not asyncio.run(ask()).speaks

    def test_a_whole_stream_is_completed(self) -> None:
        """A stream with its end must be recorded as completed, with all its tokens."""
        stream = self.stream

        outcome = self._outcome(stream.text("a"), stream.text("b"), stream.end(2))

        assert outcome == ("completed", "", 2 + stream.silent_tokens)

    def test_a_stream_that_breaks_off_is_truncated(self) -> None:
        """A connection that closes before the end must be recorded as "truncated"."""
        assert self._outcome(self.stream.text("a"), whole=False) == ("failed", "truncated", 1)

    def test_a_stream_of_nothing_has_no_tokens(self) -> None:
        """A stream that ends without text must be recorded as failed: "no-tokens"."""
        assert self._outcome(self.stream.silent, self.stream.end(0))[:2] == ("failed", "no-tokens")

    def test_an_error_in_the_stream_has_failed(self) -> None:
        """An error event must be recorded as "stream-error", with the tokens before it."""
        outcome = self._outcome(self.stream.text("a"), self.stream.failure)

        assert outcome == ("failed", "stream-error", 1)

    @pytest.mark.parametrize(
        ("media_type", "document"),
        [("application/json", b'{"error": "boom"}'), ("text/html", b"<html></html>")],
    )
    def test_a_document_is_not_a_stream(self, media_type: str, document: bytes) -> None:
        """A 200 response of another media type must be recorded as "not-a-stream"."""
        self._require_http()
        answer = raw(plain("200 OK", document, f"Content-Type: {media_type}; charset=utf-8"))

        (record,) = run(answering(answer), self.endpoint, requests=1)

        assert (record.outcome, record.error) == ("failed", "not-a-stream")

    @pytest.mark.parametrize("said", [b'{"error": "boom"}', b"boom"])
    def test_the_words_of_a_refusal_are_kept(self, said: bytes) -> None:
        """A 400 response must be recorded with its status and the server's words."""
        self._require_http()
        answer = raw(plain("400 Bad Request", said))

        (record,) = run(answering(answer), self.endpoint, requests=1)

        assert (record.error, record.detail) == ("http-400", "boom")

    def _require_http(self) -> None:
        if self.endpoint.rpc:
            pytest.skip("a gRPC server is not scripted here")

    def _outcome(self, *parts: bytes, whole: bool = True) -> tuple[str, str, int]:
        """Answer one request with these parts of a stream; return outcome, error and tokens."""
        self._require_http()

        async def answer(client: Client) -> None:
            await client.send(HEAD, *(framed(part) for part in parts if part))
            if not whole:
                raise ConnectionError
            await client.send(END)

        (record,) = run(answering(answer), self.endpoint, requests=1)
        return record.outcome, record.error, record.output_tokens
