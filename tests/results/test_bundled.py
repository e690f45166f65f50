"""The store exported: folders in an archive, figures in a table."""

import csv
import tarfile
from pathlib import Path

import pytest

from llmdyno import store
from llmdyno.errors import UsageError
from llmdyno.results import bundled, catalog
from report_samples import study, summary


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for path, name, document in (
        ("runs/a", store.SUMMARY, summary()),
        ("studies/b", store.STUDY, study()),
    ):
        (tmp_path / path).mkdir(parents=True)
        store.write_json(tmp_path / path / name, document)
    return tmp_path


def test_an_archive_unpacks_to_a_store(tmp_path: Path) -> None:
    bundled.write(Path("all.tar.gz"), catalog.entries())

    with tarfile.open("all.tar.gz") as archive:
        archive.extractall(tmp_path / "other", filter="data")
    for name in ("runs/a/summary.json", "studies/b/study.json"):
        assert (tmp_path / "other" / name).read_bytes() == Path(name).read_bytes()


def test_a_table_has_a_row_a_level(tmp_path: Path) -> None:
    bundled.write(tmp_path / "all.csv", catalog.entries())

    with (tmp_path / "all.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    of_run = [row for row in rows if row["id"] == "a"]
    levels = summary()["levels"]
    assert len(of_run) == len(levels)
    assert float(of_run[0]["token_rate"]) == levels[0]["token_rate"]["mean"]
    assert {row["config"] for row in rows if row["id"] == "b"} == {"baseline", "best"}


def test_another_ending_is_refused() -> None:
    with pytest.raises(UsageError, match=r"all\.zip: name a file that ends with"):
        bundled.check(Path("all.zip"))
