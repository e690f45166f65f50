"""A prefix cache by block hash, on cases that can be counted by hand."""

import msgspec

from llmdyno.predict.blocks import BlockCache
from llmdyno.predict.gpus import gpu_of
from llmdyno.predict.rules import Ask, Happened, Load, Rules
from llmdyno.predict.server import Setup, server_of
from llmdyno.predict.shapes import shape_of
from llmdyno.predict.simulation import simulate
from llmdyno.predict.steptime import MEDIANS, StepTime

SERVER = server_of(Setup("vllm", shape_of("meta-llama/Llama-3.1-8B"), gpu_of("h200")))
TIME = StepTime(SERVER.work, SERVER.graphs, MEDIANS.tolist())


def test_hits_are_counted_from_the_first_block_on() -> None:
    cache = BlockCache()
    cache.hold([1, 2, 3])
    assert (cache.hits([1, 2, 9, 3]), cache.hits([9, 2]), cache.hits([])) == (2, 0, 0)
    cache.release([1, 2, 3], room=10)
    assert cache.hits([1, 2, 3, 4]) == 3


def test_a_sequence_is_forgotten_from_its_end_and_the_oldest_first() -> None:
    cache = BlockCache()
    for blocks in ([1, 2, 3], [1, 8, 9]):
        cache.hold(blocks)
        cache.release(blocks, room=10)
    cache.trim(3)  # of 3, 2, 9, 8, 1 the first two go: 1 was used last
    assert (cache.hits([1, 2]), cache.hits([1, 8, 9])) == (1, 3)
    cache.trim(1)
    assert (cache.hits([1]), cache.hits([8]), cache.hits([9])) == (1, 0, 0)
    cache.trim(0)
    assert cache.hits([1]) == 0


def test_what_somebody_holds_stays_and_is_counted_once() -> None:
    cache = BlockCache()
    cache.hold([1, 2])
    cache.hold([1, 2, 3])
    assert (cache.shared, cache.held([1, 2, 3, 4])) == (2, 3)
    cache.release([1, 2], room=0)
    assert (cache.hits([1, 2, 3]), cache.shared) == (3, 0)
    cache.release([1, 2, 3], room=0)
    assert cache.hits([1]) == 0


def run(rules: Rules, sessions: list[list[Ask]], users: int = 1) -> Happened:
    load = Load((), [0.0] * users, True, duration_s=60.0, window_s=0.0, sessions=sessions)
    return simulate(rules, TIME, load)


def test_a_turn_finds_what_was_said_before() -> None:
    """Blocks of 16: the first turn has 160 tokens and an answer of 32, the second 224."""
    first = Ask(160, 0, 32, blocks=tuple(range(12)))
    second = Ask(224, 0, 32, blocks=tuple(range(16)))
    seen = run(SERVER.rules, [[first, second]])
    assert (seen.prompts, seen.cached) == (384, 192)
    assert len(seen.e2e_s) == 2


def test_one_token_of_a_prompt_is_computed_whatever_is_known() -> None:
    same = Ask(160, 0, 16, blocks=tuple(range(11)))
    assert run(SERVER.rules, [[same], [same], [same]]).cached == 2 * 159


def test_a_cache_too_small_for_all_prompts_keeps_beginnings() -> None:
    """Two prompts of 4,000 tokens take turns: beside one, 124 blocks of 16 have room."""
    rules = msgspec.structs.replace(SERVER.rules, cache_tokens=6000.0)
    one, other = (Ask(4000, 0, 16, blocks=tuple(range(start, start + 251))) for start in (0, 1000))
    turns = [[one], [other], [one], [other]]
    assert run(rules, turns).cached == 2 * 124 * 16
    large = msgspec.structs.replace(rules, cache_tokens=9000.0)
    assert run(large, turns).cached == 2 * 3999


def test_shared_blocks_leave_room_for_more_sequences() -> None:
    """Eight sequences of 1,000 tokens, 960 of them shared, fit into 3,000 tokens."""
    rules = msgspec.structs.replace(SERVER.rules, cache_tokens=3000.0)
    shared = tuple(range(60))
    alike = [[Ask(1000, 0, 64, blocks=(*shared, 100 + own, 200 + own))] for own in range(8)]
    unlike = [
        [Ask(1000, 0, 64, blocks=tuple(range(1000 * own, 1000 * own + 66)))] for own in range(1, 9)
    ]
    together, apart = (run(rules, asks, users=8) for asks in (alike, unlike))
    assert together.preempted == 0
    assert max(together.e2e_s) < 0.5 * max(apart.e2e_s)
