"""Results of GenAI-Perf: profile_export_genai_perf.json of `genai-perf profile`.

Keys: genai_perf/export_data/json_exporter.py and genai_perf/metrics/llm_metrics.py in
triton-inference-server/perf_analyzer. GenAI-Perf leaves failed requests out and does not say how
many there were.
"""

from collections.abc import Mapping, Sequence

import msgspec

from llmdyno.importers import Findings, Foreign, Importer, _nvidia
from llmdyno.importers._level import ForeignLevel
from llmdyno.importers._serving import models, one_or_each


class _Config(msgspec.Struct, frozen=True, kw_only=True):
    """What we read of `input_config`, by its names."""

    model: list[str] = []
    service_kind: str | None = None
    endpoint_type: str | None = None
    streaming: bool = True
    concurrency: int | None = None
    request_rate: float | None = None


class GenaiPerfImporter:
    """Reads the profile that GenAI-Perf exports as JSON."""

    name = "genai-perf"
    definitions: Mapping[str, str] = {
        "ttft_ms": "first response with content; reasoning text does not count",
        "tpot_ms": "its inter_token_latency: (request latency - TTFT) / (output tokens - 1)",
        "e2e_ms": "sent to the last response",
        "token_rate": "output tokens / (last response - first request), tail included",
        "tokens": "counted by its own tokenizer; totals are its average a request times requests",
    }

    def recognises(self, document: Foreign) -> bool:
        """Recognise the layout in a file that is not AIPerf's."""
        return _nvidia.is_profile(document) and not _nvidia.is_of_aiperf(document)

    def read(self, documents: Sequence[Foreign]) -> Findings:
        """Return one level for each profile."""
        configs = [
            msgspec.convert(document.get("input_config") or {}, _Config) for document in documents
        ]
        names = [config.model[0] if config.model else None for config in configs]
        return Findings(
            levels=[
                _level(document, config, model)
                for document, config, model in zip(documents, configs, names, strict=True)
            ],
            spec={
                "model": models(names),
                "endpoint": one_or_each([_endpoint(config) for config in configs]),
                "load": {
                    "users": [config.concurrency for config in configs],
                    "request_rate": one_or_each([config.request_rate for config in configs]),
                },
            },
            notes=("Failed requests are not in the file; how many there were is not known.",),
        )


def _level(document: Foreign, config: _Config, model: str | None) -> ForeignLevel:
    completed = _nvidia.average(document, "request_count")
    # Without a stream it writes the whole latency as time to first token.
    first = (("ttft_ms", "time_to_first_token"),) if config.streaming else ()
    is_closed = config.request_rate is None
    return ForeignLevel(
        users=config.concurrency if is_closed else None,
        arrival="closed" if is_closed else "constant",
        rate=config.request_rate,
        max_concurrency=None if is_closed else config.concurrency,
        model=model,
        endpoint=_endpoint(config),
        duration_s=None,
        completed=completed,
        failed=None,
        input_tokens=_nvidia.total(document, "", "input_sequence_length", completed),
        output_tokens=_nvidia.total(document, "", "output_sequence_length", completed),
        token_source="tokenizer",  # noqa: S106  # not that kind of token
        method="whole measurement of perf_analyzer (imported)",
        latencies={
            name: found
            for name, theirs in (
                *first,
                ("tpot_ms", "inter_token_latency"),
                ("e2e_ms", "request_latency"),
            )
            if (found := _nvidia.latency(document, theirs, completed)) is not None
        },
        rates={
            "token_rate": _nvidia.average(document, "output_token_throughput"),
            "request_rate": _nvidia.average(document, "request_throughput"),
            "goodput": _nvidia.average(document, "request_goodput"),
        },
    )


def _endpoint(config: _Config) -> str | None:
    return config.endpoint_type or config.service_kind


IMPORTER: Importer = GenaiPerfImporter()
