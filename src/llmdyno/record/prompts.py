"""The body of a recorded request: its prompt in parts, and its settings, none of them a text."""

import hashlib
from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

from llmdyno.record.protocols import RESPONSES

# Settings that are kept as they are, if they are numbers, truths or one short word.
_SETTINGS = (
    *("temperature", "top_p", "top_k", "min_p", "n", "best_of", "seed", "stream"),
    *("max_tokens", "max_completion_tokens", "max_output_tokens", "min_tokens"),
    *("ignore_eos", "echo", "logprobs"),
    *("top_logprobs", "presence_penalty", "frequency_penalty", "repetition_penalty"),
    *("length_penalty", "use_beam_search", "reasoning_effort", "parallel_tool_calls"),
)
# Only how many: they may be texts.
_COUNTED = ("stop", "stop_sequences", "stop_token_ids", "tools", "logit_bias")
_WORD_CHARACTERS_MAX = 24
# One word deep in a field: the name under which it is kept, and the way there.
_WITHIN = {
    "response_format": ("response_format", "type"),
    "text_format": ("text", "format", "type"),
    "reasoning_effort": ("reasoning", "effort"),
    "thinking": ("thinking", "type"),
}
_THOUGHTS = ("thinking", "redacted_thinking")  # parts of a message; a response has items of them
_REASONING = "reasoning"
_OF_AN_ITEM = frozenset({"type", "id", "status"})  # which no model reads
# How servers are told which LoRA adapter to use where the model's name does not say it.
_ADAPTER_FIELDS = ("lora_path", "adapter_id", "lora_adapter", "lora_name", "lora")


class Prompt(msgspec.Struct, frozen=True):
    """What was asked: its parts in the order of the prompt, and which of them are messages."""

    tools: str
    messages: tuple[str, ...]  # each with who says it; a completion has one
    turns: tuple[str, ...]  # the same without thoughts, which clients send back or leave out
    is_chat: bool

    @property
    def parts(self) -> tuple[str, ...]:
        """All parts in the order in which a template puts them."""
        return (self.tools, *self.messages) if self.tools else self.messages


def prompt_of(body: Mapping[str, Any], endpoint: str, before: tuple[str, ...] = ()) -> Prompt:
    """Return the prompt of a request; what is no text in it becomes a short hash.

    Args:
        body: of the request.
        endpoint: the name of the one that the request speaks.
        before: the messages that the server puts before those of the request, because it names a
            response that it goes on with.
    """
    tools = body.get("tools") or body.get("functions")
    tools = _canonical(tools) if tools else ""
    if endpoint == RESPONSES:
        first = _system(body.get("instructions"))
        said = (*first, *before, *item_texts(body.get("input")))
        return Prompt(tools, said, items_without_thoughts(said), is_chat=True)
    messages = body.get("messages")
    if isinstance(messages, list):
        first = _system(body.get("system"))
        said = tuple(map(message_text, messages))
        bare = map(without_thoughts, messages)
        turns = (
            text if message is whole else message_text(message)
            for text, message, whole in zip(said, bare, messages, strict=True)
        )
        return Prompt(tools, (*first, *said), (*first, *turns), is_chat=True)
    prompt = ("".join(_prompt_texts(body.get("prompt", ""))),)
    return Prompt(tools="", messages=prompt, turns=prompt, is_chat=False)


def without_thoughts(message: Any) -> Any:
    """Return a message without the parts that are thoughts; the very same if it has none."""
    content = message.get("content") if isinstance(message, dict) else None
    if not isinstance(content, list):
        return message
    kept = [
        part for part in content if not (isinstance(part, dict) and part.get("type") in _THOUGHTS)
    ]
    return message if len(kept) == len(content) else {**message, "content": kept}


def items_without_thoughts(texts: tuple[str, ...]) -> tuple[str, ...]:
    """Return the texts of a response's items without those that are thoughts."""
    thought = as_said(_REASONING, "")
    return tuple(text for text in texts if not text.startswith(thought))


def item_texts(items: Any) -> tuple[str, ...]:
    """Return the items of a response's input or output as messages; a text is the user's."""
    if isinstance(items, str):
        return (as_said("user", items),)
    return tuple(map(message_text, items)) if isinstance(items, list) else ()


def message_text(message: Any) -> str:
    """Return a message as a text: who says it, and what.

    A response has items beside its messages: a call of a function is its model's, what came of it
    the tool's.
    """
    match message:
        case {"type": "function_call" | "custom_tool_call"}:
            return as_said("assistant", _called(message))
        case {"type": "function_call_output" | "custom_tool_call_output", "output": output}:
            return as_said("tool", "".join(_content_texts(output)))
        case {"role": _} | {"content": _} | {"tool_calls": _}:
            said = "".join(_content_texts(message.get("content")))
            calls = "".join(_call_texts(message.get("tool_calls")))
            return as_said(str(message.get("role", "")), said + calls)
        case {"type": str() as kind}:  # a thought, a search, a file: as long as it is
            rest = {key: value for key, value in message.items() if key not in _OF_AN_ITEM}
            return as_said(kind, _canonical(rest))
    return _canonical(message)


def as_said(role: str, text: str) -> str:
    """Return what somebody says as a text among the messages."""
    return f"{role}\n{text}"


def answer_text(message: Any) -> str:
    """Return the text of an answer that came whole."""
    if not isinstance(message, dict):
        return ""
    said = "".join(_content_texts(message.get("content")))
    return said + "".join(_call_texts(message.get("tool_calls")))


def settings_of(body: Mapping[str, Any]) -> dict[str, Any]:
    """Return how the answer was to be made: sampling, limits, and how many of what may be text."""
    found: dict[str, Any] = {}
    for name in _SETTINGS:
        value = body.get(name)
        short = isinstance(value, str) and len(value) <= _WORD_CHARACTERS_MAX
        if short or isinstance(value, bool | int | float):
            found[name] = value
    for name in _COUNTED:
        if value := body.get(name):
            found[name] = len(value) if isinstance(value, list | dict) else 1
    for name, (field, *path) in _WITHIN.items():
        value = body.get(field)
        for step in path:
            value = value.get(step) if isinstance(value, dict) else None
        if isinstance(value, str):
            found[name] = value[:_WORD_CHARACTERS_MAX]
    return found


def adapter_of(body: Mapping[str, Any], adapters: Mapping[str, str]) -> tuple[str, str | None]:
    """Return the model of a request, and its LoRA adapter if it names one.

    Args:
        body: of the request.
        adapters: the names under which the server lists adapters, each with its base model.
    """
    model = body.get("model")
    model = model if isinstance(model, str) else ""
    if model in adapters:
        return adapters[model], model
    for name in _ADAPTER_FIELDS:
        if isinstance(body.get(name), str) and body[name]:
            return model, body[name]
    return model, None


def user_of(body: Mapping[str, Any]) -> str:
    """Return the user's name, if the client gives one; in Anthropic's protocol it is metadata."""
    metadata = body.get("metadata")
    user = body.get("user") or (metadata.get("user_id") if isinstance(metadata, dict) else "")
    return str(user or "")


def _prompt_texts(prompts: Any) -> Iterator[str]:
    """Yield the texts of a prompt: one, several, or token ids as four characters each."""
    if isinstance(prompts, str):
        yield prompts
    elif isinstance(prompts, list):
        for each in prompts:
            if isinstance(each, int) and not isinstance(each, bool):
                yield f"{each & 0xFFFFFF:04x}"[-4:]
            else:
                yield from _prompt_texts(each)


def _system(content: Any) -> tuple[str, ...]:
    """Return a system prompt that has a field of its own as a message; none if it is empty."""
    return (as_said("system", "".join(_content_texts(content))),) if content else ()


def _content_texts(content: Any) -> Iterator[str]:
    """Yield what a message holds: texts, and the parts that Anthropic's have beside them."""
    if isinstance(content, str):
        yield content
    elif isinstance(content, list):
        for part in content:
            match part:
                case (
                    {"text": str() as text}
                    | {"thinking": str() as text}
                    | {"refusal": str() as text}
                ):
                    yield text
                case {"type": "tool_use"}:
                    yield _called(part)
                case {"type": "tool_result"}:
                    yield from _content_texts(part.get("content"))
                case _:  # an image, a sound: long, and the same only as a whole
                    yield hashlib.blake2b(_canonical(part).encode(), digest_size=32).hexdigest()


def _call_texts(calls: Any) -> Iterator[str]:
    for call in calls if isinstance(calls, list) else ():
        function = call.get("function") if isinstance(call, dict) else None
        if isinstance(function, dict):
            yield _called(function)


def _called(call: Mapping[str, Any]) -> str:
    """Return a call as a text: what is called, and with what."""
    given = call.get("arguments", call.get("input")) or ""
    return f"{call.get('name') or ''}{given if isinstance(given, str) else _canonical(given)}"


def _canonical(value: Any) -> str:
    return msgspec.json.encode(value, order="sorted").decode()
