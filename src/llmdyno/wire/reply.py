"""A reply: the tokens of one response, independent of the protocol.

An endpoint reads the events of a body into a Reply; this module turns it into the token counts and
gaps of a record. The tokens of a chunk come from the first of these that is there: the running
usage, if the server sends one with every chunk; the final usage, spread over the chunks in
proportion to their text; else one token per chunk, until bench/recount.py counts the text.
"""

from collections.abc import Sequence
from operator import sub

import msgspec


class Reply(msgspec.Struct, kw_only=True):
    """The content of one response, as far as it was read."""

    stamps_ns: list[int] = []  # one a token-carrying chunk: of the read that brought it
    texts: list[str] = []  # one a token-carrying chunk
    usage_after: list[
        int
    ] = []  # one a token-carrying chunk: the usage so far, if the server sends it
    input_tokens: int = -1
    output_tokens: int = -1  # the last usage seen
    finish: str = ""
    ended: bool = False  # a finish reason or the protocol's end mark was seen
    error: str = ""  # the error class, if the body carries an error
    detail: str = ""


def count_tokens(reply: Reply) -> tuple[list[int], str]:
    """Return the tokens in each token-carrying chunk, and the source of the counts.

    The source is the label that records carry, such as "usage" or "chunks".
    """
    chunks = len(reply.stamps_ns)
    total = reply.output_tokens
    if total <= 0:
        return [1] * chunks, "chunks"
    if total == chunks or not chunks:
        return [1] * chunks, "usage"
    running = reply.usage_after
    if len(running) == chunks and running[-1] == total and running == sorted(running):
        return [now - before for before, now in zip([0, *running], running, strict=False)], "usage"
    return spread(total, [len(text) for text in reply.texts]), "usage"


def spread(total: int, sizes: Sequence[int]) -> list[int]:
    """Divide `total` whole tokens in proportion to sizes, by the method of largest remainders.

    The first chunk gets at least one token, because it carries text.
    """
    whole = sum(sizes)
    shares = [total * size / whole for size in sizes]
    counts = [int(share) for share in shares]
    by_remainder = sorted(range(len(sizes)), key=lambda i: counts[i] - shares[i])
    for i in by_remainder[: total - sum(counts)]:
        counts[i] += 1
    if counts[0] == 0:
        richest = counts.index(max(counts))
        if counts[richest] > 0:
            counts[richest] -= 1
            counts[0] = 1
    return counts


def by_read(
    stamps_ns: Sequence[int], tokens: Sequence[int], sent_ns: int
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Join the chunks of the same read; return (gaps_ns, tokens), the form that a record has.

    Args:
        stamps_ns: of each chunk, ascending; chunks of one read have the same stamp.
        tokens: in each chunk.
        sent_ns: when the request was sent; the first gap runs from there.

    Returns:
        The gap before each read and the tokens in it; no tokens where each read brought one.
    """
    if len(set(stamps_ns)) == len(stamps_ns) == tokens.count(1):  # the usual case: one token a read
        return tuple(map(sub, stamps_ns, [sent_ns, *stamps_ns])), ()
    gaps: list[int] = []
    counts: list[int] = []
    last_ns = sent_ns
    for stamp_ns, count in zip(stamps_ns, tokens, strict=True):
        if gaps and stamp_ns == last_ns:
            counts[-1] += count
        elif count or not gaps:  # a read without a whole token is joined to the next
            gaps.append(stamp_ns - last_ns)
            counts.append(count)
            last_ns = stamp_ns
    return tuple(gaps), () if all(count == 1 for count in counts) else tuple(counts)


def text_by_read(reply: Reply) -> tuple[str, ...]:
    """Return the text of each read, joined as by_read() joins chunks of one token each."""
    texts: list[str] = []
    last_ns = -1
    for stamp_ns, text in zip(reply.stamps_ns, reply.texts, strict=True):
        if stamp_ns == last_ns:
            texts[-1] += text
        else:
            texts.append(text)
        last_ns = stamp_ns
    return tuple(texts)
