"""The forms in which tools and people save results, and sentences on those that are broken."""

import bz2
import gzip
import json
import lzma
import re
from pathlib import Path
from typing import Any

import pytest

from importers.tool_samples import SAMPLES, imported, vllm_result
from llmdyno.errors import UsageError
from llmdyno.importers import import_file

ONE, OTHER = vllm_result(max_concurrency=10), vllm_result(max_concurrency=50)
TEXT = f"{json.dumps(ONE)}\n{json.dumps(OTHER)}\n"


@pytest.mark.parametrize(
    "content",
    [
        TEXT,
        TEXT.replace("\n", "\r\n\r\n"),
        TEXT.replace("}\n", "}"),
        json.dumps([ONE, OTHER]),
        json.dumps([ONE, OTHER], indent=2),
        f"{json.dumps(ONE, indent=4)}\n{json.dumps(OTHER, indent=4)}",
        TEXT.encode("utf-8-sig"),
        TEXT.encode("utf-16"),
        TEXT.encode("utf-16-le"),
        TEXT.encode("utf-16-be"),
        TEXT.encode("utf-32"),
        gzip.compress(TEXT.encode()),
        gzip.compress(TEXT.encode("utf-16")),
        bz2.compress(TEXT.encode()),
        lzma.compress(TEXT.encode()),
        TEXT.replace(": ", ":\xa0"),
        "\x1e" + TEXT.replace("\n{", "\n\x1e{"),
    ],
    ids=[
        *("lines", "blank lines", "no line breaks", "a list", "an indented list", "indented ones"),
        *("a mark", "UTF-16", "UTF-16-LE", "UTF-16-BE", "UTF-32", "gzip", "gzip of UTF-16"),
        *("bzip2", "xz"),
        *("odd spaces", "record separators"),
    ],
)
def test_two_results_are_read_however_they_were_saved(tmp_path: Path, content: str | bytes) -> None:
    document = imported(tmp_path, content)

    assert [level["users"] for level in document["levels"]] == [10, 50]
    assert document["levels"][0]["ttft_ms"]["p99"] == 89.75


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (TEXT[: len(TEXT) // 2 + 151], r"is not JSON: line 2, column \d+: .*the file breaks off"),
        ('{"a": 1}\n{"b": tru}\n{"c": 1}', r"line 2, column 7: Expecting value\.$"),
        (gzip.compress(b"{}" * 500)[:-9], "is compressed, and cut off or damaged"),
        (b"\x28\xb5\x2f\xfd\x04", "is compressed, and cut off or damaged"),
        (b"PK\x03\x04xl", "is a ZIP archive or an Excel workbook"),
        (b'{"m\xfcller": 1}', r"line 1 is not UTF-8 text \(byte 0xfc\)"),
        ("<!DOCTYPE html>\n<html><body>404</body></html>", r"is a web page \(HTML\), not data"),
        ("[]", "looks like an empty list"),
        ('["a"]', "JSON with a list of texts, and a result is"),
        ('{"a": 1}\n7', "looks like JSON with the key a, .*entry 2 of 2 holds no JSON object"),
        ('{"a": 99' + "9" * 5000 + "}", "is not JSON: Exceeds the limit"),
    ],
    ids=[
        *(
            "breaks off",
            "a line",
            "gzip",
            "zstd",
            "zip",
            "Latin-1",
            "HTML",
            "empty",
            "texts",
            "a number",
        ),
        "a long number",
    ],
)
def test_a_broken_file_is_one_sentence(tmp_path: Path, content: str | bytes, sentence: str) -> None:
    with pytest.raises(UsageError, match=sentence) as failure:
        imported(tmp_path, content)

    assert "\n" not in str(failure.value)


def test_a_file_of_two_tools_names_the_entry_that_is_another_s(tmp_path: Path) -> None:
    aiperf = json.loads((SAMPLES / "aiperf.json").read_text())

    with pytest.raises(UsageError, match=r"a result of vllm: .*of aiperf \(entry 2 of 2\)"):
        imported(tmp_path, [ONE, aiperf])
    with pytest.raises(UsageError, match=r"with the keys foo, bar \(entry 3 of 3\)"):
        imported(tmp_path, [ONE, OTHER, {"foo": 1, "bar": 2}])


def test_naming_the_tool_does_not_skip_the_check(tmp_path: Path) -> None:
    broken: dict[str, Any] = {key: value for key, value in ONE.items() if key != "model_id"}

    with pytest.raises(UsageError, match=r"is not a result of vllm: it looks like JSON with the"):
        imported(tmp_path, broken, "vllm")
    with pytest.raises(UsageError, match=r"not a result of guidellm: it looks like a result of vl"):
        imported(tmp_path, ONE, "guidellm")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("<body><p>404</p></body>", "an HTML page"),
        ("<?xml version='1.0'?><testsuite/>", "XML"),
        ("# HELP up It is.\n# TYPE up gauge\nup 1\nvllm:running{m='x'} 3.0\n", "a Prometheus page"),
        ('a_total{x="1"} 3\nb 1e5\nc{} NaN 17\n', "a Prometheus page"),
        ("concurrency,p50,p99\n1,2,3\n4,5,6\n", "a CSV of the columns concurrency, p50, p99"),
        ("a\tb\n1\t2\n", "a TSV of the columns a, b"),
        ("name;value\nx;1,5\n", "a CSV of the columns name, value"),
        ("2026-01-01 10:00:00,123 INFO started\n" * 3, "a log"),
        ("[2026-01-01 10:00:00] started\n", "a log"),
        ("INFO:     Uvicorn running\nINFO:     done\n", "a log"),
        ("===== Serving Benchmark Result =====\nBackend: sglang\n", "what vLLM's or SGLang's"),
        (':::MLLOG {"key": "a", "value": 1}\n', "MLPerf's detailed log"),
        ("hello, world\n", "plain text"),
        ("[tool.dyno]\nengine = 'vllm'\n", "plain text"),
        ("model: m\nresults: none\n", "YAML with the keys model, results"),
        ('{"schema": "llmdyno.summary/1"}', "the summary of a llmdyno run: `dyno report`"),
        ('{"schema": "llmdyno.study/1"}', "the study of a llmdyno run"),
        (
            '{"type": "opened", "run": "r", "spec": {}, "environment": {}, "started": ""}',
            "the journal of a llmdyno run",
        ),
        ('{"timestamp": 0, "input_length": 5, "output_length": 1}', "a trace: `dyno bench"),
        ('{"messages": []}\n{"messages": []}', "a data set"),
        ('{"load_summary": {}, "successes": {"count": 1}}', "a report on the server's own metrics"),
        ('{"traceEvents": []}', "a trace of a profiler"),
        ("{}", "an empty object of JSON"),
        ('{"a": 1, "b": 2, "c": 3}', "JSON with the keys a, b, c"),
        (json.dumps(dict.fromkeys("abcdefghijk")), "JSON with the keys a, b, c, d, e, f, g, h, …"),
    ],
)
def test_a_file_that_is_none_of_these_is_named_for_what_it_looks_like(
    tmp_path: Path, content: str, said: str
) -> None:
    with pytest.raises(UsageError, match=re.escape(f"it looks like {said}")) as failure:
        imported(tmp_path, content)

    assert "tools that can be read: aiperf, " in str(failure.value)


def test_a_run_of_ours_is_not_imported_again(tmp_path: Path) -> None:
    folder = tmp_path / "r"
    folder.mkdir()
    from llmdyno.importers import store_imported

    store_imported(import_file(SAMPLES / "aiperf.json"), folder)

    with pytest.raises(UsageError, match="the summary of a llmdyno run"):
        import_file(folder / "summary.json")
