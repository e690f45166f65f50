"""The checks that find a level that did not do what was asked: answers, rate, users, a backlog."""

from collections import Counter
from collections.abc import Iterable

from llmdyno.results import wording
from llmdyno.results.documents import Document, number, part
from llmdyno.results.wording import count, milliseconds, significant
from llmdyno.units import counted

Finding = tuple[str, str]  # code and text

MISSED_MAX = 0.02  # of the asked length, or of the asked rate
_PEAK_MIN = 0.98  # of the requests that the users should have in flight at once
_MEAN_MIN = 0.8
# Of an imported level the users in flight are known in the mean of the whole run, ramp and tail
# included (Little's law: request rate times E2E).
_FOREIGN_MEAN_MIN = 0.7
# A backlog: the medians of ten groups of requests rise nearly always (Kendall's tau), and by much.
TAU_MIN = 0.8
GROWTH_MIN = 1.5
# A change of the token rate: by so many standard errors, and by much. Simulated without a change,
# 8 to 20 stretches: at most 2 in 1,000 levels seem to change so much if stretches are independent;
# 2 to 5 in 1,000 if each is as long as an answer, answers are equally long, and each has a speed of
# its own (sd of ln 0.5); 20 to 38 in 1,000 if lengths differ, too (sd of ln 0.7).
_CHANGE_ERRORS_MIN = 6.0
CHANGE_MIN = 1.15
_STANDSTILL_MIN = 0.05  # of the window, in which the server sent nothing
_FINISHES_MAX = 4  # that a sentence names, the most frequent ones
_GROWING_PROMPTS = 0.5  # tau of their lengths


def about_lengths(level: Document) -> list[Finding]:
    """Doubt answers that are not as long as asked."""
    told = part(level, "delivered", "output_tokens")
    asked, mean, off = (number(told, name) for name in ("asked", "mean", "missed_by"))
    if not asked or mean is None:
        return []
    off = abs(mean / asked - 1) if off is None else off
    noise = max(MISSED_MAX, number(told, "noise") or 0.0)
    completed = number(level, "requests", "completed") or 0
    hidden = (number(level, "tokens", "unstreamed") or 0) / completed if completed else 0.0
    if off <= noise or (hidden and abs((mean + hidden) / asked - 1) <= noise):
        return []
    said = (
        f"answers have {significant(mean)} tokens in the mean where {significant(asked)} were asked"
        f" (off by {wording.share(off, 1)}, more than {wording.share(MISSED_MAX)}): the work is not"
        " what was asked."
        f"{_how_they_ended(level)}"
        " See whether the server obeys ignore_eos and max_tokens, and has a long enough context."
    )
    return [("output-length-missed", said)]


def _how_they_ended(level: Document) -> str:
    """Say in a sentence by which reasons answers ended that are not as long as asked."""
    finishes = part(level, "finishes")
    if not set(finishes) - {"length"}:
        return ""
    named = [f"'{name}' {count(number(finishes, name) or 0)}" for name in finishes][:_FINISHES_MAX]
    return f" Answers ended with the finish reason {', '.join(named)}."


def about_rate(level: Document) -> list[Finding]:
    """Doubt an open loop that sent fewer requests a second than were due."""
    told = part(level, "delivered", "rate")
    due, sent, missing = (number(told, name) for name in ("due", "sent", "not_sent"))
    if not told:
        return _about_foreign_rate(level)
    if not due or sent is None or sent >= (1 - MISSED_MAX) * due or (missing or 0) < 2:
        return []
    p50, p99 = (number(level, "schedule_delay_ms", name) for name in ("p50", "p99"))
    delays = (
        f" (schedule delay p50 {milliseconds(p50)}, p99 {milliseconds(p99)})"
        if p50 is not None and p99 is not None
        else ""
    )
    said = (
        f"{significant(sent)} requests/s were sent where {significant(due)} were due{delays}: the"
        " level is one of a lower rate; raise --max-concurrency, or the client is too slow."
    )
    return [("rate-not-delivered", said)]


def _about_foreign_rate(level: Document) -> list[Finding]:
    """Doubt a rate of another tool's file, which tells the rate of completions alone.

    The last request is sent no later than the longest E2E before the end. Arrivals that are drawn
    may be fewer by chance: three standard deviations are allowed for.
    """
    asked, duration_s = number(level, "rate"), number(level, "duration_s")
    longest_ms = number(level, "e2e_ms", "max") or number(level, "e2e_ms", "p99")
    requests = sum(number(level, "requests", name) or 0 for name in ("completed", "failed", "cut"))
    if not asked or not duration_s or not longest_ms or not requests:
        return []
    sending_s = duration_s - longest_ms / 1000
    if sending_s <= 0:
        return []
    chance = 0.0 if level.get("arrival") == "constant" else 3 / requests**0.5
    if requests / sending_s >= (1 - MISSED_MAX - chance) * asked:
        return []
    said = (
        f"at most {significant(requests / sending_s)} requests/s were sent where"
        f" {significant(asked)} were asked: the level is one of a lower rate."
    )
    return [("rate-not-delivered", said)]


def about_users(level: Document) -> list[Finding]:
    """Doubt a closed loop in which fewer requests were in flight than its users should keep."""
    told = part(level, "delivered", "in_flight")
    if not told:
        return _about_foreign_users(level)
    users, expected, peak, mean = (
        number(told, name) or 0 for name in ("users", "expected", "peak", "mean")
    )
    asked = f"{count(users)} users were asked"
    if peak < _PEAK_MIN * expected - 0.5:
        at_once = "1 request was" if peak == 1 else f"{count(peak)} requests were"
        seen = f"never more than {at_once} in flight at once"
    elif mean < _MEAN_MIN * expected and expected >= users / 2 and _is_steady(level):
        seen = f"{significant(mean)} requests were in flight in the mean"
    else:
        return []
    said = (
        f"{asked}, and {seen}: the load is a smaller one (users that back off after failures, a"
        " ramp as long as the level, or too few requests)."
    )
    return [("users-not-reached", said)]


def _is_steady(level: Document) -> bool:
    return level.get("window", {}).get("steady") is True


def _about_foreign_users(level: Document) -> list[Finding]:
    users, rate = number(level, "users"), number(level, "request_rate", "mean")
    e2e_ms = number(level, "e2e_ms", "mean")
    if not users or not rate or not e2e_ms:
        return []
    if level.get("arrival") != "closed":  # its users are but the limit of an open loop
        return []
    mean = rate * e2e_ms / 1000
    if mean >= _FOREIGN_MEAN_MIN * users:
        return []
    said = (
        f"{count(users)} users were asked, and {significant(mean)} requests were in flight in the"
        " mean (request rate times E2E): the load is a smaller one."
    )
    return [("users-not-reached", said)]


def about_models(level: Document) -> list[Finding]:
    """Doubt a level whose answers name several models where one was asked."""
    return [
        ("several-models", _mixture(asked, part(level, "answered_by", asked)))
        for asked in part(level, "answered_by")
        if len(part(level, "answered_by", asked)) > 1
    ]


def about_models_of(levels: Iterable[Document]) -> list[Finding]:
    """Doubt a run of whose levels some name one model and some another where one was asked."""
    whole: dict[str, Counter[str]] = {}
    for level in levels:
        for asked in part(level, "answered_by"):
            names = part(level, "answered_by", asked)
            if len(names) == 1:  # else the level has the doubt
                counts = {name: int(number(names, name) or 0) for name in names}
                whole.setdefault(asked, Counter()).update(counts)
    return [
        ("several-models", f"{_mixture(asked, names)} The levels differ in it.")
        for asked, names in whole.items()
        if len(names) > 1
    ]


def _mixture(asked: str, names: Document) -> str:
    named = ", ".join(f"'{name}' {count(number(names, name) or 0)}" for name in names)
    return (
        f"where '{asked}' was asked, answers name {len(names)} models: {named}. A router or a"
        " fallback sent requests elsewhere, or the model was replaced: the numbers mix them."
    )


def about_speed(level: Document) -> list[Finding]:
    """Doubt a level in which the server became faster or slower."""
    told = part(level, "delivered", "speed")
    before, after = number(told, "before"), number(told, "after")
    at_s, errors = number(told, "at_s"), number(told, "t")
    if before is None or after is None or at_s is None or (errors or 0.0) < _CHANGE_ERRORS_MIN:
        return []
    less, more = sorted((before, after))
    if more <= CHANGE_MIN * less:
        return []
    start_s = number(level, "window", "start_s") or 0.0
    said = (
        f"the token rate changed in the middle: {significant(before)} tok/s until"
        f" {significant(at_s)} s of the level, {significant(after)} after it. The window begins at"
        f" {significant(start_s)} s, so the numbers mix the two or leave one out: see what changed."
    )
    return [("changed-speed", said)]


def about_standstill(level: Document) -> list[Finding]:
    """Doubt a level in which the server stood still for a part of the window."""
    told = part(level, "delivered", "standstill")
    total, longest = number(told, "total_s"), number(told, "longest_s")
    start_s, end_s = (number(level, "window", name) for name in ("start_s", "end_s"))
    if total is None or longest is None or start_s is None or end_s is None:
        return []
    if total < _STANDSTILL_MIN * (end_s - start_s):
        return []
    times = number(told, "count") or 1
    seldom = "once" if times == 1 else f"{count(times)} times, the longest"
    said = (
        f"the server stood still {seldom} for {significant(longest)} s: no token came from"
        f" {significant(number(told, 'at_s') or 0.0)} s of the level on, while"
        f" {counted(round(number(told, 'answers') or 0), 'answer')} had begun (else each has one"
        f" every {milliseconds(number(told, 'itl_ms') or 0.0)}). In all that is"
        f" {wording.share(total / (end_s - start_s))} of the window. What an engine compiles at its"
        " first use"
        " does that, a long prompt computed whole, or a machine that is paused: measure again."
    )
    return [("stood-still", said)]


def about_backlog(level: Document) -> list[Finding]:
    """Doubt a TTFT that grows with the number of the request."""
    told = part(level, "delivered", "ttft_trend")
    first, last, tau = (number(told, name) for name in ("first_ms", "last_ms", "tau"))
    if not first or last is None or tau is None:
        return []
    if tau < TAU_MIN or last < GROWTH_MIN * first:
        return []
    if (number(told, "input_tau") or 0.0) >= _GROWING_PROMPTS:
        return []
    said = (
        f"TTFT grows with the number of the request, from {milliseconds(first)} to"
        f" {milliseconds(last)} in this window: requests pile up faster than they are answered, so"
        " this is the length of a backlog and not a latency; it would be longer in a longer run."
    )
    return [("backlog", said)]
