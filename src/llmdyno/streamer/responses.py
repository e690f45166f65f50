"""The bytes of the streamer's responses; every token has the same text.

server.py makes all bytes of a response before its first write, so that the timing loop only sends.
"""

import functools
import json
from http import HTTPStatus
from typing import Annotated, Any

import msgspec

_WORD = " word"  # the text of every token


class _StreamOptions(msgspec.Struct):
    include_usage: bool = False


class CompletionRequest(msgspec.Struct):
    """The fields of a request's body that the streamer uses; all others are ignored."""

    model: str = "streamer"
    stream: bool = False
    max_tokens: Annotated[int, msgspec.Meta(ge=1)] | None = None
    max_completion_tokens: Annotated[int, msgspec.Meta(ge=1)] | None = None
    stream_options: _StreamOptions | None = None
    messages: list[dict[str, Any]] | None = None
    prompt: str | list[Any] | None = None


def http(status: int, kind: str, body: bytes) -> bytes:
    """Return a whole HTTP response.

    Args:
        status: of the response.
        kind: the media type of the body.
        body: its bytes.
    """
    return (
        f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\nContent-Type: {kind}\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    ).encode() + body


def json_response(document: object, status: int = 200) -> bytes:
    """Return a whole HTTP response whose body is this document as JSON."""
    return http(status, "application/json", json.dumps(document).encode())


STREAM_HEAD = (
    b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream; charset=utf-8\r\n"
    b"Cache-Control: no-cache\r\nTransfer-Encoding: chunked\r\n\r\n"
)


def stream(
    asked: CompletionRequest, count: int, each: int, *, chat: bool
) -> tuple[list[bytes], list[int]]:
    """Return the chunks of a stream and the number of tokens in each.

    Equal chunks are one object, so a long stream takes little memory.

    Args:
        asked: the request.
        count: the tokens of the whole stream.
        each: the tokens of one chunk; the last may have fewer.
        chat: the format of chat completions, else that of plain ones.
    """
    more, last = divmod(count - 1, each)
    last += 1
    end = chunk(asked.model, last, finish="length", chat=chat)
    if asked.stream_options is not None and asked.stream_options.include_usage:
        usage = {"choices": [], "usage": _usage(asked, count)}
        end += _event({**_base(asked.model, "chunk", chat=chat), **usage})
    end += _frame(b"data: [DONE]\n\n") + b"0\r\n\r\n"
    return [chunk(asked.model, each, chat=chat)] * more + [end], [each] * more + [last]


@functools.lru_cache(maxsize=256)
def chunk(model: str, tokens: int = 0, *, finish: str | None = None, chat: bool) -> bytes:
    """Return one chunk of a stream; with 0 tokens, the chunk that only names the role."""
    text = _WORD * tokens
    choice: dict[str, Any] = {"index": 0, "finish_reason": finish}
    if chat:
        choice["delta"] = {"content": text} if tokens else {"role": "assistant", "content": ""}
    else:
        choice["text"] = text
    return _event({**_base(model, "chunk", chat=chat), "choices": [choice]})


def whole(asked: CompletionRequest, count: int, *, chat: bool) -> bytes:
    """Return the response to a request that does not ask for a stream, with `count` tokens."""
    choice: dict[str, Any] = {"index": 0, "finish_reason": "length"}
    if chat:
        choice["message"] = {"role": "assistant", "content": _WORD * count}
    else:
        choice["text"] = _WORD * count
    base = _base(asked.model, "", chat=chat)
    return json_response({**base, "choices": [choice], "usage": _usage(asked, count)})


def _base(model: str, part: str, *, chat: bool) -> dict[str, Any]:
    kind = "chat.completion" + (f".{part}" if part else "") if chat else "text_completion"
    return {"id": "streamer", "object": kind, "created": 0, "model": model}


def _usage(asked: CompletionRequest, count: int) -> dict[str, int]:
    """Return the usage; a word of the prompt counts as a token."""
    texts = [asked.prompt] if asked.messages is None else [m.get("content") for m in asked.messages]
    words = sum(len(text.split()) for text in texts if isinstance(text, str))
    return {"prompt_tokens": words, "completion_tokens": count, "total_tokens": words + count}


def _event(document: object) -> bytes:
    return _frame(b"data: " + json.dumps(document).encode() + b"\n\n")


def _frame(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data)
