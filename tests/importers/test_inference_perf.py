"""Results of inference-perf."""

import copy
from pathlib import Path

import pytest

from importers.tool_samples import SAMPLES, imported, notes_on_levels, sample
from llmdyno.importers import import_file
from llmdyno.results.documents import level_name


def test_a_stage_of_inference_perf_is_read() -> None:
    document = import_file(SAMPLES / "inference_perf.json")

    (level,) = document["levels"]
    assert level_name(level) == "open 10/s"
    assert (level["rate"], level["sent_rate"], level["duration_s"]) == (10, 10, 64)
    assert level["requests"] == {
        "completed": 600,
        "failed": 40,
        "cut": None,
        "errors": {"503 - Service Unavailable": 30, "Timeout": 10},
    }
    assert level["tokens"] == {"input": 120000, "output": 37500, "source": "tokenizer"}
    assert (level["ttft_ms"]["p50"], level["ttft_ms"]["p99"]) == (2500, 3500)
    assert (level["itl_ms"]["p50"], level["itl_ms"]["mean"]) == (pytest.approx(0.05), 12.5)
    assert set(level["tpot_ms"].values()) == {None}
    assert (level["e2e_ms"]["mean"], level["e2e_ms"]["n"]) == (3500, 600)
    # A median below zero: half of the requests were sent early, and early is not late.
    assert (level["schedule_delay_ms"]["p50"], level["schedule_delay_ms"]["max"]) == (0, 2)
    assert (level["token_rate"]["mean"], level["request_rate"]["mean"]) == (585.9375, 9.375)
    assert level["goodput"] == {"mean": 4.6875}


def test_a_rate_that_was_asked_for_and_not_sent_is_kept_and_noted() -> None:
    document = import_file(SAMPLES / "inference_perf_first.json")

    (level,) = document["levels"]
    assert (level["rate"], level["sent_rate"], level["request_rate"]["mean"]) == (20, 10, 9.6)
    assert level["duration_s"] == 125  # 1,200 / 9.6
    assert level["tokens"]["output"] == 75000  # 1,200 * 62.5
    assert level["tpot_ms"]["p99"] == 15
    assert level["schedule_delay_ms"]["p99"] == 54000
    note = (
        "open 20/s: 20 requests a second were asked for and 10 were sent: the load is not the one"
        " in the level's name."
    )
    assert note in notes_on_levels(document)
    assert note in [one["text"] for one in document["doubts"] if one["code"] == "imported-file"]


def test_a_stage_of_so_many_users_is_a_closed_loop(tmp_path: Path) -> None:
    report = copy.deepcopy(sample("inference_perf.json"))
    report["load_summary"]["concurrency"] = 16

    (level,) = imported(tmp_path, report)["levels"]

    assert (level["users"], level["arrival"], "rate" in level) == (16, "closed", False)
    assert "schedule_delay_ms" not in level


def test_the_summary_over_all_stages_is_no_load_of_its_own(tmp_path: Path) -> None:
    report = copy.deepcopy(sample("inference_perf.json"))
    for name in ("requested_rate", "achieved_rate", "send_duration"):
        del report["load_summary"][name]

    document = imported(tmp_path, report)

    assert level_name(document["levels"][0]) == "mixed arrivals"
    assert "The file mixes all stages" in notes_on_levels(document)[1]


def test_a_stage_in_which_all_failed_has_no_latencies(tmp_path: Path) -> None:
    report = copy.deepcopy(sample("inference_perf.json"))
    empty = dict.fromkeys(report["successes"]["latency"])
    report["successes"].update(count=0, latency=empty, output_tokens={"total": 0.0})
    report["successes"]["throughput"].update(output_tokens_per_sec=0.0, requests_per_sec=0.0)
    report["failures"]["count"] = 640

    (level,) = imported(tmp_path, report)["levels"]

    assert (level["requests"]["failed"], level["request_rate"]["mean"]) == (640, None)
    assert set(level["e2e_ms"].values()) == {None}
    assert level["schedule_delay_ms"]["p99"] == 1.3


@pytest.mark.parametrize(
    ("rate", "tokens", "source"), [(30.0, 300, "tokenizer"), (10.0, 100, "usage")]
)
def test_of_two_counts_of_tokens_that_counts_which_is_in_the_rate(
    tmp_path: Path, rate: float, tokens: int, source: str
) -> None:
    report = copy.deepcopy(sample("inference_perf.json"))
    report["benchmark_time_seconds"] = 10.0
    successes = report["successes"]
    successes["count"] = 10
    successes["output_tokens"] = {"total": 100.0, "mean": 10.0}  # as the server counts
    successes["output_len"] = {"mean": 30.0}
    successes["throughput"] |= {"output_tokens_per_sec": rate, "requests_per_sec": 1.0}

    document = imported(tmp_path, report)

    (level,) = document["levels"]
    assert (level["tokens"]["output"], level["tokens"]["source"]) == (tokens, source)
    said = "The server counted 100 output tokens, the tool's tokenizer 300"
    assert [one["text"] for one in document["doubts"] if said in one["text"]]
    assert not [one for one in document["doubts"] if "one of the three is wrong" in one["text"]]


def test_without_a_rate_nobody_says_which_of_two_counts_is_in_it(tmp_path: Path) -> None:
    report = copy.deepcopy(sample("inference_perf.json"))
    report["successes"]["count"] = 10
    report["successes"]["output_tokens"] = {"total": 100.0, "mean": 10.0}
    report["successes"]["output_len"] = {"mean": 30.0}
    report["successes"]["throughput"] = None

    document = imported(tmp_path, report)

    said = "the tool's tokenizer 300; the file does not tell which its rates count."
    assert [one["text"] for one in document["doubts"] if said in one["text"]]


def test_the_servers_count_alone_is_told_as_the_servers(tmp_path: Path) -> None:
    report = copy.deepcopy(sample("inference_perf.json"))
    report["successes"]["count"] = 10
    report["successes"]["output_tokens"] = {"total": 100.0, "mean": 10.0}
    report["successes"]["output_len"] = None

    (level,) = imported(tmp_path, report)["levels"]

    assert (level["tokens"]["output"], level["tokens"]["source"]) == (100, "usage")
