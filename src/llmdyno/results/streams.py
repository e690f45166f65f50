"""How answers reached the client: token by token, in large pieces, or whole.

A proxy that buffers, a compressor, or a server that does not stream gives tokens away later than
they are made. Then the first read is not the first token: TTFT is nearly E2E, and the gaps between
reads are those of the buffer. It is judged request by request, because one of several servers or
proxies may do it.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from llmdyno.records.columns import Columns
from llmdyno.records.entries import COMPLETED
from llmdyno.results.metrics import BY_NAME, resting_on
from llmdyno.results.quantiles import median
from llmdyno.results.slo import Slo
from llmdyno.results.stats import STATISTICS, Array, significant

TOKENS_MIN = 8  # so many in a read are a large piece; a shorter answer may well come in one read
# A fast server makes several tokens between two looks of the client (5 ms), so a large piece counts
# only after a longer gap, and a whole answer only after a longer wait.
_GAP_MS_MIN = 10.0
_WAIT_MS_MIN = 20.0
_LATE_TIMES = 4  # these are so many times longer than the client is late, or it may be the client
# A piece that the network has split comes in several reads. Reads nearer than this are one piece:
# no model makes 10,000 tokens a second of one answer.
_NS_A_TOKEN = 100_000
_PIECES_SHARE = 0.5  # of an answer's tokens
_FIRST_SHARE = 0.9  # of the tokens and of the time: with the first piece the answer is there
WHOLE_SHARE = 0.5  # of the answers: then TTFT, ITL and TPOT of the level mean nothing

_spoilt = resting_on("first token", "later tokens")


def stream_part(columns: Columns, late_ms_p50: float, asked_tokens: float | None) -> dict[str, Any]:
    """Return a level's `stream`: how many answers came in large pieces, and how many whole.

    Args:
        columns: of the level.
        late_ms_p50: how late the client looked at what arrived; it must not blame others for that.
        asked_tokens: the mean length that was asked; None: it was not asked for one.
    """
    if not len(columns.read_ns):
        return {"answers": 0, "whole": 0, "pieces": 0, "tokens_per_read": None}
    gap_ns = max(_GAP_MS_MIN, _LATE_TIMES * late_ms_p50) * 1e6
    pieces = _pieces(columns, gap_ns)
    first = np.flatnonzero(pieces.opens)
    tokens = np.add.reduceat(pieces.tokens, first)
    is_large = (pieces.tokens >= TOKENS_MIN) & (pieces.gap_ns >= gap_ns)
    large = np.add.reduceat(np.where(is_large, pieces.tokens, 0), first)
    owners = np.flatnonzero(columns.ttft_ns >= 0)
    last_ns = columns.last_ns[owners]
    # Without counts of the server a chunk is a token, and a whole answer looks like one of one.
    unseen = (tokens == 1) & (asked_tokens is not None and asked_tokens >= TOKENS_MIN)
    answers = (columns.outcome[owners] == COMPLETED) & ((tokens >= TOKENS_MIN) | unseen)
    whole = answers & (pieces.tokens[first] >= _FIRST_SHARE * tokens)
    whole &= columns.ttft_ns[owners] >= _FIRST_SHARE * last_ns
    whole &= last_ns >= max(_WAIT_MS_MIN, _LATE_TIMES * late_ms_p50) * 1e6
    in_pieces = answers & ~whole & (large >= _PIECES_SHARE * tokens)
    each = (tokens / np.diff(first, append=len(pieces.tokens)))[whole | in_pieces]
    return {
        "answers": int(answers.sum()),
        "whole": int(whole.sum()),
        "pieces": int(in_pieces.sum()),
        "tokens_per_read": significant(median(each)) if len(each) else None,
    }


class _Pieces(NamedTuple):
    """What came at once, in the order of the columns: the reads of a piece are joined."""

    opens: Array  # whether it is the first of its answer
    tokens: Array
    gap_ns: Array  # since the piece before, or since sent


def _pieces(columns: Columns, gap_ns: float) -> _Pieces:
    near = columns.read_gap_ns <= np.minimum(gap_ns, _NS_A_TOKEN * columns.read_tokens)
    begins = np.flatnonzero(~(near & columns.read_later))
    return _Pieces(
        opens=~columns.read_later[begins],
        tokens=np.add.reduceat(columns.read_tokens, begins),
        gap_ns=columns.read_gap_ns[begins],
    )


def of_rounds(parts: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the `stream` of a load point from those of its rounds."""
    counts = {name: sum(part[name] for part in parts) for name in ("answers", "whole", "pieces")}
    known = [part["tokens_per_read"] for part in parts if part["tokens_per_read"] is not None]
    return {**counts, "tokens_per_read": max(known, default=None)}


def comes_whole(stream: Mapping[str, Any], completed: int) -> bool:
    """Tell whether most answers came whole, so that nothing tells when their tokens were made."""
    return bool(
        stream["whole"] > WHOLE_SHARE * stream["answers"]
        and stream["answers"] >= WHOLE_SHARE * completed
    )


def without_token_times(measured: Mapping[str, Any], slos: Sequence[Slo]) -> dict[str, Any]:
    """Return a level's metrics with null for those that need to know when tokens were made.

    Goodput is null as well if one of its limits is on such a latency.
    """
    spoilt = {row.name for row in BY_NAME.values() if _spoilt(row) and row.observe is not None}
    kept = {
        name: {**value, **dict.fromkeys([*STATISTICS, "p50_ci95"])} if name in spoilt else value
        for name, value in measured.items()
    }
    for name in spoilt & kept.keys():
        if "kaplan_meier" in kept[name]:
            kept[name]["kaplan_meier"] = None
    if any(slo.metric in spoilt for slo in slos):
        kept |= {row.name: None for row in BY_NAME.values() if row.needs_slo}
    return kept
