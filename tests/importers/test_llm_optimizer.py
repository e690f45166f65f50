"""Results of BentoML's llm-optimizer."""

import json
from pathlib import Path

import pytest

from importers.tool_samples import SAMPLES, imported, sample
from llmdyno.errors import UsageError
from llmdyno.importers import import_file
from llmdyno.results.documents import levels


@pytest.mark.parametrize("name", ["llm_optimizer.jsonl", "llm_optimizer.json"])
def test_records_of_llm_optimizer_are_levels(name: str) -> None:
    document = import_file(SAMPLES / name)

    assert list(levels(document)) == ["32 users, max_num_seqs=64", "32 users, max_num_seqs=128"]
    first, second = document["levels"]
    assert document["spec"]["model"] == first["model"] == "Qwen/Qwen3-4B"
    assert document["environment"] == {"gpu": "4x NVIDIA L4"}
    assert first["asked"] == {
        "requests": 1000,
        "endpoint": "vllm",
        "config": {"tensor_parallel_size": 4, "max_num_seqs": 64, "dataset_name": "sharegpt"},
    }
    assert (first["duration_s"], first["requests"]["failed"]) == (160, 0)
    assert second["requests"]["failed"] == 10
    assert first["tokens"]["output"] == 196000
    assert (first["ttft_ms"]["p95"], first["tpot_ms"]["p99"], first["itl_ms"]["p50"]) == (
        *(316, 48),
        21.5,
    )
    assert first["e2e_ms"]["p99"] == 23250
    assert (first["token_rate"]["mean"], second["request_rate"]["mean"]) == (1225, 7.5)
    assert first["in_flight"]["mean"] == 31


def test_the_rate_that_the_client_was_told_is_the_level_s(tmp_path: Path) -> None:
    record = sample("llm_optimizer.jsonl")
    record["config"]["client_args"]["request_rate"] = 5.0

    (level,) = imported(tmp_path, json.dumps(record).replace(": ", ":\xa0"))["levels"]

    assert (level["arrival"], level["rate"], level["max_concurrency"]) == ("poisson", 5, 32)


def test_a_file_without_records_is_refused(tmp_path: Path) -> None:
    document = {**sample("llm_optimizer.json"), "test_results": []}

    with pytest.raises(UsageError, match="`test_results` is empty"):
        imported(tmp_path, document)
