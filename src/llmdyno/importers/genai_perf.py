"""Results of GenAI-Perf: profile_export_genai_perf.json of `genai-perf profile`.

Keys: genai_perf/export_data/json_exporter.py and genai_perf/metrics/llm_metrics.py in
triton-inference-server/perf_analyzer. GenAI-Perf leaves failed requests out and does not say how
many there were.
"""

from collections.abc import Mapping, Sequence

import msgspec

from llmdyno.importers import Findings, Foreign, Importer, _nvidia
from llmdyno.importers._level import ForeignLevel, level_document


class _Config(msgspec.Struct, frozen=True, kw_only=True):
    """What we read of `input_config`, by its names."""

    model: list[str] = []
    service_kind: str | None = None
    endpoint_type: str | None = None
    streaming: bool = True
    concurrency: int | None = None
    output_tokens_mean: float = -1.0
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
        """Return the one level of the file."""
        document = documents[0]
        config = msgspec.convert(document.get("input_config") or {}, _Config)
        completed = _nvidia.average(document, "request_count")
        # Without a stream it writes the whole latency as time to first token.
        first = (("ttft_ms", "time_to_first_token"),) if config.streaming else ()
        level = ForeignLevel(
            users=config.concurrency,
            arrival="closed" if config.request_rate is None else "constant",
            rate=config.request_rate,
            duration_s=None,
            completed=completed,
            failed=None,
            input_tokens=_nvidia.total(document, "", "input_sequence_length", completed),
            output_tokens=_nvidia.total(document, "", "output_sequence_length", completed),
            output_tokens_asked=max(0.0, config.output_tokens_mean),  # -1: it was not asked
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
        return Findings(
            levels=[level_document(level)],
            spec={
                "model": config.model[0] if config.model else "",
                "endpoint": config.endpoint_type or config.service_kind,
                "load": {"users": [config.concurrency], "request_rate": config.request_rate},
            },
            notes=("Failed requests are not in the file; how many there were is not known.",),
        )


IMPORTER: Importer = GenaiPerfImporter()
