"""The body of a recorded request: its prompt in parts, and its settings, none of them a text."""

import hashlib
from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

# Settings that are kept as they are, if they are numbers, truths or one short word.
_SETTINGS = (
    *("temperature", "top_p", "top_k", "min_p", "n", "best_of", "seed", "stream"),
    *("max_tokens", "max_completion_tokens", "min_tokens", "ignore_eos", "echo", "logprobs"),
    *("top_logprobs", "presence_penalty", "frequency_penalty", "repetition_penalty"),
    *("length_penalty", "use_beam_search", "reasoning_effort", "parallel_tool_calls"),
)
_COUNTED = ("stop", "stop_token_ids", "tools", "logit_bias")  # only how many: they may be texts
_WORD_CHARACTERS_MAX = 24
# How servers are told which LoRA adapter to use where the model's name does not say it.
_ADAPTER_FIELDS = ("lora_path", "adapter_id", "lora_adapter", "lora_name", "lora")


class Prompt(msgspec.Struct, frozen=True):
    """What was asked: its parts in the order of the prompt, and which of them are messages."""

    tools: str
    messages: tuple[str, ...]  # each with who says it; a completion has one
    is_chat: bool

    @property
    def parts(self) -> tuple[str, ...]:
        """All parts in the order in which a template puts them."""
        return (self.tools, *self.messages) if self.tools else self.messages


def prompt_of(body: Mapping[str, Any]) -> Prompt:
    """Return the prompt of a request of either kind; what is no text in it becomes a short hash."""
    messages = body.get("messages")
    if isinstance(messages, list):
        tools = body.get("tools") or body.get("functions")
        return Prompt(
            tools=_canonical(tools) if tools else "",
            messages=tuple(message_text(message) for message in messages),
            is_chat=True,
        )
    prompts = body.get("prompt", "")
    return Prompt(tools="", messages=("".join(_prompt_texts(prompts)),), is_chat=False)


def message_text(message: Any) -> str:
    """Return a message as a text: who says it, and what."""
    if not isinstance(message, dict):
        return _canonical(message)
    said = "".join(_content_texts(message.get("content")))
    calls = "".join(_call_texts(message.get("tool_calls")))
    return as_said(str(message.get("role", "")), said + calls)


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
    shape = body.get("response_format")
    if isinstance(shape, dict) and isinstance(shape.get("type"), str):
        found["response_format"] = shape["type"][:_WORD_CHARACTERS_MAX]
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


def _content_texts(content: Any) -> Iterator[str]:
    if isinstance(content, str):
        yield content
    elif isinstance(content, list):
        for part in content:
            if isinstance(part, dict) and isinstance(part.get("text"), str):
                yield part["text"]
            else:  # an image, a sound: long, and the same only as a whole
                yield hashlib.blake2b(_canonical(part).encode(), digest_size=32).hexdigest()


def _call_texts(calls: Any) -> Iterator[str]:
    for call in calls if isinstance(calls, list) else ():
        function = call.get("function") if isinstance(call, dict) else None
        if isinstance(function, dict):
            yield f"{function.get('name', '')}{function.get('arguments', '')}"


def _canonical(value: Any) -> str:
    return msgspec.json.encode(value, order="sorted").decode()
