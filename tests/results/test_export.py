"""The export against records whose every value is known, and against the summary of the same."""

import csv
import sys
import tracemalloc
from pathlib import Path
from typing import Any

import pytest

from llmdyno.errors import StorageError, UsageError
from llmdyno.records.entries import LevelEnded, LevelStarted, Opened, Record
from llmdyno.records.journal import Journal
from llmdyno.results.export import columns, write_csv, write_parquet
from llmdyno.results.summary import summarise
from llmdyno.store import JOURNAL

MS = 1_000_000
COMPLETED: dict[str, Any] = {
    "outcome": "completed",
    "status": 200,
    "finish": "stop",
    "source": "usage",
    "input_tokens": 30,
    "reads": 4,
}


def record(request: int, level: int = 0, **facts: Any) -> Record:
    return Record(
        level=level,
        request=request,
        user=request % 2,
        prompt=request,
        due_ns=request * 10 * MS,
        sent_ns=request * 10 * MS + 1,
        end_ns=120 * MS,
        **facts,
    )


def journal(folder: Path, records: list[Record]) -> Path:
    """Write a run of two levels with these records and return its folder."""
    written = Journal(folder / JOURNAL)
    spec = {"load": {"interval_s": 1.0}}
    written.append(Opened(run="r", started="2026-11-23T20:00:00+00:00", spec=spec, environment={}))
    for level, users in enumerate((2, 8)):
        written.append(LevelStarted(level=level, users=users, start_ns=0, ramp_ns=0))
        for each in records:
            if each.level == level:
                written.append(each)
        written.append(LevelEnded(level=level, end_ns=200 * MS, full_until_ns=200 * MS))
    written.close()
    return folder


def some_run(folder: Path) -> Path:
    return journal(
        folder,
        [
            record(
                0,
                gaps_ns=(50 * MS, 20 * MS, 30 * MS),
                output_tokens=3,
                unstreamed=90,
                **COMPLETED,
            ),
            record(
                1,
                gaps_ns=(60 * MS, 40 * MS),
                tokens=(2, 5),
                output_tokens=7,
                **COMPLETED,
            ),
            record(2, outcome="cut", gaps_ns=(70 * MS, 10 * MS), output_tokens=2, status=200),
            record(
                3,
                outcome="failed",
                error="incomplete",
                detail='half a line,\nwith "quotes"',
                gaps_ns=(80 * MS,),
                output_tokens=1,
                status=200,
            ),
            record(4, outcome="failed", error="refused, twice\n"),
            record(0, level=1, gaps_ns=(90 * MS,), output_tokens=1, **COMPLETED),
        ],
    )


def read_csv(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_every_request_is_a_row_with_its_own_values(tmp_path: Path) -> None:
    target = tmp_path / "requests.csv"

    assert write_csv(some_run(tmp_path), target) == 6
    rows = read_csv(target)

    assert list(rows[0]) == [name for name, _ in columns()]
    assert [(row["level"], row["users"], row["request"]) for row in rows] == [
        *(("0", "2", str(request)) for request in range(5)),
        ("1", "8", "0"),
    ]
    assert [row["ttft_ms"] for row in rows] == ["50.0", "60.0", "70.0", "", "", "90.0"]
    assert [row["e2e_ms"] for row in rows] == ["100.0", "100.0", "", "", "", "90.0"]
    assert [row["tpot_ms"] for row in rows] == ["25.0", "8.0", "", "", "", ""]
    assert [row["error"] for row in rows[2:5]] == ["", "incomplete", "refused, twice\n"]
    assert [row["status"] for row in rows[2:5]] == ["200", "200", ""]
    assert [row["unstreamed"] for row in rows] == ["90", "0", "0", "0", "0", "0"]
    assert [row["input_tokens"] for row in rows[1:3]] == ["30", ""]
    assert rows[1]["due_s"] == "0.01"
    assert rows[1]["sent_s"] == "0.010000001"


def test_a_column_has_the_mean_of_the_summary(tmp_path: Path) -> None:
    folder = some_run(tmp_path)
    write_csv(folder, tmp_path / "requests.csv")
    rows = [row for row in read_csv(tmp_path / "requests.csv") if row["level"] == "0"]

    whole = summarise(folder / JOURNAL)["levels"][0]["whole"]

    for metric in ("ttft_ms", "e2e_ms", "tpot_ms"):
        values = [float(row[metric]) for row in rows if row[metric]]
        assert sum(values) / len(values) == pytest.approx(whole[metric]["mean"], rel=1e-5)
        assert len(values) == whole[metric]["n"]


def test_parquet_has_the_same_values_with_their_types(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    from pyarrow import parquet

    folder = some_run(tmp_path)
    write_csv(folder, tmp_path / "requests.csv")

    assert write_parquet(folder, tmp_path / "requests.parquet") == 6
    table = parquet.read_table(tmp_path / "requests.parquet")

    kinds = {field.name: str(field.type).replace("double", "float64") for field in table.schema}
    assert kinds == dict(columns())
    shown = [
        {name: "" if value is None else str(value) for name, value in row.items()}
        for row in table.to_pylist()
    ]
    assert shown == read_csv(tmp_path / "requests.csv")


def test_a_torn_last_line_is_left_out(tmp_path: Path) -> None:
    folder = some_run(tmp_path)
    with (folder / JOURNAL).open("ab") as file:
        file.write(b'{"type":"request","level":1,"requ')

    assert write_csv(folder, tmp_path / "requests.csv") == 6


def test_memory_does_not_grow_with_the_run(tmp_path: Path) -> None:
    peaks = []
    for count in (500, 5_000):
        folder = tmp_path / str(count)
        folder.mkdir()
        gaps_ns = (50 * MS,) * 10
        records = [
            record(request, gaps_ns=gaps_ns, output_tokens=10, **COMPLETED)
            for request in range(count)
        ]
        journal(folder, records)
        tracemalloc.start()
        write_csv(folder, tmp_path / "requests.csv")
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()

    assert peaks[1] < 3 * peaks[0]  # ten times as many requests


def test_without_pyarrow_the_command_that_installs_it_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)

    with pytest.raises(UsageError, match=r"pip install 'llmdyno\[parquet\]'"):
        write_parquet(some_run(tmp_path), tmp_path / "requests.parquet")


def test_a_folder_without_a_journal_is_refused(tmp_path: Path) -> None:
    (tmp_path / "summary.json").write_text("{}")

    with pytest.raises(UsageError, match=r"has no journal\.jsonl.*imported run"):
        write_csv(tmp_path, tmp_path / "requests.csv")


def test_a_bad_journal_leaves_the_older_table_untouched(tmp_path: Path) -> None:
    folder = some_run(tmp_path)
    target = tmp_path / "requests.csv"
    write_csv(folder, target)
    before = target.read_bytes()
    with (folder / JOURNAL).open("ab") as file:
        file.write(b"not an entry\n")

    with pytest.raises(StorageError, match="line 12"):
        write_csv(folder, target)

    assert target.read_bytes() == before
    assert sorted(path.name for path in folder.iterdir()) == [JOURNAL, "requests.csv"]


@pytest.mark.parametrize("name", ["no/such/folder.csv", f"{JOURNAL}/below-a-file.csv"])
def test_a_target_that_cannot_be_written_is_one_sentence(tmp_path: Path, name: str) -> None:
    with pytest.raises(StorageError, match=r"cannot write .*csv"):
        write_csv(some_run(tmp_path), tmp_path / name)
