"""Speculative decoding: how many tokens a step brought, and how many drafted ones were accepted.

vLLM counts drafts, drafted tokens and accepted ones; a step brings the accepted ones and one more.
SGLang has gauges of both, the means of its last steps. Names: vllm/v1/spec_decode/metrics.py of
vLLM 0.26, srt/observability/metrics_collector.py of SGLang 0.5.23.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from llmdyno.results import wording
from llmdyno.results.stats import significant

DRAFTED_MIN = 200  # tokens; of fewer, all may be accepted by chance
FORCED_SHARE = 0.999  # no draft model agrees with its target as often

GAUGES = ("accept_length", "accept_rate")


def part_of(
    rise: Mapping[str, float], during: Sequence[Mapping[str, float]]
) -> dict[str, Any] | None:
    """Return the acceptance of a level; None where the server does not speculate.

    Args:
        rise: how much each counter of the server rose over the level.
        during: the values of its page, each time that it was read during the level.
    """
    drafts, drafted = rise.get("drafts"), rise.get("drafted_tokens")
    if drafts and drafted:
        accepted = rise.get("accepted_tokens", 0.0)
        return {
            "acceptance_length": significant(1 + accepted / drafts),
            "acceptance_rate": significant(accepted / drafted),
            "drafted_tokens": round(drafted),
        }
    lengths, rates = ([one[name] for one in during if one.get(name)] for name in GAUGES)
    if not lengths:
        return None
    return {
        "acceptance_length": significant(sum(lengths) / len(lengths)),
        "acceptance_rate": significant(sum(rates) / len(rates)) if rates else None,
        "drafted_tokens": None,
    }


def doubt_of(part: Mapping[str, Any] | None) -> str | None:
    """Say that the acceptance looks forced, as with synthetic acceptance in a test."""
    if part is None or (part["acceptance_rate"] or 0.0) < FORCED_SHARE:
        return None
    if part["drafted_tokens"] is not None and part["drafted_tokens"] < DRAFTED_MIN:
        return None
    return (
        f"{wording.share(part['acceptance_rate'], 1)} of the drafted tokens were accepted"
        f" ({wording.share(FORCED_SHARE, 1)} or"
        " more): acceptance seems to be forced, as in a simulation, so the speed is not that of"
        " real drafts"
    )
