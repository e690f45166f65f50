"""What the two OpenAI endpoints share: all but the path, and where the prompt stands in a body.

The events of a stream mostly differ in their text alone, and decoding each on its own costs more
than receiving it. `_find_run` reads all that equal one of them but for their text in one go, and
only where it is certain to read what decoding each would have read.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import accumulate
from typing import Any

import msgspec

from llmdyno.endpoints import Ask, Detection, ServerProbe
from llmdyno.endpoints._answers import MODELS_PATH, first_model, listed_model
from llmdyno.endpoints._json_events import Count, Event, error_of, merge, read_events
from llmdyno.wire.inbox import Piece
from llmdyno.wire.reply import Reply
from llmdyno.wire.sse import Body


class Delta(msgspec.Struct):
    """The new part of a chat message; servers name the reasoning text in two ways.

    The model's words may also be a refusal, the arguments of a tool, or content in typed parts.
    """

    content: str | list[Any] | None = None
    reasoning_content: str | None = None
    reasoning: str | list[Any] | None = None
    refusal: str | None = None
    tool_calls: list[Any] | None = None


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
_decode_text = msgspec.json.Decoder(str).decode
_decode_texts = msgspec.json.Decoder(list[str]).decode

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
# Of a reasoning model that one token was too few for.
_LIMIT_REACHED = "output limit was reached"
# vLLM's and SGLang's finish reasons of an answer that the server broke off.
_FAILED_FINISHES = frozenset({"error", "abort"})


class OpenAI:
    """One of OpenAI's two protocols.

    Args:
        name: of the endpoint.
        path: of its requests.
        prompt_fields: returns the fields of a body that carry the prompt.
        detect_order: its place among those that `--endpoint auto` tries.
    """

    ends_with_body = False
    rpc = False

    def __init__(
        self,
        *,
        name: str,
        path: str,
        prompt_fields: Callable[[Ask], Mapping[str, Any]],
        detect_order: int,
    ) -> None:
        self.name = name
        self.detect_order = detect_order
        self._path = path
        self._prompt_fields = prompt_fields

    async def detect(self, server: ServerProbe, model: str) -> Detection:
        """Ask for one token: that a server lists a model does not say which protocol it speaks."""
        if not model:
            listed = await server.look(MODELS_PATH)
            model = first_model(listed)
            if not model:
                return Detection(speaks=False, why_not=f"{MODELS_PATH}: status {listed.status}")
        body = self.body(Ask(prompt="Hello", model=model, max_tokens=1))
        response = await server.ask("POST", self._path, body)
        if response.status == 200:
            return Detection(speaks=True, model=model)
        words = self.error_of(response.body())
        if response.status in {400, 422} and (self.adapted(words, {}) or _LIMIT_REACHED in words):
            return Detection(speaks=True, model=model)  # what it refuses is not the protocol
        refusal = f"status {response.status} {words}"
        return Detection(speaks=False, why_not=f"{self.name}: {refusal}".strip())

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
        if chunk.usage is not None:
            _take_usage(reply, chunk.usage)
        for choice in chunk.choices or ():
            _take_choice(reply, choice, stamp_ns, chunk.usage)
        if reply.error:
            return


class _Run(msgspec.Struct, frozen=True):
    """Events that follow one another and are equal but for their text."""

    start: int  # where in the body the first one begins
    ends: Sequence[int]  # where each of them ends
    texts: list[str]


def _find_run(body: bytes) -> _Run | None:
    """Return the run of the body's second event, if there is one; the first may name the role."""
    if b"\r" in body:
        return None
    start = body.find(_BLANK) + len(_BLANK)
    end = body.find(_BLANK, start) + len(_BLANK)
    if start < len(_BLANK) or end < len(_BLANK) or not body.startswith(_DATA, start):
        return None
    shape = _shape(body[start + len(_DATA) : end - len(_BLANK)])
    if shape is None:
        return None
    before, after = _DATA + shape[0], shape[1] + _BLANK
    # No string of JSON holds a line feed, so a part is what one event has between the two.
    *parts, last = body[start + len(before) :].split(after + before)
    text, found, _ = last.partition(after)
    if found and _BLANK not in text:
        parts.append(text)
    texts = _texts(parts) if len(parts) >= _RUN_EVENTS_MIN else None
    if texts is None:
        return None
    around = len(before) + len(after)
    ends = list(accumulate([len(part) + around for part in parts], initial=start))
    return _Run(start, ends[1:], texts)


def _shape(event: bytes) -> tuple[bytes, bytes] | None:
    """Return what stands before and after the text of an event that carries text and no more.

    The proof: with another text in this place, the event carries that and no more.
    """
    text = _only_text(event)
    if text is None:
        return None
    before, quoted, after = event.rpartition(msgspec.json.encode(text))
    before, after = before + b'"', b'"' + after
    proved = quoted and _only_text(before + _OTHER_TEXT.encode() + after) == _OTHER_TEXT
    return (before, after) if proved else None


def _only_text(event: bytes) -> str | None:
    """Return the text of an event that carries text and no more."""
    reply = Reply()
    _read_each([(0, _DATA + event + _BLANK)], reply)
    expected = Reply(stamps_ns=[0], texts=reply.texts)
    return reply.texts[0] if reply == expected and len(reply.texts) == 1 else None


def _texts(parts: Sequence[bytes]) -> list[str] | None:
    """Decode the insides of JSON strings; None if one of them is none, or is empty.

    All in one array: what breaks out of its string there makes the array longer, or no JSON. Only
    with a backslash a part could hide its neighbour, so then each is decoded for itself.
    """
    array = b'["' + b'","'.join(parts) + b'"]'
    try:
        if b"\\" in array:
            texts = [_decode_text(b'"' + part + b'"') for part in parts]
        else:
            texts = _decode_texts(array)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return None
    return texts if len(texts) == len(parts) and all(texts) else None


def _take_usage(reply: Reply, usage: Usage) -> None:
    if usage.prompt_tokens is not None:
        reply.input_tokens = usage.prompt_tokens
    if usage.completion_tokens is not None:
        reply.output_tokens = usage.completion_tokens


def _take_choice(reply: Reply, choice: Choice, stamp_ns: int, usage: Usage | None) -> None:
    text = choice.text or ""
    if choice.delta is not None:
        text = _text_of(choice.delta)
    if text:
        reply.stamps_ns.append(stamp_ns)
        reply.texts.append(text)
        if usage is not None and usage.completion_tokens is not None:
            reply.usage_after.append(usage.completion_tokens)
    if choice.finish_reason:
        reply.finish = choice.finish_reason
        reply.ended = True
        if choice.finish_reason in _FAILED_FINISHES:
            reply.error = "stream-error"
            reply.detail = f"the server ended it with finish_reason '{choice.finish_reason}'"


def _text_of(delta: Delta) -> str:
    text = delta.content or delta.reasoning_content or delta.reasoning or delta.refusal or ""
    if isinstance(text, str) and not delta.tool_calls:
        return text
    return "".join(_texts_within([text, delta.tool_calls or []]))


def _texts_within(part: Any) -> Iterator[str]:
    """Yield the model's words in parts of content and in calls of tools, however deep they are."""
    if isinstance(part, str):
        yield part
    elif isinstance(part, list):
        for each in part:
            yield from _texts_within(each)
    elif isinstance(part, dict):
        for name in ("text", "thinking", "function", "name", "arguments"):
            yield from _texts_within(part.get(name))
