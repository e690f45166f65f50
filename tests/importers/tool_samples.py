"""Result files of other tools, and how tests read and alter them."""

import json
from pathlib import Path
from typing import Any

SAMPLES = Path(__file__).parent / "samples"
TOOLS = {
    "aiperf.json": "aiperf",
    "aiperf_first.json": "aiperf",
    "genai_perf.json": "genai-perf",
    "guidellm.json": "guidellm",
    "guidellm_first.json": "guidellm",
    "vllm_appended.json": "vllm",
    "vllm_detailed.json": "vllm",
}


def sample(name: str) -> Any:
    """Return a sample's document, or the first one if it has one on each line."""
    text = (SAMPLES / name).read_text()
    return json.loads(text.splitlines()[0] if name == "vllm_appended.json" else text)


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
