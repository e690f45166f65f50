"""What a load point says of the wait before it: the worst of its rounds."""

import msgspec

from llmdyno.records.entries import Settled
from llmdyno.results.facts import LevelFacts
from llmdyno.results.settled import about_settling, settled_part
from results.run_facts import level_facts


def waited(seconds: float, *, busy: bool = False, idle_ns: int = 90_000_000) -> LevelFacts:
    """Return a round before which it was waited so long."""
    return msgspec.structs.replace(
        level_facts(seconds=10),
        settled=Settled(
            level=0,
            waited_ns=round(seconds * 1e9),
            answered_ns=4_260_000_000,
            idle_ns=idle_ns,
            busy=busy,
        ),
    )


def test_rounds_that_waited_for_nothing_say_nothing() -> None:
    assert settled_part([level_facts(seconds=10)]) == {}
    assert about_settling({}) == []


def test_the_longest_wait_stands_for_all_rounds() -> None:
    level = settled_part([waited(1.5), level_facts(seconds=10), waited(2.5)])

    assert level == {
        "settled": {"busy": False, "waited_s": 2.5, "answered_ms": 4260.0, "idle_ms": 90.0}
    }
    assert about_settling(level) == []


def test_a_round_that_began_busy_is_a_doubt_whatever_the_others_did() -> None:
    level = settled_part([waited(31.0), waited(30.0, busy=True, idle_ns=-1)])

    assert level["settled"]["busy"] is True
    assert level["settled"]["idle_ms"] is None
    ((code, said),) = about_settling(level)
    assert code == "busy-at-start"
    assert "30 s after we had hung up on a request, one for a single token took 4.26 s. It" in said
