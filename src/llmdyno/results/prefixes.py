"""How much of the prompts a prefix cache could have hit, beside how much the server says it did.

The ideal is a cache without a limit that holds all prompts of the run before: of the prompts whose
workload has them hashed it is counted block by block, of others it is what the workload tells.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from llmdyno import plugins
from llmdyno.errors import UsageError
from llmdyno.records.prefixes import JOURNAL_CHARACTERS, HitCounter, block_lengths
from llmdyno.results.crosscheck import TEMPLATE_TOKENS
from llmdyno.results.facts import LevelFacts
from llmdyno.results.stats import significant


class Ideal(msgspec.Struct, frozen=True):
    """What could have been hit in one level, in input tokens."""

    hit_tokens: float
    tokens: int
    by_hashes: bool = True  # block by block; else as the workload tells


def ideal_by_level(
    levels: Sequence[LevelFacts], shared: Mapping[int, int | None]
) -> dict[int, Ideal]:
    """Return by level what an ideal cache would have hit; a level that cannot tell is left out.

    Args:
        levels: of a run, in order.
        shared: by level, how many input tokens its prompts share with those before, as the
            workload tells; None where it does not.
    """
    cache = HitCounter()
    found: dict[int, Ideal] = {}
    for level in levels:
        number = level.started.level
        asked = sorted(level.prefixes, key=lambda prefix: prefix.sent_ns)
        if asked:
            hit = 0.0
            for one in asked:
                lengths = block_lengths(one.characters, JOURNAL_CHARACTERS)
                hit += one.input_tokens * cache.share(one.blocks, lengths)
            found[number] = Ideal(hit, sum(one.input_tokens for one in asked))
            continue
        tokens = sum(tokens for _, tokens in level.prompts if tokens > 0)
        known = shared.get(number)
        if known is not None and tokens:
            found[number] = Ideal(float(known), tokens, by_hashes=False)
    return found


def shared_at_most(
    levels: Sequence[LevelFacts], shared: Mapping[int, int | None], ideal: Mapping[int, Ideal]
) -> dict[int, int | None]:
    """Return by level how many input tokens can have been hit, the hashed prompts' by their hashes.

    A chat template begins all prompts alike, too, and a block that is cut short is not counted:
    each prompt may have TEMPLATE_TOKENS more.
    """
    found = dict(shared)
    for level in levels:
        if level.prefixes:
            one = ideal[level.started.level]
            most = round(one.hit_tokens) + TEMPLATE_TOKENS * len(level.prefixes)
            found[level.started.level] = min(most, one.tokens)
    return found


def prefix_part(ideals: Sequence[Ideal | None], server: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return the key `prefix` of a load point; nothing where neither side can tell.

    Args:
        ideals: of its rounds; None: that round cannot tell.
        server: the `server` of the load point.
    """
    observed = (server or {}).get("prefix_cache_hits")
    known = [ideal for ideal in ideals if ideal is not None]
    tokens = sum(ideal.tokens for ideal in known)
    told = bool(tokens) and len(known) == len(ideals)
    if not told and observed is None:
        return {}
    rate = significant(sum(ideal.hit_tokens for ideal in known) / tokens) if told else None
    by_hashes = told and all(ideal.by_hashes for ideal in known)
    return {
        "prefix": {
            "ideal_hit_rate": rate,
            "observed_hit_rate": observed,
            "method": "hashes" if by_hashes else "workload" if told else None,
        }
    }


def computed_again(level: Mapping[str, Any]) -> float | None:
    """Return the share of a load point's input tokens that a prefix cache would have spared.

    Returns:
        Nothing if it is not known how much the prompts repeat.
    """
    part = level.get("prefix") or {}
    ideal = part.get("ideal_hit_rate")
    return None if ideal is None else max(0.0, ideal - (part.get("observed_hit_rate") or 0.0))


def alike_on_purpose(spec: Mapping[str, Any]) -> bool:
    """Whether the prompts of a run begin alike because those of real users do."""
    try:
        found = plugins.load("workload.kinds", spec.get("workload", {}).get("name", ""))
    except UsageError:
        return False
    return bool(getattr(found, "alike_on_purpose", False))
