"""Reading a run of like events at once gives what reading each event gives, whatever they are."""

import json
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from llmdyno.endpoints import _openai
from llmdyno.endpoints.openai_chat import ENDPOINT
from llmdyno.wire.inbox import Piece
from llmdyno.wire.reply import Reply


def one_by_one(pieces: list[Piece]) -> Reply:
    reply = Reply()
    _openai._read_each(pieces, reply)
    return reply


def event(choice: Any, **more: Any) -> bytes:
    return b"data: " + json.dumps({"id": "x", "choices": [choice], **more}).encode() + b"\n\n"


def content(text: str, *, ascii_only: bool = True) -> bytes:
    choice = {"index": 0, "delta": {"content": text}, "finish_reason": None}
    document = {"id": "x", "model": "m", "choices": [choice], "usage": None}
    return b"data: " + json.dumps(document, ensure_ascii=ascii_only).encode() + b"\n\n"


def stamped(body: bytes, cuts: list[int]) -> list[Piece]:
    places = [0, *sorted({cut % (len(body) + 1) for cut in cuts}), len(body)]
    return [(100 + i, body[a:b]) for i, (a, b) in enumerate(pairwise(places)) if a < b]


ROLE = event({"index": 0, "delta": {"role": "assistant", "content": ""}, "finish_reason": None})
PING = b": ping\n\n"
END = event({"index": 0, "delta": {}, "finish_reason": "stop"}) + b"data: [DONE]\n\n"

HIDING = content("@").replace(b"@", b"\\")  # its text ends with a backslash: the quote is escaped

plain = st.builds(content, st.text(max_size=4), ascii_only=st.booleans())
raw = st.builds(
    lambda inside: content("@").replace(b"@", inside),
    st.sampled_from(
        [b"\\", b'"', b'a","b', b'\\"', b"\\\\", b"\xff", b"\n", b"\n\n", b"\r\n", b"\t", b'"}}]}']
    ),
)
odd = st.sampled_from(
    [
        PING,
        b"data: {}\n\n",
        b"data: garbage\n\n",
        b"event: x\ndata: 1\n\n",
        b"\n\n",
        content("x").replace(b"\n", b"\r\n"),
        event({"delta": {"reasoning_content": "hm", "content": None}}),
        event({"delta": {"content": "u"}}, usage={"completion_tokens": 3, "prompt_tokens": 1}),
        event({"delta": {"content": "e"}}, error={"message": "no"}),
        event({"text": "completion"}),
        event({"delta": {"content": "o"}}, model="another"),
        b"data: [DONE]\n\n",
        ROLE,
        END,
    ]
)
streams = st.lists(st.one_of(plain, plain, plain, plain, plain, raw, odd), max_size=40)
endings = st.sampled_from([END, END, b"", content("cut")[:-9]])


@settings(max_examples=400, deadline=None)
@given(streams, endings, st.lists(st.integers(min_value=0), max_size=30), st.booleans())
@example([content("a")] * 20, END, [], True)
@example([PING] + [content("a")] * 20, END, [], False)
@example([event({"delta": {}}, model="another")] + [content("a")] * 20, END, [], False)
@example(
    [content("a")] * 9 + [content("@").replace(b"@", b"\\")] + [content("b")] * 9, END, [], True
)
def test_a_run_is_read_as_its_events_are(
    events: list[bytes], ending: bytes, cuts: list[int], role: bool
) -> None:
    pieces = stamped((ROLE if role else b"") + b"".join(events) + ending, cuts)

    assert ENDPOINT.read(pieces) == one_by_one(pieces)


@pytest.mark.parametrize("first", [PING, ROLE])
def test_the_model_that_a_run_names_is_kept(first: bytes) -> None:
    body = first + content("a") * 20 + END

    assert _openai._find_run(body) is not None
    assert ENDPOINT.read([(0, body)]).model == "m"


def test_an_ordinary_stream_is_read_as_a_run() -> None:
    texts = ["a", " b", "ß", "\n", 'say "so"', "\\", "text", "x" * 99, "8", "9"]
    body = ROLE + b"".join(content(text, ascii_only=False) for text in ["first", *texts]) + END
    run = _openai._find_run(body)

    assert run is not None
    assert run.texts == ["first", *texts]
    assert body[run.start :].startswith(content("first"))
    assert body[run.ends[-1] :] == END
