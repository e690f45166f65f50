"""POST /v1/responses, streamed: OpenAI's newer protocol, which vLLM and SGLang speak as well.

Each event names its type. Text, reasoning, refusals and the arguments of tools come as deltas; the
last event bears the whole response with its usage.
Source: https://platform.openai.com/docs/api-reference/responses-streaming
"""

import re
from collections.abc import Iterable
from typing import Any

import msgspec

from llmdyno.endpoints import Ask, Detection, Endpoint, ServerProbe
from llmdyno.endpoints._answers import asked_for_tokens, listed_model
from llmdyno.endpoints._errors import error_of, note_finish
from llmdyno.endpoints._json_events import Count, Event, count_of, merge, messages_of, read_events
from llmdyno.wire.inbox import Piece
from llmdyno.wire.reply import Reply, note_model

_PATH = "/v1/responses"
# The model's words in all their kinds: text, reasoning, refusals, the input of functions and tools.
_DELTA = re.compile(r"response\.(?!audio\.delta)\w+(?:\.transcript)?\.delta")
_ENDS = frozenset(
    {"response.completed", "response.incomplete", "response.failed", "response.cancelled"}
)


class Usage(msgspec.Struct):
    """Token counts; those of reasoning are among the output's."""

    input_tokens: Count = None
    output_tokens: Count = None
    output_tokens_details: Any = None


class Incomplete(msgspec.Struct):
    """Why a response ended before its end."""

    reason: str | None = None


class Whole(msgspec.Struct):
    """The response as its first and its last events have it."""

    status: str | None = None
    model: Any = None
    usage: Usage | None = None
    incomplete_details: Incomplete | None = None
    error: Any = None


class Streamed(Event):
    """One event of the stream."""

    type: str | None = None
    delta: Any = None
    response: Whole | None = None
    message: Any = None

    @property
    def answers(self) -> bool:
        """Whether it names its type, and that type is no error."""
        return bool(self.type) and self.type != "error"


_decode = msgspec.json.Decoder(Streamed).decode


class OpenAIResponses:
    """OpenAI's Responses; a system prompt is its `instructions`."""

    name = "openai-responses"
    ends_with_body = False
    rpc = False
    names_finish = True
    detect_order = 60  # a server that has chat or completions as well is asked over those

    async def detect(self, server: ServerProbe, model: str) -> Detection:
        """Ask for a few tokens: OpenAI's own service refuses fewer than 16."""
        return await asked_for_tokens(self, server, model, tokens=16)

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
        """Return the request's JSON body; the server is to keep nothing of it."""
        fields: dict[str, Any] = {
            "model": ask.model,
            "input": messages_of(ask),
            "stream": True,
            "store": False,
        }
        if ask.system_prompt:
            fields["instructions"] = ask.system_prompt
        if ask.max_tokens is not None:
            fields["max_output_tokens"] = ask.max_tokens
        if ask.exact_length:
            fields["ignore_eos"] = True
        if ask.temperature is not None:
            fields["temperature"] = ask.temperature
        return merge(fields, ask.extra)

    def read(self, pieces: Iterable[Piece]) -> Reply:
        """Return the reply that a stream amounts to, whole or cut short; never raises."""
        reply = Reply()
        for stamp_ns, event in read_events(pieces, _decode, reply):
            if isinstance(event.delta, str) and event.delta and _DELTA.fullmatch(event.type or ""):
                reply.stamps_ns.append(stamp_ns)
                reply.texts.append(event.delta)
                reply.reasoned |= "reasoning" in (event.type or "")
            elif event.response is not None:
                note_model(reply, event.response.model)
                if event.type in _ENDS:
                    _take_end(reply, event.response)
            if reply.error:
                break
        return reply

    def error_of(self, body: bytes) -> str:
        """Return the server's own words in the body of a response other than 200."""
        return error_of(body)


def _take_end(reply: Reply, whole: Whole) -> None:
    reply.ended = True
    cut_by = whole.incomplete_details.reason if whole.incomplete_details else None
    note_finish(reply, "length" if cut_by == "max_output_tokens" else cut_by or whole.status or "")
    if whole.usage is not None:
        prompt, output = map(count_of, (whole.usage.input_tokens, whole.usage.output_tokens))
        reply.input_tokens = -1 if prompt is None else prompt
        reply.output_tokens = -1 if output is None else output
        reply.usage_is_odd = output is None
        details = whole.usage.output_tokens_details
        if isinstance(details, dict):
            reply.reasoning_tokens = count_of(details.get("reasoning_tokens")) or 0
        reply.chunks_at_usage = len(reply.stamps_ns)
    if whole.status == "failed" or whole.error:
        reply.error = "stream-error"
        reply.detail = error_of(msgspec.json.encode({"error": whole.error or "it failed"}))


ENDPOINT: Endpoint = OpenAIResponses()
