"""What the two OpenAI endpoints share: all but the path, and where the prompt stands in a body.

The events of a stream mostly differ in their text alone, and decoding each on its own costs more
than receiving it. `_find_run` reads all that equal one of them but for their text in one go, and
only where it is certain to read what decoding each would have read.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import msgspec

from llmdyno.endpoints import Ask, Detection, ServerProbe
from llmdyno.endpoints._answers import asked_for_tokens, listed_model
from llmdyno.endpoints._errors import error_of, note_finish, reported
from llmdyno.endpoints._json_events import Event, merge, read_events
from llmdyno.endpoints._openai_usage import Usage, take_foreign_usage, take_groq, take_usage
from llmdyno.wire.exchange import Response
from llmdyno.wire.inbox import Piece
from llmdyno.wire.reply import Reply, note_model
from llmdyno.wire.runs import read_run
from llmdyno.wire.sse import Body

# Text, or typed parts of it, or a part that stands alone.
Words = str | list[Any] | dict[str, Any] | None


class Delta(msgspec.Struct):
    """The new part of a chat message; servers name the reasoning text in several ways.

    The model's words may also be a refusal, the arguments of a tool, or content in typed parts.
    """

    content: Words = None
    reasoning_content: Words = None
    reasoning: Words = None
    thinking: Words = None
    reasoning_text: Words = None
    reasoning_details: Words = None  # of OpenRouter and MiniMax
    thinking_blocks: Words = None  # of LiteLLM
    audio: Words = None  # what is spoken stands in its `transcript`
    refusal: Words = None
    tool_calls: Words = None
    function_call: Words = None  # how a tool was called before there were tools


class Choice(msgspec.Struct):
    """One choice of a chunk: `delta` for chat, `text` for completions.

    Moonshot's servers put the usage there, SGLang's own protocol has an object for a finish reason.
    """

    delta: Delta | str | None = None
    text: Words = None
    finish_reason: str | dict[str, Any] | None = None
    index: int = 0
    error: Any = None
    usage: Any = None


class Chunk(Event):
    """One event of the stream."""

    choices: list[Choice] | None = None
    usage: Usage | list[Any] | str | float | bool | None = None
    model: Any = None
    x_groq: Any = None  # Groq's own: its `usage` or its `error`

    @property
    def answers(self) -> bool:
        """Whether it has a choice, or is the one with the usage."""
        return bool(self.choices) or isinstance(self.usage, Usage)


_decode = msgspec.json.Decoder(Chunk).decode

_DATA = b"data: "
_BLANK = b"\n\n"
# Events of a shorter run are read one by one: to prove them alike would not pay.
_RUN_EVENTS_MIN = 8
_OTHER_TEXT = "quite another text"
# A field of ours, what it is called instead (empty: it is left out), and the word in a refusal.
_ADAPTATIONS = (
    ("max_tokens", "max_completion_tokens", "max_completion_tokens"),
    ("stream_options", "", "stream_options"),
)
# Where words stand in parts of content, of reasoning, of a tool's call and of speech.
_WORDS_WITHIN = (
    *("text", "thinking", "content", "summary", "transcript"),
    *("function", "name", "arguments"),
)
# Of a reasoning model that one token was too few for.
_LIMIT_REACHED = "output limit was reached"


TOP = 5  # log-probabilities of so many tokens are asked for at each position
# vLLM writes tokens as their ids when it is asked to: two tokens may have the same text.
TOKEN_IDS: Mapping[str, Any] = {"return_tokens_as_token_ids": True}


class OpenAI:
    """One of OpenAI's two protocols.

    Args:
        name: of the endpoint.
        path: of its requests.
        prompt_fields: returns the fields of a body that carry the prompt.
        detect_order: its place among those that `--endpoint auto` tries.
        logprobs: the fields that ask for log-probabilities, from the most to the least.
    """

    ends_with_body = False
    names_finish = True
    rpc = False

    def __init__(
        self,
        *,
        name: str,
        path: str,
        prompt_fields: Callable[[Ask], Mapping[str, Any]],
        detect_order: int,
        logprobs: tuple[Mapping[str, Any], ...] = (),
    ) -> None:
        self.name = name
        self.logprobs = logprobs
        self.detect_order = detect_order
        self._path = path
        self._prompt_fields = prompt_fields

    async def detect(self, server: ServerProbe, model: str) -> Detection:
        """Ask for one token; a server may refuse a field, or so few, and speak the protocol."""
        return await asked_for_tokens(self, server, model, speaks_anyway=self._refuses_a_field)

    def _refuses_a_field(self, response: Response, words: str) -> bool:
        return response.status in {400, 422} and bool(
            self.adapted(words, {}) or _LIMIT_REACHED in words
        )

    async def choose_model(self, server: ServerProbe) -> str:
        """Return the first model that the server lists.

        Raises:
            TargetError: the server does not answer, or lists none.
        """
        return await listed_model(server)

    def path(self, model: str) -> str:  # noqa: ARG002  # the model is named in the body
        """Return the path, the same for all models."""
        return self._path

    def body(self, ask: Ask) -> bytes:
        """Return the request's JSON body."""
        fields = {**_common_fields(ask), **self._prompt_fields(ask)}
        for name, other in ask.renamed.items():
            if name in fields:
                value = fields.pop(name)
                fields |= {other: value} if other else {}
        return merge(fields, ask.extra)

    def adapted(self, refusal: str, renamed: Mapping[str, str]) -> Mapping[str, str]:
        """Return how fields must be called for a server that refused a request with these words.

        OpenAI's reasoning models know no max_tokens, and some servers no stream_options.
        """
        for name, other, told in _ADAPTATIONS:
            if name not in renamed and told in refusal:
                return {**renamed, name: other}
        return renamed

    def read(self, pieces: Iterable[Piece]) -> Reply:
        """Return what a stream of chat.completion.chunk or text_completion events amounts to."""
        body = Body(pieces)
        reply = Reply()
        run = _find_run(body.data)
        if run is None:
            _read_each(body.between(0, len(body.data)), reply)
            return reply
        _read_each(body.between(0, run.start), reply)
        if not reply.error:
            note_model(reply, run.model)
            _begin_choice(reply, run.choice)
            reply.reasoned |= run.reasoned
            reply.stamps_ns += body.stamps_ns(run.ends)
            reply.texts += run.texts
            _read_each(body.between(run.ends[-1], len(body.data)), reply)
        return reply

    def error_of(self, body: bytes) -> str:
        """Return the server's own words in the body of a response other than 200."""
        return error_of(body)


def _common_fields(ask: Ask) -> dict[str, Any]:
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


def _read_each(pieces: Iterable[Piece], reply: Reply) -> None:
    for stamp_ns, chunk in read_events(pieces, _decode, reply):
        if not reply.model:  # a call an event would cost
            note_model(reply, chunk.model)
        running = None if chunk.usage is None else take_usage(reply, chunk.usage)
        if chunk.x_groq is not None:
            take_groq(reply, chunk.x_groq)
        for choice in chunk.choices or ():
            _take_choice(reply, choice, stamp_ns, running)
        if running is not None:
            reply.chunks_at_usage = len(reply.stamps_ns)
        if reply.error:
            return


class _Run(msgspec.Struct, frozen=True):
    """Events that follow one another and are equal but for their text."""

    start: int  # where in the body the first one begins
    ends: list[int]  # where each of them ends
    texts: list[str]
    choice: int  # the index of their choice
    reasoned: bool  # they are reasoning text
    model: str  # that they name; empty: none


def _find_run(body: bytes) -> _Run | None:
    """Return the run of the body's second event, if there is one; the first may name the role."""
    if b"\r" in body:
        return None
    start = body.find(_BLANK) + len(_BLANK)
    end = body.find(_BLANK, start) + len(_BLANK)
    if start < len(_BLANK) or end < len(_BLANK) or not body.startswith(_DATA, start):
        return None
    event = body[start + len(_DATA) : end - len(_BLANK)]
    sample = _of_only_text(event)
    shape = None if sample is None else _shape(event, sample)
    if sample is None or shape is None:
        return None
    before, after = _DATA + shape[0], shape[1] + _BLANK
    found = read_run(body, start, before, after)
    if found is None or len(found[0]) < _RUN_EVENTS_MIN:
        return None
    ends, texts = found
    (choice,) = sample.choices
    return _Run(start, ends, texts, choice, sample.reasoned, sample.model)


def _shape(event: bytes, sample: Reply) -> tuple[bytes, bytes] | None:
    """Return what stands before and after the text of an event that carries text and no more.

    The proof: with another text in this place, the event carries that and no more.
    """
    before, quoted, after = event.rpartition(msgspec.json.encode(sample.texts[0]))
    before, after = before + b'"', b'"' + after
    if not quoted:
        return None
    proof = _of_only_text(before + _OTHER_TEXT.encode() + after)
    other = msgspec.structs.replace(sample, texts=[_OTHER_TEXT])
    return (before, after) if proof == other else None


def _of_only_text(event: bytes) -> Reply | None:
    """Return the reply of one event if it carries text and no more: a text of one choice."""
    reply = Reply()
    _read_each([(0, _DATA + event + _BLANK)], reply)
    expected = Reply(
        stamps_ns=[0],
        texts=reply.texts,
        choices=reply.choices,
        reasoned=reply.reasoned,
        model=reply.model,
    )
    return reply if reply == expected and len(reply.texts) == 1 else None


def _take_choice(reply: Reply, choice: Choice, stamp_ns: int, running: int | None) -> None:
    delta = choice.delta
    text = "" if delta is None else delta if isinstance(delta, str) else _text_of(reply, delta)
    if not text and choice.text:
        text = choice.text if isinstance(choice.text, str) else _joined(choice.text)
    if text:
        if choice.index not in reply.choices:
            _begin_choice(reply, choice.index)
        reply.stamps_ns.append(stamp_ns)
        reply.texts.append(text)
        if running is not None:
            reply.usage_after.append(running)
    if choice.finish_reason:
        reason = choice.finish_reason
        if isinstance(reason, dict):
            note_finish(reply, str(reason.get("type") or ""), str(reason.get("message") or ""))
        else:
            note_finish(reply, reason)
        reply.finished.add(choice.index)
        reply.ended = reply.choices <= reply.finished or not reply.has_choices
    if choice.usage is not None:
        take_foreign_usage(reply, choice.usage)
    if choice.error and (words := reported({"error": choice.error})):
        reply.error, reply.detail = "stream-error", words


def _begin_choice(reply: Reply, index: int) -> None:
    """Note that a choice brings text: the answer has not ended before each has its end."""
    if index not in reply.choices:
        reply.choices.add(index)
        reply.ended = reply.ended and index in reply.finished


def _text_of(reply: Reply, delta: Delta) -> str:
    # Some servers send the same reasoning text under two names.
    reasoning = delta.reasoning_content or delta.reasoning or delta.thinking
    reasoning = reasoning or delta.reasoning_text or delta.reasoning_details
    reasoning = reasoning or delta.thinking_blocks
    if reasoning:
        reply.reasoned = True
    rest = delta.refusal or delta.tool_calls or delta.function_call or delta.audio
    if not rest:
        if not reasoning and (delta.content is None or isinstance(delta.content, str)):
            return delta.content or ""
        if not delta.content and isinstance(reasoning, str):
            return reasoning
    calls = [delta.tool_calls, delta.function_call]
    return _joined([reasoning, delta.content, delta.refusal, *calls, delta.audio])


def _joined(part: Any) -> str:
    """Return the model's words in parts of content and in calls of tools."""
    return "".join(_texts_within(part))


def _texts_within(part: Any) -> Iterator[str]:
    """Yield the model's words in parts of content and in calls of tools, however deep they are."""
    if isinstance(part, str):
        yield part
    elif isinstance(part, list):
        for each in part:
            yield from _texts_within(each)
    elif isinstance(part, dict):
        for name in _WORDS_WITHIN:
            yield from _texts_within(part.get(name))
