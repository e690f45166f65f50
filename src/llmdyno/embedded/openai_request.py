"""OpenAI's wire format, the way in: what a request may ask for.

Where it stands: server.py reads bodies with `read`; what is asked becomes one messages.Generate a
choice. Clients are made for many servers, so a field is treated by what it would do. A field that
nobody here knows is ignored, as vLLM does, and named in the answer's header X-Warning. One that we
know, that would change the answer and that we cannot honour is refused by name, unless its value
asks for what we do anyway (`echo: false`).

Two defaults are ours, not OpenAI's: no temperature means greedy, since a benchmark's output should
repeat, and a chat without max_tokens may fill the context. And one limit is the engine's: it draws
all sampled tokens from one stream of random numbers, so a seed repeats its output only while no
other request is sampled.
"""

import random
import re
from typing import Annotated, Any, ClassVar, Literal, TypeVar

import msgspec

from llmdyno.embedded.messages import Ids, Messages, Prompt, Sampling

Body = TypeVar("Body", bound=msgspec.Struct)

CHOICES_MAX = 128  # of one prompt, as OpenAI has it
_TOP_KS = {None, 0, -1}  # with these all tokens may be drawn
_INT_MAX = 2**31 - 1
_WARNING_CHARACTERS_MAX = 1000

# Fields that would change the answer but that we do not honour, with the values that ask for
# nothing. Beside OpenAI's stand vLLM's and SGLang's.
_NEUTRAL: dict[str, tuple[object, ...]] = {
    "add_generation_prompt": (True,),
    "add_special_tokens": (False,),  # of a chat, whose template has its own
    "allowed_token_ids": ([],),
    "audio": (),
    "bad_words": ([],),
    "chat_template": ("",),
    "continue_final_message": (False,),
    "documents": ([],),
    "ebnf": ("",),
    "echo": (False,),  # of a chat
    "function_call": ("none",),
    "functions": ([],),
    "guided_choice": ([],),
    "guided_grammar": ("",),
    "guided_json": (),
    "guided_regex": ("",),
    "include_stop_str_in_output": (False,),
    "json_schema": (),
    "logit_bias": ({},),
    "logits_processors": ([],),
    "modalities": (["text"],),
    "no_repeat_ngram_size": (0,),
    "no_stop_trim": (False,),
    "prompt_embeds": (),
    "prompt_logprobs": (False,),
    "regex": ("",),
    "response_format": ({"type": "text"},),
    "structured_outputs": ({},),
    "suffix": ("",),
    "tool_choice": ("none", "auto"),
    "tools": ([],),
    "top_logprobs": (0,),
    "truncate_prompt_tokens": (-1,),
    "use_beam_search": (False,),
}
# Those that ask for an answer of a given form.
_FORMS = frozenset(
    {
        *("ebnf", "json_schema", "regex", "response_format", "structured_outputs"),
        *("guided_choice", "guided_grammar", "guided_json", "guided_regex"),
    }
)
# Fields that cannot change the answer.
_IRRELEVANT = {
    "metadata",
    "parallel_tool_calls",
    "priority",
    "prompt_cache_key",
    "prompt_cache_retention",
    "request_id",
    "safety_identifier",
    "service_tier",
    "spaces_between_special_tokens",
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


class StreamOptions(msgspec.Struct, frozen=True):
    """How a stream is to be written; fields beside these are ignored."""

    include_usage: bool = False  # in an event of its own, the last
    continuous_usage_stats: bool = False  # of a choice so far, in each of its events


class Request(msgspec.Struct, frozen=True, kw_only=True):
    """The fields that both endpoints honour."""

    model: str
    stream: bool = False
    stream_options: StreamOptions | None = None
    max_tokens: Annotated[int, msgspec.Meta(ge=1)] | None = None
    max_completion_tokens: Annotated[int, msgspec.Meta(ge=1)] | None = None
    min_tokens: Annotated[int, msgspec.Meta(ge=0)] = 0
    n: Annotated[int, msgspec.Meta(ge=1, le=CHOICES_MAX)] = 1
    best_of: Annotated[int, msgspec.Meta(ge=1)] | None = None
    temperature: Annotated[float, msgspec.Meta(ge=0, le=2)] | None = None
    top_p: Annotated[float, msgspec.Meta(gt=0, le=1)] | None = None
    top_k: Annotated[int, msgspec.Meta(ge=-1, le=_INT_MAX)] | None = None
    min_p: Annotated[float, msgspec.Meta(ge=0, le=1)] | None = None
    repetition_penalty: Annotated[float, msgspec.Meta(ge=0.01, le=100)] = 1.0
    presence_penalty: Annotated[float, msgspec.Meta(ge=-2, le=2)] = 0.0
    frequency_penalty: Annotated[float, msgspec.Meta(ge=-2, le=2)] = 0.0
    seed: Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)] | None = None
    stop: str | Annotated[list[str], msgspec.Meta(max_length=4)] | None = None
    stop_token_ids: list[Annotated[int, msgspec.Meta(ge=0, le=_INT_MAX)]] = []
    skip_special_tokens: bool = True
    ignore_eos: bool = False
    # Of the tokens that are made, in an answer in one piece; the engine knows no others'.
    logprobs: bool | int = False
    logprobs_known: ClassVar[tuple[object, ...]] = (False,)

    def prompts(self) -> list[Prompt]:
        """Return the prompts; each is answered by `n` choices, in this order."""
        raise NotImplementedError

    def asked(self) -> list[dict[str, Any]]:
        """Return the fields of messages.Generate for each choice.

        Raises:
            ApiError: two fields contradict one another, or a prompt is none (status 400).
        """
        limit = self.max_completion_tokens or self.max_tokens
        if limit is not None and self.min_tokens > limit:
            raise ApiError(
                400,
                f"'min_tokens': {self.min_tokens} is more than max_tokens, which is {limit}.",
                param="min_tokens",
            )
        if self.logprobs and self.stream:
            raise ApiError(
                400,
                "'logprobs': is not supported in a stream by this server; leave out stream.",
                param="logprobs",
            )
        if self.best_of not in {None, 1, self.n}:
            raise ApiError(
                400,
                f"'best_of': {self.best_of} is not supported by this server, which returns all"
                " that it makes; leave it out, or set it to n.",
                param="best_of",
            )
        stop = [self.stop] if isinstance(self.stop, str) else self.stop or []
        seed = random.getrandbits(63) if self.seed is None else self.seed
        return [
            {
                "prompt": prompt,
                "max_tokens": limit,
                "stop": tuple(text for text in stop if text),
                "ignore_eos": self.ignore_eos,
                "logprobs": bool(self.logprobs),
                "show_special": not self.skip_special_tokens,
                # The first choice of a prompt is what the seed gives without the others.
                "sampling": self._sampling((seed + number) % 2**63),
            }
            for prompt in self.prompts()
            for number in range(self.n)
        ]

    def _sampling(self, seed: int) -> Sampling:
        return Sampling(
            temperature=self.temperature or 0.0,
            top_p=1.0 if self.top_p is None else self.top_p,
            top_k=None if self.top_k in _TOP_KS else self.top_k,
            min_p=self.min_p or 0.0,
            seed=seed,
            min_tokens=self.min_tokens,
            repetition_penalty=self.repetition_penalty,
            presence_penalty=self.presence_penalty,
            frequency_penalty=self.frequency_penalty,
            stop_ids=tuple(self.stop_token_ids),
        )


class CompletionRequest(Request, frozen=True, kw_only=True):
    """The body of POST /v1/completions: texts, or token ids."""

    prompt: str | list[str | int | list[int]]
    logprobs_known: ClassVar[tuple[object, ...]] = (False, 1)
    echo: bool = False
    add_special_tokens: bool = True

    def prompts(self) -> list[Prompt]:
        """Return the prompts: one, or those of a list.

        Raises:
            ApiError: the list is empty, or holds texts beside token ids (status 400).
        """
        if isinstance(self.prompt, str):
            return [self.prompt]
        ids = [each for each in self.prompt if isinstance(each, int)]
        if ids and len(ids) == len(self.prompt):
            return [Ids(ids)]
        prompts: list[Prompt] = [
            Ids(each) if isinstance(each, list) else each
            for each in self.prompt
            if not isinstance(each, int)
        ]
        if ids or not prompts or len(set(map(type, prompts))) > 1:
            raise ApiError(
                400,
                "'prompt': give a text, token ids, or a list of one of the two; it is"
                f" {'empty' if not self.prompt else 'mixed'}.",
                param="prompt",
            )
        return prompts

    def asked(self) -> list[dict[str, Any]]:
        """Return the fields of messages.Generate for each choice.

        Raises:
            ApiError: two fields contradict one another, or a prompt is none (status 400).
        """
        if self.echo and self.logprobs:
            raise ApiError(
                400,
                "'echo' with 'logprobs': this server gives no log-probabilities of the prompt's"
                " tokens; leave one of the two out.",
                param="echo",
            )
        of_completions = {"special": self.add_special_tokens, "echo": self.echo}
        return [
            {**each, **of_completions, "max_tokens": each["max_tokens"] or 16}
            for each in super().asked()
        ]


class TextPart(msgspec.Struct, frozen=True):
    """A part of a message; we take text only."""

    type: Literal["text"]
    text: str


class Message(msgspec.Struct, frozen=True):
    """One message of a chat; fields beside these (a name, say) are the template's business."""

    role: str
    content: str | list[TextPart] | None = None  # None: an assistant that only called tools


class ChatRequest(Request, frozen=True, kw_only=True):
    """The body of POST /v1/chat/completions: the messages of a chat."""

    messages: Annotated[list[Message], msgspec.Meta(min_length=1)]
    logprobs_known: ClassVar[tuple[object, ...]] = (False, True)

    def prompts(self) -> list[Prompt]:
        """Return the chat as the only prompt."""
        return [plain(self.messages)]


class TokenizeRequest(msgspec.Struct, frozen=True, kw_only=True):
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
            "content": "".join(part.text for part in message.content)
            if isinstance(message.content, list)
            else message.content or "",
        }
        for message in messages
    ]


def read(body: bytes, kind: type[Body]) -> tuple[Body, tuple[str, ...]]:
    """Read a request's body; return with it the names of the fields that are ignored.

    Raises:
        ApiError: it is not JSON, or a field is wrong or cannot be honoured; the field is named.
    """
    try:
        fields = msgspec.json.decode(body)
    except msgspec.DecodeError as error:
        raise ApiError(400, f"The body is not valid JSON: {error}.") from error
    if not isinstance(fields, dict):
        raise ApiError(400, "The body must be a JSON object.")
    # null asks for the default, as if the field were not there.
    given = {name: value for name, value in fields.items() if value is not None}
    wanted = {name: value for name, value in given.items() if name in kind.__struct_fields__}
    others = given.keys() - wanted.keys()
    for name in sorted(others & _NEUTRAL.keys()):
        _refuse_unless_neutral(name, given, _NEUTRAL[name])
    if "logprobs" in wanted and issubclass(kind, Request):
        _refuse_unless_neutral("logprobs", given, kind.logprobs_known)
    ignored = [name for name in given if name in others - _NEUTRAL.keys() - _IRRELEVANT]
    options = wanted.get("stream_options")
    if isinstance(options, dict):
        wanted["stream_options"] = {name: on for name, on in options.items() if on is not None}
        unknown = options.keys() - set(StreamOptions.__struct_fields__)
        ignored += [f"stream_options.{name}" for name in sorted(unknown)]
    try:
        return msgspec.convert(wanted, kind), tuple(ignored)
    except msgspec.ValidationError as error:
        field = re.search(r"\$\.(\w+)|field `(\w+)`", str(error))
        param = (field[1] or field[2]) if field else None
        raise ApiError(
            400, f"'{param}': {error}." if param else f"{error}.", param=param
        ) from error


def warning(ignored: tuple[str, ...]) -> dict[str, str]:
    """Return the header that names the ignored fields; none are no header.

    A name is written in ASCII and in quotes, so that no client's bytes end the header.
    """
    if not ignored:
        return {}
    names = ", ".join(f'"{ascii(name)[1:-1]}"' for name in ignored)
    return {"X-Warning": f"ignored, unknown to this server: {names}"[:_WARNING_CHARACTERS_MAX]}


def _refuse_unless_neutral(name: str, given: dict[str, Any], taken: tuple[object, ...]) -> None:
    value = given[name]
    if any(value == same and type(value) is type(same) for same in taken):
        return
    if name == "tools" and given.get("tool_choice") == "none":
        return  # the model may not call them, and is not told of them
    if name in _FORMS:
        words = (
            f"'{name}': this server cannot hold an answer to a JSON schema, a grammar or a choice;"
            " its answers are free text. Leave the field out"
        )
        neutral = f", or send {_short(taken[0])}." if taken else "."
        raise ApiError(400, words + neutral, param=name)
    raise ApiError(400, f"'{name}': {_short(value)} is not supported by this server.", param=name)


def _short(value: object) -> str:
    text = msgspec.json.encode(value).decode()
    return text if len(text) <= 60 else f"{text[:57]}…"
