"""`dyno runs`, `compare` and `report` of what lies in a folder."""

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

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
