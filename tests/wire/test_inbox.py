"""The compiled inbox says what the plain one says, and reads chunks as llhttp does."""

import os
import subprocess
import sys
from pathlib import Path

import httptools
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmdyno.wire.inbox import READ_BYTES, Inbox, Piece, Pieces, PlainInbox, look

TESTS = Path(__file__).parent.parent
compiled = pytest.mark.skipif(look is None, reason="nothing was compiled")

# What may or may not be the end of a body.
reads = st.lists(
    st.one_of(
        st.binary(min_size=1, max_size=40),
        st.sampled_from([b"\r\n\r\n", b"x\r\n\r\n", b"0\r\n\r\n", b"\r\n\r", b"a\r\n\r\nb"]),
        st.sampled_from([bytes(READ_BYTES - 1), bytes(READ_BYTES), bytes(READ_BYTES + 1)]),
    ),
    max_size=12,
)


@compiled
@given(reads, st.booleans())
def test_both_inboxes_say_the_same(data: list[bytes], at_once: bool) -> None:
    both = Inbox(), PlainInbox()
    for inbox in both:
        assert inbox.at_once
        inbox.at_once = at_once
    for number, read in enumerate(data):
        assert both[0].add(number, read) == both[1].add(number, read)
        assert (both[0].last_ns, both[0].size) == (both[1].last_ns, both[1].size)
        assert len(both[0]) == len(both[1]) == number + 1

    assert both[0].take() == both[1].take() == list(enumerate(data))
    assert len(both[0]) == len(both[1]) == both[0].size == both[0].last_ns == 0


class Body:
    """What llhttp makes of a chunked body, the parts that one read brought together."""

    def __init__(self) -> None:
        self.stamp = 0
        self.pieces: list[Piece] = []
        self.ended = False

    def on_body(self, data: bytes) -> None:
        if self.pieces and self.pieces[-1][0] == self.stamp:
            data = self.pieces.pop()[1] + data
        self.pieces.append((self.stamp, data))

    def on_message_complete(self) -> None:
        self.ended = True


def by_llhttp(data: list[bytes]) -> list[Piece] | None:
    body = Body()
    parser = httptools.HttpResponseParser(body)
    parser.feed_data(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    for body.stamp, read in enumerate(data):
        if body.ended:
            return None
        parser.feed_data(read)
    return body.pieces if body.ended else None


def pieces_of(inbox: Inbox) -> list[Piece] | None:
    chunks = inbox.take_chunks()
    return None if chunks is None else list(Pieces(*chunks))


@st.composite
def chunked(draw: st.DrawFn) -> list[bytes]:
    """A chunked body, cut anywhere."""
    parts = draw(st.lists(st.binary(min_size=1, max_size=30), max_size=8))
    wire = b"".join(
        (b"%X" if draw(st.booleans()) else b"%x") % len(part) + b"\r\n" + part + b"\r\n"
        for part in parts
    )
    wire += draw(st.sampled_from([b"0\r\n\r\n", b"000\r\n\r\n"]))
    edges = sorted(draw(st.sets(st.integers(1, len(wire) - 1), max_size=12)))
    return [wire[low:high] for low, high in zip([0, *edges], [*edges, len(wire)], strict=True)]


@compiled
@given(chunked())
def test_chunks_are_read_as_llhttp_reads_them(data: list[bytes]) -> None:
    inbox = Inbox()
    for number, read in enumerate(data):
        inbox.add(number, read)

    assert pieces_of(inbox) == by_llhttp(data)
    assert len(inbox) == 0


@compiled
@given(chunked(), st.data())
def test_what_is_not_plainly_chunks_is_left_alone(data: list[bytes], draw: st.DataObject) -> None:
    """Whatever is changed: either llhttp reads the same, or all of it is left for llhttp."""
    wire = bytearray(b"".join(data))
    for _ in range(draw.draw(st.integers(1, 3))):
        place = draw.draw(st.integers(0, len(wire)))
        wire[place : place + draw.draw(st.integers(0, 2))] = draw.draw(
            st.sampled_from([b"", b"\r\n", b"0", b";a=b", b" ", b"fffffffff", b"\n", b"-1", b"0x"])
        )
    inbox = Inbox()
    inbox.add(0, bytes(wire))
    pieces = pieces_of(inbox)
    if pieces is None:
        assert inbox.take() == [(0, bytes(wire))]
    else:
        assert pieces == by_llhttp([bytes(wire)])


@compiled
def test_faults_are_the_same_without_the_compiled_part() -> None:
    files = [TESTS / "faults" / name for name in ("test_every_endpoint.py", "test_limits.py")]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-k", "openai", *files],
        env={**os.environ, "LLMDYNO_PLAIN_READING": "1"},
        cwd=TESTS.parent,
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 0, done.stdout[-2000:]
    assert int(done.stdout.split(" passed")[0].split()[-1]) > 50


def test_pieces_are_cut_where_reads_ended() -> None:
    pieces = Pieces(b"abcdef", [1, 4, 6], [10, 20, 30])

    assert list(pieces) == [(10, b"a"), (20, b"bcd"), (30, b"ef")]
    assert (pieces[-1], pieces[:2]) == ((30, b"ef"), [(10, b"a"), (20, b"bcd")])
    assert len(pieces) == 3
    with pytest.raises(IndexError):
        pieces[3]
