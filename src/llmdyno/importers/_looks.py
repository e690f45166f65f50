"""What a file that is no result looks like, in a few words for one sentence."""

import csv
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from llmdyno.importers._text import numbered_lines, shortened

_LINES = 40  # of a text are looked at
_SERIES = re.compile(r"[a-zA-Z_:][\w:]*(\{[^}]*\})?\s+[-+]?(\d[\d.eE+-]*|NaN|Inf)(\s+\d+)?")
_LOGGED = re.compile(
    r"\[?\d{4}-\d\d-\d\d[ T]\d\d:\d\d|\w{3} +\d+ \d\d:\d\d:\d\d |\[?(INFO|WARN(ING)?|ERROR|DEBUG)\b"
    r"|\(\w+ pid=\d+\)"
)
_SEPARATORS = {",": "CSV", "\t": "TSV", ";": "CSV"}
_OURS = "`dyno report` and `dyno compare` read its folder where it is"
# Keys that tell what an object of JSON is, the first that fit, and what to say of it.
_KNOWN: tuple[tuple[frozenset[str], str], ...] = (
    (frozenset({"type", "run", "spec", "environment"}), f"the journal of a llmdyno run: {_OURS}"),
    (frozenset({"timestamp", "input_length"}), "a trace: `dyno bench --arrival trace` replays it"),
    (frozenset({"timestamp", "hash_ids"}), "a trace: `dyno bench --arrival trace` replays it"),
    (frozenset({"messages"}), "a data set: `dyno bench --dataset` sends it"),
    (frozenset({"conversations"}), "a data set: `dyno bench --dataset` sends it"),
    (frozenset({"prompt"}), "a data set: `dyno bench --dataset` sends it"),
    (frozenset({"choices", "object"}), "the answer of a server"),
    (
        frozenset({"load_summary", "successes"}),
        "a report on the server's own metrics: import the one on requests' lifecycles beside it",
    ),
    (frozenset({"traceEvents"}), "a trace of a profiler"),
    (
        frozenset({"root_group", "metrics"}),
        "a result of k6, which knows whole responses and no tokens: measure with `dyno bench`",
    ),
    (
        frozenset({"type", "data", "metric"}),
        "the output of k6, which knows whole responses and no tokens: measure with `dyno bench`",
    ),
    (
        frozenset({"latencies", "status_codes"}),
        "a result of Vegeta, which knows whole responses and no tokens: measure with `dyno bench`",
    ),
    (frozenset({"results_ttft_s_mean"}), "a summary of LLMPerf, which we do not read"),
    (frozenset({"ttft_s", "end_to_end_latency_s"}), "requests of LLMPerf, which we do not read"),
    (frozenset({"git_hash", "n-shot"}), "a result of lm-evaluation-harness: quality, no speed"),
    (frozenset({"resourceSpans"}), "traces of OpenTelemetry"),
    (frozenset({"nbformat", "cells"}), "a notebook"),
    (frozenset({"architectures"}), "the config.json of a model"),
)
# Columns that tell whose table it is.
_TABLES: tuple[tuple[frozenset[str], str], ...] = (
    (frozenset({"Request Count", "Failure Count"}), "of Locust"),
    (frozenset({"timeStamp", "elapsed", "label"}), "of JMeter"),
    (frozenset({"metric_name", "metric_value", "timestamp"}), "of k6"),
)
# What tools for web servers print.
_PRINTED = (
    ("This is ApacheBench", "ApacheBench"),
    ("Thread Stats", "wrk"),
    ("Response time histogram:", "hey"),
    ("Requests      [total, rate", "Vegeta"),
)


def looks(text: str, documents: Sequence[Any]) -> str:
    """Say what a file looks like, e.g. "a CSV of the columns concurrency, p99".

    Args:
        text: the file's.
        documents: what it holds, if that was JSON or YAML.
    """
    if printed := next((tool for words, tool in _PRINTED if words in text[:100_000]), ""):
        return f"what {printed} prints, which knows whole responses and no tokens"
    if documents:
        return _of_document(documents[0], "JSON" if text.lstrip()[:1] in {"{", "["} else "YAML")
    return _of_text(text)


def _of_document(document: Any, word: str) -> str:
    match document:
        case Mapping():
            pass
        case list():
            return f"{word} with a list of lists"
        case str():
            return f"{word} with a list of texts"
        case _:
            return f"{word} with a list of numbers"
    schema = str(document.get("schema", ""))
    if schema.startswith("llmdyno."):
        kind = schema.removeprefix("llmdyno.").partition("/")[0]
        return f"the {kind} of a llmdyno run: {_OURS}"
    for keys, said in _KNOWN:
        if keys <= document.keys():
            return said
    if not document:
        return f"an empty object of {word}"
    names = shortened([str(key) for key in document])
    return f"{word} with the key{'s' if len(document) > 1 else ''} {names}"


def _of_text(text: str) -> str:
    lines = [line for _, line in numbered_lines(text[:100_000])][:_LINES]
    if re.match(r"\s*<(!doctype\s+html|html|head|body)", text, re.IGNORECASE):
        return "an HTML page"
    if text.lstrip().startswith("<"):
        return "XML"
    if _share(lines, lambda line: line.startswith(("# HELP ", "# TYPE "))) > 0.2 or (
        _share(lines, lambda line: bool(_SERIES.fullmatch(line))) > 0.5
    ):
        return "a Prometheus page: a server's metrics, and no result of a load generator"
    if text.lstrip().startswith(":::MLLOG"):
        return "MLPerf's detailed log: import mlperf_log_summary.txt beside it"
    if "Serving Benchmark Result" in text:
        return (
            "what vLLM's or SGLang's benchmark prints; import the JSON that --save-result or"
            " --output-file writes"
        )
    if _share(lines, lambda line: bool(_LOGGED.match(line))) > 0.3:
        return "a log"
    return _of_table(lines) or "plain text"


def _share(lines: Sequence[str], test: Callable[[str], bool]) -> float:
    return sum(test(line) for line in lines) / max(len(lines), 1)


def _of_table(lines: Sequence[str]) -> str:
    """Name a table by its columns: its first lines have as many fields each, and more than one."""
    for separator, word in _SEPARATORS.items():
        try:
            rows = list(csv.reader(lines, delimiter=separator))
        except csv.Error:
            continue
        if len(rows) > 1 and len(rows[0]) > 1 and len(rows[1]) == len(rows[0]):
            columns = [name.strip() for name in rows[0]]
            whose = next((tool for names, tool in _TABLES if names <= set(columns)), "")
            said = f"a {word} {whose}, which knows whole responses and no tokens, with"
            return f"{said if whose else f'a {word} of'} the columns {shortened(columns)}"
    return ""
