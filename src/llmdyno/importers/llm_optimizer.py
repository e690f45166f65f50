"""Results of BentoML's llm-optimizer: --output-json FILE.json and the FILE.jsonl beside it.

Keys: benchmark() in llm_optimizer/cli.py of bentoml/llm-optimizer (December 2025). A record has a
config, the results of its copy of SGLang's bench_serving, the server's command and metadata. The
JSONL has a record a line, the JSON has them under `test_results`. Each becomes a level; the
settings of the server tell those of one load apart. The command may hold keys: it is left out.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from llmdyno.importers import Findings, Foreign, Importer
from llmdyno.importers._level import ForeignLevel
from llmdyno.importers._serving import (
    Serving,
    detailed,
    failed_of,
    models,
    one_or_each,
    summarised,
)

# Our names and theirs.
_SUFFIXES = {"ttft_ms": "ttft", "tpot_ms": "tpot", "itl_ms": "itl", "e2e_ms": "e2e_latency"}


class _ClientArgs(msgspec.Struct, frozen=True, kw_only=True):
    num_prompts: float | None = None
    request_rate: float | None = None
    max_concurrency: float | None = None
    dataset_name: str | None = None
    random_input_len: int | None = None
    random_output_len: int | None = None
    random_range_ratio: float | None = None


class _Config(msgspec.Struct, frozen=True, kw_only=True):
    client_args: _ClientArgs = _ClientArgs()
    server_args: dict[str, Any] = {}


class _Metadata(msgspec.Struct, frozen=True, kw_only=True):
    model_tag: str | None = None
    gpu_type: str | None = None
    gpu_count: float | None = None


class _Record(msgspec.Struct, frozen=True, kw_only=True):
    """What we read of one run, by their names."""

    config: _Config
    results: dict[str, Any]
    metadata: _Metadata = _Metadata()


class LlmOptimizerImporter:
    """Reads the records that llm-optimizer saves as JSON and as JSON lines."""

    name = "llm-optimizer"
    definitions: Mapping[str, str] = {
        "ttft_ms": "ends at the first chunk with text",
        "itl_ms": "gap between chunks with text, however many tokens are in one",
        "tpot_ms": "(end of the response - first text) / (output tokens - 1)",
        "e2e_ms": "sent to the end of the response, which may come after the last token",
        "token_rate": "output tokens of the completed requests / the whole run, tail included",
        "endpoint": "'vllm' whatever the server: it names the client's protocol",
        "slo": "its constraints are not taken over, nor what it calls the best configuration",
    }

    def recognises(self, document: Foreign) -> bool:
        """Recognise a record, or the file that holds all of them."""
        tests = document.get("test_results")
        if isinstance(tests, list):
            return "best_configurations" in document or all(map(_is_record, tests))
        return _is_record(document)

    def read(self, documents: Sequence[Foreign]) -> Findings:
        """Return one level for each record."""
        found = [
            record for document in documents for record in document.get("test_results", [document])
        ]
        if not found:
            raise msgspec.ValidationError("`test_results` is empty - at `$.test_results`")
        records = [msgspec.convert(record, _Record) for record in found]
        names = [record.metadata.model_tag for record in records]
        results = [_result(record) for record in records]
        first = records[0].metadata
        gpu = {"gpu": f"{first.gpu_count or 1:g}x {first.gpu_type}"} if first.gpu_type else {}
        return Findings(
            levels=[
                _level(record, result) for record, result in zip(records, results, strict=True)
            ],
            environment=gpu,
            spec={
                "model": models(names),
                "endpoint": one_or_each([result.backend for result in results]),
                "load": {
                    "users": [result.users for result in results],
                    "requests": one_or_each([r.config.client_args.num_prompts for r in records]),
                    "request_rate": one_or_each([result.rate for result in results]),
                },
            },
            notes=() if all(names) else ("The file does not name the model.",),
        )


def _is_record(document: Any) -> bool:
    if not isinstance(document, Mapping):
        return False
    config, results = document.get("config"), document.get("results")
    return (
        isinstance(config, Mapping)
        and bool({"client_args", "server_args"} & config.keys())
        and isinstance(results, Mapping)
    )


def _result(record: _Record) -> Serving:
    """Return the results, with what was asked of the client where they do not repeat it."""
    args = record.config.client_args
    asked = {"request_rate": args.request_rate, "max_concurrency": args.max_concurrency}
    said = {name: value for name, value in record.results.items() if value is not None}
    return msgspec.convert({**asked, **said}, Serving)


def _level(record: _Record, result: Serving) -> ForeignLevel:
    args = record.config.client_args
    lengths = {"input_len": args.random_input_len, "output_len": args.random_output_len}
    workload = {"dataset_name": args.dataset_name, **lengths}
    stamped = detailed(result)
    return ForeignLevel(
        **result.load(),
        model=record.metadata.model_tag,
        endpoint=result.backend,
        asked=args.num_prompts,
        asked_output_tokens=args.random_output_len if args.random_range_ratio == 1 else None,
        config={**record.config.server_args, **workload},
        failed=failed_of(args.num_prompts, result.completed),
        method="whole run: llm-optimizer counts ramp and tail too (imported)",
        latencies=stamped or summarised(record.results, result.completed, _SUFFIXES),
        rates={
            "token_rate": result.output_throughput,
            "request_rate": result.request_throughput,
        },
    )


IMPORTER: Importer = LlmOptimizerImporter()
