"""POST /v1/completions, streamed: the prompt goes in as it is, without a chat template."""

from collections.abc import Iterable

from llmdyno.endpoints import Ask, Endpoint, _openai
from llmdyno.reply import Reply
from llmdyno.sse import Piece


class OpenAICompletions:
    """The system prompt, if any, is put before the prompt with a blank line between."""

    name = "openai-completions"
    path = "/v1/completions"

    def body(self, ask: Ask) -> bytes:
        """Return the request's JSON body."""
        prompt = f"{ask.system_prompt}\n\n{ask.prompt}" if ask.system_prompt else ask.prompt
        return _openai.merge({**_openai.common_fields(ask), "prompt": prompt}, ask.extra)

    def read(self, pieces: Iterable[Piece]) -> Reply:
        """Read the stream."""
        return _openai.read(pieces)

    def error_of(self, body: bytes) -> str:
        """Return the server's words."""
        return _openai.error_of(body)


ENDPOINT: Endpoint = OpenAICompletions()
