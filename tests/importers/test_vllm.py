"""Results of `vllm bench serve`."""

from pathlib import Path
from typing import Any

import pytest

from importers.tool_samples import SAMPLES, altered, sample
from llmdyno.importers import import_file


def test_the_details_of_vllm_give_back_its_own_statistics_and_those_it_lacks() -> None:
    theirs = sample("vllm_detailed.json")

    (ours,) = import_file(SAMPLES / "vllm_detailed.json")["levels"]

    for metric, name in (("ttft_ms", "ttft"), ("tpot_ms", "tpot"), ("itl_ms", "itl")):
        for stat, word in (("mean", "mean"), ("p50", "median"), ("p99", "p99")):
            assert ours[metric][stat] == pytest.approx(theirs[f"{word}_{name}_ms"], rel=1e-5)
        assert ours[metric]["p50"] < ours[metric]["p90"] < ours[metric]["max"]
    done_ms = [1e3 * latency for latency in theirs["latencies"] if latency]
    assert ours["e2e_ms"]["n"] == len(done_ms) == 23
    assert ours["e2e_ms"]["mean"] == pytest.approx(sum(done_ms) / len(done_ms), rel=1e-5)
    assert ours["e2e_ms"]["max"] == pytest.approx(max(done_ms), rel=1e-5)
    assert ours["requests"] == {
        "completed": 23,
        "failed": 1,
        "cut": 0,
        "errors": {"ClientPayloadError": 1},
    }


def test_details_of_vllm_that_do_not_fit_are_not_used(tmp_path: Path) -> None:
    document = import_file(altered(tmp_path, "vllm_detailed.json", completed=22))

    (imported,) = document["levels"]
    assert imported["ttft_ms"]["p90"] is None
    assert imported["ttft_ms"]["mean"] == sample("vllm_detailed.json")["mean_ttft_ms"]
    assert "8 users: the details of the requests do not fit" in document["imported"]["notes"][-1]


def test_results_that_vllm_appended_are_levels() -> None:
    document = import_file(SAMPLES / "vllm_appended.json")

    assert [one["users"] for one in document["levels"]] == [10, 50]
    assert [one["ttft_ms"]["p99"] for one in document["levels"]] == [89.75, 269.25]
    assert document["levels"][0]["requests"]["failed"] == 1
    assert document["levels"][0]["goodput"] == {"mean": 7.5}
    assert set(document["levels"][0]["e2e_ms"].values()) == {None}
    assert document["started"] == "2025-05-30T20:38:06"


def test_vllm_without_details_has_end_to_end_latencies_when_nothing_failed(tmp_path: Path) -> None:
    path = altered(tmp_path, "vllm_detailed.json", ttfts=..., latencies=[0.2] * 22 + [0.3])

    (imported,) = import_file(path)["levels"]

    assert (imported["e2e_ms"]["p50"], imported["e2e_ms"]["max"]) == (200, 300)


@pytest.mark.parametrize(
    ("changes", "arrival"),
    [
        ({"max_concurrency": None}, "burst"),
        ({"request_rate": 10.0}, "poisson"),
        ({"request_rate": 10.0, "burstiness": 0.5}, "gamma"),
    ],
)
def test_how_vllm_sent_is_told(tmp_path: Path, changes: dict[str, Any], arrival: str) -> None:
    (imported,) = import_file(altered(tmp_path, "vllm_detailed.json", **changes))["levels"]

    assert imported["arrival"] == arrival


def test_a_url_that_is_none_is_left_out(tmp_path: Path) -> None:
    config = {"endpoint": {"urls": ["http://[oops"]}}

    document = import_file(altered(tmp_path, "aiperf.json", input_config=config))

    assert document["spec"]["url"] == ""
