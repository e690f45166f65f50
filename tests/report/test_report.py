"""What stands on the pages: verdicts, tables, doubts, and how incomplete documents are read."""

import html
import re
import sys
from pathlib import Path
from subprocess import run
from typing import Any

import msgspec
import pytest

from llmdyno import report
from llmdyno.errors import StorageError
from llmdyno.report import definitions, documents, drawing, plots
from llmdyno.results import titles, wording
from llmdyno.results.metrics import BY_NAME
from report_samples import GUIDE, level, study, summary, tuned_summary


def words(page: str) -> str:
    """Return the page's visible text, without tags, scripts and line breaks."""
    bare = re.sub(r"<(script|style).*?</\1>", " ", page, flags=re.DOTALL)
    return " ".join(html.unescape(re.sub(r"<[^>]+>", " ", bare)).split())


def headline(page: str) -> str:
    found = re.search(r"<h1[^>]*>(.*?)</h1>", page, flags=re.DOTALL)
    assert found
    return html.unescape(found[1])


def sections(page: str) -> list[str]:
    return re.findall(r'<section id="(\w+)"', page)


def charts(page: str) -> list[str]:
    return re.findall(r'class="chart" id="chart-(\w+)"', page)


def test_a_study_is_told_in_order() -> None:
    page = report.study_page(study(), GUIDE)
    assert headline(page) == (
        "Better: tuned is 3.11x [2.79, 3.42] the token rate at 100 users; TTFT p50 is 0.212x"
        " [0.190, 0.240] (6 ABBA pairs; 95 % intervals in brackets)."
    )
    assert sections(page) == [
        "measured",
        "latency",
        "time",
        "settings",
        "trials",
        "confirmation",
        "ablation",
        "slo",
        "client",
        "asked",
        "environment",
        "definitions",
        "doubts",
    ]
    assert charts(page) == [
        "token_rate_by_users",
        "ttft_by_users",
        "e2e_by_users",
        "tpot_by_users",
        "token_rate_over_time",
        "ttft_over_time",
        "trials",
        "confirmation",
        "confirmation_pairs",
        "ablation",
    ]


@pytest.mark.parametrize(
    ("verdict", "opening"),
    [
        ("better", "Better: tuned is 3.11x"),
        ("worse", "Worse: tuned is 3.11x"),
        ("no difference", "No difference shown: tuned is 3.11x"),
    ],
)
def test_the_verdict_is_the_studys_own(verdict: str, opening: str) -> None:
    document = study()
    document["confirmation"]["verdict"] = verdict
    assert headline(report.study_page(document, GUIDE)).startswith(opening)


def test_an_unconfirmed_gain_is_not_called_better() -> None:
    document = study()
    del document["confirmation"]
    page = report.study_page(document, GUIDE)
    assert headline(page).startswith(
        "Not confirmed: in one run each, tuned is 3.10x the token rate at 100 users"
    )
    assert "The winner was not confirmed by repeated pairs" in words(page)
    assert "confirmation" not in sections(page)


def test_a_baseline_that_stands_is_said_to_stand() -> None:
    document = study()
    document["best"] = document["baseline"]
    document["confirmation"] = {"pairs": 0, "ratio": {}, "verdict": "no difference", "runs": []}
    page = report.study_page(document, GUIDE)
    assert headline(page) == "No better settings were found: the baseline stands."
    assert "not confirmed" not in words(page)


def test_a_study_of_which_nothing_was_measured_still_has_its_trials_and_machine() -> None:
    document = study() | {
        "baseline": None,
        "best": None,
        "confirmation": {"pairs": 0, "ratio": {}, "verdict": "no difference"},
        "ablation": [],
        "environment": {"cpu": {"model": "AMD EPYC"}},
    }
    page = report.study_page(document, GUIDE)
    assert headline(page) == "No comparison: there is no baseline measurement."
    assert charts(page) == ["trials"]
    assert "cpu.model AMD EPYC" in words(page)


def test_both_runs_of_a_level_stand_with_their_ratio_and_what_they_rest_on() -> None:
    text = words(report.study_page(study(), GUIDE))
    assert "100 users Baseline 525 [504, 551] 10.9 4.30 s [4.04, 4.60] s 9.68 s 12.9 s" in text
    assert "Tuned 1,630 [1,560, 1,710] 34.0 910 ms [855, 974] ms" in text
    assert "Tuned ÷ Baseline 3.10x 3.10x 0.212x" in text
    assert "1,312 0 0 22.5 to 120 valid" in text
    assert "Numbers of the window (after the ramp, MSER-5 on the token rate)" in text


def test_settings_that_differ_come_first_and_defaults_are_marked() -> None:
    text = words(report.study_page(study(), GUIDE))
    differ = text.index("Settings that differ (2)")
    same = text.index("Settings that are the same (2)")
    caching = text.index("enable_prefix_caching false (default) true Keeps the KV cache")
    assert differ < caching < same < text.index("cache_size default: the engine decides")
    assert "max_num_batched_tokens 256 (default) 2048" in text
    assert "Large steps make the gaps between tokens longer" in text


def test_a_default_that_is_set_by_hand_is_no_difference() -> None:
    document = study()
    document["best"]["config"] = {"max_num_batched_tokens": 256}
    assert "Settings that differ" not in words(report.study_page(document, GUIDE))


def test_the_default_is_that_of_the_engines_version() -> None:
    knob = msgspec.structs.replace(
        GUIDE["max_num_batched_tokens"], defaults=(("2027.1", 512), ("2026.4", 256))
    )
    text = words(report.study_page(study(), {knob.name: knob}))
    assert "max_num_batched_tokens 256 (default) 2048" in text


def test_failed_trials_are_told_with_their_class() -> None:
    text = words(report.study_page(study(), GUIDE))
    assert "failed out-of-memory: std::bad_alloc while loading the model" in text
    assert "2 of 25 trials failed" in text
    assert "predicted-infeasible does-not-fit: needs 64 GB of 24 GB" in text


def test_each_doubt_is_printed() -> None:
    document = study()
    doubtful = level(100, rate=600, ttft_ms=900, duration_s=40)
    doubtful["requests"] = {
        "completed": 80,
        "failed": 20,
        "cut": 3,
        "errors": {"timeout": 15, "http-500": 5},
    }
    doubtful["tokens"] = {"input": 10, "output": 80 * 20, "source": "chunks"}
    doubtful["window"]["start_s"] = 30.0
    doubtful["client"] |= {"verdict": "client-bound", "reasons": ["the client used 97% of a core"]}
    doubtful["interrupted"] = True
    document["best"]["summary"]["levels"][2] = doubtful
    document["best"]["config"]["kv_precision"] = "u8"
    document["confirmation"] |= {"pairs": 3}
    document["confirmation"]["ratio"]["token_rate"]["ci95"] = [0.97, 1.31]
    doubts = words(report.study_page(document, GUIDE)).rsplit("What is doubtful", maxsplit=1)[1]
    for said in (
        "rests on 3 pairs (fewer than 5)",
        "interval of the ratio of token rate includes 1",
        "kv_precision may alter the tokens themselves",
        "Tuned, 100 users: the load generator was the limit (client-bound; the client used 97%",
        "Tuned, 100 users: 20 requests failed (20.0 %: timeout 15, http-500 5)",
        "Tuned, 100 users: 3 requests were cut off",
        "Tuned, 100 users: only 80 requests completed (fewer than 100)",
        "Tuned, 100 users: the window is short (10.0 s, less than 30 s)",
        "Tuned, 100 users: tokens were counted as chunks",
        "Tuned, 100 users: the level was interrupted",
        "100 users: answers differ in length, 48.0 against 20.0 output tokens a request",
    ):
        assert said in doubts


def test_a_doubtful_machine_is_told_once() -> None:
    document = study()
    for side in ("baseline", "best"):
        document[side]["summary"]["environment"]["load_average"] = [12.0, 9.0, 3.0]
    document["best"]["summary"]["environment"]["packages"] = {"openvino-genai": "2026.3.0"}
    text = words(report.study_page(document, GUIDE))
    assert text.count("The machine is busy: load average 12.0 on 16 cores.") == 1
    assert (
        "Baseline and tuned were not measured in the same place: openvino-genai: 2026.4.1.0 before,"
        " 2026.3.0 after"
    ) in text


def test_a_window_that_is_no_steady_state_is_doubted() -> None:
    document = summary([level(10, rate=400, ttft_ms=500)])
    document["levels"][0]["window"] |= {
        "steady": False,
        "method": "whole level: too short for a steady state",
    }
    assert "there is no steady window" in words(report.run_page(document))


def test_a_clean_run_has_no_doubts() -> None:
    page = report.run_page(summary())
    assert "None of the checks found a reason for doubt" in words(page)
    assert "What is doubtful (0)" in words(page)


def test_a_run_is_told_by_its_best_level() -> None:
    page = report.run_page(summary())
    assert headline(page) == (
        "525 [504, 551] tokens/s at 100 users, the highest of 3 levels, with a TTFT p50 of 4.30 s."
    )
    assert "ttft:p99<2s 100 12,900 missed" in words(page)


def test_errors_are_told_by_class() -> None:
    document = summary()
    document["levels"][1]["requests"] |= {"failed": 7, "errors": {"timeout": 4, "http-503": 3}}
    text = words(report.run_page(document))
    assert "50 users timeout 4" in text
    assert "50 users http-503 3" in text


def test_every_metric_is_defined() -> None:
    text = words(report.run_page(summary()))
    for metric in BY_NAME.values():
        assert metric.definition in text
    for rule in definitions.RULES:
        assert rule in text


def test_unlike_runs_are_said_to_be_unlike_before_anything_else() -> None:
    after = tuned_summary()
    after["environment"]["cpu"]["cores_usable"] = 64
    after["spec"]["workload"] |= {"name": "chat", "system_prompt": "word " * 900}
    page = report.compare_page(summary(), after)
    text = words(page)
    assert headline(page).startswith(
        "One run each: after is 3.10x the token rate at 100 users; TTFT p50 is 0.212x."
    )
    assert text.index("These runs are not alike.") < text.index("Token rate")
    assert "usable cores: 16 before, 64 after" in text
    assert "workload.name: chat-system before, chat after" in text
    assert "workload.system_prompt: not set before, word word" in text


def test_like_runs_are_not_called_unlike() -> None:
    after = tuned_summary()
    after["environment"]["load_average"] = [0.9, 0.4, 0.5]
    after["spec"]["slos"] = [{"expr": "ttft:p99<2s"}]
    text = words(report.compare_page(summary(), after))
    assert "not alike" not in text
    assert "Each run was made once" in text


def test_runs_without_a_common_level_are_not_compared() -> None:
    after = summary([level(7, rate=100, ttft_ms=100)])
    page = report.compare_page(summary(), after)
    assert headline(page) == "These two runs have no measured level in common."
    assert "7 users: measured in After only." in words(page)
    assert "After ÷ Before" not in words(page)


def test_an_open_loop_level_is_named_by_its_arrivals() -> None:
    document = summary()
    document["levels"] = [level(10, rate=400, ttft_ms=500) | {"users": None, "arrival": "poisson"}]
    page = report.run_page(document)
    assert "tokens/s at poisson arrivals" in headline(page)


def test_a_level_that_was_run_twice_is_shown_twice() -> None:
    twice = [level(10, rate=400, ttft_ms=500), level(10, rate=410, ttft_ms=490, seed=2)]
    assert list(documents.levels(summary(twice))) == ["10 users", "10 users (2)"]


@pytest.mark.parametrize(
    "missing",
    [
        "itl_ms",
        "tpot_ms",
        "ttft_ms",
        "token_rate",
        "goodput",
        "samples",
        "client",
        "window",
        "requests",
        "tokens",
        "users",
        "arrival",
        "whole",
    ],
)
def test_a_level_may_lack_any_part_or_have_null_there(missing: str) -> None:
    without, null = summary(), summary()
    for place in range(3):
        del without["levels"][place][missing]
        null["levels"][place][missing] = None
    assert headline(report.run_page(without)) == headline(report.run_page(null))


@pytest.mark.parametrize("document", [{}, {"levels": []}, {"levels": None, "slo": None}])
def test_a_run_that_broke_off_at_once_has_a_page(document: dict[str, Any]) -> None:
    page = report.run_page({"schema": "llmdyno.summary/1", **document})
    assert headline(page) == "Nothing was measured: no level has a token rate."
    assert charts(page) == []


def test_a_study_of_nothing_has_a_page() -> None:
    page = report.study_page({"schema": "llmdyno.study/1"}, {})
    assert headline(page).startswith("No comparison")


def test_unfinished_latencies_are_dashes_and_never_zeros() -> None:
    document = summary([level(10, rate=400, ttft_ms=500)])
    nothing = {"n": 0, "mean": None, "p50": None, "p95": None, "p99": None, "p50_ci95": None}
    document["levels"][0]["ttft_ms"] = nothing
    text = words(report.run_page(document))
    assert "10 users 400 [384, 420] 8.33 - - - 1,000 0 0" in text
    assert "ttft_by_users" not in charts(report.run_page(document))


@pytest.mark.parametrize(
    ("make", "document"),
    [
        (report.run_page, {"schema": "llmdyno.study/1"}),
        (report.run_page, {}),
        (lambda document: report.study_page(document, {}), {"schema": "llmdyno.summary/1"}),
        (
            lambda document: report.compare_page(summary(), document),
            {"schema": "llmdyno.summary/9"},
        ),
    ],
)
def test_a_document_of_another_kind_is_refused_by_name(make: Any, document: Any) -> None:
    with pytest.raises(StorageError, match=r"schema is .* but this page is made of 'llmdyno\."):
        make(document)


def test_a_long_run_keeps_every_sample() -> None:
    document = summary([level(10, rate=400, ttft_ms=500, duration_s=40_000)])
    page = report.run_page(document)
    assert len(document["levels"][0]["samples"]) == 8000
    assert page.count('"in_flight": 10') >= 7990


def test_images_are_png_of_twice_the_size(tmp_path: Path) -> None:
    paths = report.study_images(study(), tmp_path / "images")
    assert [path.name for path in paths] == ["token_rate_by_users.png", "ttft_by_users.png"]
    for path in paths:
        content = path.read_bytes()
        assert content.startswith(b"\x89PNG\r\n\x1a\n")
        width_px = int.from_bytes(content[16:20], "big")
        assert width_px > 2 * drawing.WIDTH_PX


def test_there_are_no_images_of_nothing(tmp_path: Path) -> None:
    assert report.study_images({"schema": "llmdyno.study/1"}, tmp_path) == []


def test_every_plot_is_used_and_says_how_to_read_it() -> None:
    files = {path.stem for path in Path(plots.__file__).parent.glob("[!_]*.py")}
    assert set(charts(report.study_page(study(), GUIDE))) == files
    for section in ("headline", "latency", "time", "trials", "confirmation", "ablation"):
        for plot in plots.load(section).values():
            assert plot.title
            assert plot.says.endswith(".")


def test_the_command_line_starts_without_the_report() -> None:
    probe = (
        "import sys, llmdyno.cli.app;"
        " sys.exit(any(name.split('.')[0] in {'altair', 'vl_convert'} for name in sys.modules))"
    )
    assert run([sys.executable, "-c", probe], check=False).returncode == 0


@pytest.mark.parametrize(
    ("value", "written"),
    [
        (None, "-"),
        (0, "0"),
        (0.04211, "0.0421"),
        (4.2, "4.20"),
        (9.999, "10.0"),
        (99.96, "100"),
        (1371.4, "1,370"),
        (-0.5, "-0.500"),
    ],
)
def test_numbers_have_three_significant_digits(value: float | None, written: str) -> None:
    assert wording.significant(value) == written


@pytest.mark.parametrize(
    ("value_ms", "written"), [(0.42, "0.420 ms"), (412, "412 ms"), (1290, "1.29 s"), (None, "-")]
)
def test_latencies_choose_their_unit(value_ms: float | None, written: str) -> None:
    assert wording.milliseconds(value_ms) == written


@pytest.mark.parametrize(
    ("name", "title", "lower"),
    [
        ("ttft_ms_p50", "TTFT p50", True),
        ("ttft:p99", "TTFT p99", True),
        ("token_rate:mean", "token rate", False),
        ("token_rate", "token rate", False),
        ("goodput:mean", "goodput", False),
        ("joules", "joules", None),
    ],
)
def test_metrics_and_objectives_have_short_titles(
    name: str, title: str, lower: bool | None
) -> None:
    assert titles.title(name) == title
    assert titles.lower_is_better(name) is lower


def test_a_number_that_the_client_spoilt_is_marked_and_the_doubt_says_why() -> None:
    document = summary()
    spoilt = document["levels"][1]
    spoilt["client"] |= {"verdict": "client-bound", "reasons": ["the client was 200 ms late (p99)"]}
    spoilt["doubtful"] = ["ttft_ms"]

    page = report.run_page(document)

    assert "the client was 200 ms late (p99)" in page
    assert "Doubtful: TTFT." in page
    table = page[page.index("Numbers of the window") :]
    assert table.count(" ?<") == 3  # p50, p95 and p99 of that level


def test_the_servers_own_word_stands_beside_ours() -> None:
    document = summary()
    document["levels"][0]["server"] = {
        "kind": "vllm",
        "tokens": {"server": 1234, "client": 1230, "difference": -0.00324},
        "ttft_ms": {"server_mean": 500.0, "client_mean": 512.0},
        "queue_ms_mean": 321.0,
        "notes": ["requests waited 321 ms in the server's queue (mean)"],
    }

    page = html.unescape(report.run_page(document))

    assert "The server's own word" in page
    assert "requests waited 321 ms" in page
    assert "vllm" in page
    assert "The server's own word" not in html.unescape(report.run_page(summary()))
