"""What came back for a recorded request: counts, text, and what the next turn will repeat of it.

The endpoint of the request's protocol reads a stream. An answer that came whole is read here where
the protocol is one of OpenAI's older two; the others' is put into the events of a stream, because
its parts are those of the events.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

from llmdyno import endpoints
from llmdyno.faults import http_fault
from llmdyno.record.entries import Passed
from llmdyno.record.prompts import (
    answer_text,
    as_said,
    item_texts,
    items_without_thoughts,
    message_text,
    without_thoughts,
)
from llmdyno.record.protocols import MESSAGES, RESPONSES
from llmdyno.wire.compression import codings, decode
from llmdyno.wire.inbox import Piece
from llmdyno.wire.reply import Reply, count_tokens
from llmdyno.wire.sse import events

_CHARACTERS_PER_TOKEN = 4
_ASSISTANT = "assistant"


class Answer(msgspec.Struct, kw_only=True):
    """What came back, as far as it could be read."""

    text: str = ""
    said: tuple[str, ...] = ()  # as messages of the next turn; empty: one, of the text
    bare: tuple[str, ...] = ()  # the same without thoughts; empty: it has none
    name: str = ""  # of a stored response, by which a request may go on with it
    input_tokens: int = -1
    output_tokens: int = 0
    source: str = "usage"
    finish: str = ""
    first_ns: int = -1
    error: str = ""

    @property
    def messages(self) -> tuple[str, ...]:
        """The answer as it will stand among the messages of the next turn."""
        return self.said or (as_said(_ASSISTANT, self.text),)

    @property
    def turns(self) -> tuple[str, ...]:
        """What tells this turn apart, whether the client sends its thoughts back or leaves them."""
        return self.bare or self.messages


def read_answer(passed: Passed, endpoint: str) -> Answer:
    """Read what came back: a stream of events, a document, or an error.

    Args:
        passed: the request and its answer.
        endpoint: the name of the one that the request speaks.
    """
    pieces = passed.pieces
    if passed.status != 200:
        return Answer(error=http_fault(passed.status) if passed.status else "")
    broken = ""
    for coding in reversed(codings(passed.answer_headers)):
        pieces, broken = decode(pieces, coding)
    if broken and not pieces:  # a coding that we do not know: it passed all the same
        return Answer(source="unreadable")
    kind = passed.answer_headers.get("content-type", "")
    begins = pieces[0][1].lstrip() if pieces else b""
    if kind.startswith("text/event-stream") or begins.startswith((b"data:", b"event:", b":")):
        return _of_stream(pieces, endpoint)
    document = as_object(b"".join(data for _, data in pieces))
    if endpoint in {RESPONSES, MESSAGES}:
        return _of_typed(document, endpoint)
    return _of_document(document)


def as_object(data: bytes) -> dict[str, Any]:
    """Return a body's JSON object; an empty one if it is none."""
    try:
        found = msgspec.json.decode(data)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def by_characters(characters: int) -> int:
    """Return about how many tokens a text has."""
    return max(1, round(characters / _CHARACTERS_PER_TOKEN)) if characters else 0


def _of_stream(pieces: list[Piece], endpoint: str) -> Answer:
    reply = endpoints.load(endpoint).read(pieces)
    tokens, source = count_tokens(reply)
    whole = _whole(pieces, endpoint)
    return Answer(
        text="".join(reply.texts),
        said=_said(whole, endpoint),
        bare=_bare(whole, endpoint) or (_spoken(pieces) if reply.reasoned else ()),
        name=_name(whole),
        input_tokens=reply.input_tokens,
        output_tokens=sum(tokens),
        source=source,
        finish=reply.finish,
        first_ns=reply.stamps_ns[0] if reply.stamps_ns else -1,
        error=reply.error,
    )


def _of_typed(document: Mapping[str, Any], endpoint: str) -> Answer:
    """Return an answer that came whole in a protocol whose events name their type."""
    reply = _reply(document, endpoint)
    said = _said(document, endpoint)
    text = "".join(message.partition("\n")[2] for message in said)
    counted = reply.output_tokens >= 0
    return Answer(
        text=text,
        said=said,
        bare=_bare(document, endpoint),
        name=_name(document),
        input_tokens=reply.input_tokens,
        output_tokens=reply.output_tokens if counted else by_characters(len(text)),
        source="usage" if counted else "characters",
        finish=reply.finish,
        error=reply.error or ("stream-error" if not said and document.get("error") else ""),
    )


def _reply(document: Mapping[str, Any], endpoint: str) -> Reply:
    """Return what a whole answer would have been as the last events of a stream."""
    if endpoint == RESPONSES:
        parts: list[dict[str, Any]] = [{"type": "response.completed", "response": document}]
    else:
        end = {"stop_reason": document.get("stop_reason")}
        parts = [{"type": "message_delta", "delta": end, "usage": document.get("usage")}]
    pieces = [(0, b"data: " + msgspec.json.encode(part) + b"\n\n") for part in parts]
    return endpoints.load(endpoint).read(pieces)


def _whole(pieces: list[Piece], endpoint: str) -> dict[str, Any]:
    """Return the answer as it would have come without a stream, as far as the next turn needs it.

    The last event of a response has all of it. That of a message is put together of its blocks.
    """
    if endpoint == RESPONSES:
        last: dict[str, Any] = {}
        for _, data in events(pieces):
            if b'"response"' in data and isinstance(found := as_object(data).get("response"), dict):
                last = found
        return last
    if endpoint == MESSAGES:
        return {"content": list(_blocks(pieces))}
    return {}


def _blocks(pieces: list[Piece]) -> Iterator[dict[str, Any]]:
    """Yield the blocks of a streamed message: a text, a thought, or a tool with its input."""
    block: dict[str, Any] = {}
    said: list[str] = []
    for _, data in events(pieces):
        match as_object(data):
            case {"type": "content_block_start", "content_block": dict() as block}:
                said = []
            case {"type": "content_block_delta", "delta": dict() as delta}:
                part = delta.get("text") or delta.get("thinking") or delta.get("partial_json")
                said += [part] if isinstance(part, str) else []
            case {"type": "content_block_stop"}:
                yield _filled(block, "".join(said))
                block = {}


def _filled(block: dict[str, Any], said: str) -> dict[str, Any]:
    if block.get("type") == "tool_use":
        return {**block, "input": as_object(said.encode()) if said else block.get("input")}
    name = "thinking" if block.get("type") == "thinking" else "text"
    return {**block, name: f"{block.get(name) or ''}{said}"}


def _said(document: Mapping[str, Any], endpoint: str) -> tuple[str, ...]:
    """Return a whole answer as the messages that it is in the next turn."""
    if endpoint == RESPONSES:
        return item_texts(document.get("output"))
    content = document.get("content")
    if endpoint != MESSAGES or not content:
        return ()
    return (message_text({"role": _ASSISTANT, "content": content}),)


def _bare(document: Mapping[str, Any], endpoint: str) -> tuple[str, ...]:
    """Return the same without thoughts."""
    if endpoint == RESPONSES:
        return items_without_thoughts(item_texts(document.get("output")))
    return _said(without_thoughts(document), endpoint)


def _spoken(pieces: list[Piece]) -> tuple[str, ...]:
    """Return the answer of a chat stream without its reasoning, as a message of the next turn."""
    said: list[str] = []
    for _, data in events(pieces):
        choices = as_object(data).get("choices")
        said += [
            answer_text(choice.get("delta") if isinstance(choice, dict) else None)
            for choice in (choices if isinstance(choices, list) else ())
        ]
    return (as_said(_ASSISTANT, "".join(said)),)


def _name(document: Mapping[str, Any]) -> str:
    name = document.get("id")
    return name if isinstance(name, str) else ""


def _of_document(document: Mapping[str, Any]) -> Answer:
    choices = document.get("choices")
    said: list[str] = []
    finish = ""
    for choice in choices if isinstance(choices, list) else ():
        if isinstance(choice, dict):
            text = choice.get("text")
            said.append(text if isinstance(text, str) else answer_text(choice.get("message")))
            finish = finish or str(choice.get("finish_reason") or "")
    text = "".join(said)
    usage = document.get("usage")
    usage = usage if isinstance(usage, dict) else {}
    made = _count_in(usage, "completion_tokens")
    return Answer(
        text=text,
        input_tokens=_count_in(usage, "prompt_tokens"),
        output_tokens=made if made >= 0 else by_characters(len(text)),
        source="usage" if made >= 0 else "characters",
        finish=finish,
        error="stream-error" if not said and document.get("error") else "",
    )


def _count_in(usage: Mapping[str, Any], name: str) -> int:
    value = usage.get(name)
    whole = isinstance(value, int | float) and not isinstance(value, bool) and value >= 0
    return int(value) if whole else -1  # type: ignore[arg-type]  # whole says what it is
