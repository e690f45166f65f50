"""POST /v1/chat/completions, streamed: what vLLM, SGLang, trtllm-serve and most others speak."""

from collections.abc import Iterable

from llmdyno.endpoints import Ask, Endpoint, _json_events, _openai
from llmdyno.wire.inbox import Piece
from llmdyno.wire.reply import Reply


class OpenAIChat:
    """The prompt is a user message; the system prompt, if any, goes before it."""

    name = "openai-chat"
    ends_with_body = False
    rpc = False

    def path(self, model: str) -> str:  # noqa: ARG002  # the model is named in the body
        """Return the path."""
        return "/v1/chat/completions"

    def body(self, ask: Ask) -> bytes:
        """Return the request's JSON body."""
        messages = [{"role": "system", "content": ask.system_prompt}] if ask.system_prompt else []
        for question, answer in ask.history:
            messages.append({"role": "user", "content": question})
            messages.append({"role": "assistant", "content": answer})
        messages.append({"role": "user", "content": ask.prompt})
        return _json_events.merge({**_openai.common_fields(ask), "messages": messages}, ask.extra)

    def read(self, pieces: Iterable[Piece]) -> Reply:
        """Read the stream."""
        return _openai.read(pieces)

    def error_of(self, body: bytes) -> str:
        """Return the server's words."""
        return _json_events.error_of(body)


ENDPOINT: Endpoint = OpenAIChat()
