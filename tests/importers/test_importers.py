"""Other tools' files as summaries: files in the tools' own shapes are in samples/."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from llmdyno import plugins
from llmdyno.cli.rebuild import rebuild, run_summary
from llmdyno.errors import StorageError, UsageError
from llmdyno.importers import Importer, import_file, run_id, store_imported
from llmdyno.report import compare_page
from report_samples import level, summary

SAMPLES = Path(__file__).parent / "samples"
TOOLS = {
    "aiperf.json": "aiperf",
    "aiperf_first.json": "aiperf",
    "genai_perf.json": "genai-perf",
    "guidellm.json": "guidellm",
    "guidellm_first.json": "guidellm",
    "vllm_appended.json": "vllm",
    "vllm_detailed.json": "vllm",
}


def sample(name: str) -> Any:
    """Return a sample's document, or the first one if it has one on each line."""
    text = (SAMPLES / name).read_text()
    return json.loads(text.splitlines()[0] if name == "vllm_appended.json" else text)


def altered(folder: Path, name: str, **changes: Any) -> Path:
    """Write a sample with some of its top-level values changed, or left out (...)."""
    document = {**sample(name), **changes}
    path = folder / name
    path.write_text(json.dumps({key: value for key, value in document.items() if value is not ...}))
    return path


def keys_of(document: Any) -> Any:
    """Return the keys of a document at every depth, without what stands under them."""
    if not isinstance(document, dict):
        return None
    return {key: keys_of(value) for key, value in document.items()}


def test_every_import_has_a_sample_and_every_sample_is_known() -> None:
    assert sorted(path.name for path in SAMPLES.iterdir()) == sorted(TOOLS)
    assert set(TOOLS.values()) == set(plugins.names("importers"))


@pytest.mark.parametrize(("name", "tool"), TOOLS.items())
def test_exactly_one_import_recognises_a_file(name: str, tool: str) -> None:
    known: list[Importer] = [plugins.load("importers", one) for one in plugins.names("importers")]

    assert [one.name for one in known if one.recognises(sample(name))] == [tool]
    assert import_file(SAMPLES / name) == import_file(SAMPLES / name, tool)


@pytest.mark.parametrize("name", TOOLS)
def test_an_imported_level_has_the_keys_of_a_measured_one(name: str) -> None:
    measured = level(10, rate=420, ttft_ms=510)

    for imported in import_file(SAMPLES / name)["levels"]:
        shape = keys_of({**imported, "goodput": None, "whole": None})
        shape["requests"]["errors"] = {}
        assert shape == keys_of({**measured, "whole": None})


@pytest.mark.parametrize("name", TOOLS)
def test_no_secret_of_a_file_is_taken_over(name: str) -> None:
    assert "swordfish" not in json.dumps(import_file(SAMPLES / name))


def test_the_details_of_vllm_give_back_its_own_statistics_and_those_it_lacks() -> None:
    theirs = sample("vllm_detailed.json")

    (ours,) = import_file(SAMPLES / "vllm_detailed.json")["levels"]

    for metric, name in (("ttft_ms", "ttft"), ("tpot_ms", "tpot"), ("itl_ms", "itl")):
        for stat, word in (("mean", "mean"), ("p50", "median"), ("p99", "p99")):
            assert ours[metric][stat] == pytest.approx(theirs[f"{word}_{name}_ms"], rel=1e-5)
        assert ours[metric]["p50"] < ours[metric]["p90"] < ours[metric]["max"]
    done_ms = [1e3 * latency for latency in theirs["latencies"] if latency]
    assert ours["e2e_ms"]["n"] == len(done_ms) == 23
    assert ours["e2e_ms"]["mean"] == pytest.approx(sum(done_ms) / len(done_ms), rel=1e-5)
    assert ours["e2e_ms"]["max"] == pytest.approx(max(done_ms), rel=1e-5)
    assert ours["requests"] == {
        "completed": 23,
        "failed": 1,
        "cut": 0,
        "errors": {"ClientPayloadError": 1},
    }


def test_details_of_vllm_that_do_not_fit_are_not_used(tmp_path: Path) -> None:
    document = import_file(altered(tmp_path, "vllm_detailed.json", completed=22))

    (imported,) = document["levels"]
    assert imported["ttft_ms"]["p90"] is None
    assert imported["ttft_ms"]["mean"] == sample("vllm_detailed.json")["mean_ttft_ms"]
    assert "8 users: the details of the requests do not fit" in document["imported"]["notes"][-1]


def test_results_that_vllm_appended_are_levels() -> None:
    document = import_file(SAMPLES / "vllm_appended.json")

    assert [one["users"] for one in document["levels"]] == [10, 50]
    assert [one["ttft_ms"]["p99"] for one in document["levels"]] == [89.75, 269.25]
    assert document["levels"][0]["requests"]["failed"] == 1
    assert document["levels"][0]["goodput"] == {"mean": 7.5}
    assert set(document["levels"][0]["e2e_ms"].values()) == {None}
    assert document["started"] == "2025-05-30T20:38:06"


def test_vllm_without_details_has_end_to_end_latencies_when_nothing_failed(tmp_path: Path) -> None:
    path = altered(tmp_path, "vllm_detailed.json", ttfts=..., latencies=[0.2] * 22 + [0.3])

    (imported,) = import_file(path)["levels"]

    assert (imported["e2e_ms"]["p50"], imported["e2e_ms"]["max"]) == (200, 300)


@pytest.mark.parametrize(
    ("changes", "arrival"),
    [
        ({"max_concurrency": None}, "burst"),
        ({"request_rate": 10.0}, "poisson"),
        ({"request_rate": 10.0, "burstiness": 0.5}, "gamma"),
    ],
)
def test_how_vllm_sent_is_told(tmp_path: Path, changes: dict[str, Any], arrival: str) -> None:
    (imported,) = import_file(altered(tmp_path, "vllm_detailed.json", **changes))["levels"]

    assert imported["arrival"] == arrival


def test_aiperf_is_read() -> None:
    document = import_file(SAMPLES / "aiperf.json")

    (imported,) = document["levels"]
    assert document["imported"]["version"] == "0.13.0"
    assert document["spec"]["model"] == "Qwen/Qwen3-8B"
    assert document["spec"]["url"] == "http://gpu1:8000/v1"
    assert (imported["users"], imported["arrival"], imported["duration_s"]) == (50, "closed", 100)
    assert imported["requests"] == {
        "completed": 970,
        "failed": 30,
        "cut": None,
        "errors": {"HTTPError 503": 20, "TimeoutError": 10},
    }
    assert imported["tokens"] == {"input": 496640, "output": 248320, "source": "usage"}
    assert imported["ttft_ms"]["mean"] == 120
    assert imported["itl_ms"]["mean"] == 12.5
    assert imported["tpot_ms"]["mean"] == 12
    assert imported["e2e_ms"]["p99"] == 5120
    assert (imported["token_rate"]["mean"], imported["goodput"]["mean"]) == (2483.2, 9.1)


def test_the_first_shape_of_aiperf_is_read() -> None:
    document = import_file(SAMPLES / "aiperf_first.json")

    (imported,) = document["levels"]
    assert (imported["users"], imported["arrival"], imported["interrupted"]) == (
        None,
        "gamma",
        True,
    )
    assert document["spec"]["load"]["request_rate"] == 10
    assert imported["tokens"]["output"] == 970 * 256
    assert set(imported["itl_ms"].values()) == {None}


def test_a_latency_in_nanoseconds_becomes_milliseconds(tmp_path: Path) -> None:
    path = altered(tmp_path, "aiperf.json", request_latency={"unit": "ns", "avg": 5e6, "p50": 4e6})

    (imported,) = import_file(path)["levels"]

    assert (imported["e2e_ms"]["mean"], imported["e2e_ms"]["p50"]) == (5, 4)


def test_genai_perf_is_read() -> None:
    (imported,) = import_file(SAMPLES / "genai_perf.json")["levels"]

    assert (imported["users"], imported["requests"]["completed"]) == (100, 200)
    assert imported["requests"]["failed"] is None
    assert (imported["ttft_ms"]["mean"], imported["tpot_ms"]["mean"]) == (184, 2.25)
    assert imported["tokens"]["output"] == 513150
    assert (imported["token_rate"]["mean"], imported["request_rate"]["mean"]) == (44190, 17.2)


def test_genai_perf_without_a_stream_has_no_first_token(tmp_path: Path) -> None:
    config = {**sample("genai_perf.json")["input_config"], "streaming": False}

    (imported,) = import_file(altered(tmp_path, "genai_perf.json", input_config=config))["levels"]

    assert set(imported["ttft_ms"].values()) == {None}
    assert imported["e2e_ms"]["mean"] == 5767


def test_guidellm_is_read() -> None:
    document = import_file(SAMPLES / "guidellm.json")

    first, second, third = document["levels"]
    assert document["imported"]["version"] == "0.5.2"
    assert document["started"] == "2026-01-01T00:00:00+00:00"
    assert document["spec"]["model"] == "Qwen/Qwen3-8B"
    assert first["requests"] == {"completed": 300, "failed": 2, "cut": 3, "errors": {}}
    assert (first["ttft_ms"]["mean"], first["tpot_ms"]["p99"], first["e2e_ms"]["mean"]) == (
        *(100, 48),
        2000,
    )
    assert (first["token_rate"]["mean"], first["request_rate"]["mean"]) == (330, 5)
    assert first["window"]["method"].startswith("whole")
    assert first["whole"]["ttft_ms"] == first["ttft_ms"]
    assert (second["window"]["start_s"], second["window"]["end_s"]) == (6, 57)
    assert (second["duration_s"], second["whole"]) == (60, None)
    assert (third["users"], third["arrival"]) == (None, "poisson")


def test_guidellm_before_it_had_a_config_is_read() -> None:
    (imported,) = import_file(SAMPLES / "guidellm_first.json")["levels"]

    assert (imported["users"], imported["requests"]["failed"]) == (1, 5)


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
        (b'{"hello": "world"}', "must be the JSON file of one of aiperf, genai-perf, guidellm"),
        (b'{"schema": "llmdyno.summary/1", "levels": []}', "is no result that we know"),
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


def test_a_number_that_is_none_counts_as_not_there(tmp_path: Path) -> None:
    text = (SAMPLES / "aiperf.json").read_text()
    path = tmp_path / "aiperf.json"
    path.write_text(
        text.replace('"avg": 2483.2', '"avg": NaN').replace('"avg": 9.7', '"avg": Infinity')
    )

    (imported,) = import_file(path)["levels"]

    assert imported["token_rate"]["mean"] is None
    assert imported["request_rate"]["mean"] is None


@pytest.mark.parametrize("marker", ["journal.jsonl", "summary.json"])
def test_a_folder_that_holds_a_run_is_left_alone(tmp_path: Path, marker: str) -> None:
    (tmp_path / marker).write_text("mine")

    with pytest.raises(UsageError, match="already holds results"):
        store_imported(import_file(SAMPLES / "aiperf.json"), tmp_path)

    assert (tmp_path / marker).read_text() == "mine"


@pytest.mark.parametrize("number", ["1e999", "-1e308", "123456789" * 40])
@pytest.mark.parametrize("name", TOOLS)
def test_absurd_numbers_end_in_a_document_or_a_sentence(
    tmp_path: Path, name: str, number: str
) -> None:
    path = tmp_path / name
    text, places = re.subn(
        r"(?<=[ \[])\d+(\.\d+)?(?=[,\]}\n])", number, (SAMPLES / name).read_text()
    )
    path.write_text(text)
    assert places > 20

    try:
        stored = store_imported(import_file(path), tmp_path / "run")
    except UsageError as error:
        assert "is not a result of" in str(error)  # noqa: PT017  # either end is right
    else:
        assert run_summary(tmp_path / "run")["levels"][0].keys() == stored["levels"][0].keys()


def test_a_url_that_is_none_is_left_out(tmp_path: Path) -> None:
    config = {"endpoint": {"urls": ["http://[oops"]}}

    document = import_file(altered(tmp_path, "aiperf.json", input_config=config))

    assert document["spec"]["url"] == ""


def test_a_file_that_is_not_there_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match=r"cannot read .*No such file"):
        import_file(tmp_path / "none.json")
