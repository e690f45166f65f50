"""Lists: runs and studies in a line each, knobs, facts."""

import io
import time
from pathlib import Path
from typing import Any

import pytest

from llmdyno import plugins, store
from llmdyno.errors import UsageError
from llmdyno.results import catalog
from llmdyno.results.gave import gave
from llmdyno.terminal.lists import list_runs, show_facts, show_knob, show_knobs, show_runs
from report_samples import study, summary


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for path, name, document in (
        ("runs/a", store.SUMMARY, summary()),
        ("studies/b", store.STUDY, study()),
    ):
        (tmp_path / path).mkdir(parents=True)
        store.write_json(tmp_path / path / name, document)
    (tmp_path / "runs/c").mkdir()
    (tmp_path / "runs/c" / store.JOURNAL).touch()
    return tmp_path


@pytest.mark.usefixtures("folder")
def test_each_run_and_study_says_what_came_of_it() -> None:
    said: dict[str, Any] = {row["id"]: row["says"] for row in list_runs()}

    assert list(said) == ["a", "b", "c"]
    assert said["a"].startswith("10 users ")
    assert said["a"].endswith(" tok/s")
    assert said["b"] == "25 trials: better, token rate 3.11x [2.79, 3.42]"
    assert said["c"].startswith("not finished; `dyno report`")


def test_a_study_of_the_first_version_is_told_by_its_token_rate(folder: Path) -> None:
    old = study()
    old["confirmation"].pop("decided_by", None)
    store.write_json(folder / "studies/b" / store.STUDY, old)

    assert "token rate 3.11x" in list_runs()[1]["says"]


@pytest.mark.usefixtures("folder")
def test_an_imported_run_says_from_where_and_may_lack_its_rate() -> None:
    document = summary()
    document["imported"] = {"tool": "vllm"}
    document["levels"][0]["token_rate"]["mean"] = None
    store.write_json(Path("runs/a") / store.SUMMARY, document)

    assert list_runs()[0]["says"].startswith("from vllm: 10 users, 50 users ")


def test_a_knob_has_what_it_gave_in_the_studies_of_this_folder(folder: Path) -> None:
    document = {**study(), "engine": "openvino", "front": "native", "started": None}
    document["ablation"][1] |= {"knob": "cache_size", "pairs": 3, "matters": False}
    for name in ("20261101-000000-first-1", "20261102-000000-second-2"):
        (folder / "studies" / name).mkdir()
        store.write_json(folder / "studies" / name / store.STUDY, document)
    out = io.StringIO()

    found = gave(catalog.entries(), "openvino", "enable_prefix_caching")
    show_knob(plugins.load("engines", "openvino"), "cache_size", None, out, gave=found)

    said = out.getvalue().partition("what it gave in your studies\n")[2]
    first, where = said.splitlines()[:2]
    assert first == "    false → true: token rate 2.90x [2.60, 3.20]"
    assert " on " in where
    assert said.index("second-2") < said.index("first-1")
    (again, _) = gave(catalog.entries(), "openvino", "cache_size")
    assert (again.pairs, again.matters) == (3, False)
    assert gave(catalog.entries(), "vllm", "cache_size") == []
    assert [one.study for one in gave(catalog.entries(), "native", "cache_size")] != []


def test_a_knob_that_no_study_has_tried_says_so_in_a_line() -> None:
    out = io.StringIO()

    show_knob(plugins.load("engines", "openvino"), "cache_size", None, out, gave=[])

    assert out.getvalue().endswith(
        "  what it gave in your studies\n"
        "    nothing yet: no study of this folder has taken it back\n"
    )


def test_a_name_that_does_not_say_it_has_the_day_and_what_it_is_of_beside(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    out = io.StringIO()
    row = {"says": "10 users", "started": "2026-11-30T08:28:11+00:00", "engine": "vllm"}

    show_runs(
        [
            {**row, "id": "mine", "model": "org/m"},
            {**row, "id": "same", "model": "vllm", "tags": ["good"]},
            {**row, "id": "20261130-082811-vllm-m-1f2e", "model": "org/m"},
        ],
        out,
    )

    assert out.getvalue().splitlines() == [
        "mine  2026-11-30 08:28, vllm, org/m:  10 users",
        "same  [good]  2026-11-30 08:28, vllm:  10 users",
        "20261130-082811-vllm-m-1f2e  10 users",
    ]


def test_an_empty_folder_is_said_to_be_empty(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    out = io.StringIO()

    show_runs(list_runs(), out)

    assert out.getvalue() == "No runs and no studies in this folder.\n"


def test_knobs_are_listed_and_one_is_explained_in_80_columns() -> None:
    engine, out = plugins.load("engines", "openvino"), io.StringIO()
    name = engine.knobs[0].name

    show_knobs(engine, "1.0", out)
    show_knob(engine, name, "1.0", out)

    assert name in out.getvalue()
    assert "what it trades" in out.getvalue()
    assert max(map(len, out.getvalue().splitlines())) <= 80
    with pytest.raises(UsageError, match="no knob 'nothing'"):
        show_knob(engine, "nothing", "1.0", out)


def test_facts_are_written_in_a_line_each() -> None:
    out = io.StringIO()

    show_facts(
        {"memory_bytes": 2**31, "gpus": [], "cpu": {"model": "x", "cores": None}, "load": 1.25},
        ["busy."],
        out,
    )

    assert out.getvalue().splitlines() == [
        "memory: 2.0 GiB",
        "gpus: none",
        "cpu: model x, cores unknown",
        "load: 1.25",
        "! busy.",
    ]
