"""What a prefix cache could have hit: by the prompts' hashes, in the order of sending."""

from typing import Any

import pytest

from llmdyno.records.prefixes import JOURNAL_CHARACTERS, blocks_of
from llmdyno.results.facts import LevelFacts, Prefix
from llmdyno.results.prefixes import (
    Ideal,
    alike_on_purpose,
    ideal_by_level,
    prefix_part,
    shared_at_most,
)
from results.run_facts import level_facts

BLOCK = JOURNAL_CHARACTERS


def level(number: int, *prompts: tuple[int, list[str]], **more: Any) -> LevelFacts:
    """Return a level of prompts, each with when it was sent; a character is a token."""
    facts = level_facts(seconds=10, level=number)
    prefixes = []
    for sent_ns, parts in prompts:
        blocks = blocks_of(parts, BLOCK)
        prefixes.append(Prefix(sent_ns, sum(map(len, parts)), blocks.ids, blocks.characters))
    return _replaced(facts, prefixes=prefixes, **more)


def _replaced(facts: LevelFacts, **more: Any) -> LevelFacts:
    return LevelFacts(
        **{**{name: getattr(facts, name) for name in facts.__struct_fields__}, **more}
    )


SYSTEM = "s" * (3 * BLOCK)


def test_a_prompt_hits_what_was_sent_before_it_whoever_ended_first() -> None:
    later = (2, [SYSTEM, "a" * BLOCK, "b" * BLOCK])
    first = (1, [SYSTEM, "a" * BLOCK])

    ideal = ideal_by_level([level(0, later, first)], {})

    assert ideal == {0: Ideal(4 * BLOCK, 9 * BLOCK)}


def test_what_was_asked_at_the_level_before_is_known() -> None:
    levels = [level(0, (1, [SYSTEM, "x"])), level(1, (1, [SYSTEM, "y" * BLOCK]))]

    ideal = ideal_by_level(levels, {})

    assert ideal[0].hit_tokens == 0
    assert ideal[1].hit_tokens == pytest.approx(3 * BLOCK)


def test_without_hashes_the_workload_tells_or_nobody() -> None:
    told, silent = level(0, prompts=[(0, 100), (1, 50), (2, -1)]), level(1, prompts=[(0, 10)])

    ideal = ideal_by_level([told, silent], {0: 60, 1: None})

    assert ideal == {0: Ideal(60, 150, by_hashes=False)}
    assert prefix_part([ideal[0]], None) == {
        "prefix": {"ideal_hit_rate": 0.4, "observed_hit_rate": None, "method": "workload"}
    }
    assert prefix_part([None], None) == {}
    assert prefix_part([None], {"prefix_cache_hits": 0.5})["prefix"]["observed_hit_rate"] == 0.5


def test_rounds_are_pooled() -> None:
    part = prefix_part([Ideal(10, 100), Ideal(90, 100)], {"prefix_cache_hits": 0.4})

    assert part["prefix"] == {
        "ideal_hit_rate": 0.5,
        "observed_hit_rate": 0.4,
        "method": "hashes",
    }


def test_a_cache_may_hit_the_template_besides() -> None:
    levels = [level(0, (1, [SYSTEM, "a" * BLOCK]), (2, [SYSTEM, "b" * BLOCK]))]
    ideal = ideal_by_level(levels, {0: None})

    assert shared_at_most(levels, {0: None, 7: 5}, ideal) == {0: 3 * BLOCK + 2 * 64, 7: 5}


def test_only_some_workloads_are_alike_on_purpose() -> None:
    def spec(name: str) -> dict[str, Any]:
        return {"workload": {"name": name}}

    assert [alike_on_purpose(spec(name)) for name in ("agent", "trace", "chat", "gone")] == [
        *(True, True),
        *(False, False),
    ]
