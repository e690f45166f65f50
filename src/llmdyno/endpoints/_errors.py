"""Errors that servers report within a response: how one is told, and what its words are.

Servers agree on no shape: `{"error": {"message": …}}` (OpenAI), `{"error": "…"}` (Triton, TGI),
`{"object": "error", "message": …}` (vLLM, LMDeploy), `{"detail": …}` as text or as a list of parts
(FastAPI), `{"message": …}` alone (proxies), any of them in a list.
"""

import re
from typing import Any

import msgspec

DETAIL_CHARACTERS_MAX = 300

# Where the words stand, the most telling first.
_WORDS = (
    *("error", "errors", "message", "detail", "msg"),
    *("error_message", "error_msg", "err_msg", "fault", "faultstring", "exception"),
)
# One of these marks an error if it has one of the values.
_KINDS = ("object", "type", "status", "event")
_FAILED = frozenset({"error", "failed", "failure"})
# Text that is no JSON object: these words make it an error, ...
_ERROR_WORD = re.compile(r"\b(?:\w*error|\w*exception|traceback|failed|failure)\b", re.IGNORECASE)
# ... and these only keep the connection alive.
_SIGN_OF_LIFE = re.compile(
    r"[\s:.-]*"
    r"|[\s:\[\]<>().-]*(?:(?:ping|pong|heartbeat|keep[-_ ]?alive|processing|ok)[\s:\[\]<>().-]*)+",
    re.IGNORECASE,
)


def error_of(body: bytes) -> str:
    """Return the words of an error in one of its usual shapes, or the beginning of the body."""
    try:
        # Triton sends an error before the first token as an event, though its status is not 200.
        document = msgspec.json.decode(body.strip().removeprefix(b"data: "))
        said = words_of(document) or str(document)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        said = body[:DETAIL_CHARACTERS_MAX].decode(errors="replace").strip()
    return said[:DETAIL_CHARACTERS_MAX]


def reported(document: Any) -> str:
    """Return the words of an error, or an empty text where a document of JSON reports none.

    Args:
        document: an event's data that is no part of an answer.
    """
    if isinstance(document, str):
        return document[:DETAIL_CHARACTERS_MAX] if _ERROR_WORD.search(document) else ""
    if isinstance(document, list):
        return next(filter(None, map(reported, document)), "")
    if not isinstance(document, dict):
        return ""
    kinds = [kind for name in _KINDS if isinstance(kind := document.get(name), str) and kind]
    if not document.get("error") and any(map(is_sign_of_life, kinds)):
        return ""
    marked = bool(document.get("error")) or any(kind.lower() in _FAILED for kind in kinds)
    said = words_of(document) or (str(document) if marked and _says(document) else "")
    return said[:DETAIL_CHARACTERS_MAX]


def words_of(document: Any) -> str:
    """Return the words in a document of JSON, from where errors have them; empty: there are none.

    A number, true or false is no word.
    """
    if isinstance(document, str):
        return document.strip()
    if isinstance(document, list):
        return "; ".join(filter(None, map(words_of, document)))
    if not isinstance(document, dict):
        return ""
    return next(filter(None, (words_of(document.get(name)) for name in _WORDS)), "")


def is_sign_of_life(text: str) -> bool:
    """Tell whether a text that is no JSON object only keeps the connection alive."""
    return text.startswith(":") or _SIGN_OF_LIFE.fullmatch(text) is not None


def is_error_text(text: str) -> bool:
    """Tell whether an event's text, which was never meant as JSON, reports an error."""
    return not text.startswith(("{", "[", '"')) and _ERROR_WORD.search(text) is not None


def _says(document: dict[str, Any]) -> bool:
    """Whether an error is more than a form with nothing filled in."""
    error = document.get("error")
    return not isinstance(error, dict) or any(error.values())
