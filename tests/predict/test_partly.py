"""Preemption block by block, as OpenVINO GenAI does it: against the engine, and by hand."""

import pytest

from llmdyno.predict.gpus import gpu_of
from llmdyno.predict.rules import Ask, Happened, Load
from llmdyno.predict.server import Setup, server_of
from llmdyno.predict.shapes import shape_of
from llmdyno.predict.simulation import simulate
from llmdyno.predict.steptime import MEDIANS, StepTime


def simulated(
    blocks: int, prompt: int, answer: int, users: int, seconds: float = 40.0, tokens: int = 256
) -> Happened:
    """Simulate users who ask again at once; the machine does not matter for who is in a step."""
    config = {"num_kv_blocks": blocks, "max_num_batched_tokens": tokens}
    server = server_of(Setup("openvino", shape_of("tiny"), gpu_of("h200"), 1, config))
    time = StepTime(server.work, server.graphs, MEDIANS.tolist())
    starts = [user / 1e4 for user in range(users)]
    load = Load([Ask(prompt, 0, answer)], starts, True, seconds, seconds / 10, think_s=0.0)
    return simulate(server.rules, time, load)


@pytest.mark.parametrize(
    ("blocks", "tokens_a_step"),
    [(64, 6.41), (128, 12.93)],  # the engine itself: 4,068 tokens in 635 steps, 5,081 in 393
)
def test_as_many_are_in_a_step_as_in_the_engine(blocks: int, tokens_a_step: float) -> None:
    """24 users with 256 tokens in and 64 out, of whom the cache holds a quarter or a half."""
    found = simulated(blocks, 256, 64, 24)
    assert found.tokens / found.steps == pytest.approx(tokens_a_step, rel=0.01)


def test_a_cache_that_is_large_enough_makes_nobody_compute_again() -> None:
    """Four sequences of 95 tokens: three blocks each."""
    found = simulated(12, 64, 32, 4)
    assert found.preempted == 0
    assert found.chunk / found.tokens == pytest.approx(64 / 32, rel=0.01)


def test_what_was_given_up_is_computed_again() -> None:
    """One block less: all four are let in, but only three come to their third block at once.

    The fourth waits with its two blocks, or loses one of them to the third; never more than one
    block for each answer, so at most 32 tokens.
    """
    found = simulated(11, 64, 32, 4)
    assert found.preempted > 0
    again = found.chunk / found.tokens - 64 / 32
    assert 0 < again * 32 <= 33


def test_a_prompt_takes_what_is_free_and_gives_it_back() -> None:
    """Five blocks: one answer of three, and two of the next prompt's blocks, of four tokens each.

    The first answer's last block is there in time, so the next prompt loses nothing and waits.
    """
    found = simulated(5, 60, 30, 2)
    assert found.tokens / found.steps < 2
    assert found.unfinished == 2  # both go on to the end: nobody is stuck
