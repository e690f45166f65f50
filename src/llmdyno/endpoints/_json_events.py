"""What endpoints share whose stream is server-sent events, each a JSON object.

They differ in the fields of a body and of an event. They do not differ in how an event is decoded,
how an error in the middle of a stream looks, and where the server's own words stand.
"""

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from typing import Any, TypeVar

import msgspec

from llmdyno.endpoints._errors import (
    DETAIL_CHARACTERS_MAX,
    error_of,
    is_error_text,
    is_sign_of_life,
    reported,
)
from llmdyno.endpoints._interface import Ask
from llmdyno.wire.inbox import Piece
from llmdyno.wire.reply import Reply
from llmdyno.wire.sse import ErrorData, ends_within_event, events

# Tokens as a server counts them, before count_of() has looked at it: servers send all sorts.
Count = Any
# A greater number is nonsense: a float does not hold it exactly, so it could not be spread over
# chunks.
_COUNT_MAX = 2**53


class Event(msgspec.Struct):
    """What any event may carry: an `error`, or "error" as its `object`.

    An endpoint's own event says in `answers` whether it is a part of an answer. One that is not is
    searched for an error.
    """

    error: Any = None
    object: str | None = None

    @property
    def answers(self) -> bool:
        """Whether the event is a part of an answer, with text or without."""
        return True


# Half of a surrogate pair, as a JSON escape, without the other half beside it.
_HALF_CHARACTER = re.compile(
    r"\\u[dD][89abAB][0-9a-fA-F]{2}(?!\\u[dD][c-fC-F])"
    r"|(?<!\\u[dD][89abAB][0-9a-fA-F]{2})\\u[dD][c-fC-F][0-9a-fA-F]{2}"
)
# How servers write OpenAI's end mark otherwise.
_END = rb"(?:done|end|eos|eof)"
_END_MARK = re.compile(rb'"?(?:\[%b\]|<%b>|%b)"?' % (_END, _END, _END), re.IGNORECASE)
_ODD_FIELDS_MAX = 20  # of an event; with more of them it is none of this protocol's
_DIGITS_MAX = 300  # of a whole number; more of them are no count of anything
# Where msgspec says that a value does not fit, and the steps on the way there.
_PLACE = re.compile(r"- at `\$((?:\.\w+|\[\d+\])+)(?:\[\.\.\.\])?`$")
_STEP = re.compile(r"\.(\w+)|\[(\d+)\]")

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


def messages_of(ask: Ask) -> list[dict[str, str]]:
    """Return the history and the prompt as messages of user and assistant, the last one ours."""
    said = [
        {"role": role, "content": text}
        for turn in ask.history
        for role, text in zip(("user", "assistant"), turn, strict=True)
    ]
    return [*said, {"role": "user", "content": ask.prompt}]


def count_of(value: Any) -> int | None:
    """Return a count of tokens that a server sent; None if it is no whole number from 0.

    8.0 is 8. A text, true or false, or a number above 2^53 is no count.
    """
    if type(value) is float and value.is_integer():
        value = int(value)
    return value if type(value) is int and 0 <= value <= _COUNT_MAX else None


def read_events(
    pieces: Iterable[Piece], decode: Callable[[bytes], AnyEvent], reply: Reply
) -> Iterator[tuple[int, AnyEvent]]:
    """Yield (stamp in ns, event) up to the first that is an error or cannot be read.

    What is neither a part of an answer nor an error is a sign of life, and is skipped: no data, a
    word such as "ping", JSON that is no object.

    Args:
        pieces: the body of the response.
        decode: decodes one event.
        reply: gets `error` and `detail` of an event that ends the reading, and `ended` at [DONE].
    """
    pieces = list(pieces)
    stream = events(pieces)
    for stamp_ns, padded in stream:
        data = padded.strip()
        if isinstance(padded, ErrorData):
            words = error_of(data) or "the server sent an event named error, without a word"
            reply.error, reply.detail = "stream-error", words
            return
        if not data:  # keeps the connection alive
            continue
        if data == b"[DONE]":
            reply.ended = True
            continue
        try:
            event = _decode_lenient(decode, data)
        except (msgspec.MsgspecError, ValueError, RecursionError) as error:
            if _END_MARK.fullmatch(data):
                reply.ended = True
                continue
            if _costs_nothing(data.decode(errors="replace"), after_end=reply.ended):
                continue
            _take_unread(reply, data, error)
            is_last = next(stream, None) is None
            if reply.error == "bad-json" and is_last and _is_cut(pieces):
                _cut_short(reply, data)
            return
        if event is None or event.error or not event.answers or event.object == "error":
            if words := _reported(data):
                reply.error, reply.detail = "stream-error", words
                return
            if event is None:
                reply.ended = reply.ended or _END_MARK.fullmatch(data) is not None
                continue
        yield stamp_ns, event


def _costs_nothing(text: str, *, after_end: bool) -> bool:
    """Whether an event that is no JSON is a sign of life, or plain words after an answer's end."""
    closing = after_end and not is_error_text(text) and not text.startswith(("{", "[", '"'))
    return closing or is_sign_of_life(text)


def _take_unread(reply: Reply, data: bytes, error: Exception) -> None:
    """Note an event that is no JSON: an error in plain words, or one of unknown shape."""
    text = data.decode(errors="replace")
    if is_error_text(text):
        reply.error, reply.detail = "stream-error", text[:DETAIL_CHARACTERS_MAX]
    else:
        reply.error, reply.detail = "bad-json", f"{error}: {data[:80]!r}"


def _is_cut(pieces: Iterable[Piece]) -> bool:
    return ends_within_event(b"".join([body for _, body in pieces]))


def _cut_short(reply: Reply, data: bytes) -> None:
    """Note that the body ends in the middle of an event; after its end mark that costs nothing."""
    if reply.ended:
        reply.error, reply.detail = "", ""
    else:
        reply.error = "truncated"
        reply.detail = f"the stream ended in the middle of an event: {data[-80:]!r}"


def _reported(data: bytes) -> str:
    """Return the words of an error in an event's data; an empty text if it reports none."""
    try:
        try:
            return reported(msgspec.json.decode(data))
        except (msgspec.MsgspecError, UnicodeDecodeError):
            return reported(_document(data))
    except (ValueError, RecursionError):
        return ""


def _decode_lenient(decode: Callable[[bytes], AnyEvent], data: bytes) -> AnyEvent | None:
    """Decode an event as well as it can be; None: it is JSON, but no object.

    Raises:
        MsgspecError, ValueError, RecursionError: it is no JSON.
    """
    try:
        return decode(data)
    except UnicodeDecodeError:
        # A server that passes on the bytes of each token as they are (Triton does) sends a
        # character of several tokens in several events. They are tokens all the same.
        with suppress(msgspec.DecodeError):
            return decode(data.decode(errors="replace").encode())
    except msgspec.DecodeError:
        pass
    document = _document(data)
    if not isinstance(document, dict):
        return None
    for _ in range(_ODD_FIELDS_MAX):
        try:
            return decode(msgspec.json.encode(document))
        except msgspec.ValidationError as error:
            if not _drop(document, str(error)):
                break
    return decode(data)


def _document(data: bytes) -> Any:
    """Return what is in a document of JSON, or nearly JSON.

    Raises:
        ValueError, RecursionError: it is neither.
    """
    text = data.decode(errors="replace")
    # Python's own decoder accepts some things that are not JSON, so nobody notices them: a log
    # probability of NaN or -Infinity, control characters, half of a surrogate pair.
    return json.loads(
        _HALF_CHARACTER.sub(r"\\ufffd", text),
        strict=False,
        parse_constant=lambda _: None,
        parse_int=lambda digits: int(digits) if len(digits) < _DIGITS_MAX else None,
    )


def _drop(document: Any, complaint: str) -> bool:
    """Drop what a decoder complains of, since it has a shape that nobody expects there."""
    match = _PLACE.search(complaint)
    steps = _STEP.findall(match[1]) if match else []
    for number, (name, index) in enumerate(steps, 1):
        place = name or int(index)
        if number == len(steps):
            del document[place]
            return True
        document = document[place]
    return False
