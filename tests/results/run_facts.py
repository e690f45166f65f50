"""Facts and columns made of a few numbers, for tests of what is derived from them."""

from typing import Any

from llmdyno.records.columns import Collector, Columns
from llmdyno.records.entries import LevelEnded, LevelStarted, Record, Tick
from llmdyno.results.facts import LevelFacts

MS = 1_000_000
SECOND = 1_000_000_000


def record(number: int, sent_ms: float, **facts: Any) -> Record:
    """Return a completed request: a first token after 20 ms, two more 10 ms apart."""
    gaps_ns = tuple(facts.pop("gaps_ns", (20 * MS, 10 * MS, 10 * MS)))
    defaults: dict[str, Any] = {
        "level": 0,
        "user": 0,
        "prompt": 0,
        "due_ns": round(sent_ms * MS),
        "end_ns": sum(gaps_ns),
        "outcome": "completed",
        "output_tokens": len(gaps_ns),
        "source": "usage",
    }
    return Record(
        request=number, sent_ns=round(sent_ms * MS), gaps_ns=gaps_ns, **{**defaults, **facts}
    )


def columns_of(*records: Record) -> Columns:
    """Return the columns of these records."""
    collector = Collector()
    for one in records:
        collector.add(one)
    return collector.columns()


def level_facts(
    *records: Record, seconds: float, ramp_s: float = 0.0, ticks: tuple[Tick, ...] = (), **more: Any
) -> LevelFacts:
    """Return a level of two users with these records."""
    end_ns = round(seconds * SECOND)
    started = {"level": 0, "users": 2, "start_ns": 0, "ramp_ns": round(ramp_s * SECOND), **more}
    return LevelFacts(
        started=LevelStarted(**started),
        ended=LevelEnded(level=0, end_ns=end_ns, full_until_ns=end_ns),
        columns=columns_of(*records),
        errors={},
        examples={},
        source="usage",
        by_source={},
        ticks=ticks,
        last_ns=end_ns,
    )
