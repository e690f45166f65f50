"""Result files of other tools, and how tests read and alter them."""

import json
from pathlib import Path
from typing import Any

import yaml

from llmdyno.importers import import_file
from llmdyno.importers.mlperf import MlperfImporter

SAMPLES = Path(__file__).parent / "samples"
MLPERF = MlperfImporter()
TOOLS = {
    "aiperf.json": "aiperf",
    "aiperf_first.json": "aiperf",
    "genai_bench.json": "genai-bench",
    "genai_bench_first.json": "genai-bench",
    "genai_perf.json": "genai-perf",
    "guidellm.json": "guidellm",
    "guidellm_first.json": "guidellm",
    "inference_perf.json": "inference-perf",
    "inference_perf_first.json": "inference-perf",
    "llm_d.yaml": "llm-d",
    "llm_d_first.yaml": "llm-d",
    "llm_optimizer.json": "llm-optimizer",
    "llm_optimizer.jsonl": "llm-optimizer",
    "mlperf_offline.txt": "mlperf",
    "mlperf_server.txt": "mlperf",
    "sglang.jsonl": "sglang",
    "vllm_appended.json": "vllm",
    "vllm_detailed.json": "vllm",
}


def sample(name: str) -> Any:
    """Return a sample's document, or the first one if it has several."""
    text = (SAMPLES / name).read_text()
    if name.endswith(".txt"):
        return MLPERF.parse(text)[0]
    if name.endswith(".yaml"):
        return yaml.safe_load(text)
    is_lines = name == "vllm_appended.json" or name.endswith(".jsonl")
    return json.loads(text.splitlines()[0] if is_lines else text)


def altered(folder: Path, name: str, **changes: Any) -> Path:
    """Write a sample with some of its top-level values changed, or left out (...)."""
    document = {**sample(name), **changes}
    path = folder / name
    path.write_text(json.dumps({key: value for key, value in document.items() if value is not ...}))
    return path


def keys_of(document: Any) -> Any:
    """Return the keys of a document at every depth, without what stands under them."""
    if not isinstance(document, dict):
        return None
    return {key: keys_of(value) for key, value in document.items()}


def vllm_result(**changes: Any) -> dict[str, Any]:
    """Return a result of `vllm bench serve` with some of its values changed, or left out (...)."""
    document = {**sample("vllm_appended.json"), **changes}
    return {key: value for key, value in document.items() if value is not ...}


def imported(folder: Path, content: str | bytes | Any, tool: str | None = None) -> dict[str, Any]:
    """Return the summary of a file with this content; what is no text is written as JSON."""
    path = folder / "result.json"
    if not isinstance(content, bytes):
        text = content if isinstance(content, str) else json.dumps(content)
        content = text.encode()
    path.write_bytes(content)
    return import_file(path, tool)


def notes_on_levels(document: dict[str, Any]) -> list[str]:
    """Return what was noted of a file beside the tool's definitions."""
    notes: list[str] = document["imported"]["notes"]
    return notes[len(document["spec"]["definitions"]) :]
