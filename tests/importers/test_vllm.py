"""Results of `vllm bench serve`."""

import json
from pathlib import Path
from typing import Any

import pytest

from importers.tool_samples import SAMPLES, altered, imported, sample, vllm_result
from llmdyno.importers import import_file
from llmdyno.results.documents import levels


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


def test_two_models_in_one_file_are_told_apart(tmp_path: Path) -> None:
    lines = [
        vllm_result(model_id="org/m"),
        vllm_result(model_id="org/OTHER", backend="openai-chat", num_prompts=400, request_rate=9.5),
    ]

    document = imported(tmp_path, "\n".join(json.dumps(line) for line in lines))

    first, second = levels(document).items()
    assert (first[0], second[0]) == (
        "10 users, org/m, vllm",
        "poisson 9.5/s, org/OTHER, openai-chat",
    )
    assert (first[1]["model"], second[1]["model"]) == ("org/m", "org/OTHER")
    assert first[1]["asked"] == {"requests": 300, "endpoint": "vllm"}
    assert second[1]["asked"] == {"requests": 400, "endpoint": "openai-chat"}
    assert (second[1]["users"], second[1]["rate"], second[1]["max_concurrency"]) == (None, 9.5, 10)
    assert second[1]["request_rate"]["mean"] == pytest.approx(299 / 36)
    assert document["spec"]["model"] == "org/m, org/OTHER"
    assert document["spec"]["endpoint"] == ["vllm", "openai-chat"]
    assert document["spec"]["load"]["requests"] == [300, 400]
    assert document["spec"]["load"]["request_rate"] == [None, 9.5]
    assert [doubt["at"] for doubt in document["doubts"] if doubt["code"] == "failed-requests"] == [
        first[0],
        second[0],
    ]


def test_runs_of_a_sweep_are_told_apart_by_what_it_varied(tmp_path: Path) -> None:
    runs = [vllm_result(run_number=0, max_num_seqs=seqs, max_concurrency=32) for seqs in (64, 128)]

    document = imported(tmp_path, runs)

    assert list(levels(document)) == ["32 users, max_num_seqs=64", "32 users, max_num_seqs=128"]
    assert document["levels"][1]["asked"]["config"] == {"max_num_seqs": 128, "gpu": "L40S"}


def test_levels_of_one_rate_are_told_apart_by_their_cap(tmp_path: Path) -> None:
    runs = [vllm_result(request_rate=5.0, max_concurrency=cap) for cap in (8, 16, None)]

    assert list(levels(imported(tmp_path, runs))) == [
        "poisson 5/s, at most 8 at once",
        "poisson 5/s, at most 16 at once",
        "poisson 5/s",
    ]


def test_metadata_of_a_user_is_no_setting(tmp_path: Path) -> None:
    document = imported(tmp_path, [vllm_result(gpu="A"), vllm_result(gpu="B")])

    assert list(levels(document)) == ["10 users", "10 users (2)"]
