"""What `dyno report` makes again of a run or a study."""

import json
from pathlib import Path

import msgspec
import pytest

import lab
from llmdyno import store
from llmdyno.cli.rebuild import rebuild, run_summary
from llmdyno.errors import UsageError


def test_a_run_is_derived_without_writing(results: Path) -> None:
    before = lab.snapshot(results)

    assert run_summary(results / lab.RUN)["levels"][0]["requests"]["completed"] == 200
    assert lab.snapshot(results) == before


def test_a_report_in_place_writes_the_bundle(results: Path) -> None:
    folder = results / lab.STUDY

    document, page = rebuild(folder)

    assert page == folder / store.REPORT
    stored = json.loads((folder / store.STUDY).read_text())
    assert stored == msgspec.json.decode(msgspec.json.encode(document))
    assert document["bundle"] == str(folder / "bundle")
    assert (folder / "bundle" / "serve.sh").exists()


@pytest.mark.parametrize("other", [lab.STUDY, "runs/other", "runs/imported"])
def test_a_report_replaces_no_other_results(other: str, results: Path) -> None:
    lab.write_run(results / "runs/other", gap_ms=20)
    imported = results / "runs/imported"
    imported.mkdir()
    store.write_json(imported / store.SUMMARY, {"run": "imported", "dir": str(imported)})
    before = lab.snapshot(results)

    with pytest.raises(UsageError, match="already holds results; name another folder"):
        rebuild(results / lab.RUN, results / other)

    assert lab.snapshot(results) == before


def test_a_report_replaces_no_other_studys_only_document(results: Path) -> None:
    kept, folder = results / "evidence", results / lab.STUDY
    kept.mkdir()
    for held in ({"study": "another"}, {}):
        store.write_json(kept / store.STUDY, held)
        for source in (folder, results / lab.RUN):
            with pytest.raises(UsageError, match="already holds results; name another folder"):
                rebuild(source, kept)
        assert store.read_json(kept / store.STUDY) == held

    store.write_json(kept / store.STUDY, {"study": folder.name})
    rebuild(folder, kept)


def test_a_folder_that_holds_neither_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="holds neither a run nor a study"):
        run_summary(tmp_path)


@pytest.mark.parametrize("gone", [store.JOURNAL, store.LEDGER])
def test_a_study_whose_runs_are_gone_has_the_page_of_its_document(
    gone: str, results: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = results / lab.STUDY
    rebuild(folder)
    stored = json.loads((folder / store.STUDY).read_text())
    for file in [*folder.rglob(gone)]:
        file.unlink()

    document, page = rebuild(folder, results / "elsewhere")

    assert "not all of its runs are there" in capsys.readouterr().err
    assert document == stored == json.loads((page.parent / store.STUDY).read_text())
    assert page.read_text().rstrip().endswith("</html>")
