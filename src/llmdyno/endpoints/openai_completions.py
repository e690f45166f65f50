"""POST /v1/completions, streamed: the prompt goes in as it is, without a chat template."""

from collections.abc import Iterable

from llmdyno.endpoints import Ask, Endpoint, _json_events, _openai
from llmdyno.wire.inbox import Piece
from llmdyno.wire.reply import Reply


class OpenAICompletions:
    """The system prompt, if any, is put before the prompt with a blank line between."""

    name = "openai-completions"
    ends_with_body = False
    rpc = False

    def path(self, model: str) -> str:  # noqa: ARG002  # the model is named in the body
        """Return the path."""
        return "/v1/completions"

    def body(self, ask: Ask) -> bytes:
        """Return the request's JSON body."""
        prompt = _json_events.joined_prompt(ask)
        return _json_events.merge({**_openai.common_fields(ask), "prompt": prompt}, ask.extra)

    def read(self, pieces: Iterable[Piece]) -> Reply:
        """Read the stream."""
        return _openai.read(pieces)

    def error_of(self, body: bytes) -> str:
        """Return the server's words."""
        return _json_events.error_of(body)


ENDPOINT: Endpoint = OpenAICompletions()
