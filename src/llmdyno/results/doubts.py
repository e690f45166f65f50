"""Doubts: the reasons not to believe a number of a run. All of them are found here.

A report that prints only what it found is an advertisement. `find` reads a summary document and
returns every doubt about it; they stand in the document under "doubts", and terminal and pages
print those. Every bound below is a rule of thumb and is named in the sentence that it causes, so
that a reader can disagree with it. docs/doubts.md has the table of codes.
"""

from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from llmdyno.machine import environment
from llmdyno.results.crosscheck import UNREAD
from llmdyno.results.documents import Document, items, levels, number, part, text, texts
from llmdyno.results.metrics import BY_NAME, SENT_BEFORE_MAX, Metric, resting_on
from llmdyno.results.titles import titles

SHORT_WINDOW_S = 30
FEW_REQUESTS = 100  # below this a p99 is no more than the slowest request
HELD_BACK_TOKENS = 8  # a shorter answer may well come in one read
HELD_BACK_SHARE = 0.5  # of an answer in one read

Spoils = Callable[[Metric], bool]


def _nothing(_: Metric) -> bool:
    return False


def _latencies(row: Metric) -> bool:
    return row.observe is not None


_FIRST = resting_on("first token")
_LAST = resting_on("last token")
_COUNTED = resting_on("token count")
_WAITED = resting_on("first token", "last token")


class Code(msgspec.Struct, frozen=True):
    """What a code means, and which metrics such a doubt spoils; none: the run or level whole."""

    meaning: str
    spoils: Spoils = _nothing

    @property
    def metrics(self) -> tuple[str, ...]:
        """The names of the metrics that such a doubt spoils."""
        return tuple(row.name for row in BY_NAME.values() if self.spoils(row))


class Doubt(msgspec.Struct, frozen=True, kw_only=True):
    """One reason not to believe a number. Its fields are the keys of a summary's "doubts"."""

    code: str  # of CODES
    level: float | None  # the level's users or rate, as an SLO's entry has it; None: the whole run
    at: str | None  # the level's name; None: the whole run
    metrics: tuple[str, ...]  # keys of a level that the doubt spoils; empty: the run or level whole
    text: str

    @property
    def sentence(self) -> str:
        """The text, with the level's name before it."""
        return self.text if self.at is None else f"{self.at}: {self.text}"


CODES: Mapping[str, Code] = {
    # The client.
    "client-bound": Code(
        "the load generator was late or at its limit; `metrics` are what it spoilt"
    ),
    "held-back-stream": Code(
        "whole answers come in one or two reads: something holds the stream back",
        resting_on("first token", "later tokens"),
    ),
    # How the level went.
    "stopped-early": Code("the level was ended early, by a limit of errors or a fault"),
    "interrupted": Code("the level was interrupted and is shorter than asked"),
    "failed-requests": Code("requests failed; latencies are those of the others", _latencies),
    "cut-requests": Code("the slowest requests were cut off at the end of the grace", _LAST),
    "censored-first-tokens": Code("more than 1 % were cut before their first token", _FIRST),
    "sent-before-window": Code("many first tokens are of requests sent before the window", _FIRST),
    "unsent-requests": Code(
        "requests were due and never sent, for want of a slot", resting_on("due time")
    ),
    # What the numbers rest on.
    "few-requests": Code("fewer than 100 requests completed: p99 is hardly known", _latencies),
    "no-steady-window": Code("the level counts whole, ramp and drain too"),
    "short-window": Code("the window is shorter than 30 s: slow swings hide"),
    "chunks-as-tokens": Code("tokens were counted as chunks", _COUNTED),
    "own-tokenizer": Code("tokens were counted with our tokenizer, not the server's", _COUNTED),
    # The server's own metrics.
    UNREAD: Code("the server's metrics could not be read before and after, or began anew"),
    "server-tokens-differ": Code("server and client count different tokens", _COUNTED),
    "server-not-ours-alone": Code("the server answered requests of others, too"),
    "server-ttft-differs": Code("server and client differ in the mean TTFT", _FIRST),
    "server-saturated": Code("requests waited in the server's queue", _WAITED),
    "preempted-requests": Code("the server preempted requests: its KV cache is too small"),
    "kv-cache-full": Code("the server's KV cache was nearly full"),
    "warm-prefix-cache": Code("the prefix cache was warm from before", _FIRST),
    "repeated-prompts": Code("the workload repeats prompts, and the prefix cache hits", _FIRST),
    "server-note": Code("a note on the server, stored by a version that had no codes"),
    # The machine.
    "gpu-throttled": Code("a GPU was held back by power, heat or its hardware"),
    "busy-machine": Code("the machine was busy before the run"),
    "few-cores": Code("the machine has fewer than four CPU cores"),
    "varying-clock": Code("the CPU's clock follows its load"),
    # A study, or two runs beside each other: study_doubts.py finds these.
    "unconfirmed": Code("no repeated pairs confirmed the winner: its gain may be luck"),
    "few-pairs": Code("fewer than five pairs: the interval is rough"),
    "no-interval": Code("a ratio of the confirmation has no interval"),
    "no-difference-shown": Code("the interval of a ratio includes 1"),
    "altered-output": Code("a changed setting may alter the tokens themselves"),
    "failed-trials": Code("trials failed: the search could not judge those settings"),
    "unlike-places": Code("baseline and winner were not measured in the same place"),
    "measured-once": Code("a level was measured in one of the two runs only"),
    "unequal-work": Code("answers differ in length: the work was not the same"),
    # Another tool's file.
    "imported-file": Code("what the file of another tool does not hold, or contradicts"),
}

_Finding = tuple[str, str]  # code and text


def entries(summary: Document) -> list[dict[str, Any]]:
    """Return a summary's doubts as its document has them, ready for JSON."""
    return [
        {**msgspec.structs.asdict(doubt), "metrics": list(doubt.metrics)} for doubt in of(summary)
    ]


def of(summary: Document) -> list[Doubt]:
    """Return the doubts that stand in a summary; those of an older one are found now."""
    try:
        return msgspec.convert(summary.get("doubts"), list[Doubt])
    except msgspec.ValidationError:  # there are none, or they are no doubts
        return find(summary)


def find(summary: Document) -> list[Doubt]:
    """Find every doubt from a summary's facts: of each level, then of the whole run."""
    found = [
        _of_level(code, said, name, level)
        for name, level in levels(summary).items()
        for check in _CHECKS
        for code, said in check(level)
    ]
    whole = [
        *environment.findings(part(summary, "environment")).items(),
        *(("imported-file", note) for note in _imported(summary)),
    ]
    return found + [
        Doubt(code=code, level=None, at=None, metrics=CODES[code].metrics, text=said)
        for code, said in whole
    ]


def _of_level(code: str, said: str, name: str, level: Document) -> Doubt:
    metrics = texts(level, "doubtful") if code == "client-bound" else CODES[code].metrics
    return Doubt(
        code=code,
        level=number(level, "users") if level.get("users") is not None else number(level, "rate"),
        at=name,
        metrics=tuple(metric for metric in metrics if metric in level),
        text=said,
    )


def _about_client(level: Document) -> list[_Finding]:
    if text(level, "client", "verdict") != "client-bound":
        return _about_stream(level)
    because = "; ".join(("client-bound", *texts(level, "client", "reasons")))
    spoilt = titles(texts(level, "doubtful"))
    said = (
        f"the load generator was the limit ({because}): the server may be better than this."
        f"{f' Doubtful: {spoilt}.' if spoilt else ''}"
    )
    return [("client-bound", said)]


def _about_stream(level: Document) -> list[_Finding]:
    """Doubt a stream whose answers come at once, to a client that was in time to see more."""
    output, completed = number(level, "tokens", "output"), number(level, "requests", "completed")
    a_read = number(level, "client", "tokens_per_read")
    if not output or not completed or not a_read:
        return []
    an_answer = output / completed
    if an_answer < HELD_BACK_TOKENS or a_read < HELD_BACK_SHARE * an_answer:
        return []
    said = (
        f"answers of {_digits(an_answer)} tokens come with {_digits(a_read)} tokens a read (half of"
        " an answer or more): the server or a proxy holds the stream back, so TTFT and ITL do not"
        " show when tokens were made."
    )
    return [("held-back-stream", said)]


def _about_end(level: Document) -> list[_Finding]:
    if stopped := text(level, "stopped"):
        return [("stopped-early", f"the level was ended early: {stopped}.")]
    if level.get("interrupted") is True:
        return [("interrupted", "the level was interrupted: it is shorter than asked.")]
    return []


def _about_requests(level: Document) -> list[_Finding]:
    found: list[_Finding] = []
    completed, failed, cut, unsent = (
        number(level, "requests", name) for name in ("completed", "failed", "cut", "unsent")
    )
    if failed:
        errors = part(level, "requests", "errors")
        classes = ", ".join(f"{name} {number(errors, name) or 0:,.0f}" for name in errors)
        share = _digits(100 * failed / (failed + (completed or 0)))
        said = f"{_requests(failed)} failed ({share} %{f': {classes}' if classes else ''})"
        found.append(("failed-requests", f"{said}; latencies are those of the others."))
    if cut:
        said = f"{_requests_were(cut)} cut off at the end"
        found.append(
            ("cut-requests", f"{said}: the slowest are missing from the end-to-end latencies.")
        )
    if unsent:
        said = f"{_requests_were(unsent)} due and never sent, for want of a slot"
        found.append(
            ("unsent-requests", f"{said}: the latencies from due lack them and are too good.")
        )
    if completed is not None and completed < FEW_REQUESTS:
        said = (
            f"only {_requests(completed)} completed (fewer than {FEW_REQUESTS}): p99 is hardly more"
            " than the slowest one."
        )
        found.append(("few-requests", said))
    return found


def _about_first_tokens(level: Document) -> list[_Finding]:
    found: list[_Finding] = []
    if quantiles := part(level, "ttft_ms", "kaplan_meier"):
        values = " and ".join(
            f"{name} {_milliseconds(number(quantiles, name))}" for name in quantiles
        )
        said = (
            f"{_requests_were(number(level, 'ttft_ms', 'censored') or 0)} cut before their first"
            f" token; with them, by Kaplan and Meier, TTFT is {values}."
        )
        found.append(("censored-first-tokens", said))
    before, n = (number(level, "ttft_ms", name) for name in ("sent_before", "n"))
    if before and n and before > SENT_BEFORE_MAX * n:
        said = (
            f"{_digits(100 * before / n)} % of the times to first token (more than"
            f" {SENT_BEFORE_MAX:.0%}) are of requests sent before the window: measure for several"
            " times as long as a first token takes."
        )
        found.append(("sent-before-window", said))
    return found


def is_steady(level: Document) -> bool:
    """Tell whether a level has a window that leaves out ramp and drain."""
    window = part(level, "window")
    if number(window, "start_s") is None or number(window, "end_s") is None:
        return False
    steady = window.get("steady")
    # Before 28 November 2026 only the words of the method told.
    return steady if isinstance(steady, bool) else not text(window, "method").startswith("whole")


def _about_window(level: Document) -> list[_Finding]:
    if not is_steady(level):
        return [("no-steady-window", "there is no steady window: ramp and drain count too.")]
    length_s = (number(level, "window", "end_s") or 0) - (number(level, "window", "start_s") or 0)
    if length_s >= SHORT_WINDOW_S:
        return []
    said = f"the window is short ({_digits(length_s)} s, less than {SHORT_WINDOW_S} s)"
    return [("short-window", f"{said}: slow swings hide.")]


def _about_tokens(level: Document) -> list[_Finding]:
    match text(level, "tokens", "source"):
        case "chunks":
            said = "tokens were counted as chunks: a chunk may hold several tokens."
            return [("chunks-as-tokens", said)]
        case "tokenizer":
            return [("own-tokenizer", "tokens were counted with our tokenizer, not the server's.")]
    return []


def _about_server(level: Document) -> list[_Finding]:
    """Return what the cross-check with the server's own metrics found."""
    server = part(level, "server")
    if findings := part(server, "findings"):
        return [
            (code if code in CODES else "server-note", f"{findings[code]}.") for code in findings
        ]
    return [("server-note", f"{note}.") for note in texts(server, "notes")]


def _about_gpus(level: Document) -> list[_Finding]:
    return [
        ("gpu-throttled", f"{note}.") for gpu in items(level, "gpu") for note in texts(gpu, "notes")
    ]


def _imported(summary: Document) -> list[str]:
    """Return the notes on an imported file.

    What its tool means by a metric is in the notes as well. It makes the number another one and
    not a doubtful one: it stays a definition.
    """
    definitions = part(summary, "spec", "definitions").items()
    meant = {f"{subject}: {meaning}" for subject, meaning in definitions}
    return [note for note in texts(summary, "imported", "notes") if note not in meant]


_CHECKS: tuple[Callable[[Document], list[_Finding]], ...] = (
    _about_client,
    _about_end,
    _about_requests,
    _about_first_tokens,
    _about_window,
    _about_tokens,
    _about_server,
    _about_gpus,
)


def _requests(count: float) -> str:
    return f"{count:,.0f} request{'' if count == 1 else 's'}"


def _requests_were(count: float) -> str:
    return f"{_requests(count)} {'was' if count == 1 else 'were'}"


def _digits(value: float) -> str:
    """Write three significant digits, or a whole number."""
    return f"{value:,.0f}" if value >= 99.95 else f"{value:#.3g}"


def _milliseconds(value_ms: float | None) -> str:
    if value_ms is None:
        return "beyond all that was seen"
    return f"{_digits(value_ms / 1000)} s" if value_ms >= 1000 else f"{_digits(value_ms)} ms"
