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
from llmdyno.results.documents import Document, levels, number, part, texts
from llmdyno.results.level_checks import CHECKS
from llmdyno.results.load_checks import about_models_of
from llmdyno.results.metrics import BY_NAME, Metric, resting_on
from llmdyno.results.pair_doubts import STOPPED

Spoils = Callable[[Metric], bool]


def _nothing(_: Metric) -> bool:
    return False


def _latencies(row: Metric) -> bool:
    return row.observe is not None


def _token_rates(row: Metric) -> bool:
    return row.rate is not None and "token count" in row.rests_on


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
        "answers come whole or in large pieces: something holds the stream back",
        resting_on("first token", "later tokens"),
    ),
    # How the level went.
    "stopped-early": Code("the level was ended early, by a limit of errors or a fault"),
    "interrupted": Code("the level was interrupted and is shorter than asked"),
    "busy-at-start": Code(
        "the server was still busy when the level began, after we had hung up on requests",
        _WAITED,
    ),
    "failed-requests": Code("requests failed; latencies are those of the others", _latencies),
    "too-long-requests": Code(
        "the server refused requests as too long: the level measures the others only"
    ),
    "cut-requests": Code("the slowest requests were cut off at the end of the grace", _LAST),
    "censored-first-tokens": Code(
        "so many had no first token when the window ended that TTFT is too good", _FIRST
    ),
    "sent-before-window": Code("many first tokens are of requests sent before the window", _FIRST),
    "unsent-requests": Code(
        "requests were due and never sent, for want of a slot", resting_on("due time")
    ),
    # Whether the load was what was asked.
    "output-length-missed": Code("answers are not as long as asked: the work was another one"),
    "rate-not-delivered": Code("fewer requests a second were sent than were asked"),
    "users-not-reached": Code("fewer requests were in flight than the users should keep there"),
    "several-models": Code("answers name several models where one was asked: a mixture"),
    "changed-speed": Code("the server became faster or slower in the middle of the level"),
    "stood-still": Code("the server sent nothing for a part of the window: once, not by its speed"),
    "backlog": Code("TTFT grows with the number of the request: it is a backlog", _WAITED),
    # What the numbers rest on.
    "few-requests": Code("fewer than 100 requests completed: p99 is hardly known", _latencies),
    "no-steady-window": Code("the level counts whole, ramp and drain too"),
    "short-window": Code("the window is shorter than 30 s: slow swings hide"),
    "chunks-as-tokens": Code("tokens were counted as chunks", _COUNTED),
    "unstreamed-tokens": Code(
        "the server counts tokens that it did not stream, such as hidden reasoning", _token_rates
    ),
    "usage-below-stream": Code("the server's usage is below what it streamed", _COUNTED),
    "unusable-usage": Code("the server's usage is no count of tokens", _COUNTED),
    "cumulative-text": Code("each event repeats the text before it", _COUNTED),
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
    "forced-acceptance": Code(
        "speculative decoding accepts nearly every draft: acceptance seems to be forced",
        resting_on("later tokens", "last token", "token count"),
    ),
    "server-note": Code("a note on the server, stored by a version that had no codes"),
    # The machine.
    "gpu-throttled": Code("a GPU was held back by power, heat or its hardware"),
    "energy-unknown": Code(
        "a source of energy was not sampled over the whole window", resting_on("energy")
    ),
    "energy-from-power": Code(
        "energy was integrated from samples of the power: a GPU has no counter",
        resting_on("energy"),
    ),
    "uncalibrated-client": Code("the client could not be measured before the run"),
    "busy-machine": Code("the machine was busy before the run"),
    "few-cores": Code("the machine has fewer than four CPU cores"),
    "varying-clock": Code("the CPU's clock follows its load"),
    # A study, or two runs beside each other: study_doubts.py finds these.
    "unconfirmed": Code("no repeated pairs confirmed the winner: its gain may be luck"),
    "few-pairs": Code("fewer than five pairs: the interval is rough"),
    "torn-pairs": Code("a stop of the study lies between the two runs of a pair"),
    "repeated-runs": Code("runs of the pairs failed and were made again"),
    "failing-starts": Code("baseline or winner fails now and then, and works when tried again"),
    "doubtful-pairs": Code("runs of the pairs have doubts of their own, such as failed requests"),
    "no-interval": Code("a ratio of the confirmation has no interval"),
    "no-difference-shown": Code("the interval of a ratio includes 1"),
    "altered-output": Code(
        "a changed setting may alter the tokens, the answers differ, or the winner scores worse in"
        " a task of lm-eval"
    ),
    "doubtful-trials": Code("trials have doubts of their own: the search may have missed the best"),
    STOPPED: Code("dyno itself was stopped (Ctrl-Z) in runs that count: they measured dyno, too"),
    "failed-trials": Code("trials failed: the search could not judge those settings"),
    "unlike-places": Code("baseline and winner were not measured in the same place"),
    "another-place": Code("the study went on with another engine's version, driver or machine"),
    "changed-baseline": Code(
        "the baseline is another in the pairs than before the trials: the machine has changed"
    ),
    "parallel-trials": Code("trials ran beside each other and shared more than their lanes divide"),
    "several-hosts": Code("trials ran on other machines than the confirmation"),
    "studies-beside": Code("another study ran on this machine at the same time"),
    "measured-once": Code("a level was measured in one of the two runs only"),
    "unequal-work": Code("answers differ in length: the work was not the same"),
    "unequal-load": Code("rates or users in flight differ: the load was not the same"),
    "single-start": Code("one run each: what differs between two starts was not measured"),
    "slow-swings": Code("one run each, too short for the swings of the server's speed"),
    # Another tool's file.
    "imported-file": Code("what the file of another tool does not hold, or contradicts"),
    "called-invalid": Code("the tool that measured it calls the result invalid itself"),
}


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
        _of_level(code if code in CODES else "server-note", said, name, level)
        for name, level in levels(summary).items()
        for check in CHECKS
        for code, said in check(level)
    ]
    whole = [
        *(("uncalibrated-client", said) for said in _about_calibration(summary)),
        *environment.findings(part(summary, "environment")).items(),
        *about_models_of(levels(summary).values()),
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


def _about_calibration(summary: Document) -> list[str]:
    """Say that the client was to be measured first, and was not."""
    asked = part(summary, "spec").get("calibration") is True
    if not asked or "calibration" in summary or not levels(summary):
        return []
    said = (
        "The client could not be measured before the run: its own streamer answered no request, so"
        " how much more it could handle is not known. The machine is far too busy."
    )
    return [said]


def _imported(summary: Document) -> list[str]:
    """Return the notes on an imported file.

    What its tool means by a metric is in the notes as well. It makes the number another one and
    not a doubtful one: it stays a definition.
    """
    definitions = part(summary, "spec", "definitions").items()
    meant = {f"{subject}: {meaning}" for subject, meaning in definitions}
    return [note for note in texts(summary, "imported", "notes") if note not in meant]
