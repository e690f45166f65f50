"""What endpoints share whose stream is server-sent events, each a JSON object.

They differ in the fields of a body and of an event. They do not differ in how an event is decoded,
how an error in the middle of a stream looks, and where the server's own words stand.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Annotated, Any, TypeVar

import msgspec

from llmdyno.endpoints._interface import Ask
from llmdyno.wire.inbox import Piece
from llmdyno.wire.reply import Reply
from llmdyno.wire.sse import events

DETAIL_CHARACTERS_MAX = 300

# Tokens as a server counts them. A number above 2^53 is nonsense: a float does not hold it exactly,
# so it could not be spread over chunks.
Count = Annotated[int, msgspec.Meta(le=2**53)]


class Event(msgspec.Struct):
    """What any event may carry: an `error`, or "error" as its `object`."""

    error: Any = None
    object: str | None = None


# Half of a surrogate pair, as a JSON escape, without the other half beside it.
_HALF_CHARACTER = re.compile(
    rb"\\u[dD][89abAB][0-9a-fA-F]{2}(?!\\u[dD][c-fC-F])"
    rb"|(?<!\\u[dD][89abAB][0-9a-fA-F]{2})\\u[dD][c-fC-F][0-9a-fA-F]{2}"
)
_NO_NUMBER = re.compile(rb"([\[:,]\s*)(?:NaN|-?Infinity)\b")

AnyEvent = TypeVar("AnyEvent", bound=Event)


def merge(fields: Mapping[str, Any], extra: Mapping[str, Any]) -> bytes:
    """Return the JSON body with the user's own fields over ours."""
    return msgspec.json.encode({**fields, **extra})


def joined_prompt(ask: Ask) -> str:
    """Return one text for a protocol that has no place for a system prompt or a history."""
    said = prompt_after_history(ask)
    return f"{ask.system_prompt}\n\n{said}" if ask.system_prompt else said


def prompt_after_history(ask: Ask) -> str:
    """Return one text for a protocol that has no place for a history."""
    return "\n\n".join([*(text for turn in ask.history for text in turn), ask.prompt])


def read_events(
    pieces: Iterable[Piece], decode: Callable[[bytes], AnyEvent], reply: Reply
) -> Iterator[tuple[int, AnyEvent]]:
    """Yield (stamp in ns, event) up to the first that is an error or not JSON.

    Args:
        pieces: the body of the response.
        decode: decodes one event.
        reply: gets `error` and `detail` of an event that ends the reading, and `ended` at [DONE].
    """
    for stamp_ns, padded in events(pieces):
        data = padded.strip()
        if not data:  # keeps the connection alive
            continue
        if data == b"[DONE]":
            reply.ended = True
            continue
        try:
            event = _decode_lenient(decode, data)
        except (msgspec.MsgspecError, RecursionError) as error:
            reply.error, reply.detail = "bad-json", f"{error}: {data[:80]!r}"
            return
        if event.error or event.object == "error":
            reply.error, reply.detail = "stream-error", error_of(data)
            return
        yield stamp_ns, event


def _decode_lenient(decode: Callable[[bytes], AnyEvent], data: bytes) -> AnyEvent:
    try:
        return decode(data)
    except UnicodeDecodeError:
        # A server that passes on the bytes of each token as they are (Triton does) sends a
        # character of several tokens in several events. They are tokens all the same.
        return decode(data.decode(errors="replace").encode())
    except msgspec.DecodeError:
        # Python's own decoder accepts two things that are not JSON, so nobody notices them: a log
        # probability of NaN or -Infinity, and half of a surrogate pair.
        mended = _NO_NUMBER.sub(rb"\1null", _HALF_CHARACTER.sub(rb"\\ufffd", data))
        if mended == data:
            raise
        return decode(mended)


def error_of(body: bytes) -> str:
    """Return the words of an error in one of its usual shapes, or the beginning of the body."""
    try:
        # Triton sends an error before the first token as an event, though its status is not 200.
        document = msgspec.json.decode(body.strip().removeprefix(b"data: "))
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return body[:DETAIL_CHARACTERS_MAX].decode(errors="replace").strip()
    if isinstance(document, dict):
        inner = document.get("error", document)
        if isinstance(inner, dict):
            document = inner.get("message", inner.get("detail", inner))
        else:
            document = inner
    return str(document)[:DETAIL_CHARACTERS_MAX]
