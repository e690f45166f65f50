"""One row of a data set: what it asks, what was answered, and what of it no request carries."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from llmdyno.workload.dataset import Row

# The prompt's column; the first match wins. A context or an input is asked with its instruction.
_PROMPT_KEYS = (
    *("prompt", "question", "instruction", "text", "input"),
    *("query", "inputs", "problem", "user_prompt", "content", "message"),
)
# A talk's answers are the model's own; those of a request are a part of it, and are sent again.
_TALK_KEYS = ("conversations", "conversation")
_REQUEST_KEYS = ("messages", "contents", "turns", "prompt", "input", "inputs")
_NAMED_KEYS = (*_PROMPT_KEYS, "conversations", "messages", "conversation")
_ENVELOPES = ("body", "request", "params", "row")  # batch files of OpenAI, Gemini, Anthropic
ANSWER_KEYS = ("response", "output", "answer", "completion")
_ASKS = ("human", "user", "prompter")
_ANSWERS = ("gpt", "assistant", "chatgpt", "bing", "bard", "model")
_SYSTEM = ("system", "developer")


class Turn(msgspec.Struct, frozen=True):
    """A question, and the data set's answer to it; empty if there is none."""

    prompt: str
    answer: str = ""


class Asked(msgspec.Struct, frozen=True, kw_only=True):
    """What a row asks, in order, and the names of what it holds besides (`sessions.UNUSED`)."""

    turns: tuple[Turn, ...]
    system_prompt: str = ""
    unused: frozenset[str] = frozenset()
    is_recorded: bool = False  # later turns carry the data set's answers

    def history(self, turn: int) -> tuple[tuple[str, str], ...]:
        """Return what a turn carries of the row's own: the questions before it, with answers."""
        before = self.turns[:turn]
        if not self.is_recorded or not all(one.answer for one in before):
            return ()
        return tuple((one.prompt, one.answer) for one in before)


def read_row(row: Row) -> Asked:
    """Return what a row asks; one that is empty, or holds no text, asks nothing.

    Raises:
        ValueError: it has no column that we know, or no text there; says what it has.
    """
    row = opened(row)
    for key in (*_TALK_KEYS, *_REQUEST_KEYS):
        if messages := _messages(row.get(key), alone=key == "turns"):
            return _conversation(row, messages, is_recorded=key in _REQUEST_KEYS)
    return _single(row)


def opened(row: Row) -> Row:
    """Return a row with what its envelope holds, if it has one: a line of a batch file."""
    if any(row.get(key) for key in (*_NAMED_KEYS, "contents")):
        return row
    inner = next((row[key] for key in _ENVELOPES if isinstance(row.get(key), Mapping)), None)
    return {**row, **inner} if inner else row


def _messages(value: Any, *, alone: bool) -> Sequence[Any]:
    """Return the messages of a conversation; none if the value is none.

    Args:
        value: of a column; a table has a conversation as JSON.
        alone: whether questions may stand without the name of who asks (MT-Bench's `turns`).
    """
    if isinstance(value, str) and value.lstrip().startswith("[{"):
        try:
            value = json.loads(value)
        except ValueError:
            return ()
    if not isinstance(value, list):
        return ()
    is_messages = any(
        isinstance(item, Mapping) and {"role", "from"} & item.keys() for item in value
    )
    if not is_messages and alone:
        return [{"role": "user", "content": item} for item in value]
    return value if is_messages else ()


def _conversation(row: Row, messages: Sequence[Any], *, is_recorded: bool) -> Asked:
    asked: list[list[str]] = []  # questions, each with its answers
    systems = [text for text in (_text(row.get("system_prompt")), _text(row.get("system"))) if text]
    unused = _media(row)
    before = ""
    for message in messages:
        who, text, others = _said(message)
        unused |= others
        if who in _SYSTEM:
            systems += [text] if text else []
        elif who in _ASKS:
            asked += [[text]] if text.strip() else []
        elif who not in _ANSWERS:
            unused |= {"tools"} if who else set()
        elif not asked:
            unused |= {"greetings"} if text.strip() else set()
        elif text.strip() and (is_recorded or before in _ASKS):
            asked[-1].append(text)
        before = who
    turns = tuple(Turn(question, "\n\n".join(answers)) for question, *answers in asked)
    if len(systems) > 1:
        unused.add("systems")
    if not turns:
        unused = {"textless" if unused & {"images", "audio", "parts"} else "unasked"}
    elif len(turns) > 1 or any(turn.answer for turn in turns):
        unused.add("turns")
    return Asked(
        turns=turns,
        system_prompt=next(iter(systems), ""),
        unused=frozenset(unused),
        is_recorded=is_recorded,
    )


def _said(message: Any) -> tuple[str, str, set[str]]:
    """Return who says what, and the kinds of what the message holds beside text."""
    if not isinstance(message, Mapping):
        return "", "", set()
    who = message.get("role") or message.get("from") or ""
    keys = ("content", "value", "text", "parts")
    content = next((message[key] for key in keys if message.get(key) is not None), "")
    text, others = _content(content)
    return str(who).lower(), text, others


def _content(content: Any) -> tuple[str, set[str]]:
    """Return the text of a message's content, and the kinds of its other parts."""
    if isinstance(content, str):
        return content, set()
    if isinstance(content, Mapping):
        content = content.get("parts", [content])
    texts: list[str] = []
    others: set[str] = set()
    for part in content if isinstance(content, list) else ():
        text = part if isinstance(part, str) else _text_of_part(part)
        if text is None:
            others.add(_kind(part))
        elif text:
            texts.append(text)
    return "\n".join(texts), others


def _text_of_part(part: Any) -> str | None:
    if isinstance(part, Mapping):
        text = part.get("text", part.get("content"))
        return text if isinstance(text, str) else None
    return None


def _kind(part: Any) -> str:
    named = str(part.get("type") or " ".join(map(str, part))) if isinstance(part, Mapping) else ""
    if "image" in named:
        return "images"
    return "audio" if "audio" in named else "parts"


def _text(value: Any) -> str:
    return _content(value)[0].strip() and _content(value)[0]


def _single(row: Row) -> Asked:
    """Return the one prompt of a row."""
    empty = not row
    for key in _PROMPT_KEYS:
        value = row.get(key)
        if value is None or value == [] or (isinstance(value, str) and not value.strip()):
            empty |= key in row
            continue
        prompt, others = _prompt(key, value)
        if not prompt.strip():
            return Asked(turns=(), unused=frozenset({"textless"}))
        if key != "input" and (more := _text(row.get("input"))):
            prompt = f"{prompt}\n\n{more}"
        if context := _text(row.get("context")):
            prompt = f"{context}\n\n{prompt}"
        answers = (row[key] for key in ANSWER_KEYS if isinstance(row.get(key), str))
        return Asked(
            turns=(Turn(prompt, next(answers, "")),),
            system_prompt=_text(row.get("system_prompt")) or _text(row.get("system")),
            unused=frozenset(others | _media(row)),
        )
    empty |= any(key in row and not row[key] for key in (*_TALK_KEYS, *_REQUEST_KEYS))
    if empty:
        return Asked(turns=(), unused=frozenset({"empty"}))
    columns = ", ".join(repr(str(column))[1:-1] for column in row)  # repr escapes control codes
    raise ValueError(f"has no text under any of {', '.join(_NAMED_KEYS)}; it has {columns}")


def _prompt(key: str, value: Any) -> tuple[str, set[str]]:
    if isinstance(value, list):
        if all(isinstance(item, int) for item in value):
            raise ValueError(f"{key} is a list of token ids; write it as text")
        if len(value) > 1 and all(isinstance(item, str) for item in value):
            raise ValueError(f"{key} is a list of {len(value)} texts; write each as a row")
    elif not isinstance(value, str | Mapping):
        raise ValueError(f"{key} is {value!r}; must be a text")  # noqa: TRY004 - the user's fault
    return _content(value)


def _media(row: Row) -> set[str]:
    """Return the kinds of what stands beside a prompt, each in a column of its own."""
    columns = {"image": "images", "images": "images", "audio": "audio", "audios": "audio"}
    return {kind for column, kind in columns.items() if row.get(column)}
