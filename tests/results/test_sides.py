"""The sides of a comparison: starts, their rounds, and the order in which they were made."""

import json
from pathlib import Path

import pytest

from compared_runs import side, write
from llmdyno import store
from llmdyno.errors import UsageError
from llmdyno.importers import import_file
from llmdyno.results.sides import Side, Start, in_turns
from llmdyno.results.summary import summarise

SAMPLES = Path(__file__).parents[1] / "importers" / "samples"


def test_a_start_tells_each_round_and_what_lies_inside_it(tmp_path: Path) -> None:
    start = Start(write(tmp_path / "r", rounds=3, users=(1, 2), seconds=10))

    assert list(start.levels) == ["1 user", "2 users"]
    assert start.rounds("2 users") == 3
    found = start.observations("2 users", "ttft_ms", "p50")
    assert len(found) == 3
    assert all(one.inside and one.batches is not None for one in found)
    pooled = start.levels["2 users"]["ttft_ms"]["p50"]
    assert sum(one.value for one in found) / 3 == pytest.approx(pooled, rel=0.01)


def test_values_are_those_of_the_summary(tmp_path: Path) -> None:
    start = Start(write(tmp_path / "r"))
    level = start.levels["2 users"]

    for metric, stat in (("token_rate", "mean"), ("ttft_ms", "p99"), ("itl_ms", "p50")):
        (found,) = start.observations("2 users", metric, stat)
        assert found.value == pytest.approx(level[metric][stat], rel=1e-5)


def test_what_has_no_value_tells_nothing(tmp_path: Path) -> None:
    start = Start(write(tmp_path / "r"))

    assert start.observations("2 users", "goodput", "mean") == []
    assert start.observations("7 users", "token_rate", "mean") == []


def test_a_summary_alone_tells_values_with_the_intervals_that_it_has(tmp_path: Path) -> None:
    folder = write(tmp_path / "r", rounds=2, seconds=10)
    whole = Start(folder)
    (tmp_path / "s").mkdir()
    store.write_json(tmp_path / "s" / store.SUMMARY, summarise(folder / store.JOURNAL))

    start = Start(tmp_path / "s")

    rounds = [one.value for one in start.observations("2 users", "token_rate", "mean")]
    assert rounds == pytest.approx(
        [one.value for one in whole.observations("2 users", "token_rate", "mean")], rel=1e-5
    )
    (median,) = start.observations("2 users", "itl_ms", "p50")
    assert median.inside is not None
    (tail,) = start.observations("2 users", "itl_ms", "p99")
    assert tail.inside is None
    assert start.lengths("2 users")["answers"].mean == pytest.approx(10, rel=0.02)


def test_another_tools_file_is_a_start_without_intervals() -> None:
    file = SAMPLES / "guidellm.json"
    start = Start(file, import_file(file))

    assert start.is_imported
    name = next(iter(start.levels))
    (found,) = start.observations(name, "ttft_ms", "p50")
    assert found.inside is None


def test_a_folder_that_holds_nothing_is_no_start(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="holds neither a run nor a study"):
        Start(tmp_path)


def test_starts_that_took_turns_are_found_by_when_they_began(tmp_path: Path) -> None:
    folder = write(tmp_path / "r", seconds=10)
    document = summarise(folder / store.JOURNAL)

    def at(*minutes: int) -> Side:
        starts = [
            Start(folder, {**document, "started": f"2026-11-29T03:{minute:02}:00+00:00"})
            for minute in minutes
        ]
        return Side("x", "rounds of runs", starts)

    assert in_turns(at(0, 3), at(1, 2)) == [False, True, True, False]
    assert in_turns(at(0, 2, 4), at(1, 3, 5)) == [False, True] * 3
    assert in_turns(at(0, 1), at(2, 3)) == []
    assert in_turns(at(0, 2), at(1)) == []
    assert in_turns(at(0), at(1)) == []


def test_what_is_told_of_a_side_is_plain(tmp_path: Path) -> None:
    told = side(tmp_path, "a", runs=2, seconds=10).told()

    assert told["runs"] == ["a0", "a1"]
    assert (told["kind"], told["rounds"]) == ("rounds of runs", 1)
    json.dumps(told)
