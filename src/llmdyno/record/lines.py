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

from llmdyno.record.answers import Answer, as_object, by_characters, read_answer
from llmdyno.record.conversations import Conversations
from llmdyno.record.entries import Passed, Settings
from llmdyno.record.prompts import Prompt, adapter_of, prompt_of, settings_of, user_of
from llmdyno.record.protocols import RESPONSES, endpoint_of
from llmdyno.record.stored import Stored
from llmdyno.records.prefixes import blocks_of

SCHEMA = "llmdyno.trace/1"
_SESSION_HEADERS = ("x-session-id", "x-conversation-id")
_BEARER = "bearer "
_SECRET_CHARACTERS_MIN = 8
_SECRET_HEADERS = ("authorization", "x-api-key", "api-key")


class Counter(Protocol):
    """Counts the tokens of a text."""

    def __call__(self, text: str, *, special: bool) -> int:
        """Return how many tokens a text has; special: with those that are put around it."""


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
        self._stored = Stored()

    def line(self, passed: Passed) -> dict[str, Any]:
        """Return the line of a request."""
        settings = self._settings
        body = as_object(passed.body)
        endpoint = endpoint_of(passed.path)
        earlier = self._stored.before(body)
        prompt = prompt_of(body, endpoint, earlier.messages)
        answer = read_answer(passed, endpoint)
        error = passed.error or answer.error
        blocks = blocks_of(prompt.parts, settings.block_characters, settings.key)
        session, turn = self._session(passed.headers, body, prompt, answer, earlier.session)
        if endpoint == RESPONSES:
            self._stored.keep(body, earlier, session, answer)
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
        self,
        headers: Mapping[str, str],
        body: Mapping[str, Any],
        prompt: Prompt,
        answer: Answer,
        known: int | None,
    ) -> tuple[int, int]:
        named = next((headers[name] for name in _SESSION_HEADERS if headers.get(name)), "")
        named = named or str(body.get("session_id") or "")
        names = {"named": named, "user": user_of(body)}
        if prompt.is_chat:
            return self._conversations.of_messages(prompt.turns, answer.turns, known=known, **names)
        return self._conversations.of_prompt(prompt.messages[0], answer.text, **names)

    def _tokens(self, prompt: Prompt, answer: Answer) -> dict[str, Any]:
        """Return the counts, by the server's usage or the best that there is, and their sources."""
        asked, source = answer.input_tokens, "usage"
        if asked < 0 and self._count is not None:
            asked, source = self._count("\n".join(prompt.parts), special=True), "tokenizer"
        elif asked < 0:
            asked, source = by_characters(sum(map(len, prompt.parts))), "characters"
        made, made_source = answer.output_tokens, answer.source
        if made_source != "usage" and answer.text and self._count is not None:
            made, made_source = self._count(answer.text, special=False), "tokenizer"
        return {
            "input_tokens": asked,
            "input_source": source,
            "output_tokens": made,
            "output_source": made_source,
        }


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


def _ms(nanoseconds: int) -> float:
    return round(nanoseconds / 1e6, 3)
