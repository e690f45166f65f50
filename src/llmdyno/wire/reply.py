"""A reply: the tokens of one response, independent of the protocol.

An endpoint reads the events of a body into a Reply; this module turns it into the token counts and
gaps of a record. The tokens of a chunk come from the first of these that is there: the running
usage, if the server sends one with every chunk; the final usage, spread over the chunks in
proportion to their text; else one token per chunk, until bench/recount.py counts the text.

Usage and stream may disagree. What was streamed is what has a time, so these rules hold:

- The server says how many reasoning tokens it made, and no reasoning text came: those tokens were
  not streamed.
- A text holds at most so many tokens: one for two ASCII letters or blanks, one for any other ASCII
  character, one a byte of UTF-8 for the rest; and four special tokens that have no text. If the
  usage is above that, and above the number of chunks, it counts tokens that were not streamed: each
  chunk counts as one token. Running usage is judged chunk by chunk.
- Less may be hidden, too: visible.py tells by the texts whether each chunk is one token.
- The usage is below the number of chunks, and what it leaves out is known, because there was
  reasoning text, there were several choices, or text came after it: each chunk counts as one token.
- The usage is below the number of chunks for no reason that is known: a server may send a token in
  several parts. The usage holds.
"""

from collections.abc import Sequence
from itertools import accumulate, pairwise
from operator import sub

import msgspec

from llmdyno.wire.visible import holds_single_tokens

# What was odd about a stream. Records carry these; results/doubts.py has a sentence for each.
CUMULATIVE_TEXT = "cumulative-text"
UNUSABLE_USAGE = "unusable-usage"
USAGE_BELOW_STREAM = "usage-below-stream"

SPECIAL_TOKENS_MAX = 4  # the end of the sequence, and marks around reasoning or a tool's call
# Of a stream in which each event repeats the text before it.
_CUMULATIVE_CHUNKS_MIN = 4
_ECHO_CHARACTERS_MIN = 16  # an answer may begin with a shorter prompt by chance
_LETTERS = bytes(range(ord("a"), ord("z") + 1)) + bytes(range(ord("A"), ord("Z") + 1)) + b" "


class Reply(msgspec.Struct, kw_only=True):
    """The content of one response, as far as it was read."""

    stamps_ns: list[int] = []  # one a token-carrying chunk: of the read that brought it
    texts: list[str] = []  # one a token-carrying chunk
    usage_after: list[
        int
    ] = []  # one a token-carrying chunk: the usage so far, if the server sends it
    input_tokens: int = -1
    output_tokens: int = -1  # the last usage seen
    reasoning_tokens: int = 0  # by the usage
    reasoned: bool = False  # reasoning text came
    choices: set[int] = set()  # the indices of the choices that brought text
    finished: set[int] = set()  # of those with a finish reason
    chunks_at_usage: int = -1  # token-carrying chunks up to the last usage; -1: not known
    usage_is_odd: bool = False  # what the server sent for its usage is no count of tokens
    model: str = ""  # that answered, as the server names it first
    finish: str = ""
    ended: bool = False  # a finish reason or the protocol's end mark was seen
    error: str = ""  # the error class, if the body carries an error
    detail: str = ""

    @property
    def has_choices(self) -> bool:
        """Whether several choices brought text; some servers number their chunks instead."""
        return 1 < len(self.choices) < len(self.stamps_ns)


def note_model(reply: Reply, name: object) -> None:
    """Note which model answers, as an event names it; the first name holds."""
    if not reply.model and isinstance(name, str):
        reply.model = name


def count_tokens(reply: Reply) -> tuple[list[int], str]:
    """Return the tokens in each token-carrying chunk, and the source of the counts.

    The source is the label that records carry, such as "usage" or "chunks". What the usage has
    beyond these tokens was not streamed: see unstreamed().
    """
    chunks = len(reply.stamps_ns)
    total = reply.output_tokens
    if total <= 0:
        return [1] * chunks, "chunks"
    if total == chunks or not chunks:
        return [1] * chunks, "usage"
    running = reply.usage_after
    if len(running) == chunks and running[-1] == total and running == sorted(running):
        counts = [now - before for before, now in zip([0, *running], running, strict=False)]
        return _streamed_in_each(counts, reply.texts), "usage"
    if total < chunks:
        reasoned = reply.reasoned or "</think>" in "".join(reply.texts)
        if reasoned or reply.has_choices or 0 <= reply.chunks_at_usage < chunks:
            return [1] * chunks, "chunks"
    else:
        if not reply.reasoned:
            total = max(chunks, total - reply.reasoning_tokens)
            if total == chunks:
                return [1] * chunks, "usage"
        if total > chunks + SPECIAL_TOKENS_MAX and (
            not _can_hold("".join(reply.texts), total) or holds_single_tokens(reply.texts, total)
        ):
            return [1] * chunks, "chunks"
    return spread(total, [len(text) for text in reply.texts]), "usage"


def unstreamed(reply: Reply, streamed: int) -> int:
    """Return how many tokens the server counts beyond so many that were streamed."""
    return max(0, reply.output_tokens - streamed) if reply.stamps_ns else 0


def oddities(reply: Reply) -> tuple[str, ...]:
    """Return what was odd about the counts of tokens of a stream."""
    if reply.output_tokens >= len(reply.stamps_ns) > 0:  # the usual case
        return ()
    below = 0 < reply.output_tokens < len(reply.stamps_ns)
    no_count = reply.output_tokens == 0 or (reply.output_tokens < 0 and reply.usage_is_odd)
    found = {UNUSABLE_USAGE: no_count and bool(reply.texts), USAGE_BELOW_STREAM: below}
    return tuple(name for name, is_so in found.items() if is_so)


def without_repeats(reply: Reply) -> Reply:
    """Return a reply whose texts are new ones, if each repeats all that came before it.

    The reply itself is returned where the texts are new already, as they should be. A chunk that
    only repeats is dropped, so that the last chunk is the last new text.
    """
    texts = reply.texts
    if len(texts) < _CUMULATIVE_CHUNKS_MIN or not texts[0].strip():
        return reply
    # A character that is not whole yet is written as U+FFFD and replaced by the next event.
    if len(texts[-1]) < len(texts[0].rstrip("\ufffd")) + _CUMULATIVE_CHUNKS_MIN - 1:
        return reply  # too few new characters for that many new texts
    if not all(after.startswith(text.rstrip("\ufffd")) for text, after in pairwise(texts)):
        return reply
    wholes = ["", *(text.rstrip("\ufffd") for text in texts)]
    new = [after[len(before) :] for before, after in pairwise(wholes)]
    kept = [place for place, text in enumerate(new) if text]
    if len(kept) < _CUMULATIVE_CHUNKS_MIN:
        return reply
    running = reply.usage_after
    is_running = len(running) == len(texts)
    return msgspec.structs.replace(
        reply,
        stamps_ns=[reply.stamps_ns[place] for place in kept],
        texts=[new[place] for place in kept],
        usage_after=[running[place] for place in kept] if is_running else [],
        chunks_at_usage=-1,
    )


def without_last_repeat(reply: Reply) -> Reply:
    """Return a reply without its last text, if that is the whole answer once more.

    Some servers end a stream so. The reply itself is returned where the last text is new.
    """
    texts = reply.texts
    if len(texts) <= _CUMULATIVE_CHUNKS_MIN or not texts[-1].startswith(texts[0] + texts[1]):
        return reply
    if texts[-1] != "".join(texts[:-1]) or not texts[-1].strip():
        return reply
    return msgspec.structs.replace(
        reply,
        stamps_ns=reply.stamps_ns[:-1],
        texts=texts[:-1],
        usage_after=reply.usage_after[:-1],
        chunks_at_usage=min(reply.chunks_at_usage, len(texts) - 1),
    )


def with_whole_usage(reply: Reply) -> Reply:
    """Return a reply whose running usage counts all tokens so far, if it counts each chunk alone.

    It does so where it never grows, or falls, and is below the number of chunks; then the reply's
    usage is the sum. The reply itself is returned where its usage needs no summing.
    """
    running = reply.usage_after
    chunks = len(reply.stamps_ns)
    if len(running) != chunks or not 0 < reply.output_tokens < chunks:
        return reply
    if chunks < _CUMULATIVE_CHUNKS_MIN or min(running) < 1 or running[-1] != reply.output_tokens:
        return reply
    if running == sorted(running) and running[0] != running[-1]:
        return reply
    whole = list(accumulate(running))
    if reply.has_choices or not _can_hold("".join(reply.texts), whole[-1]):
        return reply  # each choice has a count of its own, or it is no count of what was streamed
    return msgspec.structs.replace(reply, usage_after=whole, output_tokens=whole[-1])


def without_prompt(reply: Reply, prompt: str) -> Reply:
    """Return a reply whose first text does not begin with the prompt.

    The reply itself is returned where it does not. A chunk that holds nothing else is dropped: it
    holds no token of the answer.
    """
    first = reply.texts[0] if reply.texts else ""
    if len(prompt) < _ECHO_CHARACTERS_MIN or not first.startswith(prompt):
        return reply
    if rest := first[len(prompt) :]:
        return msgspec.structs.replace(reply, texts=[rest, *reply.texts[1:]])
    return msgspec.structs.replace(
        reply,
        stamps_ns=reply.stamps_ns[1:],
        texts=reply.texts[1:],
        usage_after=reply.usage_after[1:],
        chunks_at_usage=reply.chunks_at_usage - (reply.chunks_at_usage > 0),
    )


def _streamed_in_each(counts: list[int], texts: Sequence[str]) -> list[int]:
    """Return the tokens of each chunk, less those that its text cannot hold.

    What a chunk has beyond them was made before it and not streamed.
    """
    for place, (count, text) in enumerate(zip(counts, texts, strict=True)):
        if count > 1 and not _can_hold(text, count):
            counts[place] = 1
    return counts


def _can_hold(text: str, tokens: int) -> bool:
    """Whether a text can hold so many tokens: see the top of this file."""
    if tokens <= len(text) // 2 + SPECIAL_TOKENS_MAX:  # all the same what it consists of
        return True
    data = text.encode(errors="replace")
    dense = len(data.translate(None, _LETTERS))
    return tokens <= dense + (len(data) - dense + 1) // 2 + SPECIAL_TOKENS_MAX


def spread(total: int, sizes: Sequence[int]) -> list[int]:
    """Divide `total` whole tokens in proportion to sizes, by the method of largest remainders.

    The first chunk gets at least one token, because it carries text. If there are fewer tokens than
    chunks, the last one gets one as well: the answer ends with it.
    """
    if 1 < total < len(sizes):
        return _spread_thin(total, sizes)
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


def _spread_thin(total: int, sizes: Sequence[int]) -> list[int]:
    """Divide fewer tokens than chunks: each but the first ends where its share of the text does."""
    ends = list(accumulate(sizes[1:]))
    rest = max(1, ends[-1])
    done = [0, *((total - 1) * end // rest for end in ends)]
    done[-1] = total - 1
    return [1, *(now - before for before, now in pairwise(done))]


def by_read(
    stamps_ns: Sequence[int], tokens: Sequence[int], sent_ns: int
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Join the chunks of the same read; return (gaps_ns, tokens), the form that a record has.

    Args:
        stamps_ns: of each chunk, ascending; chunks of one read have the same stamp.
        tokens: in each chunk.
        sent_ns: when the request was sent; the first gap runs from there.

    Returns:
        The gap before each read and the tokens in it; no tokens where each read brought one. A read
        without a whole token is joined to the next. The last one is kept: the answer ends with it.
    """
    if tokens.count(1) == len(stamps_ns):
        each = tuple(map(sub, stamps_ns, [sent_ns, *stamps_ns]))
        if 0 not in each:  # the usual case: one token a read
            return each, ()
    gaps: list[int] = []
    counts: list[int] = []
    last_ns = sent_ns
    for stamp_ns, count in zip(stamps_ns, tokens, strict=True):
        if gaps and stamp_ns == last_ns:
            counts[-1] += count
        elif count or not gaps or stamp_ns == stamps_ns[-1]:
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
