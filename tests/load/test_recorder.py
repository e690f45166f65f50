"""The journal's view of a level's moments, and the line that begins it."""

from typing import Any

import pytest

from llmdyno import plugins, spec
from llmdyno.load.plan import Plan
from llmdyno.load.progress import Progress
from llmdyno.load.recorder import Recorder
from llmdyno.records.entries import Entry, LevelStarted
from llmdyno.wire.exchange import Meter
from llmdyno.wire.target import parse_url


def started(workers: int = 1, **load: Any) -> LevelStarted:
    """Return the line that begins a level of this load."""
    entries: list[Entry] = []
    recorder = Recorder(sink=entries.append, zero_ns=1_000, meter=Meter(), progress=Progress())
    checked = spec.Load(**load)
    plan = Plan(
        level=3,
        users=50,
        load=checked,
        target=parse_url("http://h"),
        endpoint=plugins.load("endpoints", "openai-chat"),
        model="m",
        repeat=1,
        rate=checked.rates[0] if checked.rates else None,
    )
    recorder.note_start(plan, 5_000, workers)
    (entry,) = entries
    assert isinstance(entry, LevelStarted)
    return entry


def test_a_closed_loop_begins_with_its_users() -> None:
    entry = started(ramp_s=2.5)

    assert (entry.level, entry.users, entry.rate) == (3, 50, None)
    assert (entry.start_ns, entry.ramp_ns) == (4_000, 2_500_000_000)
    assert (entry.repeat, entry.arrival, entry.workers) == (1, "closed", 1)


def test_an_open_loop_begins_with_its_rate_and_no_users() -> None:
    entry = started(2, arrival="poisson", rates=(4.0,), max_concurrency=8)

    assert (entry.users, entry.rate, entry.arrival) == (None, 4.0, "poisson")
    assert (entry.max_concurrency, entry.workers) == (8, 2)


@pytest.mark.parametrize(("moment_ns", "told_ns"), [(1_000, 0), (5_000, 4_000), (0, -1_000)])
def test_moments_count_from_the_run_s_beginning(moment_ns: int, told_ns: int) -> None:
    recorder = Recorder(sink=lambda _: None, zero_ns=1_000, meter=Meter(), progress=Progress())

    assert recorder.since_zero(moment_ns) == told_ns
