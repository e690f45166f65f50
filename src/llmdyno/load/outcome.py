"""Turns a request and its response into a record: the verdict, the times, the tokens.

sender.py calls `record_of` when a request has ended. The record depends on the response alone, so
the same bytes always give the same record.
"""

import msgspec

from llmdyno.endpoints import Endpoint, names_finish, reported
from llmdyno.faults import REDIRECTS, http_fault, meaning
from llmdyno.load.plan import Plan
from llmdyno.records.entries import Record
from llmdyno.records.prefixes import JOURNAL_CHARACTERS, NO_BLOCKS, blocks_of
from llmdyno.wire.exchange import Response
from llmdyno.wire.reply import (
    CUMULATIVE_TEXT,
    Reply,
    by_read,
    count_tokens,
    oddities,
    text_by_read,
    unstreamed,
    with_whole_usage,
    without_last_repeat,
    without_prompt,
    without_repeats,
)
from llmdyno.workload.sessions import Item

_DETAIL_CHARACTERS_MAX = 300
_LAST_WORDS_BYTES = 150
_NAME_MAX = 200  # characters of a model's name
_EVENT_STARTS = (b"data:", b"event:", b"id:", b"retry:", b":")
# A stream with its end mark is complete even if the connection then ends like this.
_AFTER_THE_END = frozenset({"reset", "truncated"})


class Request(msgspec.Struct, frozen=True, kw_only=True):
    """One request of a level."""

    number: int  # in order of sending within the level, from 0
    user: int  # in an open loop: the slot
    item: Item
    due_ns: int  # by the level's clock


def record_of(response: Response, sent: Request, plan: Plan, zero_ns: int) -> tuple[Record, str]:
    """Return the record of a request, and the answer with which its session continues.

    The answer is empty if the request failed or belongs to no session.

    Args:
        response: complete or not.
        sent: the request that it answers.
        plan: of the level.
        zero_ns: the zero of the record's times.
    """
    item = sent.item
    asked = plan.model_of(sent.number, item.session)
    answered = response.status == 200
    as_read = plan.endpoint.read(response.pieces) if answered else Reply()
    reply, repeats = _answer(as_read, item)
    tokens, source = count_tokens(reply)
    output_tokens = sum(tokens)
    error, detail = _verdict(response, reply, plan.endpoint)
    if not error and (why := _shortfall(reply, output_tokens, item, plan.endpoint)):
        error, detail = "truncated", why
    assert error in {"", "cut"} or meaning(error), f"{error} is not in faults.FAULTS"
    gaps_ns, counts = by_read(reply.stamps_ns, tokens, response.sent_ns)
    blocks = blocks_of(_asked_parts(item), JOURNAL_CHARACTERS) if plan.hashed else NO_BLOCKS
    recountable = source == "chunks" and bool(tokens) and error in {"", "cut"}
    record = Record(
        level=plan.level,
        request=sent.number,
        user=sent.user,
        prompt=item.number,
        due_ns=sent.due_ns - zero_ns,
        sent_ns=response.sent_ns - zero_ns,
        end_ns=response.end_ns - response.sent_ns,
        outcome="cut" if error == "cut" else "failed" if error else "completed",
        error="" if error == "cut" else error,
        detail=plan.target.redact(detail)[:_DETAIL_CHARACTERS_MAX],
        status=response.status,
        finish=reply.finish,
        first_byte_ns=response.first_byte_ns - response.sent_ns
        if response.first_byte_ns >= 0
        else -1,
        gaps_ns=gaps_ns,
        tokens=counts,
        input_tokens=reply.input_tokens,
        output_tokens=output_tokens,
        unstreamed=unstreamed(reply, output_tokens),
        asked_tokens=-1 if item.max_tokens is None or not item.exact_length else item.max_tokens,
        oddities=(CUMULATIVE_TEXT,) * repeats + oddities(reply),
        source=source,
        reads=response.reads,
        texts=tuple(plan.target.redact_parts(text_by_read(reply))) if recountable else (),
        input_text=_asked(item) if recountable else "",
        session=item.session,
        turn=item.turn,
        model=asked if "," in plan.model else "",
        answered_by=_named(reply, asked, plan),
        blocks=blocks.ids,
        characters=blocks.characters,
    )
    goes_on = item.session >= 0 and not error
    return record, "".join(reply.texts) if goes_on else ""


def _named(reply: Reply, asked: str, plan: Plan) -> str:
    """Return the model that the server names; the one that was asked is no secret."""
    return asked if reply.model == asked else plan.target.redact(reply.model)[:_NAME_MAX]


def _answer(as_read: Reply, item: Item) -> tuple[Reply, bool]:
    """Return the reply with new text alone, and whether each event repeated those before it."""
    once = without_last_repeat(as_read)
    reply = without_repeats(once)
    repeats = reply is not once
    reply = with_whole_usage(reply)
    if reply.texts and len(reply.texts[0]) >= len(item.prompt):
        reply = without_prompt(reply, _asked(item))
    return reply, repeats


def _asked(item: Item) -> str:
    """Return all text of a request that the server counts as input."""
    return "\n\n".join(text for text in _asked_parts(item) if text)


def _asked_parts(item: Item) -> tuple[str, ...]:
    return (item.system_prompt, *(text for turn in item.history for text in turn), item.prompt)


def _verdict(response: Response, reply: Reply, endpoint: Endpoint) -> tuple[str, str]:
    """Return the error class and its detail; both are empty for a complete response."""
    if response.error == "cut":
        return "cut", ""
    if response.status in REDIRECTS:
        return "redirect", response.headers.get("location", "the server does not say where to")
    if response.status and response.status != 200:
        return http_fault(response.status), endpoint.error_of(response.body())
    if reply.error == "stream-error":
        return reply.error, reply.detail
    if response.error in _AFTER_THE_END and reply.ended and reply.stamps_ns and not reply.error:
        return "", response.detail
    if response.error:  # first, because it may be the reason that the reply cannot be read
        return response.error, response.detail
    if reply.error:
        return reply.error, reply.detail
    if not _is_stream(response, reply, endpoint) and response.body():
        return "not-a-stream", endpoint.error_of(response.body())
    if not reply.ended and not endpoint.ends_with_body:
        last = response.body()[-_LAST_WORDS_BYTES:].decode(errors="replace").strip()
        return "truncated", f"no finish reason and no end mark; the last words are: {last}"
    if not reply.stamps_ns:
        return "no-tokens", "the stream ended without a single token"
    return "", ""


def _shortfall(reply: Reply, output_tokens: int, item: Item, endpoint: Endpoint) -> str:
    """Say what is missing if an answer of a fixed length is shorter and names no reason.

    An end mark alone proves nothing: a proxy sends it after a server that broke off.
    """
    asked = item.max_tokens or 0
    answered = max(output_tokens, reply.output_tokens)
    is_told = reply.finish or not names_finish(endpoint)
    if is_told or not item.exact_length or answered >= asked:
        return ""
    return f"the answer ended after {answered} of {asked} tokens, without a finish reason"


def _is_stream(response: Response, reply: Reply, endpoint: Endpoint) -> bool:
    if endpoint.ends_with_body:  # any body would pass for such a stream; the media type decides
        media_type = response.headers.get("content-type", "")
        document = media_type.startswith(("application/json", "text/html"))
        return not document and not _is_error_body(response)
    return reply.ended or bool(reply.stamps_ns) or _begins_as_events(response)


def _begins_as_events(response: Response) -> bool:
    """Whether a body begins as server-sent events do, be it with a comment."""
    first = next((body.lstrip() for _, body in response.pieces if body.strip()), b"")
    return first.startswith(_EVENT_STARTS)


def _is_error_body(response: Response) -> bool:
    """Whether the body came at once and is an error's JSON, whatever the header calls it."""
    body = response.body().strip()
    if len(response.pieces) != 1 or not body.startswith(b"{"):
        return False
    try:
        return bool(reported(msgspec.json.decode(body)))
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return False  # text that happens to look like it
