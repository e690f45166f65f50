"""Numbers of other tools that cannot be."""

import copy
import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from importers.tool_samples import imported, notes_on_levels, sample, vllm_result
from llmdyno.results.stats import STATISTICS


def test_a_result_in_which_all_is_well_has_no_notes(tmp_path: Path) -> None:
    assert notes_on_levels(imported(tmp_path, vllm_result())) == []


@pytest.mark.parametrize(
    ("changes", "note"),
    [
        ({"p99_tpot_ms": -3.0}, "TPOT: the p99 is -3 ms, and no latency is negative"),
        ({"mean_tpot_ms": -0.5}, "TPOT: the mean is -0.5 ms"),
        ({"p99_tpot_ms": 13.4}, "TPOT: the p99 of 13.4 ms is below the p50 of 13.5 ms"),
        ({"p95_tpot_ms": 20.0}, "TPOT: the p99 of 17.6 ms is below the p95 of 20 ms"),
        ({"p100_tpot_ms": 13.5}, "TPOT: the max of 13.5 ms is below the p99 of 17.6 ms"),
    ],
)
def test_a_latency_that_contradicts_itself_is_null(
    tmp_path: Path, changes: dict[str, Any], note: str
) -> None:
    document = imported(tmp_path, vllm_result(**changes))

    (level,) = document["levels"]
    assert {stat: level["tpot_ms"][stat] for stat in STATISTICS} == dict.fromkeys(STATISTICS)
    assert level["ttft_ms"]["p99"] == 89.75
    assert notes_on_levels(document)[0].startswith(f"10 users: {note}")
    assert notes_on_levels(document)[0] in [doubt["text"] for doubt in document["doubts"]]


@pytest.mark.parametrize("number", [float("nan"), float("inf"), float("-inf")])
def test_a_statistic_that_is_no_number_is_null(tmp_path: Path, number: float) -> None:
    document = imported(tmp_path, vllm_result(p99_ttft_ms=number, output_throughput=number))

    (level,) = document["levels"]
    assert (level["ttft_ms"]["p99"], level["ttft_ms"]["p50"]) == (None, 53)
    assert level["token_rate"]["mean"] is None
    assert [note.partition(" cannot")[0] for note in notes_on_levels(document)] == [
        f"10 users: TTFT: the p99 is {number}; it is left out.",
        f"10 users: the token rate: {number}",
    ]


def test_a_minus_zero_is_zero(tmp_path: Path) -> None:
    (level,) = imported(tmp_path, vllm_result(mean_ttft_ms=-0.0))["levels"]

    assert str(level["ttft_ms"]["mean"]) == "0.0"


@pytest.mark.parametrize(
    ("changes", "found", "note"),
    [
        ({"completed": 301}, {"completed": None, "failed": None}, "301 requests completed of 300"),
        ({"failed": -1}, {"completed": 299, "failed": None}, "failed requests: -1 cannot be"),
        ({"completed": -2}, {"completed": None, "failed": 302}, "completed requests: -2 cannot"),
        ({"failed": 2}, {"completed": 299, "failed": None}, "301 requests ended of 300"),
    ],
)
def test_counts_that_cannot_be_are_null(
    tmp_path: Path, changes: dict[str, Any], found: dict[str, Any], note: str
) -> None:
    document = imported(tmp_path, vllm_result(**changes))

    counts = document["levels"][0]["requests"]
    assert {name: counts[name] for name in found} == found
    assert notes_on_levels(document)[0].startswith(f"10 users: {note}")


@pytest.mark.parametrize(
    ("changes", "note"),
    [
        ({"output_throughput": 1e6}, "the token rate of 1,000,000/s over "),
        ({"request_throughput": 1e4}, "the request rate of 10,000/s over "),
        ({"duration": 0}, "the duration is 0 s, and requests completed in it"),
        ({"request_goodput": 1e4}, "the goodput of 10,000 requests a second is above"),
        ({"mean_ttft_ms": 9e6, "mean_e2el_ms": 900.0}, "the mean of TTFT of 9e+06 ms is above"),
    ],
)
def test_numbers_that_contradict_one_another_are_noted(
    tmp_path: Path, changes: dict[str, Any], note: str
) -> None:
    document = imported(tmp_path, vllm_result(**changes))

    assert notes_on_levels(document)[0].startswith(f"10 users: {note}")


def test_a_first_token_after_the_last_one_is_null_and_so_is_the_last(tmp_path: Path) -> None:
    impossible = vllm_result(mean_ttft_ms=60.0, mean_e2el_ms=50.0, request_goodput=1e4, duration=0)
    (level,) = imported(tmp_path, impossible)["levels"]

    for name in ("ttft_ms", "e2e_ms"):
        assert {stat: level[name][stat] for stat in STATISTICS} == dict.fromkeys(STATISTICS)
    assert level["tpot_ms"]["p50"] == 13.5
    assert (level["goodput"], level["duration_s"]) == (None, None)


def test_a_whole_number_may_be_written_as_a_float_and_nothing_as_null(tmp_path: Path) -> None:
    changes = {"completed": 299.0, "max_concurrency": 10.0, "total_input_tokens": None}

    document = imported(tmp_path, vllm_result(request_throughput=None, **changes))

    (level,) = document["levels"]
    assert str((level["users"], level["requests"]["completed"])) == "(10, 299)"
    assert str(document["spec"]["load"]["users"]) == "[10]"
    assert (level["tokens"]["input"], level["request_rate"]["mean"]) == (None, None)
    assert notes_on_levels(document) == []


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity"])
def test_a_count_that_is_no_number_is_null(tmp_path: Path, number: str) -> None:
    text = json.dumps(vllm_result()).replace('"completed": 299', f'"completed": {number}')

    document = imported(tmp_path, text)

    counts = document["levels"][0]["requests"]
    assert (counts["completed"], counts["failed"]) == (None, None)
    assert "completed requests: " in notes_on_levels(document)[0]


@pytest.mark.parametrize(
    ("name", "key"),
    [("total_output_tokens", "output"), ("total_input_tokens", "input")],
)
def test_tokens_below_zero_are_null(tmp_path: Path, name: str, key: str) -> None:
    (level,) = imported(tmp_path, vllm_result(**{name: -1}))["levels"]

    assert level["tokens"][key] is None


def test_where_nothing_completed_there_are_neither_latencies_nor_rates(tmp_path: Path) -> None:
    document = imported(tmp_path, vllm_result(completed=0, failed=300))

    (level,) = document["levels"]
    for name in ("ttft_ms", "itl_ms", "tpot_ms", "e2e_ms"):
        assert set(level[name].values()) == {None}
    assert [level[name] for name in ("token_rate", "request_rate", "goodput")] == [
        {"mean": None, "ci95": None},
        {"mean": None, "ci95": None},
        None,
    ]
    assert level["requests"]["failed"] == 300
    assert (level["tokens"]["input"], level["tokens"]["output"]) == (299700, None)
    assert "no request completed" in notes_on_levels(document)[0]


def test_what_an_empty_run_reports_as_nothing_needs_no_note(tmp_path: Path) -> None:
    zeros = {key: 0 for key in vllm_result() if key.endswith(("_ms", "put"))}
    changes = {**zeros, "total_output_tokens": 0, "request_goodput:": 0}

    document = imported(tmp_path, vllm_result(completed=0, failed=300, **changes))

    assert notes_on_levels(document) == []


@pytest.mark.parametrize(
    ("duration", "is_noted"),
    # 300 requests at 10/s take 30 s; those of chance, 3.5 s, and two slowest answers come on top.
    [(30.0, False), (36.0, False), (40.0, True), (300.0, True)],
)
def test_a_rate_that_was_not_delivered_is_noted(
    tmp_path: Path, duration: float, is_noted: bool
) -> None:
    changes = {"request_rate": 10.0, "duration": duration, "p99_e2el_ms": 2000.0}

    document = imported(tmp_path, vllm_result(**changes))

    noted = any("the asked rate was not delivered" in note for note in notes_on_levels(document))
    assert noted is is_noted
    assert document["levels"][0]["rate"] == 10


def test_a_rate_that_was_not_delivered_is_noted_without_end_to_end_latencies_too(
    tmp_path: Path,
) -> None:
    # 89.75 ms to the first of 271 tokens, 17.6 ms for each: 4.9 s, twice that at most.
    for duration, count in ((43.0, 0), (45.0, 1)):
        document = imported(tmp_path, vllm_result(request_rate=10.0, duration=duration))

        assert len(notes_on_levels(document)) == count


def test_a_concurrency_that_was_never_reached_is_noted(tmp_path: Path) -> None:
    document = imported(tmp_path, vllm_result(max_concurrency=128, max_concurrent_requests=94))

    assert "at most 94 of 128 users had a request in flight" in notes_on_levels(document)[0]
    assert document["levels"][0]["in_flight"] == {"mean": None, "max": 94}


def test_numbers_that_cannot_be_are_null_whatever_the_tool(tmp_path: Path) -> None:
    document = sample("aiperf.json")
    document["time_to_first_token"]["p99"] = -1
    document["request_count"]["avg"] = -5

    (level,) = imported(tmp_path, document)["levels"]

    assert level["ttft_ms"]["p99"] is None
    assert level["requests"]["completed"] is None


def aiperf(percent: float) -> Any:
    return {**sample("aiperf.json"), "osl_mismatch_diff_pct": {"unit": "%", "avg": percent}}


def guidellm(data: str) -> Any:
    return {**sample("guidellm.json"), "args": {"data": [data]}}


def llm_d(output: int) -> Any:
    document = copy.deepcopy(sample("llm_d.yaml"))
    asked = {"distribution": "fixed", "value": output}
    document["scenario"]["load"]["standardized"]["output_seq_len"] = asked
    return yaml.safe_dump(document)


def genai_bench(scenario: str) -> Any:
    document = copy.deepcopy(sample("genai_bench.json"))
    document["aggregated_metrics"]["scenario"] = scenario
    return document


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (aiperf(-79.6), "256 output tokens on average and 1,255 were"),
        (aiperf(1.5), ""),
        (
            {**sample("sglang.jsonl"), "random_output_len": 512},
            "256 output tokens on average and 51",
        ),
        ({**sample("sglang.jsonl"), "random_output_len": 512, "random_range_ratio": 0.5}, ""),
        (sample("sglang.jsonl"), ""),
        (guidellm("prompt_tokens=256,output_tokens=32"), "64 output tokens on average and 32 were"),
        (guidellm('{"prompt_tokens": 256, "output_tokens": 64}'), ""),
        (guidellm("output_tokens=32,output_tokens_stdev=9"), ""),
        (llm_d(1200), "1,000 output tokens on average and 1,200 were"),
        (llm_d(1010), ""),
        (genai_bench("D(100,50)"), "100 output tokens on average and 50 were"),
        (genai_bench("N(480,240)/(300,150)"), ""),
    ],
)
def test_answers_that_are_not_as_long_as_asked_are_noted(
    tmp_path: Path, content: Any, said: str
) -> None:
    notes = [note for note in notes_on_levels(imported(tmp_path, content)) if "answers" in note]

    assert bool(notes) is bool(said)
    assert all(said in note for note in notes)
