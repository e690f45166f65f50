"""OpenAI's wire format: what a request may ask for, and how the answer is written.

Where it stands: server.py reads bodies with `parse` and writes what the `Answer` of the request
gives it. Nothing is ignored in silence: a field that we do not honour is refused by name, unless it
says what we do anyway (`n: 1`) or cannot change the answer (`user`). Two defaults are ours, not
OpenAI's: no temperature means greedy, since a benchmark's output should repeat, and a chat without
max_tokens may fill the context. And one limit is the engine's: it draws all sampled tokens from one
stream of random numbers, so a seed repeats its output only while no other request is sampled.
"""

import random
import re
import time
import uuid
from typing import Annotated, Literal, Protocol, TypeVar

import msgspec

from llmdyno.embedded.engine import Generation
from llmdyno.embedded.messages import Messages, Prompt

DONE = b"data: [DONE]\n\n"

Body = TypeVar("Body", bound=msgspec.Struct)

# Fields that we know but do not honour, with the values that ask for nothing.
_NEUTRAL: dict[str, tuple[object, ...]] = {
    "best_of": (1,),
    "echo": (False,),
    "frequency_penalty": (0, 0.0),
    "function_call": ("none",),
    "functions": ([],),
    "logit_bias": ({},),
    "logprobs": (False,),
    "modalities": (["text"],),
    "n": (1,),
    "parallel_tool_calls": (True, False),
    "presence_penalty": (0, 0.0),
    "response_format": ({"type": "text"},),
    "suffix": ("",),
    "tool_choice": ("none", "auto"),
    "tools": ([],),
    "top_logprobs": (0,),
}
# Fields that cannot change the answer.
_IRRELEVANT = {
    "metadata",
    "prompt_cache_key",
    "safety_identifier",
    "service_tier",
    "store",
    "user",
}


class ApiError(Exception):
    """An error in OpenAI's terms, with the HTTP status it is sent with."""

    def __init__(
        self, status: int, message: str, *, param: str | None = None, code: str | None = None
    ) -> None:
        super().__init__(message)
        self.status = status
        self.param = param
        self.code = code


class StreamOptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How a stream is to be written."""

    include_usage: bool = False


class Request(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The fields that both endpoints accept; an unknown one is refused."""

    model: str
    stream: bool = False
    stream_options: StreamOptions | None = None
    max_tokens: Annotated[int, msgspec.Meta(ge=1)] | None = None
    temperature: Annotated[float, msgspec.Meta(ge=0, le=2)] | None = None
    top_p: Annotated[float, msgspec.Meta(gt=0, le=1)] | None = None
    seed: Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)] | None = None
    stop: str | Annotated[list[str], msgspec.Meta(max_length=4)] | None = None
    ignore_eos: bool = False

    def generation(self, prompt: Prompt, max_tokens: int | None) -> dict[str, object]:
        """Return the fields of messages.Generate."""
        stop = [self.stop] if isinstance(self.stop, str) else self.stop or []
        return {
            "prompt": prompt,
            "max_tokens": max_tokens,
            "temperature": self.temperature or 0.0,
            "top_p": 1.0 if self.top_p is None else self.top_p,
            "seed": random.getrandbits(63) if self.seed is None else self.seed,
            "stop": tuple(text for text in stop if text),
            "ignore_eos": self.ignore_eos,
        }


class CompletionRequest(Request, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The body of POST /v1/completions: one prompt as a text."""

    prompt: str

    def asked(self) -> dict[str, object]:
        """Return the fields of messages.Generate."""
        return self.generation(self.prompt, 16 if self.max_tokens is None else self.max_tokens)


class Message(msgspec.Struct, frozen=True):
    """One message of a chat; fields beside these (a name, say) are the template's business."""

    role: str
    content: str | list["TextPart"]


class TextPart(msgspec.Struct, frozen=True):
    """A part of a message; we take text only."""

    type: Literal["text"]
    text: str


class ChatRequest(Request, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The body of POST /v1/chat/completions: the messages of a chat."""

    messages: Annotated[list[Message], msgspec.Meta(min_length=1)]
    max_completion_tokens: Annotated[int, msgspec.Meta(ge=1)] | None = None

    def asked(self) -> dict[str, object]:
        """Return the fields of messages.Generate."""
        return self.generation(plain(self.messages), self.max_completion_tokens or self.max_tokens)


class TokenizeRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """POST /tokenize, as vLLM has it."""

    model: str | None = None
    prompt: str | None = None
    messages: list[Message] | None = None
    add_special_tokens: bool = True  # of a prompt; a chat's template has its own

    def asked(self) -> Prompt:
        """Return the prompt or the messages to tokenise.

        Raises:
            ApiError: neither or both are given (status 400).
        """
        if (self.prompt is None) == (self.messages is None):
            raise ApiError(400, "Give either 'prompt' or 'messages'.", param="prompt")
        return plain(self.messages) if self.messages is not None else str(self.prompt)


def plain(messages: list[Message]) -> Messages:
    """Return messages as a chat template takes them."""
    return [
        {
            "role": message.role,
            "content": message.content
            if isinstance(message.content, str)
            else "".join(part.text for part in message.content),
        }
        for message in messages
    ]


def parse(body: bytes, kind: type[Body]) -> Body:
    """Read a request's body.

    Raises:
        ApiError: it is not JSON, or a field is wrong, unknown or unsupported; the field is named.
    """
    try:
        fields = msgspec.json.decode(body)
    except msgspec.DecodeError as error:
        raise ApiError(400, f"The body is not valid JSON: {error}.") from error
    if not isinstance(fields, dict):
        raise ApiError(400, "The body must be a JSON object.")
    known = set(kind.__struct_fields__)
    for name, value in fields.items():
        if name in known or name in _IRRELEVANT or value is None:
            continue
        if name not in _NEUTRAL:
            raise ApiError(400, f"'{name}' is not a parameter of this server.", param=name)
        if not any(value == same and type(value) is type(same) for same in _NEUTRAL[name]):
            raise ApiError(
                400, f"'{name}': {_short(value)} is not supported by this server.", param=name
            )
    wanted = {name: value for name, value in fields.items() if name in known}
    try:
        return msgspec.convert(wanted, kind)
    except msgspec.ValidationError as error:
        name = re.search(r"\$\.(\w+)|field `(\w+)`", str(error))
        param = (name[1] or name[2]) if name else None
        raise ApiError(
            400, f"'{param}': {error}." if param else f"{error}.", param=param
        ) from error


def error_body(error: ApiError) -> dict[str, object]:
    """Write an error as OpenAI does."""
    kind = "invalid_request_error" if error.status < 500 else "server_error"
    return {
        "error": {"message": str(error), "type": kind, "param": error.param, "code": error.code}
    }


def usage(generation: Generation) -> dict[str, int]:
    """Return the tokens of a generation so far."""
    return {
        "prompt_tokens": generation.prompt_tokens,
        "completion_tokens": generation.output_tokens,
        "total_tokens": generation.prompt_tokens + generation.output_tokens,
    }


def chat_choice(text: str | None, finish: str | None, *, whole: bool) -> dict[str, object]:
    """Write a choice of a chat; None is an event without text."""
    if whole:
        message = {"role": "assistant", "content": text}
        return {"index": 0, "message": message, "logprobs": None, "finish_reason": finish}
    delta = {} if text is None else {"content": text}
    return {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}


def completion_choice(text: str | None, finish: str | None, *, whole: bool) -> dict[str, object]:
    """Write a choice of a plain completion, which looks the same in an event and in an answer."""
    del whole
    return {"index": 0, "text": text or "", "logprobs": None, "finish_reason": finish}


class Choice(Protocol):
    """The signature of chat_choice and completion_choice."""

    def __call__(self, text: str | None, finish: str | None, *, whole: bool) -> dict[str, object]:
        """Write one choice."""


class Dialect(msgspec.Struct, frozen=True, kw_only=True):
    """What sets one of the two endpoints apart from the other."""

    request: type[ChatRequest] | type[CompletionRequest]
    id_prefix: str
    whole: str  # the `object` of an answer in one piece
    event: str  # ... and of an event
    choice: Choice
    opening: dict[str, object] | None  # the first event's delta, before there is text


CHAT = Dialect(
    request=ChatRequest,
    id_prefix="chatcmpl",
    whole="chat.completion",
    event="chat.completion.chunk",
    choice=chat_choice,
    opening={"role": "assistant", "content": ""},
)
COMPLETION = Dialect(
    request=CompletionRequest,
    id_prefix="cmpl",
    whole="text_completion",
    event="text_completion",
    choice=completion_choice,
    opening=None,
)


class Answer:
    """Writes the answer to one request."""

    def __init__(self, dialect: Dialect, request: ChatRequest | CompletionRequest) -> None:
        options = request.stream_options
        self._with_usage = options is not None and options.include_usage
        self._dialect = dialect
        self._head = {
            "id": f"{dialect.id_prefix}-{uuid.uuid4().hex}",
            "created": int(time.time()),
            "model": request.model,
        }
        # Only the text differs from event to event: encode what is around it once.
        marker = "\x00text\x00"
        event = self._event([dialect.choice(marker, None, whole=False)])
        self._before, self._after = event.split(msgspec.json.encode(marker))

    def whole(self, text: str, generation: Generation) -> bytes:
        """Return the answer in one piece."""
        return msgspec.json.encode(
            {
                **self._head,
                "object": self._dialect.whole,
                "choices": [self._dialect.choice(text, generation.finish, whole=True)],
                "usage": usage(generation),
            }
        )

    def opening(self) -> bytes:
        """Return what a stream begins with, before there is any text."""
        if self._dialect.opening is None:
            return b""
        choice = self._dialect.choice(None, None, whole=False)
        return self._event([{**choice, "delta": self._dialect.opening}])

    def text(self, text: str) -> bytes:
        """Return the event that carries this text."""
        return self._before + msgspec.json.encode(text) + self._after

    def closing(self, generation: Generation) -> bytes:
        """Return what a stream ends with: the finish reason, the usage if asked for, the mark."""
        events = self._event([self._dialect.choice(None, generation.finish, whole=False)])
        if self._with_usage:
            events += self._event([], usage(generation))
        return events + DONE

    def _event(self, choices: list[dict[str, object]], used: dict[str, int] | None = None) -> bytes:
        """Return one event; with include_usage each has the field, the last has figures in it."""
        body = {**self._head, "object": self._dialect.event, "choices": choices}
        if self._with_usage:
            body["usage"] = used
        return sse(body)


def sse(body: object) -> bytes:
    """Return a server-sent event with this JSON."""
    return b"data: " + msgspec.json.encode(body) + b"\n\n"


def _short(value: object) -> str:
    text = msgspec.json.encode(value).decode()
    return text if len(text) <= 60 else f"{text[:57]}…"
