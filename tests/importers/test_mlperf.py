"""Summaries of MLPerf's loadgen."""

from pathlib import Path

import pytest

from importers.tool_samples import SAMPLES, imported, notes_on_levels
from llmdyno.errors import UsageError
from llmdyno.importers import import_file
from llmdyno.results.documents import level_name

SERVER = (SAMPLES / "mlperf_server.txt").read_text()
OFFLINE = (SAMPLES / "mlperf_offline.txt").read_text()


def test_a_server_run_is_read_and_stays_invalid() -> None:
    document = import_file(SAMPLES / "mlperf_server.txt")

    (level,) = document["levels"]
    assert level_name(level) == "poisson 104/s"
    assert (level["rate"], level["sent_rate"], level["request_rate"]["mean"]) == (104, 104.25, 92.5)
    assert level["token_rate"]["mean"] == 26250.5
    for name, stats in (
        ("ttft_ms", {"mean": 963, "p50": 950.5, "p90": 1445.5, "p99": 2010.5, "max": 2522}),
        ("tpot_ms", {"mean": 126.5, "p50": 132.5, "p95": 150.5, "p99": 164.5, "max": 1358}),
        ("e2e_ms", {"mean": 37500, "p50": 32500, "p95": 83500, "p99": 121000, "max": 150000}),
    ):
        assert {stat: level[name][stat] for stat in stats} == pytest.approx(stats)
    (doubt,) = [one for one in document["doubts"] if one["code"] == "called-invalid"]
    assert doubt["at"] == "poisson 104/s"
    assert doubt["text"] == (
        "the tool that measured it: it says INVALID; performance constraints not satisfied; early"
        " stopping not satisfied."
    )
    assert "The loadgen says: 1 warning encountered. See detailed log." in notes_on_levels(document)


def test_an_offline_run_is_read() -> None:
    document = import_file(SAMPLES / "mlperf_offline.txt")

    (level,) = document["levels"]
    assert (level_name(level), level["rate"]) == ("burst arrivals", None)
    assert (level["request_rate"]["mean"], level["token_rate"]["mean"]) == (101.5, 29750.25)
    assert level["e2e_ms"]["p99"] == pytest.approx(595000)
    assert set(level["ttft_ms"].values()) == {None}
    assert "invalid" not in level
    assert not [one for one in document["doubts"] if one["code"] == "called-invalid"]


def test_summaries_in_one_file_are_levels(tmp_path: Path) -> None:
    document = imported(tmp_path, SERVER + OFFLINE)

    assert ["invalid" in level for level in document["levels"]] == [True, False]
    assert document["spec"]["scenario"] == ["Server", "Offline"]


def test_a_run_for_accuracy_has_no_times(tmp_path: Path) -> None:
    (level,) = imported(tmp_path, OFFLINE.replace("PerformanceOnly", "AccuracyOnly"))["levels"]

    assert "it ran for accuracy" in level["invalid"]
    assert set(level["e2e_ms"].values()) == {None}
    assert level["request_rate"]["mean"] is None


def test_a_single_stream_is_one_user(tmp_path: Path) -> None:
    text = OFFLINE.replace("Scenario : Offline", "Scenario : SingleStream").replace(
        "Samples per second: 101.5", "90th percentile latency (ns) : 545000000000"
    )

    (level,) = imported(tmp_path, text)["levels"]

    assert (level["users"], level["arrival"]) == (1, "closed")
    assert level["e2e_ms"]["p90"] == pytest.approx(545000)


@pytest.mark.parametrize(
    ("old", "new", "sentence"),
    [
        ("Scenario : Offline", "Scenario : Imagined", "the scenario is 'Imagined'"),
        ("Result is : VALID\n", "", "it has no line `Result is : …`"),
    ],
)
def test_a_summary_that_is_none_is_refused(
    tmp_path: Path, old: str, new: str, sentence: str
) -> None:
    with pytest.raises(UsageError, match=f"is not a result of mlperf as we know .*{sentence}"):
        imported(tmp_path, OFFLINE.replace(old, new))
