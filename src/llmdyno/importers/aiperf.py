"""Results of AIPerf: profile_export_aiperf.json of `aiperf profile`.

Keys: aiperf/exporters/metrics_json_exporter.py, aiperf/common/models/export_models.py and, for
`input_config` in its first and its present shape, UserConfig.loadgen and aiperf/config/phases.py.
A sweep writes a file a point: import each, or the one of interest.
"""

from collections.abc import Mapping, Sequence

import msgspec

from llmdyno.importers import Findings, Foreign, Importer, _nvidia
from llmdyno.importers._level import ForeignLevel, level_document, without_secrets

_CLOSED = {"concurrency", "concurrency_burst"}


class _Loadgen(msgspec.Struct, frozen=True, kw_only=True):
    """The load, as the first shape of `input_config` describes it."""

    concurrency: int | None = None
    request_rate: float | None = None
    arrival_pattern: str | None = None


class _Phase(msgspec.Struct, frozen=True, kw_only=True):
    """One phase of the load, as the present shape of `input_config` describes it."""

    name: str = ""
    kind: str | None = None
    type: str = "concurrency"
    concurrency: int | None = None
    rate: float | None = None


class _Endpoint(msgspec.Struct, frozen=True, kw_only=True):
    type: str | None = None
    use_server_token_count: bool = False


class _Config(msgspec.Struct, frozen=True, kw_only=True):
    """What we read of `input_config`, and no more: it may hold keys and headers."""

    loadgen: _Loadgen | None = None
    phases: list[_Phase] = []
    endpoint: _Endpoint = _Endpoint()


class _ErrorDetails(msgspec.Struct, frozen=True, kw_only=True):
    type: str | None = None
    code: int | None = None


class _ErrorCount(msgspec.Struct, frozen=True, kw_only=True):
    error_details: _ErrorDetails
    count: int


class AiperfImporter:
    """Reads the profile that AIPerf exports as JSON."""

    name = "aiperf"
    definitions: Mapping[str, str] = {
        "ttft_ms": "starts when the session of the request is made, before it is sent",
        "itl_ms": "its inter_chunk_latency: gap between chunks, however many tokens are in one",
        "tpot_ms": "its inter_token_latency: (request latency - TTFT) / (output tokens - 1)",
        "token_rate": "output tokens / (last response - first request), tail included",
        "goodput": "against the thresholds of that run",
    }

    def recognises(self, document: Foreign) -> bool:
        """Recognise the layout, and AIPerf's version or its way to describe the load."""
        return _nvidia.is_profile(document) and _nvidia.is_of_aiperf(document)

    def read(self, documents: Sequence[Foreign]) -> Findings:
        """Return the one level of the file."""
        document = documents[0]
        config = msgspec.convert(document.get("input_config") or {}, _Config)
        load = _load_of(config)
        return Findings(
            levels=[level_document(_level(document, config, load))],
            version=_nvidia.text(document, "aiperf_version"),
            started=_nvidia.text(document, "start_time"),
            spec={
                "url": without_secrets(
                    _nvidia.text(document, "input_config", "endpoint", "urls", 0)
                    or _nvidia.text(document, "input_config", "endpoint", "url")
                    or ""
                ),
                "endpoint": config.endpoint.type,
                "model": _nvidia.text(document, "input_config", "models", "items", 0, "name")
                or _nvidia.text(document, "input_config", "endpoint", "model_names", 0)
                or "",
                "load": {"users": [load.concurrency], "request_rate": load.rate},
            },
            notes=("A warm-up phase, if there was one, is not in the numbers.",),
        )


def _level(document: Foreign, config: _Config, load: _Phase) -> ForeignLevel:
    completed = _nvidia.average(document, "request_count")
    failures = msgspec.convert(document.get("error_summary") or [], list[_ErrorCount])
    failed = _nvidia.average(document, "error_request_count")
    return ForeignLevel(
        users=load.concurrency,
        arrival="closed" if load.type in _CLOSED else load.type,
        rate=load.rate,
        duration_s=_nvidia.seconds(document, "benchmark_duration"),
        completed=completed,
        failed=sum(failure.count for failure in failures) if failed is None else failed,
        errors={_kind(failure.error_details): failure.count for failure in failures},
        input_tokens=_nvidia.total(document, "total_isl", "input_sequence_length", completed),
        output_tokens=_nvidia.total(document, "total_osl", "output_sequence_length", completed),
        token_source="usage" if config.endpoint.use_server_token_count else "tokenizer",
        method="whole run: AIPerf counts ramp and tail too (imported)",
        latencies={
            name: found
            for name, theirs in (
                ("ttft_ms", "time_to_first_token"),
                ("itl_ms", "inter_chunk_latency"),
                ("tpot_ms", "inter_token_latency"),
                ("e2e_ms", "request_latency"),
            )
            if (found := _nvidia.latency(document, theirs, _observations(name, completed)))
            is not None
        },
        rates={
            "token_rate": _nvidia.average(document, "output_token_throughput"),
            "request_rate": _nvidia.average(document, "request_throughput"),
            "goodput": _nvidia.average(document, "goodput"),
        },
        interrupted=document.get("was_cancelled") is True,
    )


def _load_of(config: _Config) -> _Phase:
    """Return the load that was measured, from either shape of the config."""
    measured = [
        phase for phase in config.phases if "profiling" in {phase.kind, phase.name}
    ] or config.phases
    if measured:
        return measured[0]
    loadgen = config.loadgen or _Loadgen()
    by_rate = loadgen.request_rate is not None
    return _Phase(
        type=(loadgen.arrival_pattern or "poisson") if by_rate else "concurrency",
        concurrency=loadgen.concurrency,
        rate=loadgen.request_rate,
    )


def _observations(name: str, completed: float | None) -> float | None:
    """Return how many observations a statistic rests on; chunks are not counted in the file."""
    return None if name == "itl_ms" else completed


def _kind(details: _ErrorDetails) -> str:
    words = [details.type or "unknown"]
    return " ".join([*words, *([str(details.code)] if details.code is not None else [])])


IMPORTER: Importer = AiperfImporter()
