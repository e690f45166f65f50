"""What the two OpenAI endpoints share: the shape of a chunk, its usage, its end."""

from collections.abc import Iterable
from typing import Any

import msgspec

from llmdyno.endpoints import Ask
from llmdyno.endpoints._json_events import Count, Event, read_events
from llmdyno.reply import Reply
from llmdyno.sse import Piece


class Delta(msgspec.Struct):
    """The new part of a chat message; servers name the reasoning text in two ways."""

    content: str | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None


class Choice(msgspec.Struct):
    """One choice of a chunk: `delta` for chat, `text` for completions."""

    delta: Delta | None = None
    text: str | None = None
    finish_reason: str | None = None


class Usage(msgspec.Struct):
    """Token counts by the server's own tokenizer."""

    prompt_tokens: Count | None = None
    completion_tokens: Count | None = None


class Chunk(Event):
    """One event of the stream."""

    choices: list[Choice] | None = None
    usage: Usage | None = None


_decode = msgspec.json.Decoder(Chunk).decode


def common_fields(ask: Ask) -> dict[str, Any]:
    """Return the fields of a body that chat and completions have in common."""
    fields: dict[str, Any] = {
        "model": ask.model,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    if ask.max_tokens is not None:
        fields["max_tokens"] = ask.max_tokens
    if ask.exact_length:
        fields["ignore_eos"] = True
    if ask.temperature is not None:
        fields["temperature"] = ask.temperature
    return fields


def read(pieces: Iterable[Piece]) -> Reply:
    """Read a stream of chat.completion.chunk or text_completion events."""
    reply = Reply()
    for stamp_ns, chunk in read_events(pieces, _decode, reply):
        if chunk.usage is not None:
            _take_usage(reply, chunk.usage)
        if chunk.choices:
            _take_choice(reply, chunk.choices[0], stamp_ns, chunk.usage)
    return reply


def _take_usage(reply: Reply, usage: Usage) -> None:
    if usage.prompt_tokens is not None:
        reply.input_tokens = usage.prompt_tokens
    if usage.completion_tokens is not None:
        reply.output_tokens = usage.completion_tokens


def _take_choice(reply: Reply, choice: Choice, stamp_ns: int, usage: Usage | None) -> None:
    delta = choice.delta
    text = choice.text or ""
    if delta is not None:
        text = delta.content or delta.reasoning_content or delta.reasoning or ""
    if text:
        reply.stamps_ns.append(stamp_ns)
        reply.texts.append(text)
        if usage is not None and usage.completion_tokens is not None:
            reply.usage_after.append(usage.completion_tokens)
    if choice.finish_reason:
        reply.finish = choice.finish_reason
        reply.ended = True
