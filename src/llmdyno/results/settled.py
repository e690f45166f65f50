"""Whether the server was idle when a level began, where the run had hung up on it before."""

from collections.abc import Sequence
from typing import Any

from llmdyno.results.documents import Document, number, part
from llmdyno.results.facts import LevelFacts
from llmdyno.results.wording import milliseconds

Finding = tuple[str, str]  # code and text


def settled_part(repeats: Sequence[LevelFacts]) -> dict[str, Any]:
    """Return `settled` of a load point: the longest wait of its rounds; empty: none was needed."""
    waits = [facts.settled for facts in repeats if facts.settled is not None]
    if not waits:
        return {}
    worst = max(waits, key=lambda wait: (wait.busy, wait.waited_ns))
    return {
        "settled": {
            "busy": worst.busy,
            "waited_s": round(worst.waited_ns / 1e9, 3),
            "answered_ms": round(worst.answered_ns / 1e6, 3),
            "idle_ms": None if worst.idle_ns < 0 else round(worst.idle_ns / 1e6, 3),
        }
    }


def about_settling(level: Document) -> list[Finding]:
    """Doubt a level that began while the server was busy with answers that nobody read any more."""
    told = part(level, "settled")
    if told.get("busy") is not True:
        return []
    waited_s, answered_ms, idle_ms = (
        number(told, name) for name in ("waited_s", "answered_ms", "idle_ms")
    )
    quickest = "" if idle_ms is None else f", the quickest {milliseconds(idle_ms)}"
    said = (
        f"the server was still busy when the level began: {waited_s or 0:.0f} s after we had hung"
        f" up on a request, one for a single token took {milliseconds(answered_ms)}{quickest}. It"
        " goes on with answers that nobody reads, or works for others: the first latencies are too"
        " long. A longer --grace cuts fewer requests."
    )
    return [("busy-at-start", said)]
