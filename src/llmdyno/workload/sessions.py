"""Sessions: the turns that are asked one after the other, and how a data set's rows become them.

A row holds a prompt under one of the usual names (Dolly's, OpenOrca's, Alpaca's), which is a
session of one turn, or a conversation (ShareGPT's `conversations`, OpenAI's `messages`), which is a
session of its questions in order. The data set's answers are never sent; the model under test gives
its own.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import msgspec

from llmdyno.errors import UsageError
from llmdyno.spec import CHAT_OUTPUT_TOKENS
from llmdyno.workload import dataset

# The prompt's column; the first match wins. A context or an input is asked with its instruction.
_PROMPT_KEYS = ("prompt", "question", "instruction", "text", "input")
_CONVERSATION_KEYS = ("conversations", "messages", "conversation")
_LENGTH_KEYS = ("max_tokens", "output_tokens", "output_length")
_ANSWER_KEYS = ("response", "output", "answer", "completion")
_ASKS = ("human", "user")
_ANSWERS = ("gpt", "assistant", "chatgpt", "bing", "bard", "model")
# The length of an answer is estimated from its text where the data set has no length. English has
# about so many.
_CHARACTERS_PER_TOKEN = 4


class Item(msgspec.Struct, frozen=True, kw_only=True):
    """One request of a workload, before an endpoint and a model are chosen."""

    number: int  # equal numbers of a run are equal prompts, unless every prompt is new
    prompt: str
    system_prompt: str = ""
    max_tokens: int | None = None
    exact_length: bool = False
    session: int = -1  # which session of the level it belongs to; -1: it stands alone
    turn: int = 0
    history: tuple[tuple[str, str], ...] = ()  # questions of the turns before, and their answers


Session = tuple[Item, ...]


def sessions_of(name: str, system_prompt: str, *, own_lengths: bool) -> list[Session]:
    """Return a data set's sessions; a row with a single prompt is a session of one turn.

    Args:
        name: a file, or hf:org/name.
        system_prompt: for rows that have none.
        own_lengths: ask for answers of exactly as many tokens as the data set's have.

    Raises:
        UsageError: the data set cannot be read, or holds no prompts; says which line and why.
    """
    found: list[Session] = []
    number = 0
    for place, row in dataset.rows(name):
        where = f"--dataset {name}, line {place}"
        turns = list(_turns(row, where))
        session = tuple(
            Item(
                number=number + turn,
                prompt=prompt,
                system_prompt=_system_prompt(row) or system_prompt,
                max_tokens=_length(row, answer, where, own=own_lengths),
                exact_length=own_lengths,
            )
            for turn, (prompt, answer) in enumerate(turns)
        )
        number += len(turns)
        if session:
            found.append(session)
    if not found:
        raise UsageError(f"--dataset {name}: holds no prompts.")
    return found


def _turns(row: dataset.Row, where: str) -> Iterator[tuple[str, str]]:
    """Yield the questions of a row, each with the data set's answer."""
    for key in _CONVERSATION_KEYS:
        if isinstance(row.get(key), list):
            yield from _questions(row[key])
            return
    key = next((key for key in _PROMPT_KEYS if isinstance(row.get(key), str)), "")
    if not key or not row[key].strip():
        raise UsageError(
            f"{where}: has no text under any of {', '.join((*_PROMPT_KEYS, *_CONVERSATION_KEYS))}."
        )
    prompt = row[key]
    if key != "input" and isinstance(row.get("input"), str) and row["input"].strip():
        prompt = f"{prompt}\n\n{row['input']}"
    if isinstance(row.get("context"), str) and row["context"].strip():
        prompt = f"{row['context']}\n\n{prompt}"
    answers = (row[key] for key in _ANSWER_KEYS if isinstance(row.get(key), str))
    yield prompt, next(answers, "")


def _questions(messages: Sequence[Any]) -> Iterator[tuple[str, str]]:
    said = [_said(message) for message in messages]
    for place, (who, text) in enumerate(said):
        if who in _ASKS and text.strip():
            after = said[place + 1] if place + 1 < len(said) else ("", "")
            yield text, after[1] if after[0] in _ANSWERS else ""


def _said(message: Any) -> tuple[str, str]:
    """Return who says what; two empty texts if it is no message of text."""
    if not isinstance(message, dict):
        return "", ""
    who, text = message.get("role", message.get("from")), message.get("content")
    text = message.get("value") if text is None else text
    return str(who).lower(), text if isinstance(text, str) else ""


def _system_prompt(row: dataset.Row) -> str:
    if row.get("system_prompt"):
        return str(row["system_prompt"])
    for key in _CONVERSATION_KEYS:
        messages = row.get(key)
        said = map(_said, messages if isinstance(messages, list) else ())
        if system := next((text for who, text in said if who == "system"), ""):
            return system
    return ""


def _length(row: dataset.Row, answer: str, where: str, *, own: bool) -> int:
    for key in _LENGTH_KEYS:
        if row.get(key) in {None, ""}:
            continue
        try:
            length = int(row[key])
        except (TypeError, ValueError):
            length = 0
        if length < 1:
            raise UsageError(
                f"{where}: {key} is {row[key]!r}; must be a whole number of at least 1."
            )
        return length
    if not own:
        return CHAT_OUTPUT_TOKENS
    if not answer:
        raise UsageError(
            f"{where}: --dataset-osl needs an answer or its length, under any of"
            f" {', '.join((*_LENGTH_KEYS, *_ANSWER_KEYS))}."
        )
    return max(1, round(len(answer) / _CHARACTERS_PER_TOKEN))
