"""The checks of a level that find its doubts: one function a subject.

Each takes a level of a summary and returns pairs of a code (of doubts.CODES) and a sentence. A new
check is a function here or in a module of its own, and a place in CHECKS.
"""

from collections.abc import Callable

from llmdyno.faults import is_too_long
from llmdyno.results import energy, wording
from llmdyno.results.documents import Document, items, number, part, text, texts
from llmdyno.results.load_checks import (
    about_backlog,
    about_lengths,
    about_models,
    about_rate,
    about_speed,
    about_standstill,
    about_users,
)
from llmdyno.results.metrics import SENT_BEFORE_MAX
from llmdyno.results.settled import about_settling
from llmdyno.results.stream_checks import about_stream
from llmdyno.results.titles import titles

SHORT_WINDOW_S = 30
FEW_REQUESTS = 100  # below this a p99 is no more than the slowest request
CENSORED_SHARE = 0.2  # of the requests: with fewer, p50 and p99 tell whether they matter
CENSORED_SHIFT = 0.05  # of p50 or p99
CENSORED_TIMES = 3  # a wait so many times the longest TTFT is starvation, however few wait

# What was odd about the streams of some requests, by the codes of wire/reply.py.
_ODD_STREAMS = {
    "usage-below-stream": (
        "the usage counts fewer tokens than events brought text (reasoning or a choice left out, or"
        " tokens sent in parts)"
    ),
    "unusable-usage": "the usage is no count of tokens (no whole number above 0)",
    "cumulative-text": (
        "each event repeats the text before it: what was new in each was taken for its text"
    ),
}

Finding = tuple[str, str]  # code and text


def _about_client(level: Document) -> list[Finding]:
    if text(level, "client", "verdict") != "client-bound":
        return []
    because = "; ".join(("client-bound", *texts(level, "client", "reasons")))
    spoilt = titles(texts(level, "doubtful"))
    said = (
        f"the load generator was the limit ({because}): the server may be better than this."
        f"{f' Doubtful: {spoilt}.' if spoilt else ''}"
    )
    return [("client-bound", said)]


def _about_end(level: Document) -> list[Finding]:
    if stopped := text(level, "stopped"):
        return [("stopped-early", f"the level was ended early: {stopped}.")]
    if level.get("interrupted") is True:
        return [("interrupted", "the level was interrupted: it is shorter than asked.")]
    return []


def _about_requests(level: Document) -> list[Finding]:
    found: list[Finding] = []
    completed, failed, cut, unsent = (
        number(level, "requests", name) for name in ("completed", "failed", "cut", "unsent")
    )
    too_long = number(level, "requests", "too_long") or 0
    if failed and failed > too_long:
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
            ("unsent-requests", f"{said}: the plain latencies from due lack them and are too good.")
        )
    if completed is not None and completed < FEW_REQUESTS:
        said = (
            f"only {_requests(completed)} completed (fewer than {FEW_REQUESTS}): p99 is hardly more"
            " than the slowest one."
        )
        found.append(("few-requests", said))
    return found


def _about_lengths(level: Document) -> list[Finding]:
    """Doubt a level whose longest requests the server does not take: the rest is another load."""
    refused = number(level, "requests", "too_long")
    if not refused:
        return []
    asked = (number(level, "requests", name) or 0 for name in ("completed", "failed", "cut"))
    examples = (
        text(level, "faults", fault, "example")
        for fault in part(level, "faults")
        if is_too_long(fault, text(level, "faults", fault, "example"))
    )
    words = next(examples, "").rstrip(".")
    said = (
        f"{_requests_were(refused)} refused as too long ({_digits(100 * refused / sum(asked))} %)"
        f"{f': {words}' if words else ''}. The level measures the others only."
    )
    return [("too-long-requests", said)]


def _about_first_tokens(level: Document) -> list[Finding]:
    found: list[Finding] = []
    if _waits_matter(part(level, "ttft_ms")):
        quantiles = part(level, "ttft_ms", "kaplan_meier")
        values = " and ".join(
            f"{name} {_milliseconds(number(quantiles, name))}" for name in ("p50", "p99")
        )
        longest = number(level, "ttft_ms", "censored_ms_max")
        said = (
            f"{_requests_were(number(level, 'ttft_ms', 'censored') or 0)} cut before a first"
            " token, timed out before it or still waited for it when the window ended"
            f"{f' (the longest for {_milliseconds(longest)})' if longest else ''}; with them, by"
            f" Kaplan and Meier, TTFT is {values}."
        )
        found.append(("censored-first-tokens", said))
    before, n = (number(level, "ttft_ms", name) for name in ("sent_before", "n"))
    if before and n and before > SENT_BEFORE_MAX * n:
        said = (
            f"{_digits(100 * before / n)} % of the times to first token (more than"
            f" {wording.share(SENT_BEFORE_MAX)}) are of requests sent before the window: measure"
            " for several times as long as a first token takes."
        )
        found.append(("sent-before-window", said))
    return found


def _waits_matter(ttft: Document) -> bool:
    """Tell whether first tokens that had not come by the window's end make TTFT another one."""
    counted = part(ttft, "kaplan_meier")
    if not counted:
        return False
    n, censored = number(ttft, "n") or 0, number(ttft, "censored") or 0
    longest, most = number(ttft, "censored_ms_max") or 0, number(ttft, "max")
    if most is not None and longest > CENSORED_TIMES * most:
        return True
    pairs = [(number(counted, name), number(ttft, name)) for name in ("p50", "p99")]
    return censored > CENSORED_SHARE * (n + censored) or any(
        with_them is None or (plain is not None and with_them > (1 + CENSORED_SHIFT) * plain)
        for with_them, plain in pairs
    )


def is_steady(level: Document) -> bool:
    """Tell whether a level has a window that leaves out ramp and drain."""
    window = part(level, "window")
    if number(window, "start_s") is None or number(window, "end_s") is None:
        return False
    steady = window.get("steady")
    # Before 28 November 2026 only the words of the method told.
    return steady if isinstance(steady, bool) else not text(window, "method").startswith("whole")


def _about_window(level: Document) -> list[Finding]:
    if not is_steady(level):
        return [("no-steady-window", "there is no steady window: ramp and drain count too.")]
    length_s = (number(level, "window", "end_s") or 0) - (number(level, "window", "start_s") or 0)
    if length_s >= SHORT_WINDOW_S:
        return []
    said = f"the window is short ({_digits(length_s)} s, less than {SHORT_WINDOW_S} s)"
    return [("short-window", f"{said}: slow swings hide.")]


def _about_tokens(level: Document) -> list[Finding]:
    match text(level, "tokens", "source"):
        case "chunks":
            counted = part(level, "tokens", "by_source")
            chunks, total = number(counted, "chunks"), sum(number(counted, n) or 0 for n in counted)
            some = f"{_digits(100 * chunks / total)} % of the " if chunks and chunks < total else ""
            said = f"{some}tokens were counted as chunks: a chunk may hold several tokens."
            return [("chunks-as-tokens", said)]
        case "tokenizer":
            return [("own-tokenizer", "tokens were counted with our tokenizer, not the server's.")]
    return []


def _about_usage(level: Document) -> list[Finding]:
    """Doubt counts where the server's usage and its stream disagree."""
    tokens = part(level, "tokens")
    found: list[Finding] = []
    if beyond := number(tokens, "unstreamed"):
        share = _digits(100 * beyond / (beyond + (number(tokens, "output") or 0)))
        said = (
            f"the server counts {beyond:,.0f} tokens ({share} % of its output) that it did not"
            " stream, such as hidden reasoning: they are in no rate and no latency per token."
        )
        found.append(("unstreamed-tokens", said))
    for code, said in _ODD_STREAMS.items():
        if count := number(tokens, "oddities", code):
            found.append((code, f"of {_requests(count)} {said}."))
    return found


def _about_server(level: Document) -> list[Finding]:
    """Return what the cross-check with the server's own metrics found."""
    server = part(level, "server")
    if findings := part(server, "findings"):
        return [(code, f"{findings[code]}.") for code in findings]
    return [("server-note", f"{note}.") for note in texts(server, "notes")]


def _about_gpus(level: Document) -> list[Finding]:
    return [
        ("gpu-throttled", f"{note}.") for gpu in items(level, "gpu") for note in texts(gpu, "notes")
    ]


def _about_energy(level: Document) -> list[Finding]:
    sources = items(part(level, "energy"), "sources")
    found: list[Finding] = []
    unknown = [
        f"{text(source, 'source')}: {meaning}"
        for source in sources
        if (meaning := energy.meaning(text(source, "validity")))
    ]
    if unknown:
        found.append(("energy-unknown", f"energy has no value: {'; '.join(unknown)}."))
    if integrated := [text(each, "source") for each in sources if text(each, "by") == "power"]:
        said = f"energy of {', '.join(integrated)} is integrated from samples of its power."
        found.append(("energy-from-power", said))
    return found


def _about_import(level: Document) -> list[Finding]:
    """Pass on that another tool does not stand by its own result."""
    said = text(level, "invalid")
    return [("called-invalid", f"the tool that measured it: {said}.")] if said else []


CHECKS: tuple[Callable[[Document], list[Finding]], ...] = (
    _about_client,
    about_stream,
    _about_end,
    about_settling,
    _about_requests,
    _about_lengths,
    _about_first_tokens,
    _about_window,
    _about_tokens,
    about_lengths,
    about_rate,
    about_users,
    about_models,
    about_speed,
    about_standstill,
    about_backlog,
    _about_usage,
    _about_server,
    _about_gpus,
    _about_energy,
    _about_import,
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
