"""Results of SGLang's bench_serving: the JSONL that --output-file appends a line a run to.

Keys: `result` and `result_details` of benchmark() in python/sglang/bench_serving.py of
sgl-project/sglang, from 0033168 (2025) on; later ones add `server_info`, `tag` and p90. A rate of
"as fast as possible" is a bare Infinity. The file has neither the model, but for `server_info`, nor
how many requests were sent, but for --output-details.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from llmdyno.importers import Findings, Foreign, Importer
from llmdyno.importers._level import ForeignLevel
from llmdyno.importers._serving import Serving, detailed, models, one_or_each, summarised

# Our names and theirs.
_SUFFIXES = {"ttft_ms": "ttft", "tpot_ms": "tpot", "itl_ms": "itl", "e2e_ms": "e2e_latency"}
_ROLES = ("decode", "prefill")  # where they are separate servers, each has its own


class _Result(Serving, frozen=True, kw_only=True):
    """What we read of one result, by their names."""

    server_info: Any = None
    tag: str | None = None
    dataset_name: str | None = None

    def of_server(self, *names: str) -> str | None:
        """Return the first of these that the server says of itself."""
        info: Any = self.server_info if isinstance(self.server_info, dict) else {}
        parts = [info]
        for role in _ROLES:
            one = info.get(role)
            parts += one if isinstance(one, list) else [one]
        said = [part.get(name) for name in names for part in parts if isinstance(part, dict)]
        return next((found for found in said if isinstance(found, str) and found), None)


class SglangImporter:
    """Reads the results that SGLang's bench_serving saves as JSON lines."""

    name = "sglang"
    definitions: Mapping[str, str] = {
        "ttft_ms": "ends at the first chunk with text; without a stream it is the whole latency",
        "itl_ms": "gap between chunks with text; newer versions share it among a chunk's tokens",
        "tpot_ms": "(end of the response - first text) / (output tokens - 1)",
        "e2e_ms": "sent to the end of the response, which may come after the last token",
        "token_rate": "output tokens of the completed requests / the whole run, tail included",
        "tokens": "as the server counts them; where it does not, the length that was asked for",
    }

    def recognises(self, document: Foreign) -> bool:
        """Recognise its throughputs and its end-to-end latency; vLLM's file has a `model_id`."""
        return {
            "request_throughput",
            "output_throughput",
            "mean_e2e_latency_ms",
        } <= document.keys() and "model_id" not in document

    def read(self, documents: Sequence[Foreign]) -> Findings:
        """Return one level for each line."""
        results = [msgspec.convert(document, _Result) for document in documents]
        names = [result.of_server("served_model_name", "model_path") for result in results]
        notes = [] if all(names) else ["The file does not name the model."]
        levels: list[ForeignLevel | dict[str, Any]] = []
        for result, document, model in zip(results, documents, names, strict=True):
            from_stamps = detailed(result)
            if result.has_details and from_stamps is None:
                notes.append(
                    f"line {len(levels) + 1}: the details of the requests do not fit"
                    " the summary; the summary is used."
                )
            latencies = from_stamps or summarised(document, result.completed, _SUFFIXES)
            levels.append(
                ForeignLevel(
                    **result.load(),
                    model=model,
                    endpoint=result.backend,
                    asked=len(result.errors) or None,
                    asked_output_tokens=_length(document, result),
                    config=_workload(document, result),
                    failed=sum(map(bool, result.errors)) if result.errors else None,
                    method="whole run: SGLang counts ramp and tail too (imported)",
                    latencies=latencies,
                    rates={
                        "token_rate": result.output_throughput,
                        "request_rate": result.request_throughput,
                    },
                )
            )
        return Findings(
            levels=levels,
            version=results[0].of_server("version"),
            spec={
                "model": models(names),
                "endpoint": one_or_each([result.backend for result in results]),
                "load": {
                    "users": [result.users for result in results],
                    "max_concurrency": one_or_each([result.max_concurrency for result in results]),
                    "request_rate": one_or_each([result.rate for result in results]),
                },
            },
            notes=tuple(notes),
        )


def _workload(document: Foreign, result: _Result) -> dict[str, Any]:
    """Return what was asked of the workload: the file's lines may differ in that alone."""
    lengths = ("random_input_len", "random_output_len", "random_range_ratio")
    is_random = (result.dataset_name or "").startswith("random")
    return {
        name: value
        for name, value in (
            ("tag", result.tag),
            ("dataset_name", result.dataset_name),
            *((name, document.get(name)) for name in lengths if is_random),
        )
        if value is not None
    }


def _length(document: Foreign, result: _Result) -> float | None:
    """Return the output length that every request was to have, if all were to have the same."""
    length = document.get("random_output_len")
    is_fixed = (result.dataset_name or "").startswith("random") and (
        document.get("random_range_ratio") == 1
    )
    return length if is_fixed and isinstance(length, int | float) else None


IMPORTER: Importer = SglangImporter()
