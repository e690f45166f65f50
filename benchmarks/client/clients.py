"""The clients that are compared: what each needs, how it is asked for a case, what it reports.

Each is asked for the same: a closed loop, so many requests, 16 tokens in and 128 out, all users at
once, tokens counted by the server's usage where it can. The tokenizers that three of them want for
their prompts are one of two words, written here, so that nothing is downloaded.
"""

import json
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

TOKENS = 128  # of each answer
_PROMPT_TOKENS = 16
_HERE = Path(__file__).parent
_REVISION = "0" * 40
_MODEL = "llmdyno/words"


class Case(msgspec.Struct, frozen=True, kw_only=True):
    """One load, and the truth of the server."""

    name: str
    users: int
    ttft_ms: float
    itl_ms: float
    requests: int


class Reading(msgspec.Struct, frozen=True, kw_only=True):
    """What a client reported of one run."""

    ttft_ms_mean: float
    ttft_ms_p50: float
    ttft_ms_p99: float
    requests: int
    tokens: int


class Client(msgspec.Struct, frozen=True, kw_only=True):
    """One client: `command` gets its bin folder, the URL, the case and an empty folder."""

    name: str
    label: str
    requirements: Sequence[str] = ()  # none: it runs in our own environment
    command: Callable[[Path, str, Case, Path], list[str]]
    read: Callable[[Path], Reading]
    is_slow: bool = False  # runs in the first round only


def write_tokenizer(home: Path) -> None:
    """Write the tokenizer into a Hugging Face home, as if it had been downloaded."""
    repository = home / "hub" / f"models--{_MODEL.replace('/', '--')}"
    folder = _tokenizer(home)
    folder.mkdir(parents=True)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(_REVISION)
    unknown = {"id": 0, "content": "[UNK]", "special": True}
    plain = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    vocabulary = {"[UNK]": 0, "word": 1}
    tokenizer = {
        "version": "1.0",
        **dict.fromkeys(("truncation", "padding", "normalizer", "post_processor", "decoder")),
        "added_tokens": [unknown | plain],
        "pre_tokenizer": {"type": "Whitespace"},
        "model": {"type": "WordLevel", "vocab": vocabulary, "unk_token": "[UNK]"},
    }
    config = {"tokenizer_class": "PreTrainedTokenizerFast", "unk_token": "[UNK]"}
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    (folder / "tokenizer_config.json").write_text(json.dumps(config))


def environment(home: Path) -> Mapping[str, str]:
    """Return the environment of every client: a tokenizer, no network, a live display."""
    return os.environ | {"HF_HOME": str(home), "HF_HUB_OFFLINE": "1", "FORCE_COLOR": "1"}


def _tokenizer(home: Path) -> Path:
    return home / "hub" / f"models--{_MODEL.replace('/', '--')}" / "snapshots" / _REVISION


def _dyno(_: Path, url: str, case: Case, folder: Path) -> list[str]:
    return [
        *(sys.executable, "-m", "llmdyno", "bench", "--url", url, "--out", str(folder / "run")),
        *("-c", str(case.users), "--requests", str(case.requests), "--ramp", "0s"),
        *("--think-time", "0s", "--workload", "synthetic", "--isl", str(_PROMPT_TOKENS)),
        *("--osl", str(TOKENS), "--no-calibration"),  # which would be a load of its own
    ]


def _read_dyno(folder: Path) -> Reading:
    (level,) = json.loads((folder / "run" / "summary.json").read_text())["levels"]
    ttft = level["whole"]["ttft_ms"]
    return Reading(
        ttft_ms_mean=ttft["mean"],
        ttft_ms_p50=ttft["p50"],
        ttft_ms_p99=ttft["p99"],
        requests=level["requests"]["completed"],
        tokens=level["tokens"]["output"],
    )


def _sketch(_: Path, url: str, case: Case, folder: Path) -> list[str]:
    return [
        *(sys.executable, str(_HERE / "sketch.py"), "--url", url, "--users", str(case.users)),
        *("--requests", str(case.requests), "--tokens", str(TOKENS)),
        *("--out", str(folder / "sketch.json")),
    ]


def _read_sketch(folder: Path) -> Reading:
    document = json.loads((folder / "sketch.json").read_text())
    ttft = {f"ttft_ms_{stat}": value for stat, value in document["ttft_ms"].items()}
    return Reading(**ttft, requests=document["requests"], tokens=document["tokens"])


def _rust(programs: Path, url: str, case: Case, folder: Path) -> list[str]:
    return [
        *(str(programs / "python"), str(_HERE / "rust_client.py"), "--backend", "sglang-oai-chat"),
        *("--base-url", url, "--model", "streamer", "--tokenizer", str(_tokenizer(_home(folder)))),
        *("--dataset-name", "random-ids", "--random-input-len", str(_PROMPT_TOKENS)),
        *("--random-output-len", str(TOKENS), "--random-range-ratio", "1"),
        *("--num-prompts", str(case.requests), "--max-concurrency", str(case.users)),
        *("--warmup-requests", "0", "--disable-retokenize", "--disable-tqdm"),
        *("--output-file", str(folder / "rust.jsonl")),
    ]


def _read_rust(folder: Path) -> Reading:
    document = json.loads((folder / "rust.jsonl").read_text())
    return Reading(
        ttft_ms_mean=document["mean_ttft_ms"],
        ttft_ms_p50=document["median_ttft_ms"],
        ttft_ms_p99=document["p99_ttft_ms"],
        requests=document["completed"],
        tokens=document["total_output_tokens"],
    )


def _aiperf(programs: Path, url: str, case: Case, folder: Path) -> list[str]:
    return [
        *(str(programs / "aiperf"), "profile", "--url", url, "--endpoint-type", "chat"),
        *("--streaming", "--model", "streamer", "--tokenizer", _MODEL, "--ui", "none"),
        *("--concurrency", str(case.users), "--request-count", str(case.requests)),
        *("--isl", str(_PROMPT_TOKENS), "--osl", str(TOKENS), "--use-server-token-count"),
        *("--export-level", "summary", "--output-artifact-dir", str(folder / "aiperf")),
    ]


def _read_aiperf(folder: Path) -> Reading:
    document = json.loads((folder / "aiperf" / "profile_export_aiperf.json").read_text())
    ttft = document["time_to_first_token"]
    return Reading(
        ttft_ms_mean=ttft["avg"],
        ttft_ms_p50=ttft["p50"],
        ttft_ms_p99=ttft["p99"],
        requests=int(document["request_count"]["avg"]),
        tokens=int(document["total_output_tokens"]["avg"]),
    )


def _guidellm(programs: Path, url: str, case: Case, folder: Path) -> list[str]:
    lengths = f"prompt_tokens={_PROMPT_TOKENS},output_tokens={TOKENS}"
    return [
        *(str(programs / "guidellm"), "run", "--disable-progress"),
        *("--backend", f"kind=openai_http,target={url},model=streamer"),
        *("--profile", f"kind=concurrent,streams={case.users}"),
        *("--constraint", f"kind=max_requests,count={case.requests}"),
        *("--tokenizer", f"kind=hf_auto,model={_tokenizer(_home(folder))}"),
        *("--data", f"kind=synthetic_text,{lengths}"),
        *("--output", f"kind=json,path={folder / 'guidellm.json'}"),
    ]


def _read_guidellm(folder: Path) -> Reading:
    (benchmark,) = json.loads((folder / "guidellm.json").read_text())["benchmarks"]
    metrics: dict[str, Any] = benchmark["metrics"]
    ttft = metrics["time_to_first_token_ms"]["successful"]
    return Reading(
        ttft_ms_mean=ttft["mean"],
        ttft_ms_p50=ttft["median"],
        ttft_ms_p99=ttft["percentiles"]["p99"],
        requests=metrics["request_totals"]["successful"],
        tokens=int(metrics["output_token_count"]["successful"]["total_sum"]),
    )


def _home(folder: Path) -> Path:
    """Return the Hugging Face home that run.py has made beside the folders of the runs."""
    return folder.parent / "huggingface"


CLIENTS = (
    Client(name="dyno", label="dyno bench", command=_dyno, read=_read_dyno),
    Client(
        name="rust",
        label="SGLang's Rust client 0.5.23",
        # The extension is in the wheel; what the rest of SGLang needs is not for the client.
        requirements=("--no-deps", "sglang==0.5.23"),
        command=_rust,
        read=_read_rust,
    ),
    Client(
        name="sketch",
        label="bare asyncio + uvloop, counts only",
        command=_sketch,
        read=_read_sketch,
    ),
    Client(
        name="aiperf",
        label="AIPerf 0.13.0",
        requirements=("aiperf==0.13.0",),
        command=_aiperf,
        read=_read_aiperf,
        is_slow=True,
    ),
    Client(
        name="guidellm",
        label="GuideLLM 0.8.1",
        requirements=("guidellm==0.8.1", "torch==2.13.0"),
        command=_guidellm,
        read=_read_guidellm,
        is_slow=True,
    ),
)
