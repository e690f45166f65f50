"""A line of the trace: what is known of one request that has passed.

    {"schema": "llmdyno.trace/1", "arrival_s": 12.345678, "path": "/v1/chat/completions",
     "model": "llama", "lora": null, "session": 3, "turn": 1,
     "input_tokens": 812, "input_source": "usage", "output_tokens": 96, "output_source": "usage",
     "block_characters": 64, "part_characters": [2048, 55, 310], "hash_ids": [1375…, …],
     "sampling": {"temperature": 0.7, "max_tokens": 256, "stream": true},
     "status": 200, "outcome": "completed", "error": "", "finish": "stop",
     "ttft_ms": 41.2, "e2e_ms": 1920.6}

`hash_ids` are as records/prefixes.py makes them, one a block. `part_characters` are the lengths of
the prompt's parts, tools and messages. Sources of counts are "usage" (the server's), "tokenizer",
"chunks" (each event of the stream a token), "characters" (four a token), and "unreadable" where the
answer came in a compression that we do not know. With `--keep-text` there are also "body", the
request as it was, and "answer".
"""

from collections.abc import Mapping
from typing import Any, Protocol

import msgspec

from llmdyno import endpoints
from llmdyno.faults import http_fault
from llmdyno.record.conversations import Conversations
from llmdyno.record.entries import Passed, Settings
from llmdyno.record.prompts import (
    Prompt,
    adapter_of,
    answer_text,
    as_said,
    prompt_of,
    settings_of,
)
from llmdyno.records.prefixes import blocks_of
from llmdyno.wire.compression import codings, decode
from llmdyno.wire.reply import Reply, count_tokens

SCHEMA = "llmdyno.trace/1"
_CHARACTERS_PER_TOKEN = 4
_SESSION_HEADERS = ("x-session-id", "x-conversation-id")
_BEARER = "bearer "
_SECRET_CHARACTERS_MIN = 8
_SECRET_HEADERS = ("authorization", "x-api-key", "api-key")


class Counter(Protocol):
    """Counts the tokens of a text."""

    def __call__(self, text: str, *, special: bool) -> int:
        """Return how many tokens a text has; special: with those that are put around it."""


class _Answer(msgspec.Struct, kw_only=True):
    """What came back, as far as it could be read."""

    text: str = ""
    input_tokens: int = -1
    output_tokens: int = 0
    source: str = "usage"
    finish: str = ""
    first_ns: int = -1
    error: str = ""


class Lines:
    """Makes the lines of one trace, in the order in which requests end.

    Args:
        settings: how they are written.
        count: the tokenizer's, if there is one.
    """

    def __init__(self, settings: Settings, count: Counter | None = None) -> None:
        self._settings = settings
        self._count = count
        self._conversations = Conversations(settings.key)

    def line(self, passed: Passed) -> dict[str, Any]:
        """Return the line of a request."""
        settings = self._settings
        body = _object(passed.body)
        prompt = prompt_of(body)
        answer = _read(passed, is_chat=prompt.is_chat)
        error = passed.error or answer.error
        blocks = blocks_of(prompt.parts, settings.block_characters, settings.key)
        session, turn = self._session(passed.headers, body, prompt, answer.text)
        model, lora = adapter_of(body, settings.adapters)
        return {
            "schema": SCHEMA,
            "arrival_s": round((passed.asked_ns - settings.started_ns) / 1e9, 6),
            "path": passed.path,
            "model": model,
            "lora": lora,
            "session": session,
            "turn": turn,
            **self._tokens(prompt, answer),
            "block_characters": settings.block_characters,
            "part_characters": blocks.characters,
            "hash_ids": blocks.ids,
            "sampling": settings_of(body),
            "status": passed.status,
            "outcome": "cut" if error == "cut" else "failed" if error else "completed",
            "error": "" if error == "cut" else error,
            "finish": answer.finish,
            "ttft_ms": _ms(answer.first_ns - passed.asked_ns) if answer.first_ns >= 0 else None,
            "e2e_ms": _ms(passed.end_ns - passed.asked_ns),
            **(_texts(passed.headers, body, answer.text) if settings.keep_text else {}),
        }

    def _session(
        self, headers: Mapping[str, str], body: Mapping[str, Any], prompt: Prompt, answer: str
    ) -> tuple[int, int]:
        named = next((headers[name] for name in _SESSION_HEADERS if headers.get(name)), "")
        named = named or str(body.get("session_id") or "")
        names = {"named": named, "user": str(body.get("user") or "")}
        if prompt.is_chat:
            said = as_said("assistant", answer)
            return self._conversations.of_messages(prompt.messages, said, **names)
        return self._conversations.of_prompt(prompt.messages[0], answer, **names)

    def _tokens(self, prompt: Prompt, answer: _Answer) -> dict[str, Any]:
        """Return the counts, by the server's usage or the best that there is, and their sources."""
        asked, source = answer.input_tokens, "usage"
        if asked < 0 and self._count is not None:
            asked, source = self._count("\n".join(prompt.parts), special=True), "tokenizer"
        elif asked < 0:
            asked, source = _by_characters(sum(map(len, prompt.parts))), "characters"
        made, made_source = answer.output_tokens, answer.source
        if made_source != "usage" and answer.text and self._count is not None:
            made, made_source = self._count(answer.text, special=False), "tokenizer"
        return {
            "input_tokens": asked,
            "input_source": source,
            "output_tokens": made,
            "output_source": made_source,
        }


def _read(passed: Passed, *, is_chat: bool) -> _Answer:
    """Read what came back: a stream of events, a document, or an error."""
    pieces = passed.pieces
    if passed.status != 200:
        return _Answer(error=http_fault(passed.status) if passed.status else "")
    broken = ""
    for coding in reversed(codings(passed.answer_headers)):
        pieces, broken = decode(pieces, coding)
    if broken and not pieces:  # a coding that we do not know: it passed all the same
        return _Answer(source="unreadable")
    kind = passed.answer_headers.get("content-type", "")
    begins = pieces[0][1].lstrip() if pieces else b""
    if kind.startswith("text/event-stream") or begins.startswith((b"data:", b"event:", b":")):
        endpoint = endpoints.load("openai-chat" if is_chat else "openai-completions")
        return _of_stream(endpoint.read(pieces))
    return _of_document(_object(b"".join(data for _, data in pieces)))


def _of_stream(reply: Reply) -> _Answer:
    tokens, source = count_tokens(reply)
    return _Answer(
        text="".join(reply.texts),
        input_tokens=reply.input_tokens,
        output_tokens=sum(tokens),
        source=source,
        finish=reply.finish,
        first_ns=reply.stamps_ns[0] if reply.stamps_ns else -1,
        error=reply.error,
    )


def _of_document(document: Mapping[str, Any]) -> _Answer:
    choices = document.get("choices")
    said: list[str] = []
    finish = ""
    for choice in choices if isinstance(choices, list) else ():
        if isinstance(choice, dict):
            text = choice.get("text")
            said.append(text if isinstance(text, str) else answer_text(choice.get("message")))
            finish = finish or str(choice.get("finish_reason") or "")
    text = "".join(said)
    usage = document.get("usage")
    usage = usage if isinstance(usage, dict) else {}
    made = _count_in(usage, "completion_tokens")
    return _Answer(
        text=text,
        input_tokens=_count_in(usage, "prompt_tokens"),
        output_tokens=made if made >= 0 else _by_characters(len(text)),
        source="usage" if made >= 0 else "characters",
        finish=finish,
        error="stream-error" if not said and document.get("error") else "",
    )


def _texts(headers: Mapping[str, str], body: Mapping[str, Any], answer: str) -> dict[str, Any]:
    """Return the texts of a request; a key that the client sent is blanked out in them, too."""
    kept = msgspec.json.encode({"body": body, "answer": answer}).decode()
    for name in _SECRET_HEADERS:
        secret = headers.get(name, "")
        if secret.lower().startswith(_BEARER):
            secret = secret[len(_BEARER) :]
        if len(secret) >= _SECRET_CHARACTERS_MIN:
            kept = kept.replace(secret, "[API key]")
    found: dict[str, Any] = msgspec.json.decode(kept)
    return found


def _object(data: bytes) -> dict[str, Any]:
    """Return a body's JSON object; an empty one if it is none."""
    try:
        found = msgspec.json.decode(data)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _count_in(usage: Mapping[str, Any], name: str) -> int:
    value = usage.get(name)
    whole = isinstance(value, int | float) and not isinstance(value, bool) and value >= 0
    return int(value) if whole else -1  # type: ignore[arg-type]  # whole says what it is


def _by_characters(characters: int) -> int:
    return max(1, round(characters / _CHARACTERS_PER_TOKEN)) if characters else 0


def _ms(nanoseconds: int) -> float:
    return round(nanoseconds / 1e6, 3)
