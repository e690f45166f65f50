"""Turns a request and its response into a record: the verdict, the times, the tokens.

sender.py calls `record_of` when a request has ended. The record depends on the response alone, so
the same bytes always give the same record.
"""

import msgspec

from llmdyno.endpoints import Endpoint
from llmdyno.faults import REDIRECTS, http_fault, meaning
from llmdyno.load.plan import Plan
from llmdyno.records.entries import Record
from llmdyno.records.prefixes import JOURNAL_CHARACTERS, NO_BLOCKS, blocks_of
from llmdyno.wire.exchange import Response
from llmdyno.wire.reply import Reply, by_read, count_tokens, text_by_read
from llmdyno.workload.sessions import Item

_DETAIL_CHARACTERS_MAX = 300
_LAST_WORDS_BYTES = 150
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
    answered = response.status == 200
    reply = plan.endpoint.read(response.pieces) if answered else Reply()
    error, detail = _verdict(response, reply, plan.endpoint)
    assert error in {"", "cut"} or meaning(error), f"{error} is not in faults.FAULTS"
    tokens, source = count_tokens(reply)
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
        output_tokens=sum(tokens),
        source=source,
        reads=response.reads,
        texts=tuple(plan.target.redact_parts(text_by_read(reply))) if recountable else (),
        input_text=_asked(item) if recountable else "",
        session=item.session,
        turn=item.turn,
        blocks=blocks.ids,
        characters=blocks.characters,
    )
    goes_on = item.session >= 0 and not error
    return record, "".join(reply.texts) if goes_on else ""


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


def _is_stream(response: Response, reply: Reply, endpoint: Endpoint) -> bool:
    if endpoint.ends_with_body:  # any body would pass for such a stream; the media type decides
        media_type = response.headers.get("content-type", "")
        return not media_type.startswith(("application/json", "text/html"))
    return reply.ended or bool(reply.stamps_ns)
