"""How far a level was from its machine's limit, and measured against predicted, in words.

A level's document carries the figures as its "limit", where GPU, model and config are known.
"""

from llmdyno.results import wording
from llmdyno.results.documents import Document, interval, level_name, number, part, text

PREDICTED = (
    ("token_rate", "mean", "token_rate"),
    ("ttft_ms", "p50", "ttft_ms_p50"),
    ("tpot_ms", "p50", "tpot_ms_p50"),
)
_SAID = ("{} tok/s", "TTFT p50 {} ms", "TPOT p50 {} ms")


def distance(limit: Document) -> str:
    """Say which share of the physical limit was used, and what the server was bound by."""
    share = number(limit, "share")
    mbu, mfu = number(limit, "mbu"), number(limit, "mfu")
    which = "bandwidth" if mfu is None or (mbu or 0.0) >= mfu else "FLOP/s"
    machine = text(limit, "machine") or "GPU"
    bound = text(limit, "bound_by")
    return f"{share or 0.0:.0%} of what this {machine}'s {which} allows; bound by {bound}"


def line(level: Document) -> str:
    """Say in a line what a level gave, what was predicted, and how near the limit it was.

    Empty: nothing is known of it.
    """
    limit = part(level, "limit")
    if number(limit, "share") is None:
        return ""
    pairs = []
    for (metric, stat, name), said in zip(PREDICTED, _SAID, strict=True):
        mean = number(limit, "predicted", name, "mean")
        bounds = interval(part(limit, "predicted"), name, "ci80")
        foreseen = wording.with_interval(mean, bounds)
        measured = wording.significant(number(level, metric, stat))
        pairs.append(f"{said.format(measured)}, predicted {foreseen}")
    return f"{level_name(level)}: {'; '.join(pairs)}; {distance(limit)}."
