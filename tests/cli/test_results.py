"""`dyno runs`, `compare` and `report` of what lies in a folder."""

import json
import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import lab

Dyno = Callable[..., subprocess.CompletedProcess[str]]


def test_runs_lists_what_is_in_this_folder(dyno: Dyno, tmp_path: Path) -> None:
    assert dyno("runs").stdout == "No runs and no studies in this folder.\n"
    sample = next((Path(__file__).parent.parent / "importers" / "samples").glob("*vllm*.json"))

    imported = dyno("import", str(sample))
    assert imported.returncode == 0, imported.stderr

    (folder,) = (tmp_path / "runs").iterdir()
    assert imported.stdout.strip() == f"runs/{folder.name}"
    assert f"{folder.name}  from vllm: " in dyno("runs").stdout
    assert json.loads(dyno("runs", "--json").stdout)[0]["id"] == folder.name


def test_two_runs_are_compared_on_one_page(dyno: Dyno, tmp_path: Path) -> None:
    for sample in sorted(
        (Path(__file__).parent.parent / "importers" / "samples").glob("*vllm*.json")
    )[:2]:
        dyno("import", str(sample))
    first, *rest = sorted(folder.name for folder in (tmp_path / "runs").iterdir())

    done = dyno("compare", first, (rest or [first])[-1])

    assert (done.returncode, done.stdout) == (0, "compare.html\n"), done.stderr
    assert (tmp_path / "compare.html").stat().st_size > 10_000


def test_a_folder_is_no_result_of_another_tool(dyno: Dyno, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()

    done = dyno("import", "empty")

    said = "dyno: dyno import empty: is a folder; name one of the files in it.\n"
    assert (done.returncode, done.stderr) == (2, said)


def test_a_folder_that_holds_nothing_says_so(dyno: Dyno, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()

    done = dyno("report", "empty")

    assert (done.returncode, done.stderr) == (2, "dyno: empty: holds neither a run nor a study.\n")


def test_a_report_says_what_the_page_begins_with(dyno: Dyno, results: Path) -> None:
    run = dyno("report", str(results / lab.RUN))

    assert run.stdout == f"{results / lab.RUN / 'report.html'}\n", run.stderr
    assert " tokens/s at 2 users, with a TTFT p50 of " in run.stderr


def test_a_study_is_written_as_markdown_with_its_charts(dyno: Dyno, results: Path) -> None:
    study = results / lab.STUDY

    done = dyno(
        *("report", str(study), "--markdown", "--assets", str(results / "charts")),
        PYTHONPATH=str(Path(lab.__file__).parent),
    )

    assert done.stdout == f"{study / 'report.md'}\n", done.stderr
    assert "Better: at 2 users the token rate is twice as high" in done.stderr
    finding = "One setting differs, itl_ms, so whatever differs is its doing."
    assert f"2. {finding}" in done.stderr
    written = (study / "report.md").read_text()
    assert finding.replace("_", "\\_") in written
    charts = {path.name for path in (results / "charts").iterdir()}
    linked = set(re.findall(r"\]\(\.\./\.\./charts/([\w.-]+)\)", written))
    assert {path.rpartition(".")[2] for path in charts} == {"svg", "png"}
    assert linked
    assert linked <= charts
