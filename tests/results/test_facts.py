"""What is read from a journal: levels, repeats, sources, and one that broke off."""

from pathlib import Path

import msgspec
import pytest

from llmdyno.errors import StorageError
from llmdyno.records.entries import (
    Calibration,
    Entry,
    GpuSample,
    LevelEnded,
    LevelStarted,
    Opened,
    Record,
    Scrape,
    Tick,
)
from llmdyno.records.journal import Journal
from llmdyno.results.facts import LevelFacts, RunFacts, by_point, read_levels, read_run
from results.run_facts import level_facts, record

OPENED = Opened(run="r", started="2026-11-24T00:00:00+00:00", spec={}, environment={})


def read(folder: Path, *entries: Entry, opened: Opened = OPENED) -> RunFacts:
    journal = Journal(folder / "journal.jsonl")
    for entry in (opened, *entries):
        journal.append(entry)
    journal.close()
    return read_run(journal.path)


def started(level: int, repeat: int = 0) -> LevelStarted:
    return LevelStarted(level=level, users=2, start_ns=5, ramp_ns=0, repeat=repeat)


def test_entries_belong_to_their_level_even_if_they_come_before_it(tmp_path: Path) -> None:
    floor = Calibration(
        ttft_floor_ms_p50=0.1, ttft_floor_ms_p99=0.2, itl_floor_ms_p99=0.3, events_per_s_max=9.0
    )
    scrape = Scrape(level=1, t_ns=1, moment="before", kind="vllm", values={})
    gpu = GpuSample(
        level=0,
        t_ns=2,
        gpu=0,
        use=None,
        memory_mib=None,
        power_w=None,
        clock_mhz=None,
        temperature_c=None,
        throttle=0,
    )
    facts = read(
        tmp_path, floor, scrape, started(0), gpu, record(0, 1), started(1), record(0, 2, level=1)
    )

    first, second = facts.levels
    assert facts.calibration == floor
    assert (first.scrapes, first.gpus) == ([], [gpu])
    assert (second.scrapes, second.gpus) == ([scrape], [])
    assert len(first.columns.sent_ns) == len(second.columns.sent_ns) == 1


def test_a_level_that_broke_off_ends_with_the_last_of_it(tmp_path: Path) -> None:
    tick = Tick(level=0, t_ns=70_000_000, users=2, in_flight=0, cpu_s=0.1)

    (level,) = read(tmp_path, started(0), record(0, 1), tick).levels

    assert level.ended is None
    assert level.end_ns == level.full_until_ns == 70_000_000


def test_what_was_refused_for_its_length_is_counted_apart(tmp_path: Path) -> None:
    def failed(number: int, error: str, detail: str) -> Record:
        return record(number, 1, outcome="failed", gaps_ns=(), error=error, detail=detail)

    said = "1 and 2 are 3 tokens; they exceed max_num_batched_tokens=2."
    (level,) = read(
        tmp_path,
        started(0),
        failed(0, "http-400", said),
        failed(1, "http-400", "'prompt': it is empty"),
        failed(2, "http-400", said),
        failed(3, "reset", said),
        record(4, 2),
    ).levels

    assert level.errors == {"http-400": 3, "reset": 1}
    assert level.too_long == 2


def test_a_level_has_its_least_trusted_source_but_not_that_of_what_did_not_end(
    tmp_path: Path,
) -> None:
    (level,) = read(
        tmp_path,
        started(0),
        record(0, 1),
        record(1, 2, source="tokenizer"),
        record(2, 3, source="chunks", outcome="cut"),
        record(3, 4, source="chunks", outcome="failed", error="stream-error"),
    ).levels

    assert level.source == "tokenizer"
    assert level.by_source == {"usage": 3, "tokenizer": 3, "chunks": 6}


def test_hidden_tokens_and_odd_streams_are_counted_but_not_those_that_were_cut(
    tmp_path: Path,
) -> None:
    (level,) = read(
        tmp_path,
        started(0),
        record(0, 1, unstreamed=20, oddities=("unusable-usage", "cumulative-text"), finish="stop"),
        record(1, 2, unstreamed=5, oddities=("cumulative-text",)),
        record(2, 3, outcome="cut", oddities=("usage-below-stream",), finish="cut-short"),
    ).levels

    assert level.unstreamed == 25
    assert level.oddities == {"cumulative-text": 2, "unusable-usage": 1}
    assert level.finishes["stop"] >= 1


def test_errors_are_counted_with_their_first_example(tmp_path: Path) -> None:
    failed = {"outcome": "failed", "error": "reset", "gaps_ns": (), "end_ns": 1}
    ended = LevelEnded(level=0, end_ns=9, full_until_ns=8)

    (level,) = read(
        tmp_path,
        started(0),
        *(record(n, 1, detail=f"no. {n}", **failed) for n in range(3)),
        ended,
    ).levels

    assert level.errors == {"reset": 3}
    assert level.examples == {"reset": "no. 0"}
    assert (level.end_ns, level.full_until_ns) == (9, 8)


def test_the_levels_of_a_load_point_stand_together() -> None:
    levels = [level_facts(seconds=1, level=n, repeat=n // 2) for n in range(4)]

    numbers = [[one.started.level for one in point] for point in by_point(levels)]

    assert numbers == [[0, 2], [1, 3]]


def test_facts_cannot_be_changed() -> None:
    assert LevelFacts.__struct_config__.frozen
    with pytest.raises(AttributeError):
        level_facts(seconds=1).source = "chunks"  # type: ignore[misc]


def test_a_file_that_is_no_journal_of_a_run_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    path.write_bytes(msgspec.json.encode(started(0)) + b"\n")

    with pytest.raises(StorageError, match="is no journal of a run"):
        read_levels(path)


def test_which_model_answered_is_counted_by_the_one_that_was_asked(tmp_path: Path) -> None:
    (level,) = read(
        tmp_path,
        started(0),
        record(0, 1, model="a", answered_by="a"),
        record(1, 2, model="a", answered_by="c"),
        record(2, 3, model="b", answered_by="c"),
        record(3, 4, model="b", answered_by="d", outcome="cut"),
    ).levels

    assert level.answered_by == {"a": {"a": 1, "c": 1}, "b": {"c": 1}}


@pytest.mark.parametrize(
    ("names", "counted"),
    [
        (["", ""], {}),
        (["alias", "", "alias"], {"m": {"alias": 2}}),
        (["m", "", "m"], {"m": {"m": 2}}),
        (["m", "alias", ""], {"m": {"m": 1, "alias": 1}}),
    ],
)
def test_an_answer_that_names_no_model_is_not_taken_for_the_one_asked(
    names: list[str], counted: dict[str, dict[str, int]], tmp_path: Path
) -> None:
    records = [record(n, n + 1, answered_by=name) for n, name in enumerate(names)]
    opened = msgspec.structs.replace(OPENED, spec={"model": "m"})

    (level,) = read(tmp_path, started(0), *records, opened=opened).levels

    assert level.answered_by == counted
