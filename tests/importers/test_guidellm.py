"""Results of GuideLLM."""

from pathlib import Path

import pytest
import yaml

from importers.tool_samples import SAMPLES, imported, sample
from llmdyno.importers import import_file


def test_guidellm_is_read() -> None:
    document = import_file(SAMPLES / "guidellm.json")

    first, second, third = document["levels"]
    assert document["imported"]["version"] == "0.5.2"
    assert document["started"] == "2026-01-01T00:00:00+00:00"
    assert document["spec"]["model"] == "Qwen/Qwen3-8B"
    assert first["requests"] == {"completed": 300, "failed": 2, "cut": 3, "errors": {}}
    assert (first["ttft_ms"]["mean"], first["tpot_ms"]["p99"], first["e2e_ms"]["mean"]) == (
        *(100, 48),
        2000,
    )
    assert (first["token_rate"]["mean"], first["request_rate"]["mean"]) == (330, 5)
    assert first["window"]["method"].startswith("whole")
    assert first["whole"]["ttft_ms"] == first["ttft_ms"]
    assert (second["window"]["start_s"], second["window"]["end_s"]) == (6, 57)
    assert (second["duration_s"], second["whole"]) == (60, None)
    assert (third["users"], third["arrival"], third["rate"]) == (None, "poisson", 8)


def test_guidellm_before_it_had_a_config_is_read() -> None:
    (imported,) = import_file(SAMPLES / "guidellm_first.json")["levels"]

    assert (imported["users"], imported["requests"]["failed"]) == (1, 5)


@pytest.mark.parametrize("names", [("backend_model", "backend_target"), ("model", "target")])
def test_guidellm_before_it_had_a_config_names_model_and_url_in_its_worker(
    tmp_path: Path, names: tuple[str, str]
) -> None:
    document = sample("guidellm_first.json")
    document["benchmarks"][0]["worker"] = dict(zip(names, ("org/m", "http://h"), strict=True))

    found = imported(tmp_path, document)

    assert (found["spec"]["model"], found["spec"]["url"]) == ("org/m", "http://h")
    assert found["levels"][0]["model"] == "org/m"


def test_guidellm_writes_yaml_too(tmp_path: Path) -> None:
    document = imported(tmp_path, yaml.safe_dump(sample("guidellm.json")))

    assert document["levels"] == import_file(SAMPLES / "guidellm.json")["levels"]
