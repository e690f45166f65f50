"""What a server said to fixed prompts: tokens with log-probabilities where it gives them.

`read_whole` reads the JSON of an answer in one piece from either of OpenAI's endpoints: vLLM,
SGLang and our embedded server write the same. Whatever is odd in it reads as not given.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from llmdyno.results.documents import finite


class Said(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One answer. Tokens and their log-probabilities are empty where the server gives none."""

    text: str
    finish: str = ""
    tokens: tuple[str, ...] = ()
    logprobs: tuple[float, ...] = ()  # as long as tokens, or empty
    top: tuple[dict[str, float], ...] = ()  # the likeliest tokens at each place, or empty


class Answers(msgspec.Struct, frozen=True, kw_only=True):
    """All that one server said: each prompt alone, again, and beside others."""

    endpoint: str
    model: str
    tokens_max: int
    prompts: list[str]
    alone: list[Said]
    again: list[Said]  # empty: it was not asked again
    loaded: list[Said]  # with several requests at once
    concurrency: int  # so many


def read_whole(body: bytes) -> Said | None:
    """Return the first choice of an answer in one piece; None: it is no such answer."""
    try:
        document = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
    choices = document.get("choices") if isinstance(document, dict) else None
    choice = choices[0] if isinstance(choices, list) and choices else None
    if not isinstance(choice, dict):
        return None
    message = choice.get("message")
    words = message if isinstance(message, dict) else choice
    parts = [words.get(key) for key in ("reasoning_content", "content", "text")]
    text = "".join(part for part in parts if isinstance(part, str))
    logprobs = choice.get("logprobs")
    tokens, chosen, top = _read(logprobs if isinstance(logprobs, dict) else {})
    finish = choice.get("finish_reason")
    return Said(
        text=text,
        finish=finish if isinstance(finish, str) else "",
        tokens=tuple(tokens),
        logprobs=tuple(chosen) if len(chosen) == len(tokens) else (),
        top=tuple(top) if len(top) == len(tokens) else (),
    )


def _read(
    logprobs: Mapping[str, Any],
) -> tuple[list[str], list[float], list[dict[str, float]]]:
    """Return tokens, log-probabilities and likeliest tokens in either endpoint's form."""
    content = logprobs.get("content")
    if isinstance(content, list):
        places = [place for place in content if isinstance(place, dict)]
        tokens = [_token(place) for place in places]
        tops = [
            {
                _token(one): value
                for one in place.get("top_logprobs") or []
                if isinstance(one, dict) and (value := _logprob(one.get("logprob"))) is not None
            }
            for place in places
        ]
        return tokens, _all([place.get("logprob") for place in places]), _filled(tops)
    listed = logprobs.get("tokens")
    tokens = [str(token) for token in listed] if isinstance(listed, list) else []
    chosen, top = logprobs.get("token_logprobs"), logprobs.get("top_logprobs")
    tops = [
        {
            str(token): value
            for token, one in (place.items() if isinstance(place, dict) else ())
            if (value := _logprob(one)) is not None
        }
        for place in (top if isinstance(top, list) else [])
    ]
    return tokens, _all(chosen if isinstance(chosen, list) else []), _filled(tops)


def _token(place: Mapping[str, Any]) -> str:
    """Return what tells a token from others: its bytes where its text may be half a character."""
    token = str(place.get("token", ""))
    raw = place.get("bytes")
    return f"{token} {raw}" if "\ufffd" in token and isinstance(raw, list) else token


def _logprob(value: object) -> float | None:
    """Return a log-probability; -inf, which some servers write as a large number, is -9999."""
    if isinstance(value, float) and value == -math.inf:
        return -9999.0
    return finite(value)


def _all(values: Sequence[object]) -> list[float]:
    """Return the log-probabilities if each place has one, else none."""
    found = [_logprob(value) for value in values]
    return [] if None in found else [value for value in found if value is not None]


def _filled(tops: list[dict[str, float]]) -> list[dict[str, float]]:
    """Return the likeliest tokens if there are two or more somewhere; one alone is the chosen."""
    return tops if any(len(top) > 1 for top in tops) else []
