"""OpenAI's wire format, the way out: how the answer to a request is written.

Where it stands: server.py writes what the `Answer` of the request gives it. What a request may ask
for is in openai_request.py. A choice is one generation; a request has `n` of them for each prompt.
"""

import time
import uuid
from collections.abc import Callable, Sequence
from itertools import accumulate
from typing import Protocol

import msgspec

from llmdyno.embedded.engine import Generation
from llmdyno.embedded.messages import Chosen
from llmdyno.embedded.openai_request import ApiError, ChatRequest, CompletionRequest

DONE = b"data: [DONE]\n\n"


def error_body(error: ApiError) -> dict[str, object]:
    """Write an error as OpenAI does."""
    kind = "invalid_request_error" if error.status < 500 else "server_error"
    return {
        "error": {"message": str(error), "type": kind, "param": error.param, "code": error.code}
    }


def usage(generations: Sequence[Generation], *, each: int = 1) -> dict[str, int]:
    """Return the tokens of some generations so far; `each`: so many of them share a prompt."""
    prompt_tokens = sum(one.prompt_tokens for one in generations[::each])
    output_tokens = sum(one.output_tokens for one in generations)
    return {
        "prompt_tokens": prompt_tokens,
        "completion_tokens": output_tokens,
        "total_tokens": prompt_tokens + output_tokens,
    }


def chat_choice(
    index: int, text: str | None, finish: str | None, *, whole: bool
) -> dict[str, object]:
    """Write a choice of a chat; None is an event without text."""
    if whole:
        message = {"role": "assistant", "content": text}
        return {"index": index, "message": message, "logprobs": None, "finish_reason": finish}
    delta = {} if text is None else {"content": text}
    return {"index": index, "delta": delta, "logprobs": None, "finish_reason": finish}


def completion_choice(
    index: int, text: str | None, finish: str | None, *, whole: bool
) -> dict[str, object]:
    """Write a choice of a plain completion, which looks the same in an event and in an answer."""
    del whole
    return {"index": index, "text": text or "", "logprobs": None, "finish_reason": finish}


def chat_logprobs(chosen: Sequence[Chosen]) -> dict[str, object]:
    """Write the log-probabilities of a chat's tokens; the engine knows no others than theirs."""
    return {
        "content": [
            {
                "token": one.token.decode("utf-8", "replace"),
                "logprob": one.logprob,
                "bytes": list(one.token),
                "top_logprobs": [],
            }
            for one in chosen
        ]
    }


def completion_logprobs(chosen: Sequence[Chosen]) -> dict[str, object]:
    """Write the log-probabilities of a completion's tokens, none beside those that were chosen."""
    tokens = [one.token.decode("utf-8", "replace") for one in chosen]
    return {
        "tokens": tokens,
        "token_logprobs": [one.logprob for one in chosen],
        "top_logprobs": None,
        "text_offset": list(accumulate(map(len, tokens[:-1]), initial=0)) if tokens else [],
    }


class Choice(Protocol):
    """The signature of chat_choice and completion_choice."""

    def __call__(
        self, index: int, text: str | None, finish: str | None, *, whole: bool
    ) -> dict[str, object]:
        """Write one choice."""


class Dialect(msgspec.Struct, frozen=True, kw_only=True):
    """What sets one of the two endpoints apart from the other."""

    request: type[ChatRequest] | type[CompletionRequest]
    id_prefix: str
    whole: str  # the `object` of an answer in one piece
    event: str  # ... and of an event
    choice: Choice
    logprobs: Callable[[Sequence[Chosen]], dict[str, object]]
    opening: dict[str, object] | None  # the first event's delta, before there is text


CHAT = Dialect(
    request=ChatRequest,
    id_prefix="chatcmpl",
    whole="chat.completion",
    event="chat.completion.chunk",
    choice=chat_choice,
    logprobs=chat_logprobs,
    opening={"role": "assistant", "content": ""},
)
COMPLETION = Dialect(
    request=CompletionRequest,
    id_prefix="cmpl",
    whole="text_completion",
    event="text_completion",
    choice=completion_choice,
    logprobs=completion_logprobs,
    opening=None,
)


class Answer:
    """Writes the answer to one request; its choices are counted from 0."""

    def __init__(self, dialect: Dialect, request: ChatRequest | CompletionRequest) -> None:
        options = request.stream_options
        self._ends_with_usage = options is not None and options.include_usage
        self._always_with_usage = options is not None and options.continuous_usage_stats
        self._each = request.n
        self._dialect = dialect
        self._says_logprobs = bool(request.logprobs)
        self._head = {
            "id": f"{dialect.id_prefix}-{uuid.uuid4().hex}",
            "created": int(time.time()),
            "model": request.model,
        }
        # Only the text differs from event to event of a choice: what is around it is encoded once.
        self._around: dict[int, tuple[bytes, bytes]] = {}

    def whole(self, texts: Sequence[str], generations: Sequence[Generation]) -> bytes:
        """Return the answer in one piece: a text for each generation."""
        choice = self._dialect.choice
        return msgspec.json.encode(
            {
                **self._head,
                "object": self._dialect.whole,
                "choices": [
                    {
                        **choice(index, text, generation.finish, whole=True),
                        **self._logprobs(generation),
                    }
                    for index, (text, generation) in enumerate(zip(texts, generations, strict=True))
                ],
                "usage": usage(generations, each=self._each),
            }
        )

    def _logprobs(self, generation: Generation) -> dict[str, object]:
        if not self._says_logprobs:
            return {}
        return {"logprobs": self._dialect.logprobs(generation.chosen)}

    def opening(self, index: int, generation: Generation) -> bytes:
        """Return what the stream of a choice begins with, before there is any text."""
        if self._dialect.opening is None:
            return b""
        choice = self._dialect.choice(index, None, None, whole=False)
        return self._event([{**choice, "delta": self._dialect.opening}], self._so_far(generation))

    def text(self, index: int, text: str, generation: Generation) -> bytes:
        """Return the event that carries this text of a choice."""
        if self._always_with_usage:
            choice = self._dialect.choice(index, text, None, whole=False)
            return self._event([choice], self._so_far(generation))
        around = self._around.get(index)
        if around is None:
            around = self._around[index] = self._text_event(index)
        before, after = around
        return before + msgspec.json.encode(text) + after

    def finish(self, index: int, generation: Generation) -> bytes:
        """Return the event that says why a choice has ended."""
        choice = self._dialect.choice(index, None, generation.finish, whole=False)
        return self._event([choice], self._so_far(generation))

    def closing(self, generations: Sequence[Generation]) -> bytes:
        """Return what a stream ends with: the usage if it is asked for, and the mark."""
        if not self._ends_with_usage:
            return DONE
        return self._event([], usage(generations, each=self._each)) + DONE

    def _so_far(self, generation: Generation) -> dict[str, int] | None:
        return usage([generation]) if self._always_with_usage else None

    def _text_event(self, index: int) -> tuple[bytes, bytes]:
        marker = "\x00text\x00"
        event = self._event([self._dialect.choice(index, marker, None, whole=False)])
        before, after = event.split(msgspec.json.encode(marker))
        return before, after

    def _event(self, choices: list[dict[str, object]], used: dict[str, int] | None = None) -> bytes:
        """Return one event; with include_usage each has the field, the last has figures in it."""
        body = {**self._head, "object": self._dialect.event, "choices": choices}
        if self._ends_with_usage or self._always_with_usage:
            body["usage"] = used
        return sse(body)


def sse(body: object) -> bytes:
    """Return a server-sent event with this JSON."""
    return b"data: " + msgspec.json.encode(body) + b"\n\n"
