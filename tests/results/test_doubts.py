"""Doubts: each is found from a summary's facts, and said alike wherever a summary is shown."""

import copy
import html
import io
import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from rich.console import Console

from conftest import last_json
from llmdyno import report, store
from llmdyno.cli.rebuild import run_summary
from llmdyno.records.entries import GpuSample, Scrape
from llmdyno.results import doubts, level_checks
from llmdyno.results.crosscheck import ClientSide, gpu_part, server_part
from llmdyno.results.metrics import BY_NAME
from llmdyno.terminal.summary import show_summary
from report_samples import level, summary
from results.test_study_doubts import OF_STUDY

DOCS = Path(__file__).parents[2] / "docs"
Document = dict[str, Any]


def put(*path: str, value: Any) -> Callable[[Document], None]:
    """Return what sets a value of a level."""

    def change(one: Document) -> None:
        for key in path[:-1]:
            one = one[key]
        one[path[-1]] = value

    return change


def bound(one: Document) -> None:
    one["client"] |= {"verdict": "client-bound", "reasons": ["the client was 9 ms late"]}
    one["doubtful"] = ["ttft_ms"]


def held_back(one: Document) -> None:
    one["client"]["tokens_per_read"] = 47.0  # of answers of 48 tokens


def failed(one: Document) -> None:
    one["requests"] |= {"failed": 1, "errors": {"timeout": 1}}


def too_long(one: Document) -> None:
    words = "The prompt's 600 tokens and the 4 to make exceed max_num_batched_tokens=512."
    one["requests"] |= {"failed": 360, "errors": {"http-400": 360}, "too_long": 360}
    one["faults"] = {"http-400": {"meaning": "-", "example": words}}


def unsent(one: Document) -> None:
    one |= {"users": None, "arrival": "poisson", "rate": 2.5, "ttft_due_ms": one["ttft_ms"]}
    one["requests"]["unsent"] = 3


def censored(one: Document) -> None:
    one["ttft_ms"] |= {"censored": 20, "kaplan_meier": {"p50": 1234.0, "p99": None}}


def sent_before(one: Document) -> None:
    one["ttft_ms"] |= {"n": 100, "sent_before": 30}


def served(
    *, seen: Document | None = None, during: Document | None = None, **after: float
) -> Callable[[Document], None]:
    """Return what puts beside a level the cross-check with a server whose counters rose so."""
    before = dict.fromkeys(after, 0.0)

    def change(one: Document) -> None:
        scrapes = [
            Scrape(level=0, t_ns=1, kind="vllm", moment="before", values=before),
            Scrape(level=0, t_ns=2, kind="vllm", moment="during", values=during or {}),
            Scrape(level=0, t_ns=3, kind="vllm", moment="after", values=after),
        ]
        if not after:
            del scrapes[-1]
        client = ClientSide(
            input_tokens=1000,
            output_tokens=100,
            requests=10,
            cut=0,
            failed=0,
            ttft_ms_mean=100.0,
            source="usage",
            input_tokens_shared=1000,
            late_ms_p50=0.1,
        )
        one["server"] = server_part([scrapes], msgspec.structs.replace(client, **(seen or {})))

    return change


def delivered(**parts: Any) -> Callable[[Document], None]:
    """Return what puts beside a level what it delivered of what was asked."""
    return put("delivered", value=parts)


def throttled(one: Document) -> None:
    facts = {"use": None, "memory_mib": None, "power_w": None, "clock_mhz": None}
    sample = GpuSample(level=0, t_ns=1, gpu=0, temperature_c=None, throttle=0x40, **facts)
    one["gpu"] = gpu_part([sample])


HITS: dict[str, Any] = {"prefix_queries": 1000.0, "prefix_hits": 900.0}


# By code: what brings it about at a level, the level and the metrics it names, and what it says.
def sampled(**source: str) -> Callable[[Document], None]:
    """Return what gives a level's energy this source."""
    entry = {"source": "gpu-0", "by": "counter", "joules": None, "validity": "ok", **source}

    def change(one: Document) -> None:
        one["energy"] = {"joules": None, "watts_mean": None, "sources": [entry]}
        one["joules_per_token"] = None

    return change


OF_LEVEL: dict[str, tuple[Callable[[Document], None], list[str], str]] = {
    "client-bound": (bound, ["ttft_ms"], "(client-bound; the client was 9 ms late)"),
    "held-back-stream": (held_back, ["ttft_ms", "itl_ms", "tpot_ms"], "holds the stream back"),
    "stopped-early": (put("stopped", value="too many"), [], "ended early: too many."),
    "interrupted": (put("interrupted", value=True), [], "interrupted: it is shorter than asked"),
    "busy-at-start": (
        put(
            "settled",
            value={"busy": True, "waited_s": 30.1, "answered_ms": 4260.0, "idle_ms": 89.0},
        ),
        ["ttft_ms", "e2e_ms"],
        "30 s after we had hung up on a request, one for a single token took 4.26 s, the quickest",
    ),
    "failed-requests": (
        failed,
        ["ttft_ms", "itl_ms", "tpot_ms", "e2e_ms"],
        "1 request failed (0.0784 %: timeout 1); latencies are those of the others.",
    ),
    "too-long-requests": (
        too_long,
        [],
        "max_num_batched_tokens=512. The level measures the others only.",
    ),
    "cut-requests": (put("requests", "cut", value=4), ["e2e_ms"], "4 requests were cut off"),
    "censored-first-tokens": (
        censored,
        ["ttft_ms"],
        "with them, by Kaplan and Meier, TTFT is p50 1.23 s and p99 beyond all that was seen.",
    ),
    "sent-before-window": (sent_before, ["ttft_ms"], "30.0 % of the times to first token"),
    "unsent-requests": (unsent, ["ttft_due_ms"], "3 requests were due and never sent"),
    "output-length-missed": (
        delivered(output_tokens={"asked": 48.0, "mean": 40.0, "missed_by": 0.17, "noise": 0.0}),
        [],
        "answers have 40.0 tokens in the mean where 48.0 were asked",
    ),
    "rate-not-delivered": (
        delivered(rate={"asked": 5.0, "due": 5.0, "sent": 2.5, "not_sent": 300}),
        [],
        "2.50 requests/s were sent where 5.00 were due",
    ),
    "users-not-reached": (
        delivered(in_flight={"users": 50, "expected": 49.0, "peak": 12, "mean": 11.0}),
        [],
        "50 users were asked, and never more than 12 requests were in flight at once",
    ),
    "several-models": (
        put("answered_by", value={"m": {"m": 60, "small": 40}}),
        [],
        "where 'm' was asked, answers name 2 models: 'm' 60, 'small' 40.",
    ),
    "changed-speed": (
        put(
            "delivered",
            value={"speed": {"at_s": 12.0, "before": 205.0, "after": 88.0, "t": 29.0}},
        ),
        [],
        "205 tok/s until 12.0 s of the level, 88.0 after it.",
    ),
    "stood-still": (
        delivered(
            standstill={
                "count": 1,
                "longest_s": 26.0,
                "total_s": 26.0,
                "at_s": 4.1,
                "answers": 22,
                "itl_ms": 13.0,
            }
        ),
        [],
        "the server stood still once for 26.0 s: no token came from 4.10 s of the level on",
    ),
    "backlog": (
        delivered(ttft_trend={"first_ms": 90.0, "last_ms": 4e3, "tau": 1.0, "input_tau": 0.0}),
        ["ttft_ms", "e2e_ms"],
        "TTFT grows with the number of the request, from 90.0 ms to 4.00 s",
    ),
    "few-requests": (
        put("requests", "completed", value=99),
        ["ttft_ms", "itl_ms", "tpot_ms", "e2e_ms"],
        "only 99 requests completed (fewer than 100)",
    ),
    "no-steady-window": (put("window", "steady", value=False), [], "no steady window"),
    "short-window": (put("window", "end_s", value=30.0), [], "is short (7.50 s, less than 30 s)"),
    "chunks-as-tokens": (
        put("tokens", "source", value="chunks"),
        ["itl_ms", "tpot_ms", "token_rate"],
        "a chunk may hold several tokens",
    ),
    "unstreamed-tokens": (
        put("tokens", "unstreamed", value=250),
        ["token_rate"],
        "the server counts 250 tokens",
    ),
    "usage-below-stream": (
        put("tokens", "oddities", value={"usage-below-stream": 3}),
        ["itl_ms", "tpot_ms", "token_rate"],
        "of 3 requests the usage counts fewer tokens than events brought text",
    ),
    "unusable-usage": (
        put("tokens", "oddities", value={"unusable-usage": 1}),
        ["itl_ms", "tpot_ms", "token_rate"],
        "of 1 request the usage is no count of tokens",
    ),
    "cumulative-text": (
        put("tokens", "oddities", value={"cumulative-text": 2}),
        ["itl_ms", "tpot_ms", "token_rate"],
        "of 2 requests each event repeats the text before it",
    ),
    "own-tokenizer": (
        put("tokens", "source", value="tokenizer"),
        ["itl_ms", "tpot_ms", "token_rate"],
        "with our tokenizer",
    ),
    "server-metrics-unread": (served(), [], "could not be read before and after the level."),
    "server-tokens-differ": (
        served(output_tokens=90.0),
        ["itl_ms", "tpot_ms", "token_rate"],
        "the server counts 90 output tokens, the client 100",
    ),
    "server-not-ours-alone": (served(requests=12.0), [], "someone else uses it."),
    "server-ttft-differs": (
        served(ttft_sum_s=0.4, ttft_count=10.0),
        ["ttft_ms"],
        "60.0 ms longer than the server's",
    ),
    "server-saturated": (
        served(requests=10.0, during={"running": 2.0, "waiting": 8.0}),
        ["ttft_ms", "e2e_ms"],
        "the server is saturated.",
    ),
    "preempted-requests": (served(preemptions=2.0), [], "its KV cache is too small."),
    "kv-cache-full": (served(requests=10.0, during={"kv_use": 0.95}), [], "95 % full."),
    "warm-prefix-cache": (
        served(**HITS, seen={"input_tokens_shared": 0}),
        ["ttft_ms"],
        "the cache was warm from before",
    ),
    "repeated-prompts": (served(**HITS), ["ttft_ms"], "--unique makes all prompts differ"),
    "forced-acceptance": (
        put(
            "server",
            value={
                "findings": {"forced-acceptance": "100.0 % of the drafted tokens were accepted"}
            },
        ),
        ["itl_ms", "tpot_ms", "e2e_ms", "token_rate"],
        "100.0 % of the drafted tokens were accepted.",
    ),
    "server-note": (put("server", value={"notes": ["it sleeps"]}), [], "it sleeps."),
    "energy-unknown": (
        sampled(validity="gap"),
        ["joules_per_token"],
        "energy has no value: gpu-0: its samples lie more than 3 s apart.",
    ),
    "energy-from-power": (
        sampled(by="power"),
        ["joules_per_token"],
        "energy of gpu-0 is integrated from samples of its power.",
    ),
    "gpu-throttled": (throttled, [], "GPU 0 was held back by heat (hardware) in 100 % of"),
    "called-invalid": (put("invalid", value="it says INVALID"), [], "measured it: it says INV"),
}
MACHINE = {
    "busy-machine": ({"load_average": [12.0, 1.0, 1.0]}, "load average 12.0 on 16 cores"),
    "few-cores": ({"cpu": {"cores_usable": 2}}, "Only 2 CPU cores"),
    "varying-clock": ({"cpu": {"governor": "powersave"}}, "governor 'powersave'"),
}


def test_every_code_is_brought_about_here() -> None:
    elsewhere = {"single-start", "slow-swings"}  # of a comparison: test_comparison.py
    elsewhere |= {
        "doubtful-pairs",
        "repeated-runs",
        "failing-starts",
        "torn-pairs",
    }  # tune/test_strikes.py
    of_run = {"imported-file", "uncalibrated-client"}
    assert {*OF_LEVEL, *MACHINE, *of_run, *OF_STUDY, *elsewhere} == set(doubts.CODES)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"spec": {"calibration": True}}, True),
        ({"spec": {"calibration": False}}, False),
        ({"spec": {"calibration": True}, "calibration": {"events_per_s_max": 9e4}}, False),
        ({"spec": {"calibration": True}, "levels": []}, False),
    ],
)
def test_a_client_that_was_to_be_calibrated_and_was_not_is_told(
    changes: dict[str, Any], *, told: bool
) -> None:
    found = doubts.find({**summary(), **changes})
    assert ("uncalibrated-client" in {one.code for one in found}) == told


@pytest.mark.parametrize("code", OF_LEVEL)
def test_a_doubt_of_a_level_is_found_with_its_level_and_metrics(code: str) -> None:
    change, metrics, said = OF_LEVEL[code]
    document = summary()
    assert doubts.entries(document) == []

    change(document["levels"][1])

    (found,) = doubts.entries(document)
    at = (2.5, "poisson 2.5/s") if code == "unsent-requests" else (50, "50 users")
    assert (found["code"], found["metrics"]) == (code, metrics)
    assert (found["level"], found["at"]) == at
    assert said in found["text"]
    assert found["text"].endswith(".")


@pytest.mark.parametrize("code", MACHINE)
def test_a_doubt_of_the_machine_is_one_of_the_whole_run(code: str) -> None:
    facts, said = MACHINE[code]
    document = summary()
    document["environment"] |= facts

    (found,) = doubts.entries(document)

    assert (found["code"], found["level"], found["at"], found["metrics"]) == (code, None, None, [])
    assert said in found["text"]


def test_what_a_file_of_another_tool_lacks_is_a_doubt_and_a_definition_is_none() -> None:
    document = summary()
    document["spec"]["definitions"] = {"TTFT": "of the first chunk, empty or not"}
    document["imported"] = {"notes": ["TTFT: of the first chunk, empty or not", "No failures."]}

    (found,) = doubts.entries(document)

    assert (found["code"], found["level"], found["text"]) == ("imported-file", None, "No failures.")


def test_metrics_of_codes_are_metrics() -> None:
    assert {name for code in doubts.CODES.values() for name in code.metrics} <= set(BY_NAME)


def test_an_answer_in_one_read_is_no_doubt_where_it_is_short_or_the_client_was_late() -> None:
    short, late = level(10, rate=420, ttft_ms=510), level(50, rate=510, ttft_ms=2070)
    short["tokens"]["output"] = 7 * short["requests"]["completed"]
    short["client"]["tokens_per_read"] = 7.0
    held_back(late)
    bound(late)

    assert [doubt.code for doubt in doubts.find(summary([short, late]))] == ["client-bound"]


@pytest.mark.parametrize(
    ("ttft", "says"),
    [
        ({"n": 1000, "censored": 30, "p50": 511.0, "p99": 1540.0}, False),  # they change nothing
        ({"n": 1000, "censored": 30, "p50": 511.0, "p99": 1700.0}, True),
        ({"n": 100, "censored": 30, "p50": 511.0, "p99": 1540.0}, True),
        # Too few to move p99, and they starve.
        ({"n": 1000, "censored": 3, "p50": 510.0, "p99": 1530.0, "censored_ms_max": 9e3}, True),
        ({"n": 1000, "censored": 3, "p50": 510.0, "p99": 1530.0, "censored_ms_max": 2e3}, False),
    ],
)
def test_first_tokens_that_had_not_come_are_doubted_where_they_matter(
    ttft: Document, *, says: bool
) -> None:
    one = level(10, rate=420, ttft_ms=510)
    counted = {name: ttft.pop(name) for name in ("p50", "p99")}
    one["ttft_ms"] |= {**ttft, "kaplan_meier": counted}

    found = [doubt.code for doubt in doubts.find(summary([one]))]

    assert found == (["censored-first-tokens"] if says else [])


def test_two_levels_of_one_load_are_told_apart() -> None:
    twice = [level(10, rate=420, ttft_ms=510) for _ in range(2)]
    twice[1]["interrupted"] = True

    (found,) = doubts.find(summary(twice))

    assert found.sentence.startswith("10 users (2): the level was interrupted")


@pytest.mark.parametrize(
    ("window", "steady"),
    [
        ({"steady": True, "method": "whole days"}, True),
        ({"steady": False, "method": "after the ramp"}, False),
        # As older documents have it.
        ({"method": "after the ramp, MSER-5 on the token rate"}, True),
        ({"method": "whole level: too short for a steady state"}, False),
    ],
)
def test_a_field_says_whether_a_window_is_steady(window: Document, *, steady: bool) -> None:
    one = {"window": {"start_s": 0.0, "end_s": 60.0, **window}}
    assert level_checks.is_steady(one) is steady


# Where they are shown


def on_page(page: str) -> list[str]:
    """Return the doubts that a page lists."""
    section = page[page.index('<section id="doubts"') :]
    section = section[: section.index("</section>")]
    return [html.unescape(one).strip() for one in re.findall(r"<li>(.*?)</li>", section, re.DOTALL)]


def on_terminal(document: Document) -> list[str]:
    """Return the doubts that the terminal prints under its table."""
    out = io.StringIO()
    show_summary(document, Console(file=out, width=200))
    return marked(out.getvalue())


def marked(text: str) -> list[str]:
    return [line.removeprefix("! ") for line in text.splitlines() if line.startswith("! ")]


def sentences(found: list[Document]) -> list[str]:
    return [f"{one['at']}: {one['text']}" if one["at"] else one["text"] for one in found]


def test_a_run_says_the_same_doubts_in_json_on_the_terminal_and_on_its_page(
    streamer: Callable[..., str],
    dyno: Callable[..., subprocess.CompletedProcess[str]],
    tmp_path: Path,
) -> None:
    url = streamer("--ttft", "900ms", "--itl", "20ms")
    done = dyno(
        *("bench", "--url", url, "--endpoint", "openai-chat", "--model", "m", "-c", "8", "--json"),
        *("--ramp", "200ms", "--duration", "1800ms", "--grace", "0s", "--osl", "6"),
        *("--out", "run"),
    )
    assert done.returncode == 0, done.stderr
    found = last_json(done.stdout)["doubts"]

    codes = {one["code"] for one in found}
    assert codes >= {"cut-requests", "censored-first-tokens", "few-requests"}
    assert codes & {"no-steady-window", "short-window"}
    assert marked(done.stderr) == sentences(found)
    assert store.read_json(tmp_path / "run" / "summary.json")["doubts"] == found
    derived = run_summary(tmp_path / "run")
    assert derived["doubts"] == found
    assert on_page(report.run_page(derived)) == sentences(found)


def test_what_stands_in_a_summary_is_shown_and_nothing_else_is_found() -> None:
    document = summary()
    held_back(document["levels"][0])
    failed(document["levels"][2])
    document["environment"]["load_average"] = [12.0, 1.0, 1.0]
    document["slo"] = []
    stored = {**document, "doubts": doubts.entries(document)[:2]}

    assert [one["code"] for one in doubts.entries(document)] == [
        *("held-back-stream", "failed-requests", "busy-machine")
    ]
    assert on_terminal(stored) == on_page(report.run_page(stored)) == sentences(stored["doubts"])


@pytest.mark.parametrize("odd", [None, [{"code": 1}], "none"])
def test_of_a_summary_without_the_key_they_are_found_on_reading(tmp_path: Path, odd: Any) -> None:
    document = summary()
    failed(document["levels"][2])
    found = doubts.entries(document)
    old = copy.deepcopy(document) if odd is None else {**document, "doubts": odd}
    old["slo"] = []
    store.write_json(tmp_path / "summary.json", old)

    reread = dict(run_summary(tmp_path))

    assert [one["code"] for one in found] == ["failed-requests"]
    assert reread["doubts"] == found
    assert on_page(report.run_page(old)) == on_terminal(old) == sentences(found)
    assert "doubts" not in store.read_json(tmp_path / "summary.json") or odd is not None


def test_the_page_of_codes_has_the_table() -> None:
    rows = re.findall(
        r"^\| `([a-z0-9-]+)` \| (.+?) \| (.*?) \|$", (DOCS / "doubts.md").read_text(), re.MULTILINE
    )

    assert {code: (meaning, metrics) for code, meaning, metrics in rows} == {
        code: (row.meaning, ", ".join(f"`{name}`" for name in row.metrics))
        for code, row in doubts.CODES.items()
    }
