"""`dyno runs`: list, tag, compare, prune and export, as a person types them."""

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from llmdyno import store
from report_samples import summary

Dyno = Callable[..., subprocess.CompletedProcess[str]]
OLD, NEW = "20200101-000000-old-1", "20991231-000000-new-2"


@pytest.fixture(autouse=True)
def runs(tmp_path: Path) -> Path:
    for name in (OLD, NEW):
        (tmp_path / "runs" / name).mkdir(parents=True)
        document = {**summary(), "started": None, "run": name}
        store.write_json(tmp_path / "runs" / name / store.SUMMARY, document)
    return tmp_path / "runs"


def test_the_list_says_what_the_store_holds_and_its_size(dyno: Dyno) -> None:
    done = dyno("runs")

    assert [line.split()[0] for line in done.stdout.splitlines()] == [OLD, NEW]
    assert done.stderr.startswith("2 runs, 0.")
    assert done.stderr.endswith(" MB\n")
    (row,) = json.loads(dyno("runs", "--since", "2026-01-01", "--json").stdout)
    assert (row["id"], row["kind"], row["tags"], row["running"]) == (NEW, "run", [], False)
    assert row["bytes"] > 0


def test_a_filter_that_nothing_fits_does_not_say_that_nothing_is_here(dyno: Dyno) -> None:
    done = dyno("runs", "--engine", "nope")

    assert done.stdout.startswith("None of what is here fits (2 runs, 0.")
    assert json.loads(dyno("runs", "--engine", "nope", "--json").stdout) == []


def test_a_wrong_filter_is_one_sentence(dyno: Dyno) -> None:
    done = dyno("runs", "--since", "soon")

    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "--since soon: write a day" in done.stderr


@pytest.mark.parametrize(
    ("file", "document", "said"),
    [
        (store.SUMMARY, {"total": 3}, "holds no document of dyno's"),
        (store.SUMMARY, {"schema": "llmdyno.summary/9"}, "holds the schema llmdyno.summary/9"),
        (store.SUMMARY, {"schema": "llmdyno.summary/1"}, "no level"),
        (store.SUMMARY, {"schema": "llmdyno.summary/1", "levels": [{"users": 4}]}, "4 users"),
    ],
)
def test_a_document_that_is_none_or_not_whole_does_not_end_the_list(
    dyno: Dyno, runs: Path, file: str, document: object, said: str
) -> None:
    (runs / "odd").mkdir()
    store.write_json(runs / "odd" / file, document)

    done = dyno("runs")

    assert done.returncode == 0
    assert len(done.stdout.splitlines()) == 3
    assert said in next(line for line in done.stdout.splitlines() if line.startswith("odd"))
    compared = dyno("compare", "runs/odd", NEW)
    assert "Traceback" not in compared.stderr


def test_a_tagged_run_is_found_by_its_tag_and_never_pruned(dyno: Dyno, runs: Path) -> None:
    assert dyno("runs", "tag", "old-1", "good").stdout == f"{OLD}  good\n"
    assert f"{OLD}  [good]  10 users" in dyno("runs", "--tag", "good").stdout

    assert "Nothing to remove." in dyno("runs", "prune", "--older-than", "30d", "--yes").stderr
    assert dyno("runs", "tag", "old-1", "good", "--remove").stdout == f"{OLD}  no tag\n"

    dry = dyno("runs", "prune", "--older-than", "30d", "--dry-run")
    assert dry.stdout.startswith(OLD)
    assert "Would free 1 run, " in dry.stderr
    assert (runs / OLD).exists()
    asked = dyno("runs", "prune", "--keep", "1")
    assert (asked.returncode, (runs / OLD).exists()) == (2, True)
    assert "add --yes" in asked.stderr

    done = dyno("runs", "prune", "--keep", "1", "--older-than", "30d", "--yes")
    assert (done.returncode, done.stdout) == (0, f"{OLD}\n")
    assert "Freed 1 run, " in done.stderr
    assert [path.name for path in runs.iterdir()] == [NEW]


def test_a_filter_before_prune_is_refused_as_it_would_not_be_heard(dyno: Dyno, runs: Path) -> None:
    done = dyno("runs", "--model", "x", "prune", "--keep", "0", "--yes")

    assert (done.returncode, len(list(runs.iterdir()))) == (2, 2)
    assert "dyno runs prune: write its flags after it" in done.stderr


def test_a_prune_without_a_limit_is_refused(dyno: Dyno) -> None:
    done = dyno("runs", "prune")

    assert (done.returncode, done.stderr) == (
        2,
        "dyno: dyno runs prune: say what may go, with --keep, --older-than or both.\n",
    )


def test_the_last_two_are_handed_to_compare(dyno: Dyno, runs: Path) -> None:
    done = dyno("runs", "--compare-last")

    assert f"dyno compare runs/{OLD} runs/{NEW}\n" in done.stderr
    assert done.returncode == 0, done.stderr
    (runs / NEW / store.SUMMARY).unlink()
    alone = dyno("runs", "--compare-last")
    assert (alone.returncode, alone.stderr.count("\n")) == (2, 1)


def test_the_store_is_exported(dyno: Dyno, tmp_path: Path) -> None:
    done = dyno("runs", "export", "all.csv", "--since", "2026-01-01")

    assert (done.returncode, done.stdout) == (0, "all.csv\n")
    assert OLD not in (tmp_path / "all.csv").read_text()
    assert dyno("runs", "export", "all.zip").returncode == 2
    assert dyno("runs", "export", "all.csv", "--tag", "none").returncode == 2
