"""Other tools' files as summaries: files in the tools' own shapes are in samples/."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from importers.tool_samples import SAMPLES, TOOLS, altered, sample
from llmdyno import plugins
from llmdyno.cli.rebuild import rebuild, run_summary
from llmdyno.errors import StorageError, UsageError
from llmdyno.importers import Importer, import_file, run_id, store_imported
from llmdyno.report import compare_page
from report_samples import level, summary

SOMEBODYS = """
from llmdyno.importers import Findings, ForeignLevel, statistics

class Stopwatch:
    name = "stopwatch"
    definitions = {"ttft_ms": "by hand"}

    def recognises(self, document):
        return "stopwatch" in document

    def read(self, documents):
        levels = [
            ForeignLevel(
                users=one["users"], arrival="closed", duration_s=None, completed=None, failed=None,
                method="by hand (imported)", rates={},
                latencies={"ttft_ms": statistics({"mean": one["mean_s"]}, factor=1e3)},
            )
            for one in documents
        ]
        return Findings(levels=levels, spec={"model": ""})

IMPORTER = Stopwatch()
"""


def test_every_import_has_a_sample_and_every_sample_is_known() -> None:
    assert sorted(path.name for path in SAMPLES.iterdir()) == sorted(TOOLS)
    assert set(TOOLS.values()) == set(plugins.names("importers"))


@pytest.mark.parametrize(("name", "tool"), TOOLS.items())
def test_exactly_one_import_recognises_a_file(name: str, tool: str) -> None:
    known: list[Importer] = [plugins.load("importers", one) for one in plugins.names("importers")]

    assert [one.name for one in known if one.recognises(sample(name))] == [tool]
    assert import_file(SAMPLES / name) == import_file(SAMPLES / name, tool)


@pytest.mark.parametrize("name", TOOLS)
def test_no_secret_of_a_file_is_taken_over(name: str) -> None:
    assert "swordfish" not in json.dumps(import_file(SAMPLES / name))


@pytest.mark.parametrize("name", TOOLS)
def test_a_stored_import_is_a_run_with_a_page(tmp_path: Path, name: str) -> None:
    document = import_file(SAMPLES / name)
    folder = tmp_path / run_id(document)

    stored = store_imported(document, folder)
    rebuilt, page = rebuild(folder)

    assert rebuilt == stored == run_summary(folder)
    assert (stored["run"], stored["dir"]) == (folder.name, str(folder))
    assert f"-{TOOLS[name]}" in folder.name
    assert TOOLS[name] in page.read_text()


def test_a_comparison_with_a_measured_run_says_what_the_tool_means_by_its_metrics() -> None:
    measured = summary([level(50, rate=2000, ttft_ms=100)])
    imported = import_file(SAMPLES / "aiperf.json")

    page = compare_page(imported, measured)

    assert "tool: aiperf before" in page
    assert "definitions.ttft_ms: starts when the session of the request is made" in page
    assert "50 users" in page
    assert re.search(r"after is [\d.]+x the token rate at 50 users", page)


def test_two_results_of_one_tool_do_not_differ_in_definitions() -> None:
    imported = import_file(SAMPLES / "aiperf.json")

    assert "definitions.ttft_ms:" not in compare_page(imported, imported)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"", "holds no JSON object"),
        (b"not json", "is not JSON"),
        (b"\xff\xfe", "is not JSON"),
        (b"[" * 100_000, "is not JSON"),
        (b"[1, 2]", "holds no JSON object"),
        (b'{"a": 1}\n[]', "holds no JSON object"),
        (b'{"hello": "world"}', "with the key hello; tools that can be read: aiperf, genai-"),
        (b'{"schema": "llmdyno.summary/1", "levels": []}', "is no result that we know"),
        (b'{"root_group": {}, "metrics": {}}', "looks like a result of k6, which knows whole"),
        (b"Type,Name,Request Count,Failure Count\nPOST,/,1,0\n", "looks like a CSV of Locust"),
        (b"timeStamp,elapsed,label\n1,2,a\n", "looks like a CSV of JMeter"),
        (b"Running 30s test\n  Thread Stats   Avg\n", "looks like what wrk prints"),
        (b'{"results_ttft_s_mean": 0.25}', "looks like a summary of LLMPerf"),
    ],
)
def test_a_file_of_nobody_is_refused(tmp_path: Path, content: bytes, sentence: str) -> None:
    path = tmp_path / "result.json"
    path.write_bytes(content)

    with pytest.raises(UsageError, match=sentence):
        import_file(path)


@pytest.mark.parametrize(
    ("name", "changes", "sentence"),
    [
        ("vllm_detailed.json", {"duration": "long"}, r"Expected `float`, got `str` - at `\$\.dur"),
        ("vllm_detailed.json", {"completed": ...}, "missing required field `completed`"),
        ("vllm_appended.json", {"p99_ttft_ms": []}, r"Expected `float \| null`, got `array`"),
        ("aiperf.json", {"request_count": 7}, "Expected `object`, got `int`"),
        (
            "aiperf.json",
            {"time_to_first_token": {"unit": "weeks", "avg": 1}},
            "`time_to_first_token` is in 'weeks'",
        ),
        ("genai_perf.json", {"input_config": {"concurrency": "many"}}, r"Expected `int \| null`"),
        ("guidellm.json", {"benchmarks": [{"metrics": {"requests_per_second": {}}}]}, "missing"),
    ],
)
def test_a_value_of_the_wrong_kind_is_named(
    tmp_path: Path, name: str, changes: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(UsageError, match=rf"is not a result of {TOOLS[name]}.*{sentence}"):
        import_file(altered(tmp_path, name, **changes))


def test_a_tool_that_is_named_wrongly_is_refused() -> None:
    with pytest.raises(UsageError, match="is not a result of vllm"):
        import_file(SAMPLES / "aiperf.json", "vllm")
    with pytest.raises(UsageError, match=r"no 'vlm'.*vllm"):
        import_file(SAMPLES / "aiperf.json", "vlm")


def test_an_importer_may_live_in_a_package_of_somebody_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "somebodys_tools"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "stopwatch.py").write_text(SOMEBODYS)
    monkeypatch.syspath_prepend(tmp_path)
    path = tmp_path / "stopwatch.json"
    path.write_text('{"stopwatch": 3, "users": 2, "mean_s": 0.5}')

    document = import_file(path, "somebodys_tools.stopwatch")

    (level,) = document["levels"]
    assert (level["users"], level["ttft_ms"]["mean"]) == (2, 500)
    assert document["imported"]["tool"] == "stopwatch"
    with pytest.raises(UsageError, match="is not a result of stopwatch: it looks like a result of"):
        import_file(SAMPLES / "aiperf.json", "somebodys_tools.stopwatch")
    with pytest.raises(UsageError, match="is no result that we know"):
        import_file(path)


@pytest.mark.parametrize("marker", ["journal.jsonl", "summary.json"])
def test_a_folder_that_holds_a_run_is_left_alone(tmp_path: Path, marker: str) -> None:
    (tmp_path / marker).write_text("mine")

    with pytest.raises(UsageError, match="already holds results"):
        store_imported(import_file(SAMPLES / "aiperf.json"), tmp_path)

    assert (tmp_path / marker).read_text() == "mine"


def test_a_file_that_is_not_there_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match=r"cannot be read: No such file"):
        import_file(tmp_path / "none.json")
