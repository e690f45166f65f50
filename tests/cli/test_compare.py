"""`dyno compare` and `dyno baseline`: names, files, streams and exit statuses."""

import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

import lab
from compared_runs import SPEC, changed, write
from llmdyno import store
from llmdyno.cli.sides import read_sides
from llmdyno.tune.folder import stack_of
from llmdyno.tune.ledger import Ledger
from llmdyno.tune.study import study_document

Dyno = Callable[..., subprocess.CompletedProcess[str]]
LEVELS = Path(__file__).parents[1] / "importers" / "samples"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of runs, made once: equal ones, a slower one, one of other work; and a study."""
    folder = tmp_path_factory.mktemp("compare")
    runs = folder / "runs"
    for number in range(2):
        write(runs / f"equal-{number}", seed=number, seconds=12)
    write(runs / "slower", seed=2, slower=0.2, seconds=12)
    write(runs / "other", spec=changed(SPEC, workload__isl__a=99.0), seconds=12)
    for number in range(2):
        write(folder / "group" / str(number), seed=5 + number, seconds=10)
    lab.write_study(folder / "studies" / "s")
    return folder


@pytest.fixture
def here(made: Path, tmp_path: Path) -> Path:
    """The same where the command runs."""
    shutil.copytree(made, tmp_path, dirs_exist_ok=True)
    return tmp_path


def test_the_table_is_for_people_and_the_page_is_the_result(dyno: Dyno, here: Path) -> None:
    (here / "summary").write_text("")  # as $GITHUB_STEP_SUMMARY is: there, without a suffix

    done = dyno(
        *("compare", "equal-0", "equal-1", "--markdown", "summary", "--fail-on", "token_rate:-5%")
    )

    assert (done.returncode, done.stdout) == (0, "compare.html\n"), done.stderr
    assert done.stderr.startswith("No difference shown: token rate within ±")
    assert "No difference shown" in (here / "compare.html").read_text()
    assert (here / "summary").read_text().startswith("## Benchmark against `equal-0`")


def test_a_gate_fails_and_every_other_side_has_a_page(dyno: Dyno, here: Path) -> None:
    done = dyno(
        *("compare", "equal-0", "--markdown", "slower", "equal-1", "--out", "x.html", "--json"),
        *("--fail-on", "token_rate:-5%", "--junit", "j.xml"),
    )

    assert done.returncode == 1
    first, *_, last = done.stdout.splitlines()
    document = json.loads(last)
    assert (document["schema"], document["gate"]["status"]) == ("llmdyno.compare/1", 1)
    assert first == "## Benchmark against `equal-0`"
    assert "Page: x.html\nPage: x-2.html" in done.stderr
    assert (here / "x-2.html").exists()
    assert "<testsuite" in (here / "j.xml").read_text()


@pytest.mark.usefixtures("here")
def test_a_gate_that_compared_nothing_is_no_pass(dyno: Dyno) -> None:
    done = dyno("compare", "equal-0", "other", "--fail-on", "token_rate:-5%")

    assert done.returncode == 3
    assert "--fail-on compared nothing for token_rate:-5%" in done.stderr


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("equal-0",), "dyno compare equal-0: name a second run to compare it with, or one study."),
        (("equal-0", "nothing"), "nothing: no such run or study here."),
        (("equal-0", "equal-1", "--fail-on", "token_rate:5%"), "token_rate is worse when it falls"),
        (("equal-0", "equal-1", "--fail-on-doubt"), "--fail-on-doubt: needs --fail-on"),
        (("equal-0", "equal-1", "--junit", "no/j.xml"), "--junit no/j.xml: there is no folder no."),
        (("baseline:main", "equal-0"), "baseline:main: there is no such baseline here"),
        (("baseline:main", "baseline:b"), "name a run to compare with the baselines."),
        (("equal-0,other", "slower"), "equal-0,other: its runs are not rounds of one another"),
        (("equal-0", "equal-0"), "dyno compare equal-0 equal-0: the run equal-0 is in both; name"),
        (("equal-0,equal-1", "slower", "equal-1"), "the run equal-1 is in both"),
        (("equal-0,equal-0", "slower"), "equal-0,equal-0: the run equal-0 is there twice"),
    ],
)
def test_what_cannot_be_compared_is_refused(
    dyno: Dyno, arguments: tuple[str, ...], said: str
) -> None:
    done = dyno("compare", *arguments)

    assert (done.returncode, done.stdout) == (2, "")
    assert said in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_a_baseline_is_set_shown_and_compared(dyno: Dyno, here: Path) -> None:
    assert dyno("baseline", "show").stdout == "No baselines in this folder.\n"

    kept = dyno("baseline", "set", "main", "equal-0")
    again = dyno("baseline", "set", "main", "equal-1")
    shutil.rmtree(here / "runs" / "equal-1")

    assert (kept.returncode, "Replaced" in kept.stderr) == (0, False)
    assert "Replaced equal-0, kept since" in again.stderr
    (shown,) = json.loads(dyno("baseline", "show", "main", "--json").stdout)
    assert (shown["runs"], shown["workload"]) == (["equal-1"], "synthetic isl 30 osl 10")
    done = dyno("compare", "baseline:main", "slower", "--fail-on", "token_rate:-5%")
    assert (done.returncode, done.stdout) == (1, "compare.html\n")


def test_a_baseline_of_failed_requests_is_told_of_and_one_of_no_answer_refused(
    dyno: Dyno, here: Path
) -> None:
    lab.write_run(here / "runs" / "half", gap_ms=40, failed_every=2)
    lab.write_run(here / "runs" / "none", gap_ms=40, failed_every=1)

    kept, refused = (dyno("baseline", "set", "main", run) for run in ("half", "none"))

    assert kept.returncode == 0
    assert "! half, 2 users: 100 requests failed (50.0 %: http_500 100)" in kept.stderr
    assert (refused.returncode, refused.stdout) == (2, "")
    assert "at 2 users all 200 requests of none failed" in refused.stderr
    assert "half" in dyno("baseline", "show").stdout


def test_names_stand_for_runs_rounds_studies_and_files(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(here)
    file = str(LEVELS / "guidellm.json")

    before, others, decided = read_sides(["group", "equal-0,equal-1", "studies/s", file])

    assert decided is None
    sides = [before, *others]
    assert [side.kind for side in sides] == ["rounds of runs", "rounds of runs", "study", "import"]
    assert [len(side.starts) for side in sides] == [2, 2, 2, 1]
    assert [start.run for start in others[1].starts] == ["confirm-1", "confirm-2"]


def test_a_study_by_itself_is_baseline_against_winner(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(here)

    before, (after,), decided = read_sides(["studies/s"])

    assert [start.run for start in before.starts] == ["confirm-0", "confirm-3"]
    assert [start.run for start in after.starts] == ["confirm-1", "confirm-2"]
    assert decided is not None
    assert (decided.word, decided.key, decided.at) == ("better", ("token_rate", "mean"), "2 users")
    assert decided.said.startswith("Better at 2 users, token rate 2.00x")
    assert [(one.name, one.after) for one in decided.settings] == [("itl_ms", "20")]
    assert not decided.stays
    study = here / "studies" / "s" / store.STUDY
    document = study_document(study.parent, Ledger(study.parent), stack_of(lab.spec()))
    kept = {**document, "best": document["baseline"], "confirmation": {}}
    store.write_json(study, kept)
    _, _, decided = read_sides(["studies/s"])
    assert decided is not None
    assert decided.stays


def test_the_page_names_another_tools_files(dyno: Dyno, here: Path) -> None:
    files = [str(LEVELS / name) for name in ("genai_bench.json", "genai_bench_first.json")]

    dyno("compare", *files)

    page = (here / "compare.html").read_text()
    assert "genai_bench.json (before) against genai_bench_first.json (after)" in page
