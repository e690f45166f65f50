"""The cross-check: what the server says of a level against what the client saw of it.

Two measurements of one thing, taken on both sides of the network, are worth more than one twice as
exact. The differences are explained or flagged, each in a sentence; every bound stands in the
sentence that it causes. Pure: the journal's lines in, a part of the summary out.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import numpy as np

from llmdyno import plugins
from llmdyno.errors import UsageError
from llmdyno.records.entries import GpuSample, Scrape
from llmdyno.results import speculation, wording
from llmdyno.results.facts import LevelFacts
from llmdyno.results.stats import significant
from llmdyno.units import counted

TOKENS_DIFFERENCE_MAX = 0.005
TTFT_DIFFERENCE_MS = 5.0
TTFT_DIFFERENCE_SHARE = 0.1
QUEUE_SHARE = 0.25  # of the time to first token; where that is not told, of the requests
KV_USE_HIGH = 0.9
PREFIX_EXCESS = 0.05  # of the input tokens
REPEATED_HITS = 0.5  # of the input tokens; above it a workload tells of the cache
THROTTLED_SHARE = 0.05  # of the samples
UNREAD = "server-metrics-unread"
_GAUGES = ("running", "waiting", "kv_use")
# The most tokens that a chat template may put before every prompt. They are the same for all, so
# the prefix cache holds them.
TEMPLATE_TOKENS = 64

# The bits of NVML's clocks event reasons that mean that the GPU is slowed down.
THROTTLE_REASONS: Mapping[int, str] = {
    0x04: "the power limit",
    0x08: "a hardware slowdown",
    0x20: "heat (software)",
    0x40: "heat (hardware)",
    0x80: "the power brake",
}


class ClientSide(msgspec.Struct, frozen=True, kw_only=True):
    """What the client counted over a whole level."""

    input_tokens: int
    output_tokens: int  # also those that the server says it made and did not stream
    requests: int  # that were answered, in whatever way
    cut: int
    failed: int
    ttft_ms_mean: float | None
    source: str  # where output_tokens comes from
    input_tokens_shared: int | None  # the most that the workload lets a prefix cache hit
    late_ms_p50: float | None  # how late the client was with a read
    alike_on_purpose: bool = False  # prompts begin alike as those of real users do


def server_part(rounds: Sequence[Sequence[Scrape]], seen: ClientSide) -> dict[str, Any] | None:
    """Return the `server` of a level, all its rounds together, or None when it told nothing."""
    scrapes = [scrape for one in rounds for scrape in one]
    if not scrapes:
        return None
    part: dict[str, Any] = {"kind": scrapes[0].kind, "scrapes": len(scrapes)}
    during = [scrape.values for scrape in scrapes if scrape.moment == "during"]
    for name in _GAUGES:
        if values := [each[name] for each in during if name in each]:
            part |= {f"{name}_mean": _mean(values), f"{name}_max": significant(max(values))}
    rise: dict[str, float] = {}
    for one in rounds:
        risen = _rise(one)
        if isinstance(risen, str):
            return {**part, "notes": [risen], "findings": {UNREAD: risen}}
        rise |= {name: rise.get(name, 0.0) + value for name, value in risen.items()}
    part |= _tokens(rise, seen)
    if "requests" in rise:
        part["requests"] = {"server": round(rise["requests"]), "client": seen.requests}
    server_ms = _mean_ms(rise, "ttft")
    if server_ms is not None:
        part["ttft_ms"] = {
            "server_mean": significant(server_ms),
            "client_mean": None if seen.ttft_ms_mean is None else significant(seen.ttft_ms_mean),
        }
    queue_ms = _mean_ms(rise, "queue")
    if queue_ms is not None:
        part["queue_ms_mean"] = significant(queue_ms)
    hits, queries = rise.get("prefix_hits"), rise.get("prefix_queries")
    if hits is not None and queries:
        part["prefix_cache_hits"] = significant(hits / queries)
        if seen.input_tokens_shared is not None and seen.input_tokens:
            part["prefix_cache_hits_expected_max"] = significant(
                seen.input_tokens_shared / seen.input_tokens
            )
    if speculation_part := speculation.part_of(rise, during):
        part["speculation"] = speculation_part
    if "preemptions" in rise:
        part["preemptions"] = round(rise["preemptions"])
    findings = _findings(part, seen)
    return {**part, "notes": list(findings.values()), "findings": findings}


def shared_by_level(spec: Mapping[str, Any], levels: Sequence[LevelFacts]) -> dict[int, int | None]:
    """Return by level how many input tokens its prompts share with those before them.

    None: the workload does not tell. A turn begins with all that was said before it, and the
    requests of a trace share what blocks they like.
    """
    workload = spec.get("workload", {})
    repeats, prefix_shared = _sharing(workload.get("name", ""))
    if repeats is None:
        return {level.started.level: None for level in levels}
    shared: dict[int, int | None] = {}
    known: frozenset[int] = frozenset()  # the prompts of the levels before
    for level in levels:
        shared[level.started.level] = shared_tokens(
            level.prompts,
            known,
            prefix_shared=prefix_shared or bool(workload.get("system_prompt")),
        )
        if repeats and not workload.get("unique"):
            known |= {number for number, _ in level.prompts}
    return shared


def _sharing(workload: str) -> tuple[bool | None, bool]:
    """Return a workload's `repeats` and `shares_prefix`: whether prompts come again, begin alike.

    The plug-in is asked when the summary is derived, so that runs from before it said so are read
    as well. One that is not here, because another package had it, tells nothing.
    """
    try:
        found = plugins.load("workload.kinds", workload)
    except UsageError:
        return None, False
    return getattr(found, "repeats", None), bool(getattr(found, "shares_prefix", False))


def shared_tokens(
    prompts: Sequence[tuple[int, int]], known: frozenset[int], *, prefix_shared: bool
) -> int | None:
    """Return the most input tokens that a prefix cache can have hit, by the workload alone.

    A prompt that was asked before may hit whole. Any other shares at most what all share: a system
    prompt is no longer than the shortest input, a template is short.

    Args:
        prompts: the number and the input tokens of each request, in any order.
        known: the prompts of the levels before.
        prefix_shared: whether all prompts begin with the same text of the workload's.
    """
    counted = [(number, tokens) for number, tokens in prompts if tokens > 0]
    if not counted:
        return None
    shortest = min(tokens for _, tokens in counted)
    prefix = shortest if prefix_shared else min(shortest, TEMPLATE_TOKENS)
    seen_before = set(known)
    total = 0
    for number, tokens in counted:
        total += tokens if number in seen_before else prefix
        seen_before.add(number)
    return total


def _rise(scrapes: Sequence[Scrape]) -> dict[str, float] | str:
    """Return how much each counter rose over the level, or why that cannot be said."""
    before = next((each for each in scrapes if each.moment == "before"), None)
    after = next((each for each in scrapes if each.moment == "after"), None)
    if before is None or after is None:
        return "the server's metrics could not be read before and after the level"
    # A counter with labels is on the page only once it has counted: absent before means zero.
    rise = {
        name: value - before.values.get(name, 0.0)
        for name, value in after.values.items()
        if name not in {*_GAUGES, *speculation.GAUGES}
    }
    if any(value < 0 for value in rise.values()):
        return "the server's counters fell: it was started anew during the level"
    return rise


def _tokens(rise: Mapping[str, float], seen: ClientSide) -> dict[str, Any]:
    part = {}
    for name, key, client in (
        ("tokens", "output_tokens", seen.output_tokens),
        ("input_tokens", "input_tokens", seen.input_tokens),
    ):
        if key in rise and client:
            server = round(rise[key])
            part[name] = {
                "server": server,
                "client": client,
                "difference": significant((client - server) / server) if server else None,
            }
    return part


def _findings(part: Mapping[str, Any], seen: ClientSide) -> dict[str, str]:
    """Return what speaks against the level's numbers, by the code of its doubt (doubts.py)."""
    found = {
        "server-tokens-differ": _about_tokens(part, seen),
        "server-not-ours-alone": _about_requests(part),
        "server-ttft-differs": _about_ttft(part, seen),
        "server-saturated": _about_queue(part),
        "preempted-requests": _about_preemptions(part),
        "kv-cache-full": _about_cache(part),
        "warm-prefix-cache": _about_prefixes(part),
        "repeated-prompts": None if seen.alike_on_purpose else _about_repetition(part),
        "forced-acceptance": speculation.doubt_of(part.get("speculation")),
    }
    return {code: sentence for code, sentence in found.items() if sentence}


def _about_tokens(part: Mapping[str, Any], seen: ClientSide) -> str | None:
    tokens = part.get("tokens")
    if tokens is None:
        return None
    difference = tokens["difference"]
    if difference is not None and abs(difference) <= TOKENS_DIFFERENCE_MAX:
        return None
    sentence = (
        f"the server counts {tokens['server']:,} output tokens, the client {tokens['client']:,}"
        f" (more than {wording.share(TOKENS_DIFFERENCE_MAX, 1)} apart)"
    )
    why = []
    if seen.cut or seen.failed:
        why.append(
            f"{counted(seen.cut, 'request was', 'requests were')} cut and {seen.failed:,} failed,"
            " of which each side may count another part"
        )
    if seen.source == "chunks":
        why.append("the client counts chunks, which may hold several tokens")
    requests = part.get("requests")
    if requests and requests["server"] > requests["client"]:
        why.append(f"the server answered {counted(requests['server'], 'request')}, not only ours")
    return f"{sentence}: {'; '.join(why) or 'not explained: doubt the token rate'}"


def _about_requests(part: Mapping[str, Any]) -> str | None:
    requests = part.get("requests")
    # Where the server counts tokens, another client shows in the tokens. This is for servers that
    # count none.
    if requests is None or "tokens" in part or requests["server"] <= requests["client"]:
        return None
    return (
        f"the server answered {counted(requests['server'], 'request')},"
        f" {requests['client']:,} of them ours: someone else uses it"
    )


def _about_ttft(part: Mapping[str, Any], seen: ClientSide) -> str | None:
    ttft = part.get("ttft_ms")
    if ttft is None or ttft["client_mean"] is None:
        return None
    server, client = ttft["server_mean"], ttft["client_mean"]
    more = client - server
    if abs(more) <= max(TTFT_DIFFERENCE_MS, TTFT_DIFFERENCE_SHARE * server):
        return None
    if more < 0:
        return (
            f"the server's mean TTFT, {server:,.1f} ms, is longer than the client's,"
            f" {client:,.1f} ms: it counts other requests too, or from another moment"
        )
    late = seen.late_ms_p50
    share = "" if late is None else f"; the client itself was {late:.1f} ms late (p50)"
    return (
        f"the client's mean TTFT, {client:,.1f} ms, is {more:,.1f} ms longer than the server's,"
        f" {server:,.1f} ms: the network, or a queue before the server's clock starts{share}"
    )


def _about_queue(part: Mapping[str, Any]) -> str | None:
    queue_ms = part.get("queue_ms_mean")
    ttft_ms = part.get("ttft_ms", {}).get("server_mean")
    if queue_ms is not None and ttft_ms and queue_ms > QUEUE_SHARE * ttft_ms:
        return (
            f"requests waited {queue_ms:,.0f} ms in the server's queue (mean),"
            f" {wording.share(queue_ms / ttft_ms)} of its TTFT: the server is saturated"
        )
    waiting, running = part.get("waiting_mean") or 0.0, part.get("running_mean") or 0.0
    if queue_ms is None and waiting > QUEUE_SHARE * (waiting + running):
        return (
            f"{counted(waiting, 'request')} waited in the server's queue beside"
            f" {running:,.0f} running (mean of the samples): the server is saturated"
        )
    return None


def _about_preemptions(part: Mapping[str, Any]) -> str | None:
    if preemptions := part.get("preemptions"):
        return f"the server preempted {counted(preemptions, 'request')}: its KV cache is too small"
    return None


def _about_cache(part: Mapping[str, Any]) -> str | None:
    kv_use = part.get("kv_use_max")
    if kv_use is None or kv_use <= KV_USE_HIGH or _about_preemptions(part):
        return None
    return f"the server's KV cache was {wording.share(kv_use)} full"


def _about_prefixes(part: Mapping[str, Any]) -> str | None:
    hits = part.get("prefix_cache_hits")
    expected = part.get("prefix_cache_hits_expected_max")
    if hits is None or expected is None or hits <= expected + PREFIX_EXCESS:
        return None
    return (
        f"{wording.share(hits)} of the input tokens came from the prefix cache, where the workload"
        f" shares {wording.share(expected)} at most: the cache was warm from before, so TTFT"
        " flatters the server"
    )


def _about_repetition(part: Mapping[str, Any]) -> str | None:
    hits = part.get("prefix_cache_hits")
    if hits is None or hits <= REPEATED_HITS or _about_prefixes(part):
        return None
    return (
        f"{wording.share(hits)} of the input tokens came from the prefix cache, as prompts of this"
        " workload"
        " begin alike or are asked again: where those of your users do not, TTFT will be longer"
        " (--unique makes all prompts differ)"
    )


def gpu_part(samples: Sequence[GpuSample]) -> list[dict[str, Any]]:
    """Return one entry a GPU of this machine, over a level; nothing where there is none."""
    parts = []
    for number in sorted({sample.gpu for sample in samples}):
        own = [sample for sample in samples if sample.gpu == number]
        reasons = {
            reason: share
            for bit, reason in THROTTLE_REASONS.items()
            if (share := sum(bool(sample.throttle & bit) for sample in own) / len(own))
        }
        parts.append(
            {
                "gpu": number,
                "samples": len(own),
                "use_mean": _mean([sample.use for sample in own]),
                "memory_mib_max": max(
                    (each.memory_mib for each in own if each.memory_mib is not None), default=None
                ),
                "power_w_mean": _mean([sample.power_w for sample in own]),
                "clock_mhz_mean": _mean([sample.clock_mhz for sample in own]),
                "temperature_c_max": max(
                    (each.temperature_c for each in own if each.temperature_c is not None),
                    default=None,
                ),
                "throttled": {reason: significant(share) for reason, share in reasons.items()},
                "notes": [
                    f"GPU {number} was held back by {reason} in {wording.share(share)} of the"
                    " samples"
                    for reason, share in reasons.items()
                    if share > THROTTLED_SHARE
                ],
            }
        )
    return parts


def sample_part(
    scrapes: Sequence[Scrape], gpus: Sequence[GpuSample], low_ns: int, high_ns: int
) -> dict[str, Any]:
    """Return what a row of the time series says of the server and the GPUs at that moment."""
    part: dict[str, Any] = {}
    scrape = next((each for each in reversed(scrapes) if low_ns < each.t_ns <= high_ns), None)
    if scrape is not None:
        part["server"] = {
            name: significant(scrape.values[name]) for name in _GAUGES if name in scrape.values
        }
    inside = [each for each in gpus if low_ns < each.t_ns <= high_ns]
    if inside:
        part["gpu"] = [
            {
                "gpu": number,
                "use": _mean([each.use for each in inside if each.gpu == number]),
                "power_w": _mean([each.power_w for each in inside if each.gpu == number]),
                "clock_mhz": _mean([each.clock_mhz for each in inside if each.gpu == number]),
            }
            for number in sorted({each.gpu for each in inside})
        ]
    return part


def _mean_ms(rise: Mapping[str, float], prefix: str) -> float | None:
    count = rise.get(f"{prefix}_count")
    return rise[f"{prefix}_sum_s"] / count * 1e3 if count and f"{prefix}_sum_s" in rise else None


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return significant(float(np.mean(known))) if known else None
