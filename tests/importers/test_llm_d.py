"""Benchmark reports of llm-d-benchmark."""

import json
from pathlib import Path

import pytest
import yaml

from importers.tool_samples import SAMPLES, imported, sample
from llmdyno.errors import UsageError
from llmdyno.importers import import_file
from llmdyno.results.documents import level_name


def test_a_report_is_read() -> None:
    document = import_file(SAMPLES / "llm_d.yaml")

    (level,) = document["levels"]
    assert level_name(level) == "constant 10/s"
    assert (document["imported"]["version"], document["spec"]["harness"]) == (
        "0.2.1",
        "inference-perf",
    )
    assert document["spec"]["model"] == level["model"] == "Qwen/Qwen3-0.6B"
    assert document["started"] == "2025-11-05T18:00:42Z"
    assert (level["rate"], level["max_concurrency"], level["duration_s"]) == (10, None, 109.5)
    assert (level["requests"]["completed"], level["requests"]["failed"]) == (480, 20)
    assert (level["tokens"]["input"], level["tokens"]["output"]) == (1125000, 480000)
    assert level["ttft_ms"]["p99"] == pytest.approx(50.5)
    assert (level["itl_ms"]["mean"], level["e2e_ms"]["mean"]) == (12.5, 12500)
    assert (level["token_rate"]["mean"], level["request_rate"]["mean"]) == (4500.5, 4.5)


def test_a_report_of_the_first_version_is_read() -> None:
    document = import_file(SAMPLES / "llm_d_first.yaml")

    (level,) = document["levels"]
    assert (level_name(level), document["spec"]["harness"]) == ("16 users", "vllm-benchmark")
    assert document["spec"]["model"] == "deepseek-ai/DeepSeek-R1-0528"
    assert document["started"] == "2025-06-10T15:49:43+00:00"
    assert level["duration_s"] == 16.5
    assert level["requests"] == {"completed": 30, "failed": 1, "cut": 1, "errors": {}}
    assert (level["ttft_ms"]["p50"], level["tpot_ms"]["p90"], level["itl_ms"]["max"]) == (
        *(203.5, 152),
        614.5,
    )
    assert (level["token_rate"]["mean"], level["request_rate"]["mean"]) == (32.5, 1.75)


@pytest.mark.parametrize("name", ["llm_d.yaml", "llm_d_first.yaml"])
def test_a_report_in_json_is_the_same(tmp_path: Path, name: str) -> None:
    text = json.dumps(sample(name), default=lambda time: time.isoformat().replace("+00:00", "Z"))

    assert imported(tmp_path, text)["levels"] == import_file(SAMPLES / name)["levels"]


def test_an_unquoted_version_is_one(tmp_path: Path) -> None:
    document = imported(tmp_path, yaml.safe_dump({**sample("llm_d.yaml"), "version": 0.2}))

    assert document["imported"]["version"] == "0.2"


def test_an_unknown_unit_is_named(tmp_path: Path) -> None:
    text = (SAMPLES / "llm_d.yaml").read_text().replace("units: s,", "units: fortnights,")

    with pytest.raises(UsageError, match="`time_to_first_token` is in 'fortnights'"):
        imported(tmp_path, text)


def test_a_report_without_requests_is_refused(tmp_path: Path) -> None:
    document = {**sample("llm_d.yaml"), "results": {"session_performance": {}}}

    with pytest.raises(UsageError, match="missing required field `aggregate`"):
        imported(tmp_path, yaml.safe_dump(document))
