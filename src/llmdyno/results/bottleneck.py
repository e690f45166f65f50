"""What held a server back at a level: one name and the sentence that gives the reason.

The tuner turns the knobs that move the bottleneck, and a study's table shows it beside each trial.
It is read from what the summary holds: the server's own metrics where they could be scraped, the
GPUs' samples where there are any, and the latencies that the client saw.
"""

from typing import Literal

import msgspec

from llmdyno.results import wording
from llmdyno.results.crosscheck import KV_USE_HIGH, QUEUE_SHARE
from llmdyno.results.documents import Document, items, number, part, text, texts
from llmdyno.units import counted

Name = Literal["client", "kv", "queue", "host", "prefill", "decode", ""]

TITLES = {
    "client": "client",
    "kv": "KV cache",
    "queue": "queue",
    "host": "host",
    "prefill": "prefill",
    "decode": "decode",
    "": "not known",
}

GPU_USE_NONE = 0.05  # of the time; the server runs elsewhere, or was not sampled at work
GPU_USE_LOW = 0.7  # of the time a kernel ran; below it the GPU waits for its host
PREFILL_SHARE = 0.5  # of the end-to-end latency, without the wait in the queue
FIRST_TOKEN_SHARE = 0.4  # of the end-to-end latency: more of it is a wait, if not prefill
# A decode step that shares the GPU with a prefill is longer: the mean gap over the median one.
INTERRUPTED_GAPS = 1.5


class Bottleneck(msgspec.Struct, frozen=True):
    """What held a server back, and how that is known."""

    name: Name  # empty: the level does not tell
    why: str

    @property
    def title(self) -> str:
        """The name as people read it."""
        return TITLES[self.name]


def bottleneck(level: Document) -> Bottleneck:
    """Return what held the server back at a level of a summary document.

    The first of these that shows: the client, the KV cache, the queue, the host, and then whichever
    of prefill and decode takes more of a request's time. Values that a level lacks, because it is
    older or the server tells nothing of itself, speak for nothing.
    """
    if not (number(level, "requests", "completed") or number(level, "tokens", "output")):
        return Bottleneck("", "no request was answered")
    for look in (_client, _kv, _queue, _host):
        if why := look(level):
            return why
    return _phase(level)


def _client(level: Document) -> Bottleneck | None:
    if text(level, "client", "verdict") != "client-bound":
        return None
    reasons = texts(level, "client", "reasons")
    if not reasons:
        return Bottleneck("client", "the load generator was at its limit")
    more = len(reasons) - 1  # the doubt names them all
    signs = f", and {counted(more, 'more sign')} of it" if more else ""
    return Bottleneck("client", f"{reasons[0]}{signs}")


def _kv(level: Document) -> Bottleneck | None:
    server = part(level, "server")
    if preemptions := number(server, "preemptions"):
        return Bottleneck("kv", f"{preemptions:,.0f} requests were preempted for want of KV cache")
    use = number(server, "kv_use_max")
    if use is not None and use > KV_USE_HIGH and _waits(server):
        return Bottleneck("kv", f"the KV cache was {wording.share(use)} full while requests waited")
    return None


def _waits(server: Document) -> bool:
    return bool(number(server, "waiting_mean") or number(server, "queue_ms_mean"))


def _queue(level: Document) -> Bottleneck | None:
    """Tell whether requests waited for a slot.

    Where the server does not tell, a long wait for the first token is a queue only if it cannot be
    prefill: the decode steps of the others were not interrupted by it.
    """
    server, ttft = part(level, "server"), number(level, "ttft_ms", "mean")
    queued = number(server, "queue_ms_mean")
    if queued is not None:
        before = number(server, "ttft_ms", "server_mean") or ttft
        if before and queued > QUEUE_SHARE * before:
            return Bottleneck(
                "queue", f"requests waited {queued:,.0f} ms of {before:,.0f} ms before a token"
            )
        return None
    waiting, running = (number(server, f"{name}_mean") for name in ("waiting", "running"))
    if waiting is not None:
        if waiting > QUEUE_SHARE * (waiting + (running or 0.0)):
            return Bottleneck(
                "queue", f"{waiting:,.1f} requests waited beside {running or 0.0:,.1f} that ran"
            )
        return None
    if level.get("users") == 1 or not _is_mostly_first_token(level) or _interrupted(level):
        return None
    return Bottleneck(
        "queue", f"the first token took {ttft:,.0f} ms while decode ran on without interruption"
    )


def _host(level: Document) -> Bottleneck | None:
    uses = [use for gpu in items(level, "gpu") if (use := number(gpu, "use_mean")) is not None]
    if not uses or not GPU_USE_NONE < max(uses) < GPU_USE_LOW:
        return None
    if level.get("arrival") not in {None, "closed"}:  # the arrivals leave it idle
        return None
    busy = wording.share(max(uses))
    return Bottleneck("host", f"the GPU was busy {busy} of the time with work at hand")


def _phase(level: Document) -> Bottleneck:
    ttft, e2e = number(level, "ttft_ms", "mean"), number(level, "e2e_ms", "mean")
    if ttft is None or not e2e:
        return Bottleneck("", "no latencies were measured")
    queued = number(level, "server", "queue_ms_mean") or 0.0
    prefill = max(0.0, ttft - queued)
    share = f"{prefill:,.0f} ms of {e2e:,.0f} ms"
    if prefill > PREFILL_SHARE * e2e:
        return Bottleneck("prefill", f"a request spent {share} before its first token")
    if _interrupted(level):
        times = (number(level, "itl_ms", "mean") or 0.0) / (number(level, "itl_ms", "p50") or 1.0)
        return Bottleneck(
            "prefill", f"prefill interrupts decode: the mean gap is {times:.1f} x the median one"
        )
    return Bottleneck("decode", f"a request spent all but {share} after its first token")


def _is_mostly_first_token(level: Document) -> bool:
    ttft, e2e = number(level, "ttft_ms", "mean"), number(level, "e2e_ms", "mean")
    return bool(ttft and e2e and ttft > FIRST_TOKEN_SHARE * e2e)


def _interrupted(level: Document) -> bool:
    mean, median = number(level, "itl_ms", "mean"), number(level, "itl_ms", "p50")
    return bool(mean and median and mean > INTERRUPTED_GAPS * median)
