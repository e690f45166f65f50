"""Errors that servers report within a response: how one is told, and what its words are.

Servers agree on no shape: `{"error": {"message": …}}` (OpenAI), `{"error": "…"}` (Triton, TGI),
`{"object": "error", "message": …}` (vLLM, LMDeploy), `{"detail": …}` as text or as a list of parts
(FastAPI), `{"message": …}` alone (proxies), any of them in a list. Some tell it by a number alone:
`{"title": …, "status": 502}` (RFC 9457), `{"text": …, "error_code": 50004}` (FastChat),
`{"base_resp": {"status_code": 1039, "status_msg": …}}` (MiniMax). Others end an answer with a
finish reason that is none of the model's.
"""

import re
from typing import Any

import msgspec

from llmdyno.wire.reply import Reply

DETAIL_CHARACTERS_MAX = 300

# Where the words stand, the most telling first.
_WORDS = (
    *("error", "errors", "message", "detail", "msg"),
    *("error_message", "error_msg", "err_msg", "fault", "faultstring", "exception"),
)
# Where words stand of what is an error for another reason.
_MORE_WORDS = ("title", "reason", "status_msg", "description", "text", "code")
# One of these marks an error if it has one of the values.
_KINDS = ("object", "type", "status", "event")
_FAILED = frozenset({"error", "failed", "failure"})
# Numbers that mark an error: a status of HTTP from 400 on; any number but 0 and HTTP's 2xx.
_STATUSES = ("status", "code")
_ERROR_NUMBERS = ("error_code", "errcode", "err_no", "status_code")
_HTTP_ERRORS = range(400, 600)
_HTTP_SUCCESS = range(200, 300)
_WITHIN = ("base_resp", "x_groq")  # an error may stand in such a part: MiniMax, Groq
_ERROR_NAME = re.compile(r"\w+(?:Error|Exception)")  # of a part that is one: Bedrock
# Finish reasons of an answer that the server broke off: "error" (OpenRouter, TGI), "abort" (vLLM,
# SGLang), "cancelled", "insufficient_system_resource" (DeepSeek), "network_error" (Zhipu),
# "MALFORMED_FUNCTION_CALL" (Gemini).
_BROKEN_OFF = re.compile(
    r"error|abort|cancel|fail|exception|timed?[-_ ]?out|insufficient|unavailable|overload"
    r"|malformed",
    re.IGNORECASE,
)
_TITLE = re.compile(rb"<title[^>]*>\s*(.*?)\s*</title", re.IGNORECASE | re.DOTALL)
# Text that is no JSON object: these words make it an error, ...
_ERROR_WORD = re.compile(r"\b(?:\w*error|\w*exception|traceback|failed|failure)\b", re.IGNORECASE)
# ... and these only keep the connection alive.
_SIGN_OF_LIFE = re.compile(
    r"[\s:.-]*"
    r"|[\s:\[\]<>().-]*(?:(?:ping|pong|heartbeat|keep[-_ ]?alive|processing|ok)[\s:\[\]<>().-]*)+",
    re.IGNORECASE,
)


def error_of(body: bytes) -> str:
    """Return the words of an error in one of its usual shapes, or the beginning of the body.

    A web page, as proxies send it, has its words in its title.
    """
    if body.lstrip().startswith(b"<") and (title := _TITLE.search(body)) and title[1].strip():
        return title[1][:DETAIL_CHARACTERS_MAX].decode(errors="replace")
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
    named = [part for name, part in document.items() if part and _ERROR_NAME.fullmatch(name)]
    marked = bool(document.get("error") or named) or any(kind.lower() in _FAILED for kind in kinds)
    said = words_of(document) or words_of(named)
    if not said and ((marked and _says(document)) or _is_numbered(document)):
        words = (words_of(document.get(name)) for name in _MORE_WORDS)
        said = next(filter(None, words), "") or str(document)
    within = (reported(document[name]) for name in _WITHIN if isinstance(document.get(name), dict))
    return (said or next(filter(None, within), ""))[:DETAIL_CHARACTERS_MAX]


def note_finish(reply: Reply, reason: str, words: str = "") -> None:
    """Note why an answer ended; one that the server broke off has failed.

    Args:
        reply: gets `finish`, and `error` and `detail` of an answer that was broken off.
        reason: the server's.
        words: the server's own on it, if it has any.
    """
    reply.finish = reason
    if _BROKEN_OFF.search(reason):
        reply.error = "stream-error"
        reply.detail = words or f"the server ended it with finish_reason '{reason}'"


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


def _is_numbered(document: dict[str, Any]) -> bool:
    """Whether a number, or what stands for one, says of a document that it is an error."""
    if document.get("success") is False or document.get("ok") is False:
        return True
    if any(_number(document.get(name)) in _HTTP_ERRORS for name in _STATUSES):
        return True
    if isinstance(code := document.get("code"), str) and _ERROR_WORD.search(code):
        return True
    numbers = {_number(document.get(name)) for name in _ERROR_NUMBERS}
    return any(number and number not in _HTTP_SUCCESS for number in numbers)


def _number(value: Any) -> int:
    """Return a whole number, or a text of one; 0 for all else."""
    if isinstance(value, str) and value.isdecimal():
        return int(value)
    return value if type(value) is int else 0


def _says(document: dict[str, Any]) -> bool:
    """Whether an error is more than a form with nothing filled in."""
    error = document.get("error")
    return not isinstance(error, dict) or any(error.values())
