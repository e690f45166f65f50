"""Results of SGLang's bench_serving."""

import json
from pathlib import Path

import pytest

from importers.tool_samples import SAMPLES, imported, notes_on_levels, sample
from llmdyno.importers import import_file
from llmdyno.results.documents import levels


def test_lines_of_sglang_are_levels() -> None:
    document = import_file(SAMPLES / "sglang.jsonl")

    closed, opened = document["levels"]
    assert list(levels(document)) == ["32 users", "poisson 4/s"]
    assert document["imported"]["version"] == "0.5.3"
    assert document["spec"]["model"] == "meta-llama/Llama-3.1-8B-Instruct"
    assert document["spec"]["load"]["request_rate"] == [None, 4]
    assert (closed["duration_s"], closed["requests"]["completed"]) == (50, 200)
    assert closed["requests"]["failed"] is None
    assert closed["tokens"] == {"input": 204800, "output": 51200, "source": None}
    assert (closed["ttft_ms"]["p50"], closed["ttft_ms"]["p90"]) == (110, None)
    assert (closed["itl_ms"]["p95"], closed["itl_ms"]["max"]) == (36, 95.5)
    assert (closed["tpot_ms"]["mean"], closed["e2e_ms"]["p90"]) == (28.9, 7900)
    assert (closed["token_rate"]["mean"], closed["request_rate"]["mean"]) == (1024, 4)
    assert closed["in_flight"] == {"mean": 30, "max": 34}
    assert (opened["rate"], opened["users"], opened["max_concurrency"]) == (4, None, None)
    assert notes_on_levels(document) == []


def test_the_details_of_sglang_tell_what_failed(tmp_path: Path) -> None:
    details = {
        "completed": 2,
        "ttfts": [0.1, 0.0, 0.3],
        "itls": [[0.02, 0.04], [], [0.06]],
        "output_lens": [3, 0, 2],
        "errors": ["", "Traceback\n  x\nTimeoutError: too late", ""],
    }

    (level,) = imported(tmp_path, json.dumps({**sample("sglang.jsonl"), **details}))["levels"]

    assert level["requests"] == {
        "completed": 2,
        "failed": 1,
        "cut": None,
        "errors": {"TimeoutError": 1},
    }
    assert level["asked"]["requests"] == 3
    assert level["ttft_ms"]["mean"] == pytest.approx(200)
    # (20 + 40) / 2 and 60 / 1 ms; 100 + 60 and 300 + 60 ms
    assert level["tpot_ms"]["mean"] == pytest.approx(45)
    assert level["e2e_ms"]["max"] == pytest.approx(360)


@pytest.mark.parametrize(
    ("info", "model"),
    [
        (None, ""),
        ({"model_path": "org/m"}, "org/m"),
        ({"decode": [{"model_path": "org/d"}], "prefill": [{"model_path": "org/p"}]}, "org/d"),
    ],
)
def test_the_model_of_sglang_is_what_the_server_says(
    tmp_path: Path, info: object, model: str
) -> None:
    document = imported(tmp_path, {**sample("sglang.jsonl"), "server_info": info})

    assert document["spec"]["model"] == model
    assert ("The file does not name the model." in notes_on_levels(document)) is (not model)


def test_a_concurrency_that_sglang_did_not_reach_is_noted(tmp_path: Path) -> None:
    changes = {"max_concurrency": 128, "concurrency": 94.0, "max_concurrent_requests": 130}

    document = imported(tmp_path, {**sample("sglang.jsonl"), **changes})

    (note,) = notes_on_levels(document)
    assert note.startswith("128 users: 94 of 128 users had a request in flight on average: ")


def test_a_trace_has_no_rate(tmp_path: Path) -> None:
    (level,) = imported(tmp_path, {**sample("sglang.jsonl"), "request_rate": "trace"})["levels"]

    assert (level["arrival"], level["rate"]) == ("trace", None)
