"""How far a level was from its machine's limit, and measured against predicted, in words.

A level's document carries the figures as its "limit", where GPU, model and config are known.
"""

from collections.abc import Sequence

from llmdyno.results import wording
from llmdyno.results.documents import Document, interval, level_name, number, part, text

PREDICTED = (
    ("token_rate", "mean", "token_rate"),
    ("ttft_ms", "p50", "ttft_ms_p50"),
    ("tpot_ms", "p50", "tpot_ms_p50"),
)
_SAID = ("{} tok/s", "TTFT p50 {} ms", "TPOT p50 {} ms")


_SAVES = 0.05  # of the prompts' tokens: so many more in the prefix cache explain a smaller share
_NEARLY_ALL = 0.99
_LEAST = 0.01  # a share that is told by its figure


def distance(limit: Document) -> str:
    """Say which share of the physical limit was used, and what the server was bound by."""
    share = number(limit, "share") or 0.0
    used = f"less than {wording.share(_LEAST)}" if share < _LEAST else wording.share(share)
    bound = text(limit, "bound_by")
    saved = _not_computed(limit)
    return (
        f"{used} of what this {_machine(limit)}'s {_resource(limit)} allows; bound by"
        f" {bound}{f'; {saved}' if saved else ''}"
    )


def left_out(settings: str) -> str:
    """Say that a forecast leaves out what some settings do; empty: it leaves out none."""
    return f"What {settings} changes is not simulated, and not in the numbers" if settings else ""


def behind(point: Document) -> str:
    """Say with which request rate a predicted server cannot keep up; empty: it can."""
    if point.get("keeps_up", True):
        return ""
    return f"cannot keep up with {point['request_rate']:g} requests/s"


def near(before: Document, after: Document, engine_args: Sequence[str]) -> str:
    """Say how near its limit a level was before and after, or why that is not known.

    Work that a prefix cache saves is named: where less is computed for each token, the share may
    fall while the token rate rises.
    """
    old, new = part(before, "limit"), part(after, "limit")
    share = number(new, "share")
    if share is None:
        why = "that takes a GPU with a data sheet (or this CPU), a known shape, and a TPOT"
        if engine_args:
            why = f"dyno cannot tell what {' '.join(engine_args)} does to it"
        return f"How near it is to the machine's limit is not known: {why}."
    if before == after:
        said = f"It uses {_about(share)} of what the {_machine(new)}'s {_resource(new)} allows."
        return " ".join(one for one in (said, peaks_measured(new)) if one)
    of_what = f"what the {_machine(new)}'s {_resource(new)} allows"
    said = f"It now uses {_about(share)} of {of_what}"
    was = number(old, "share")
    if was is not None:
        of = "" if _resource(old) == _resource(new) else f" of its {_resource(old)}"
        said += f", {_about(was).removeprefix('about ')}{of} before"
    if _cached(new) - _cached(old) >= _SAVES:
        said += f"; {_not_computed(new)}."
        if was is not None and was > share:
            said += " A smaller share is less work for each token here, not a slower server."
    else:
        said += "."
    return " ".join(one for one in (said, peaks_measured(new)) if one)


def peaks_measured(limit: Document) -> str:
    """Say when a CPU's peaks were measured, of which the shares are; empty: it is a GPU."""
    day = text(limit, "peaks", "measured")[:10]
    if not day:
        return ""
    if part(limit, "peaks").get("with_result") is True:
        return f"What the CPU can do at most was measured on {day}."
    return f"What the CPU can do at most was not kept with it; it was measured here on {day}."


def _about(share: float) -> str:
    if share < _LEAST:
        return f"less than {wording.share(_LEAST)}"
    return f"about {wording.share(share)}"


def _not_computed(limit: Document) -> str:
    """Say what a prefix cache saves; empty: it saves nothing to speak of."""
    cached = _cached(limit)
    if cached < _SAVES:
        return ""
    share = "nearly all" if cached > _NEARLY_ALL else wording.share(cached)
    if text(limit, "cached_by") == "server":
        return f"the prefix cache held {share} of the prompts' tokens, which were not computed"
    return f"{share} of the prompts' tokens repeat, which the prefix cache saves it from computing"


def _cached(limit: Document) -> float:
    return number(limit, "cached") or 0.0


def _resource(limit: Document) -> str:
    mbu, mfu = number(limit, "mbu"), number(limit, "mfu")
    return "memory bandwidth" if mfu is None or (mbu or 0.0) >= mfu else "FLOP/s"


def _machine(limit: Document) -> str:
    return text(limit, "machine") or "GPU"


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
    said = f"{level_name(level)}: {'; '.join(pairs)}; {distance(limit)}."
    unknown = left_out(text(limit, "not_simulated"))
    return f"{said} {unknown}." if unknown else said
