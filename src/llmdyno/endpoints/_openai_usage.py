"""The usage in events of OpenAI's protocols: where servers put it, and what it leaves out."""

from contextlib import suppress
from typing import Any

import msgspec

from llmdyno.endpoints._errors import reported
from llmdyno.endpoints._json_events import Count, count_of
from llmdyno.wire.reply import Reply


class Usage(msgspec.Struct):
    """Token counts by the server's own tokenizer."""

    prompt_tokens: Count = None
    completion_tokens: Count = None
    total_tokens: Count = None
    completion_tokens_details: Any = None  # of OpenAI and vLLM: among them `reasoning_tokens`
    prompt_tokens_details: Any = None  # among them `cached_tokens`
    reasoning_tokens: Count = None  # of SGLang


def take_usage(reply: Reply, usage: Any) -> int | None:
    """Keep a usage, and return the tokens of the answer so far; None: it does not count them."""
    if not isinstance(usage, Usage):
        reply.usage_is_odd = True
        return None
    if usage.prompt_tokens != reply.input_tokens:
        prompt = count_of(usage.prompt_tokens)
        reply.input_tokens = reply.input_tokens if prompt is None else prompt
    tokens = count_of(usage.completion_tokens)
    if tokens is None:
        reply.usage_is_odd = True
        return None
    if usage.completion_tokens_details is not None or usage.reasoning_tokens is not None:
        tokens += _take_reasoning(reply, usage, tokens)
    elif usage.total_tokens != reply.input_tokens + tokens and (hidden := _hidden(usage, tokens)):
        reply.reasoning_tokens = hidden
        tokens += hidden
    if tokens or reply.output_tokens <= 0:  # an empty usage may follow the one that counts
        reply.output_tokens = tokens
    return tokens


def _hidden(usage: Usage, tokens: int) -> int:
    """Return the tokens that are only in the total: Gemini's reasoning.

    Where the prompt leaves out what a cache had, as Bedrock's does, the rest of the total is that.
    """
    prompt = count_of(usage.prompt_tokens)
    total = count_of(usage.total_tokens)
    if not prompt or total is None or total <= prompt + tokens:
        return 0
    rest = total - prompt - tokens
    details = usage.prompt_tokens_details
    cached = details.get("cached_tokens") if isinstance(details, dict) else None
    return rest if rest > (count_of(cached) or 0) else 0


def take_foreign_usage(reply: Reply, usage: Any) -> None:
    """Keep a usage that stands where OpenAI has none."""
    with suppress(msgspec.ValidationError):
        take_usage(reply, msgspec.convert(usage, Usage))


def take_groq(reply: Reply, own: Any) -> None:
    """Keep what Groq has in a part of its own: the usage, or the reason why a stream ended."""
    if not isinstance(own, dict):
        return
    if own.get("usage") is not None:
        take_foreign_usage(reply, own["usage"])
        reply.chunks_at_usage = len(reply.stamps_ns)
    if words := reported({"error": own.get("error")}):
        reply.error, reply.detail = "stream-error", words


def _take_reasoning(reply: Reply, usage: Usage, tokens: int) -> int:
    """Keep the number of reasoning tokens; return how many of them the other tokens leave out."""
    details = usage.completion_tokens_details
    told = details.get("reasoning_tokens") if isinstance(details, dict) else None
    reasoning = count_of(usage.reasoning_tokens if told is None else told) or 0
    reply.reasoning_tokens = reasoning
    apart = tokens + reasoning + (count_of(usage.prompt_tokens) or 0)
    return reasoning if reasoning > tokens or count_of(usage.total_tokens) == apart else 0
