"""What lies in the store: who it is, how large, what may go."""

import fcntl
import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from llmdyno import store
from llmdyno.errors import UsageError
from llmdyno.records.journal import Journal
from llmdyno.results import catalog
from llmdyno.results.catalog import Entry, Filter
from report_samples import study, summary

NOW = datetime(2026, 11, 29, 12, tzinfo=UTC)


# Of a study that says by its baseline when it began.
BEGAN = {"config": {}, "summary": {"started": "2026-10-02T00:00:00+00:00"}}


def run(name: str, **changes: Any) -> Path:
    folder = store.RUNS / name
    folder.mkdir(parents=True)
    store.write_json(folder / store.SUMMARY, {**summary(), "started": None, **changes})
    return folder


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def ids(found: list[Entry]) -> list[str]:
    return [entry.id for entry in found]


def test_a_filter_takes_what_has_all_that_it_asks_for() -> None:
    run(
        "20261101-000000-a-1", spec={"model": "meta/Llama-3"}, levels=[{"server": {"kind": "vllm"}}]
    )
    run("20261120-000000-b-2", spec={"model": "Qwen"}, levels=[{"server": {"kind": "sglang"}}])
    tagged = run("20261125-000000-c-3", spec={"model": "llama-2"})
    catalog.tag(tagged, "release")
    studied = store.STUDIES / "20261126-000000-d-4"
    studied.mkdir(parents=True)
    store.write_json(studied / store.STUDY, {**study(), "engine": "vllm", "model": "x"})

    def found(**asked: Any) -> list[str]:
        return [name[-1] for name in ids(catalog.entries(Filter(**asked)))]

    assert found() == ["1", "2", "3", "4"]
    assert found(engine="vllm") == ["1", "4"]
    assert found(model="LLAMA") == ["1", "3"]
    assert found(tag="release") == ["3"]
    assert found(since=datetime(2026, 11, 20, tzinfo=UTC)) == ["2", "3", "4"]
    assert found(model="llama", since=datetime(2026, 11, 20, tzinfo=UTC)) == ["3"]
    assert found(engine="tgi") == []


def test_a_document_that_cannot_be_read_does_not_hide_the_others() -> None:
    run("a")
    (run("b") / store.SUMMARY).write_text("{")
    (run("c") / store.SUMMARY).write_text("[]")

    first, second, third = catalog.entries()

    assert first.document
    assert "is not JSON" in second.fault
    assert not third.document
    assert "holds no document of dyno's" in third.fault


@pytest.mark.parametrize(
    ("words", "moment"),
    [
        ("7d", NOW - timedelta(days=7)),
        ("2h", NOW - timedelta(hours=2)),
        ("2026-11-28T10:00:00+00:00", datetime(2026, 11, 28, 10, tzinfo=UTC)),
    ],
)
def test_since_is_a_moment_or_a_time_ago(words: str, moment: datetime) -> None:
    assert catalog.since(words, NOW) == moment


def test_since_a_day_is_its_midnight_here() -> None:
    assert catalog.since("2026-11-28", NOW).isoformat().startswith("2026-11-28T00:00:00")
    for wrong in ("yesterday", "2026-13-01", "28.11.2026", ""):
        with pytest.raises(UsageError, match="--since"):
            catalog.since(wrong, NOW)


def test_tags_are_given_and_taken() -> None:
    folder = run("a")

    assert catalog.tag(folder, "v1") == ("v1",)
    assert catalog.tag(folder, "best") == ("best", "v1")
    assert catalog.tag(folder, "v1") == ("best", "v1")
    assert catalog.entries()[0].tags == ("best", "v1")
    assert catalog.tag(folder, "v1", remove=True) == ("best",)
    with pytest.raises(UsageError, match="has no tag v1; it has best"):
        catalog.tag(folder, "v1", remove=True)
    assert catalog.tag(folder, "best", remove=True) == ()
    assert not (folder / catalog.TAGS).exists()
    for wrong in ("", "a b", "../x", "-x", "x" * 65):
        with pytest.raises(UsageError, match="is no tag"):
            catalog.tag(folder, wrong)
    with pytest.raises(UsageError, match="holds neither a run nor a study"):
        catalog.tag(Path(), "x")


def days_old(*ages: int) -> None:
    for age in ages:
        day = NOW - timedelta(days=age)
        run(f"{day:%Y%m%d-%H%M%S}-x-{age}")


def prunable(keep: int | None = None, days: float | None = None) -> list[str]:
    age_s = None if days is None else days * 86400
    found = catalog.prunable(catalog.entries(), NOW, keep=keep, older_than_s=age_s)
    return [entry.id.rpartition("-")[2] for entry in found]


def test_what_is_old_and_beyond_the_newest_may_go() -> None:
    days_old(50, 40, 20, 5, 1)

    assert prunable(keep=2) == ["50", "40", "20"]
    assert prunable(days=30) == ["50", "40"]
    assert prunable(keep=2, days=30) == ["50", "40"]
    assert prunable(keep=4, days=30) == ["50"]
    assert prunable(keep=9) == []
    assert prunable(keep=0) == ["50", "40", "20", "5", "1"]


def test_what_is_tagged_or_runs_or_is_a_link_stays(tmp_path: Path) -> None:
    days_old(50, 40, 30)
    first, second, _ = catalog.entries()
    catalog.tag(first.folder, "keep")
    journal = Journal(second.folder / store.JOURNAL)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    store.write_json(elsewhere / store.SUMMARY, summary())
    (store.RUNS / "20200101-000000-link-9").symlink_to(elsewhere)

    assert prunable(keep=0) == ["30"]
    journal.close()
    assert prunable(keep=0) == ["40", "30"]
    (first.folder / catalog.TAGS).write_text("?")  # what cannot be read may be a tag
    assert prunable(keep=0) == ["40", "30"]


def test_a_study_that_runs_stays() -> None:
    folder = store.STUDIES / "20200101-000000-s-1"
    folder.mkdir(parents=True)
    (folder / store.LEDGER).touch()
    with store.hold(folder):
        assert catalog.entries()[0].running
        assert prunable(keep=0) == []
    assert prunable(keep=0) == ["1"]


def test_what_was_tagged_or_taken_up_meanwhile_is_not_removed() -> None:
    days_old(50, 40, 30)
    chosen = catalog.entries()
    catalog.tag(chosen[0].folder, "keep")
    with (chosen[1].folder / store.JOURNAL).open("w") as journal:
        fcntl.flock(journal, fcntl.LOCK_EX)

        gone = catalog.remove(chosen)

    assert ids(gone) == [chosen[2].id]
    assert sorted(path.name for path in store.RUNS.iterdir()) == ids(chosen[:2])


def test_the_size_is_what_the_disk_holds() -> None:
    folder = run("a")
    (folder / "big").write_bytes(b"x" * 1_000_000)
    (folder / "link").symlink_to("big")

    assert 1_000_000 <= catalog.entries()[0].size_bytes < 1_200_000


def test_a_link_or_a_copy_beside_the_store_is_no_run_of_its_own(folder: Path) -> None:
    name = "20261101-000000-a-1"
    run(name)
    stored = folder / store.RUNS / name
    store.write_json(
        stored / store.SUMMARY, {**summary(), "run": name, "started": "2026-11-01T00:00:00+00:00"}
    )
    (folder / "latest").symlink_to(stored)
    shutil.copytree(stored, folder / "before")
    (folder / "another").mkdir()
    other = {**summary(), "run": name, "started": "2026-11-02T00:00:00+00:00"}
    store.write_json(folder / "another" / store.SUMMARY, other)

    assert ids(catalog.entries()) == [name, "another"]


def test_what_out_has_put_beside_the_store_is_listed_and_never_pruned(folder: Path) -> None:
    run("20261101-000000-a-1")
    for name, file, document in (
        ("first-run", store.SUMMARY, {**summary(), "started": "2026-11-02T00:00:00+00:00"}),
        ("first-study", store.STUDY, {**study(), "baseline": BEGAN}),
        ("of-another-tool", store.SUMMARY, {"total": 3}),
        ("src", "notes.txt", {}),
    ):
        (folder / name).mkdir()
        store.write_json(folder / name / file, document)
    (folder / "begun").mkdir()
    (folder / "begun" / store.JOURNAL).write_text("")

    found = catalog.entries()

    assert set(ids(found)) == {"first-study", "20261101-000000-a-1", "first-run", "begun"}
    assert ids(found)[:3] == ["first-study", "20261101-000000-a-1", "first-run"]
    assert ids(catalog.prunable(found, NOW, keep=0, older_than_s=None)) == ["20261101-000000-a-1"]
