"""POST /generate: the text stream of a BentoML service, as in BentoML's 2024 benchmarks.

The body is the text and nothing else: each chunk of it is what the service yielded at once. There
is no usage, so chunks are counted for tokens, and one that two reads brought counts as two. There
is no end mark, so that a service that fails in the middle looks as if it had finished (BentoML ends
the body in the regular way). The one sign of an error is a JSON object at the end of the text.
"""

import codecs
from collections.abc import Iterable
from typing import Any, Literal

import msgspec

from llmdyno.endpoints import Ask, Detection, Endpoint, ServerProbe
from llmdyno.endpoints._answers import document
from llmdyno.endpoints._errors import DETAIL_CHARACTERS_MAX, error_of
from llmdyno.endpoints._json_events import merge, prompt_after_history
from llmdyno.wire.inbox import Piece
from llmdyno.wire.reply import Reply

_FAILURE_START = b'{"status"'


class Failure(msgspec.Struct):
    """What the service yields when the server behind it reports an error."""

    status: Literal["error"]
    message: Any = ""


_decode = msgspec.json.Decoder(Failure).decode


class BentoML:
    """The `/generate` route of a BentoML service that streams plain text.

    The service applies its chat template to the system prompt and the prompt. It decides by itself
    how long an answer gets.
    """

    name = "bentoml"
    ends_with_body = True
    rpc = False
    detect_order = 50  # after those that count tokens

    async def detect(self, server: ServerProbe, model: str) -> Detection:
        """Ask GET /schema.json, which lists a service's routes, whether one streams text."""
        schema = document(await server.look("/schema.json"))
        return Detection(speaks=_streams_text(schema), model=model)

    async def choose_model(self, server: ServerProbe) -> str:  # noqa: ARG002  # nothing to ask
        """Return an empty text: the server has one model, and no request names it."""
        return ""

    def path(self, model: str) -> str:  # noqa: ARG002  # a service has one model
        """Return the path, the same for all models."""
        return "/generate"

    def body(self, ask: Ask) -> bytes:
        """Return the request's JSON body.

        The system prompt is always in it: a service has one of its own for those who send none.
        """
        fields: dict[str, Any] = {
            "prompt": prompt_after_history(ask),
            "system_prompt": ask.system_prompt,
        }
        if ask.max_tokens is not None:
            fields["max_tokens"] = ask.max_tokens
        if ask.temperature is not None:
            fields["temperature"] = ask.temperature
        return merge(fields, ask.extra)

    def read(self, pieces: Iterable[Piece]) -> Reply:
        """Return the reply that a stream amounts to, whole or cut short; never raises."""
        pieces = list(pieces)
        reply = Reply()
        left = _text_bytes(b"".join(body for _, body in pieces), reply)
        # A read may end inside a character. One that completes no character is no chunk of text.
        decoder = codecs.getincrementaldecoder("utf-8")("replace")
        for stamp_ns, body in pieces:
            text = decoder.decode(body[:left])
            left -= min(left, len(body))
            if text:
                reply.stamps_ns.append(stamp_ns)
                reply.texts.append(text)
        return reply

    def error_of(self, body: bytes) -> str:
        """Return the server's own words in the body of a response other than 200."""
        return error_of(body)


def _text_bytes(body: bytes, reply: Reply) -> int:
    """Return how many bytes of a body are text; the reply gets to know of an error after them."""
    start = body.rfind(_FAILURE_START)
    if start < 0:
        return len(body)
    try:
        failure = _decode(body[start:])
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return len(body)  # text that happens to look like it
    reply.error = "stream-error"
    reply.detail = str(failure.message)[:DETAIL_CHARACTERS_MAX]
    return start


def _streams_text(schema: dict[str, Any]) -> bool:
    """Whether it is the schema of a BentoML service with a /generate that streams."""
    routes = schema.get("routes")
    if schema.get("type") != "service" or not isinstance(routes, list):
        return False
    return any(
        isinstance(route, dict)
        and route.get("route") == "/generate"
        and isinstance(route.get("output"), dict)
        and bool(route["output"].get("is_stream"))
        for route in routes
    )


ENDPOINT: Endpoint = BentoML()
