"""POST /v1/messages, streamed: Anthropic's protocol, which vLLM, SGLang and llama.cpp speak too.

Each event names its type. Text, thinking and the input of tools come as deltas of content blocks;
`message_delta` bears the reason of the end and the usage so far. Anthropic's own service wants two
headers: `--header 'anthropic-version: 2023-06-01'` and the key as `x-api-key` (`--header-env`).
Source: https://docs.anthropic.com/en/api/messages-streaming
"""

from collections.abc import Iterable
from typing import Any

import msgspec

from llmdyno.endpoints import Ask, Detection, Endpoint, ServerProbe
from llmdyno.endpoints._answers import asked_for_tokens, listed_model
from llmdyno.endpoints._errors import error_of, note_finish
from llmdyno.endpoints._json_events import Count, Event, count_of, merge, messages_of, read_events
from llmdyno.wire.inbox import Piece
from llmdyno.wire.reply import Reply, note_model

_PATH = "/v1/messages"
_MAX_TOKENS = 4096  # the protocol has no default, and wants one


class Usage(msgspec.Struct):
    """Token counts; input that a cache took or gave is counted apart from the rest of it."""

    input_tokens: Count = None
    cache_creation_input_tokens: Count = None
    cache_read_input_tokens: Count = None
    output_tokens: Count = None


class Message(msgspec.Struct):
    """The message as its first event has it, without content."""

    usage: Usage | None = None
    model: Any = None


class Delta(msgspec.Struct):
    """What an event adds: to a block of content, or to the message."""

    text: str | None = None
    thinking: str | None = None
    partial_json: str | None = None
    stop_reason: str | None = None


class Streamed(Event):
    """One event of the stream."""

    type: str | None = None
    message: Message | str | None = None
    delta: Delta | None = None
    content_block: Delta | None = None  # as it begins, mostly empty
    usage: Usage | None = None

    @property
    def answers(self) -> bool:
        """Whether it names its type, and that type is no error."""
        return bool(self.type) and self.type != "error"


_decode = msgspec.json.Decoder(Streamed).decode


class AnthropicMessages:
    """Anthropic's Messages; the system prompt has a field of its own."""

    name = "anthropic-messages"
    ends_with_body = False
    rpc = False
    names_finish = True
    detect_order = 61  # a server that speaks OpenAI's protocols as well is asked over those

    async def detect(self, server: ServerProbe, model: str) -> Detection:
        """Ask for one token."""
        return await asked_for_tokens(self, server, model)

    async def choose_model(self, server: ServerProbe) -> str:
        """Return the first model that the server lists.

        Raises:
            TargetError: the server does not answer, or lists none.
        """
        return await listed_model(server)

    def path(self, model: str) -> str:  # noqa: ARG002  # the model is named in the body
        """Return the path, the same for all models."""
        return _PATH

    def body(self, ask: Ask) -> bytes:
        """Return the request's JSON body."""
        fields: dict[str, Any] = {
            "model": ask.model,
            "max_tokens": _MAX_TOKENS if ask.max_tokens is None else ask.max_tokens,
            "messages": messages_of(ask),
            "stream": True,
        }
        if ask.system_prompt:
            fields["system"] = ask.system_prompt
        if ask.exact_length:
            fields["ignore_eos"] = True
        if ask.temperature is not None:
            fields["temperature"] = ask.temperature
        return merge(fields, ask.extra)

    def read(self, pieces: Iterable[Piece]) -> Reply:
        """Return the reply that a stream amounts to, whole or cut short; never raises."""
        reply = Reply()
        for stamp_ns, event in read_events(pieces, _decode, reply):
            match event.type:
                case "message_start" if isinstance(event.message, Message):
                    note_model(reply, event.message.model)
                    _take_input(reply, event.message.usage)  # its output is only the first token
                case "content_block_start" | "content_block_delta":
                    _take_text(reply, event.delta or event.content_block, stamp_ns)
                case "message_delta":
                    _take_delta(reply, event)
                case "message_stop":
                    reply.ended = True
        return reply

    def error_of(self, body: bytes) -> str:
        """Return the server's own words in the body of a response other than 200."""
        return error_of(body)


def _take_text(reply: Reply, delta: Delta | None, stamp_ns: int) -> None:
    if delta is not None and (text := delta.text or delta.thinking or delta.partial_json):
        reply.stamps_ns.append(stamp_ns)
        reply.texts.append(text)
        reply.reasoned |= bool(delta.thinking)


def _take_delta(reply: Reply, event: Streamed) -> None:
    if event.delta is not None and event.delta.stop_reason:
        reply.ended = True
        stop = event.delta.stop_reason
        note_finish(reply, "length" if stop == "max_tokens" else stop)
    _take_input(reply, event.usage)
    if event.usage is not None:
        output = count_of(event.usage.output_tokens)
        if output or reply.output_tokens <= 0:  # an empty usage may follow the one that counts
            reply.output_tokens = -1 if output is None else output
            reply.usage_is_odd = output is None
        reply.chunks_at_usage = len(reply.stamps_ns)


def _take_input(reply: Reply, usage: Usage | None) -> None:
    if usage is None or (prompt := count_of(usage.input_tokens)) is None:
        return
    cached = (usage.cache_creation_input_tokens, usage.cache_read_input_tokens)
    reply.input_tokens = prompt + sum(count_of(count) or 0 for count in cached)


ENDPOINT: Endpoint = AnthropicMessages()
