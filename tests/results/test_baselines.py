"""Baselines: runs kept under a name, for each machine and workload."""

from pathlib import Path

import pytest

from compared_runs import PLACE, SPEC, changed, write
from llmdyno.errors import UsageError
from llmdyno.results import baselines
from llmdyno.results.sides import Start


@pytest.fixture(autouse=True)
def _in_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def start(name: str, **how: object) -> Start:
    return Start(write(Path(name), seconds=5, **how))  # type: ignore[arg-type]


def test_a_baseline_outlives_its_run_and_is_read_as_it_was() -> None:
    kept = start("a")
    saved, replaced = baselines.keep("main", [kept])
    assert replaced is None
    for path in Path("a").iterdir():
        path.unlink()

    (folder,) = baselines.find("main", kept.summary)

    again = Start(folder)
    assert again.levels["2 users"]["token_rate"] == kept.levels["2 users"]["token_rate"]
    assert again.observations("2 users", "ttft_ms", "p50")[0].batches is not None
    assert (saved.workload, saved.machine) == ("synthetic isl 30 osl 10", "EPYC, 16 cores")


def test_keeping_again_replaces_and_says_so() -> None:
    first, second = start("a"), start("b", seed=1)
    baselines.keep("main", [first])

    _, replaced = baselines.keep("main", [second])

    assert replaced is not None
    assert replaced.runs == ("a",)
    (only,) = baselines.kept("main")
    assert only.runs == ("b",)
    assert not list(baselines.BASELINES.glob("*/.*"))


def test_one_name_holds_a_run_for_each_machine_and_workload() -> None:
    here = start("a")
    there = start("b", place=changed(PLACE, cpu__cores_usable=8))
    other = start("c", spec=changed(SPEC, workload__isl__a=128.0))
    for one in (here, there, other):
        baselines.keep("main", [one])

    assert len(baselines.kept("main")) == 3
    for one in (here, there, other):
        (folder,) = baselines.find("main", one.summary)
        assert Start(folder).summary["run"] == one.run
    seeded = start("d", spec=changed(SPEC, workload__seed=9))
    assert baselines.find("main", seeded.summary) == baselines.find("main", here.summary)


def test_several_runs_are_kept_in_their_order() -> None:
    runs = [start(f"r{number}", seed=number) for number in range(11)]

    baselines.keep("main", runs)

    folders = baselines.find("main", runs[0].summary)
    assert [Start(folder).run for folder in folders] == [run.run for run in runs]


def test_what_is_not_kept_is_said_with_what_is() -> None:
    run = start("a")
    with pytest.raises(UsageError, match=r"baseline:main: there is no such baseline here \(kept"):
        baselines.find("main", run.summary)
    baselines.keep("main", [run])
    other = start("b", spec=changed(SPEC, workload__name="chat"))

    with pytest.raises(UsageError, match="nothing is kept for chat isl 30 osl 10 on EPYC"):
        baselines.find("main", other.summary)
    with pytest.raises(UsageError, match=r"\(kept: main\)"):
        baselines.kept("nightly")


@pytest.mark.parametrize("name", ["", "../x", ".hidden", "a b", "a/b"])
def test_a_name_is_a_folders(name: str) -> None:
    with pytest.raises(UsageError, match="is no name; use letters"):
        baselines.check_name(name)
