"""POST /generate_stream: Text Generation Inference's own protocol, one event a token.

An event names its token even when the text is empty because a character is not complete yet, so
that tokens are counted exactly. The last event bears the whole text and the details.
"""

from collections.abc import Iterable
from typing import Any

import msgspec

from llmdyno.endpoints import Ask, Detection, Endpoint, ServerProbe
from llmdyno.endpoints._answers import document
from llmdyno.endpoints._errors import error_of, note_finish
from llmdyno.endpoints._json_events import (
    Count,
    Event,
    count_of,
    joined_prompt,
    merge,
    read_events,
)
from llmdyno.wire.inbox import Piece
from llmdyno.wire.reply import Reply


class Token(msgspec.Struct):
    """One token; a special one, such as the end of the sequence, is not part of the text."""

    text: str = ""
    special: bool = False


class Details(msgspec.Struct):
    """What the last event tells; `input_length` came with version 2."""

    finish_reason: str = ""
    generated_tokens: Count = None
    input_length: Count = None


class Generated(Event):
    """One event of the stream."""

    token: Token | None = None
    generated_text: str | None = None
    details: Details | None = None

    @property
    def answers(self) -> bool:
        """Whether it has a token, or is the last one."""
        return self.token is not None or self.generated_text is not None


_decode = msgspec.json.Decoder(Generated).decode


class TGI:
    """TGI's own protocol.

    A system prompt is put before the prompt, with a blank line between.
    """

    name = "tgi"
    ends_with_body = False
    names_finish = True
    rpc = False
    detect_order = 40

    async def detect(self, server: ServerProbe, model: str) -> Detection:
        """Ask GET /info whether it has the limits that only TGI reports."""
        facts = document(await server.look("/info"))
        speaks = "model_id" in facts and "max_total_tokens" in facts
        return Detection(speaks=speaks, model=model or str(facts.get("model_id", "")))

    async def choose_model(self, server: ServerProbe) -> str:  # noqa: ARG002  # nothing to ask
        """Return an empty text: the server has one model, and no request names it."""
        return ""

    def path(self, model: str) -> str:  # noqa: ARG002  # a server has one model
        """Return the path, the same for all models."""
        return "/generate_stream"

    def body(self, ask: Ask) -> bytes:
        """Return the request's JSON body; `parameters` in `extra` join ours."""
        parameters: dict[str, Any] = {"details": True}
        if ask.max_tokens is not None:
            parameters["max_new_tokens"] = ask.max_tokens
        if ask.exact_length:
            # Servers derived from it obey; its own router has no such parameter and goes on
            # stopping where the model stops, which the finish reasons of the records then show.
            parameters["ignore_eos_token"] = True
        if ask.temperature:  # 0 is refused; greedy is what it does unasked
            parameters["temperature"] = ask.temperature
        parameters |= ask.extra.get("parameters", {})
        inputs = joined_prompt(ask)
        return merge({"inputs": inputs}, {**ask.extra, "parameters": parameters})

    def read(self, pieces: Iterable[Piece]) -> Reply:
        """Return the reply that a stream amounts to, whole or cut short; never raises."""
        reply = Reply()
        tokens = 0
        for stamp_ns, event in read_events(pieces, _decode, reply):
            if event.token is not None:
                tokens += 1
                if event.token.text and not event.token.special:
                    reply.stamps_ns.append(stamp_ns)
                    reply.texts.append(event.token.text)
                    reply.usage_after.append(tokens)
            if event.generated_text is not None:
                reply.ended = True
            if event.details is not None:
                _take_details(reply, event.details, tokens)
        return reply

    def error_of(self, body: bytes) -> str:
        """Return the server's own words in the body of a response other than 200."""
        return error_of(body)


def _take_details(reply: Reply, details: Details, tokens: int) -> None:
    reply.ended = True
    note_finish(reply, details.finish_reason)
    if (prompt := count_of(details.input_length)) is not None:
        reply.input_tokens = prompt
    # The TensorRT-LLM backend says 1 however many it sent (huggingface/text-generation-inference
    # issue 2466): what has arrived is counted.
    reply.output_tokens = max(tokens, count_of(details.generated_tokens) or 0)
    if reply.usage_after:
        # What came after the last text was the end-of-sequence token.
        reply.usage_after[-1] = reply.output_tokens


ENDPOINT: Endpoint = TGI()
