"""A metric is one row: two that are added at run time are found wherever metrics are read."""

import csv
import io
import json
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from rich.console import Console

import lab
from llmdyno import report, store
from llmdyno.bench.live_metrics import LivePage
from llmdyno.cli.rebuild import rebuild, run_summary
from llmdyno.load.progress import Progress
from llmdyno.records.columns import Columns, Window
from llmdyno.records.entries import Record
from llmdyno.records.journal import read_journal
from llmdyno.results import doubts
from llmdyno.results.export import write_csv
from llmdyno.results.metrics import BY_NAME, Metric, Shown
from llmdyno.results.observations import at_last_token
from llmdyno.results.slo import parse_objective, parse_slos
from llmdyno.results.stats import Floats
from llmdyno.results.summary import summarise
from llmdyno.terminal.summary import show_summary
from llmdyno.tune import objectives
from llmdyno.tune.spec import Study
from llmdyno.wire.exchange import Meter

SLOS = "decode:p50<300ms,read_rate>1"
STRETCHES = 40


def decode_ms(columns: Columns) -> Floats:
    """Return the time from the first token to the last."""
    return np.where(columns.ttft_ns >= 0, (columns.last_ns - columns.ttft_ns) / 1e6, np.nan)


def read_rates(columns: Columns, window: Window, _: object) -> Floats:
    counts, _edges = np.histogram(
        columns.read_ns, bins=STRETCHES, range=(window.start_ns, window.end_ns)
    )
    return counts / (window.length_s / STRETCHES)


DECODE = Metric(
    name="decode_ms",
    short="decode",
    title="Decode time",
    unit="ms",
    better="lower",
    definition="decode = first token → last token.",
    observe=at_last_token(decode_ms),
    of_request=decode_ms,
    rests_on=frozenset({"later tokens"}),
    shown=(Shown(stat="p50", heading="decode p50", interval=True),),
)
READ_RATE = Metric(
    name="read_rate",
    short="read rate",
    title="Reads a second",
    unit="reads/s",
    better="higher",
    definition="read_rate = reads with tokens inside the window ÷ window length.",
    rate=read_rates,
    shown=(Shown(stat="mean", heading="reads/s"),),
)


@pytest.fixture(autouse=True)
def rows(monkeypatch: pytest.MonkeyPatch) -> None:
    for row in (DECODE, READ_RATE):
        monkeypatch.setitem(BY_NAME, row.name, row)


def run(folder: Path, gap_ms: int) -> Path:
    """Make a run with SLOs on the new metrics: answers of nine gaps, two at a time."""
    lab.write_run(folder, gap_ms=gap_ms)
    journal = folder / store.JOURNAL
    opened, rest = journal.read_text().split("\n", 1)
    first = json.loads(opened)
    first["spec"]["slos"] = msgspec.to_builtins(parse_slos(SLOS))
    journal.write_text(f"{json.dumps(first)}\n{rest}")
    store.write_json(folder / store.SUMMARY, summarise(journal))
    return folder


@pytest.fixture
def slow(tmp_path: Path) -> Path:
    return run(tmp_path / "slow", 40)


@pytest.fixture
def quick(tmp_path: Path) -> Path:
    return run(tmp_path / "quick", 20)


def level(folder: Path) -> dict[str, Any]:
    (found,) = store.read_json(folder / store.SUMMARY)["levels"]
    return dict(found)


def printed(summary: Any, width: int = 250) -> str:
    out = io.StringIO()
    show_summary(summary, Console(file=out, width=width))
    return out.getvalue()


def test_the_summary_has_them_with_intervals(slow: Path) -> None:
    found = level(slow)

    assert found["decode_ms"]["p50"] == pytest.approx(9 * 40, rel=1e-3)
    low, high = found["decode_ms"]["p50_ci95"]
    assert low <= found["decode_ms"]["p50"] <= high
    # Two users, a token every 40 ms each.
    assert found["read_rate"]["mean"] == pytest.approx(2 / 0.040, rel=0.02)
    assert found["read_rate"]["ci95"][0] < 50.5
    assert found["whole"]["decode_ms"]["n"] > 100


@pytest.mark.parametrize(("which", "met"), [("slow", False), ("quick", True)])
def test_slos_and_goodput_judge_by_them(
    which: str, met: bool, request: pytest.FixtureRequest
) -> None:
    folder = request.getfixturevalue(which)
    verdicts = {one["expr"]: one for one in store.read_json(folder / store.SUMMARY)["slo"]}
    found = level(folder)

    assert verdicts["decode:p50<300ms"]["value"] == found["decode_ms"]["p50"]
    assert verdicts["decode:p50<300ms"]["met"] is met
    assert verdicts["read_rate>1"]["met"] is True
    assert found["goodput"]["mean"] == (found["request_rate"]["mean"] if met else 0)


def test_the_terminal_and_the_page_show_them(slow: Path) -> None:
    summary = run_summary(slow)
    text, page = printed(summary), report.run_page(summary)

    assert "decode p50" in text
    assert "reads/s" in text
    assert "360 [360, 360]" in text
    for row in (DECODE, READ_RATE):
        assert row.definition in text
        assert row.definition in page
    assert "Decode p50" in page
    assert "Decode p99" in page
    assert "Read rate, reads/s" in page


def test_the_export_has_the_latency_of_each_request(slow: Path, tmp_path: Path) -> None:
    write_csv(slow, tmp_path / "r.csv")

    with (tmp_path / "r.csv").open() as file:
        values = [float(row["decode_ms"]) for row in csv.DictReader(file)]
    # 40 ms less a microsecond, nine times.
    assert set(values) == {359.991}


def test_a_client_at_its_limit_and_failed_requests_spoil_them() -> None:
    assert "decode_ms" in doubts.CODES["failed-requests"].metrics
    assert "decode_ms" in doubts.CODES["held-back-stream"].metrics
    assert "read_rate" not in doubts.CODES["failed-requests"].metrics


@pytest.mark.parametrize(
    ("objective", "key", "ratio"),
    [("decode:p50", "decode_ms_p50", 0.5), ("read_rate", "read_rate", 2.0)],
)
def test_a_study_is_decided_by_them(
    objective: str, key: str, ratio: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = msgspec.structs.replace(lab.spec(), objective=parse_objective(objective))
    monkeypatch.setattr(lab, "spec", lambda: asked)
    lab.write_study(tmp_path / "s")

    document, page = rebuild(tmp_path / "s")

    confirmation = document["confirmation"]
    assert confirmation["decided_by"] == key
    assert confirmation["verdict"] == "better"
    assert confirmation["ratio"][key]["mean"] == pytest.approx(ratio, rel=0.02)
    (change,) = document["ablation"]
    assert change["effect"][key]["ratio"] == pytest.approx(ratio, rel=0.02)
    assert ("decode p50" if key.startswith("decode") else "read rate") in page.read_text()


def test_an_objective_on_them_is_taken() -> None:
    objectives.check(Study(objective=parse_objective("decode:p95")))
    objectives.check(Study(objective=parse_objective("read_rate")))


def test_the_live_page_has_the_latency_of_the_last_requests(slow: Path) -> None:
    progress, page = Progress(load="2 users"), LivePage()
    for entry in read_journal(slow / store.JOURNAL):
        if isinstance(entry, Record):
            progress.add(entry)
    page.show(progress, Meter())

    assert 'decode_last_p50_seconds{level="0",load="2 users"} 0.359991' in page.text()


def test_a_comparison_sets_them_side_by_side(slow: Path, quick: Path) -> None:
    page = report.compare_page(run_summary(slow), run_summary(quick))

    assert "Decode p50" in page
    assert "0.500x" in page


def test_a_summary_from_before_them_opens_and_compares(slow: Path, quick: Path) -> None:
    old = json.loads(json.dumps(run_summary(slow)))
    for name in ("decode_ms", "read_rate"):
        del old["levels"][0][name], old["levels"][0]["whole"][name]
    old["slo"] = []

    assert "decode p50" in printed(old)
    assert "Decode p50" not in report.run_page(old)
    assert "Decode p50" in report.compare_page(old, run_summary(quick))
