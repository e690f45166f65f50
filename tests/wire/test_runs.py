"""The compiled and the plain reading of like events find the same texts, or one of them none."""

from hypothesis import example, given
from hypothesis import strategies as st

from llmdyno.wire.inbox import split_run
from llmdyno.wire.runs import plain_run, read_run

BEFORE, AFTER = b'data: {"text": "', b'", "id": 1}\n\n'
parts = st.one_of(
    st.text(min_size=1, max_size=5).map(
        lambda text: text.encode(errors="replace").replace(b"\\", b"\\\\").replace(b'"', b'\\"')
    ),
    st.sampled_from(
        [b"", b"\\", b'"', b'a","b', b"\\\\", b'\\"', b"\n", b"\t", b"\xff", b"\\ud800"]
    ),
)


def event(part: bytes) -> bytes:
    return BEFORE + part + AFTER


@given(st.lists(parts, max_size=12), st.sampled_from([b"", b"data: [DONE]\n\n", event(b"x")[:-1]]))
@example([b"a", b"b\\"], b"")
def test_what_both_find_is_the_same(inside: list[bytes], rest: bytes) -> None:
    body = b": ping\n\n" + b"".join(map(event, inside)) + rest
    start = len(b": ping\n\n")

    found, plain = read_run(body, start, BEFORE, AFTER), plain_run(body, start, BEFORE, AFTER)

    if found is not None and plain is not None:
        shared = min(len(found[0]), len(plain[0]))
        assert found[0][:shared] == plain[0][:shared]
        assert found[1][:shared] == plain[1][:shared]


def test_a_run_ends_where_events_are_otherwise() -> None:
    body = event(b"one") + event(b'\\"two\\" \\u00e9') + event(b"") + event(b"four")

    ends, texts = read_run(body, 0, BEFORE, AFTER) or ([], [])

    if split_run is None:  # an empty text leaves all of it to be read one by one
        assert (ends, texts) == ([], [])
    else:
        assert texts == ["one", '"two" é']
        assert body[ends[-1] :] == event(b"") + event(b"four")


def test_a_run_is_found_by_either() -> None:
    body = event(b"one") + event(b"two") + event(b"three")[:-9]
    expected = ([len(event(b"one")), len(event(b"one") + event(b"two"))], ["one", "two"])

    assert read_run(body, 0, BEFORE, AFTER) == expected
    assert plain_run(body, 0, BEFORE, AFTER) == expected
    assert read_run(b"x", 1, BEFORE, AFTER) is None
    assert plain_run(b"x", 1, BEFORE, AFTER) is None
