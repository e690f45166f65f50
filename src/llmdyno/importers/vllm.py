"""Results of `vllm bench serve --save-result`, appended and detailed ones too, and of sweeps.

Keys: vllm/benchmarks/serve.py (benchmark() and main_async()) of vLLM; a file that was appended to
holds one result a line, and each becomes a level. `vllm bench sweep serve` (vllm/benchmarks/sweep/
serve.py at 4fa9174) adds `run_number` and what it varied to each result; its summary.json is a list
of the runs of one combination. What it varied of the server tells the levels apart.

With --save-detailed the file has the stamps of every request: then all statistics are worked out
anew from them, which also gives those that the summary lacks (it has by default mean, median and
p99, and no end-to-end latency).
"""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import msgspec

from llmdyno.importers import Findings, Foreign, Importer
from llmdyno.importers._level import ForeignLevel, Statistics
from llmdyno.importers._serving import (
    Serving,
    detailed,
    failed_of,
    in_ms,
    models,
    one_or_each,
    summarised,
)

# Our names and theirs.
_SUFFIXES = {"ttft_ms": "ttft", "tpot_ms": "tpot", "itl_ms": "itl", "e2e_ms": "e2el"}


class _Result(Serving, frozen=True, kw_only=True):
    """What we read of one result, by their names."""

    model_id: str | None
    date: str | None = None
    num_prompts: float | None = None
    failed: float | None = None
    request_goodput: float | None = None
    # As older versions write it.
    misspelt_goodput: float | None = msgspec.field(default=None, name="request_goodput:")
    # Newer versions: of every request, failed ones too.
    latencies: list[float] = msgspec.field(default_factory=list)


class VllmImporter:
    """Reads the results that `vllm bench serve` saves as JSON."""

    name = "vllm"
    definitions: Mapping[str, str] = {
        "ttft_ms": "ends at the first chunk with a choice, even if it is empty or only a role",
        "itl_ms": "gap between chunks, however many tokens are in one",
        "tpot_ms": "(last - first chunk) / (output tokens - 1)",
        "e2e_ms": "ends at the last chunk with a choice, even if it is empty",
        "token_rate": "output tokens of the completed requests / the whole run, tail included",
        "tokens": "as the server counts them, or its own tokenizer; the file does not say which",
    }

    def recognises(self, document: Foreign) -> bool:
        """Recognise its throughputs; SGLang's file, which is similar, has no `model_id`."""
        return {"request_throughput", "output_throughput", "model_id"} <= document.keys()

    def read(self, documents: Sequence[Foreign]) -> Findings:
        """Return one level for each result."""
        results = [msgspec.convert(document, _Result) for document in documents]
        varied = _varied(documents)
        levels, notes = [], []
        if not all(result.model_id for result in results):
            notes.append("The file does not name the model.")
        for result, document in zip(results, documents, strict=True):
            from_stamps = detailed(result)
            if result.has_details and from_stamps is None:
                notes.append(
                    f"{_level_name(result)}: the details of the requests do not fit the summary;"
                    " the summary is used."
                )
            latencies = from_stamps or _summarised(result, document)
            config = {name: document[name] for name in varied if name in document}
            levels.append(_level(result, latencies, config))
        first = results[0]
        return Findings(
            levels=[*levels],
            started=_iso(first.date),
            spec={
                "model": models([result.model_id for result in results]),
                "endpoint": one_or_each([result.backend for result in results]),
                "load": {
                    "users": [result.users for result in results],
                    "max_concurrency": one_or_each([result.max_concurrency for result in results]),
                    "requests": one_or_each([result.num_prompts for result in results]),
                    "request_rate": one_or_each([result.rate for result in results]),
                    "burstiness": one_or_each([result.burstiness for result in results]),
                },
            },
            notes=tuple(notes),
        )


def _level(
    result: _Result, latencies: Mapping[str, Statistics], config: Mapping[str, Any]
) -> ForeignLevel:
    failed = result.failed
    if failed is None:
        failed = failed_of(result.num_prompts, result.completed)
    goodput = result.request_goodput
    return ForeignLevel(
        **result.load(),
        model=result.model_id,
        endpoint=result.backend,
        asked=result.num_prompts,
        config=config,
        failed=failed,
        cut=0,
        method="whole run: vLLM counts ramp and tail too (imported)",
        latencies=latencies,
        rates={
            "token_rate": result.output_throughput,
            "request_rate": result.request_throughput,
            "goodput": result.misspelt_goodput if goodput is None else goodput,
        },
    )


def _summarised(result: _Result, document: Foreign) -> dict[str, Statistics]:
    found = summarised(document, result.completed, _SUFFIXES)
    if (
        found["e2e_ms"]["mean"] is None
        and result.latencies
        and (len(result.latencies) == result.completed)
    ):
        found["e2e_ms"] = in_ms(result.latencies)
    return found


def _varied(documents: Sequence[Foreign]) -> list[str]:
    """Return the names of what a sweep varied and no result of `vllm bench serve` has.

    They are the settings of the server, and of the workload, that stand beside `run_number`.
    """
    if not all("run_number" in document for document in documents):
        return []
    names = dict.fromkeys(name for document in documents for name in document)
    return [name for name in names if name not in _OWN and not name.startswith(_OWN_STARTS)]


# The names that `vllm bench serve` writes itself; those of statistics begin as in _OWN_STARTS.
_OWN = {
    *(field.encode_name for field in msgspec.structs.fields(_Result)),
    *("endpoint_type", "label", "tokenizer_id", "total_token_throughput", "run_number"),
    *("input_lens", "generated_texts", "max_output_tokens_per_s", "rtfx", "start_times"),
    *("user_centric_rate", "ramp_up_strategy", "ramp_up_start_rps", "ramp_up_end_rps"),
    *("goodput_config", "steady_state", "server_load_metrics", "_about"),
}
_OWN_STARTS = ("mean_", "median_", "std_", "spec_decode_", "total_", *(f"p{n}" for n in range(10)))


def _level_name(result: _Result) -> str:
    return f"{result.max_concurrency:,.0f} users" if result.max_concurrency else "unlimited users"


def _iso(date: str | None) -> str | None:
    try:
        return datetime.strptime(date or "", "%Y%m%d-%H%M%S").isoformat()  # noqa: DTZ007  # it has none
    except ValueError:
        return None


IMPORTER: Importer = VllmImporter()
