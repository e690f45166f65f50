import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmdyno.wire.inbox import Piece
from llmdyno.wire.sse import Body, ErrorData, ends_within_event, events

LINE = st.characters(exclude_characters="\r\n", exclude_categories=["Cs"])


def _all(*bodies: bytes) -> list[bytes]:
    return [data for _, data in events(enumerate(bodies))]


def test_an_event_bears_the_stamp_of_the_piece_that_completed_it() -> None:
    pieces = [(10, b"data: a\n"), (20, b"\ndata: b\n\ndata: c"), (30, b"\n\n")]

    assert list(events(pieces)) == [(20, b"a"), (20, b"b"), (30, b"c")]


@pytest.mark.parametrize(
    ("pieces", "expected"),
    [
        ([(1, b"aaa"), (2, b"bb"), (3, b"cccc")], [1, 2, 3]),
        ([(1, b"aaab"), (2, b""), (3, b"bcccc")], [1, 3, 3]),
        ([(1, b"aaa"), (2, b""), (3, b"bb"), (4, b"cc"), (5, b"cc")], [1, 3, 5]),
        ([(1, b"aaabbcccc")], [1, 1, 1]),
    ],
)
def test_a_place_in_a_body_has_the_stamp_of_the_piece_that_brought_it(
    pieces: list[Piece], expected: list[int]
) -> None:
    assert Body(pieces).stamps_ns([3, 5, 9]) == expected
    assert Body(pieces).stamps_ns([]) == []


def test_comments_and_other_fields_are_skipped_and_data_lines_joined() -> None:
    body = b": ping\n\nevent: x\nid: 1\ndata: a\ndata: b\n\n:\n\ndata:c\n\n"

    assert _all(body) == [b"a\nb", b"c"]


def test_line_ends_may_be_crlf_or_cr() -> None:
    assert _all(b"data: a\r\n\r\ndata: b\r\n\r\n") == [b"a", b"b"]
    assert _all(b"data: a\r\rdata: b\r\r") == [b"a", b"b"]


def test_a_blank_line_of_cr_ends_its_event_in_its_own_read() -> None:
    pieces = [(10, b"data: a\r\r"), (20, b"data: b\r\n\r"), (30, b"\ndata: c\r"), (40, b"\n\r\n")]

    assert list(events(pieces)) == [(10, b"a"), (20, b"b"), (40, b"c")]


def test_a_byte_order_mark_hides_no_event() -> None:
    assert _all(b"\xef\xbb", b"\xbfdata: a\n\ndata: b\n\n") == [b"a", b"b"]


def test_an_event_that_keeps_alive_is_skipped() -> None:
    assert _all(b"event: ping\ndata: ping\n\nevent: message\ndata: a\n\n") == [b"a"]


@pytest.mark.parametrize("name", [b"ping", b" heartbeat", b" Keep-Alive ", b" keep_alive"])
def test_names_that_keep_alive_have_many_spellings(name: bytes) -> None:
    assert _all(b"event:%s\ndata: x\n\ndata: a\n\n" % name) == [b"a"]


@pytest.mark.parametrize("name", [b"error", b"Error ", b"stream_error", b"response.error"])
@pytest.mark.parametrize("data", [b"", b"data: oom\n", b"data: o\ndata: om\n"])
def test_an_event_named_an_error_is_told_apart(name: bytes, data: bytes) -> None:
    whole = b"event: %s\n%s\n" % (name, data)
    (error,) = _all(whole)

    assert isinstance(error, ErrorData)
    assert error.replace(b"\n", b"") == data.replace(b"data: ", b"").replace(b"\n", b"")
    assert not any(isinstance(one, ErrorData) for one in _all(b"event: errors_none\ndata: a\n\n"))


@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r"])
def test_a_body_ends_within_an_event_unless_a_blank_line_ends_it(end: bytes) -> None:
    event = b"data: a" + end

    assert ends_within_event(event)
    assert ends_within_event(event[:-3])
    assert not ends_within_event(event + end)
    assert not ends_within_event(b"")


def test_an_event_without_its_blank_line_is_not_lost() -> None:
    assert _all(b"data: a\n\ndata: [DONE]") == [b"a", b"[DONE]"]


@given(
    payloads=st.lists(
        st.text(st.characters(exclude_characters="\r\n", exclude_categories=["Cs"]), min_size=1),
        max_size=8,
    ),
    end=st.sampled_from([b"\n", b"\r\n"]),
    data=st.data(),
)
def test_pieces_may_be_cut_anywhere(payloads: list[str], end: bytes, data: st.DataObject) -> None:
    encoded = [payload.encode() for payload in payloads]
    body = b"".join(b"data: " + payload + end + end for payload in encoded)
    cuts = data.draw(st.lists(st.integers(0, len(body)), max_size=20).map(sorted))
    edges = [0, *cuts, len(body)]

    pieces = [body[low:high] for low, high in itertools.pairwise(edges)]

    assert encoded == _all(*pieces)
