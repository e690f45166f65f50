"""Preemption block by block, as OpenVINO GenAI does it: against the engine, and by hand."""

import msgspec
import pytest

from llmdyno.knobs import Value
from llmdyno.predict.gpus import gpu_of
from llmdyno.predict.partly import Partly
from llmdyno.predict.rules import Ask, Happened, Load
from llmdyno.predict.schedule import Simulation
from llmdyno.predict.server import Setup, memory_of, server_of
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


def most_at_once(setup: Setup, ask: Ask) -> int:
    """Return how many answers are made at once at most: 120 users, steps large enough for all."""
    server = server_of(setup)
    assert not server.why
    time = StepTime(server.work, server.graphs, MEDIANS.tolist())
    starts = [user / 1e4 for user in range(120)]
    load = Load([ask], starts, True, 20.0, 2.0, think_s=0.0)
    run = (Partly if server.rules.partly else Simulation)(server.rules, time, load)
    most = 0
    while run.now_s < load.duration_s and run._advance():
        most = max(most, len(run.running))
    assert run.seen.tokens
    return most


def on_openvino(model: str, **config: Value) -> Setup:
    config |= {"max_num_batched_tokens": 8192}
    return Setup("openvino", shape_of(model), gpu_of("h200"), 1, config)


@pytest.mark.parametrize(
    "setup",
    [
        on_openvino("tiiuae/Falcon-H1-7B-Instruct", num_kv_blocks=400),  # states beside attention
        on_openvino("tiiuae/Falcon-H1-7B-Instruct", num_kv_blocks=4000),
        on_openvino("nvidia/Nemotron-H-8B-Base-8K", cache_size=2),  # states in place of it
        on_openvino("state-spaces/mamba-2.8b-hf", cache_size=1),  # states alone
        on_openvino("google/gemma-3-27b-it", num_kv_blocks=1200),  # windows
        on_openvino("meta-llama/Llama-3.1-8B", num_kv_blocks=1200),
    ],
    ids=lambda setup: f"{setup.shape.name}-{next(iter(setup.config.values()))}",
)
@pytest.mark.parametrize("prompt", [600, 3000])
def test_as_many_run_at_once_as_the_memory_is_said_to_hold(setup: Setup, prompt: int) -> None:
    """No more than sequences as long as the prompt; of those with their answers blocks lose few."""
    short, long = (memory_of(setup, length).sequences for length in (prompt, prompt + 64))
    assert short < 120
    assert 0.9 * long - 1 <= most_at_once(setup, Ask(prompt, 0, 64)) <= short


@pytest.mark.parametrize("engine", ["openvino", "vllm"])
def test_layers_that_forget_do_not_share_what_they_have_forgotten(engine: str) -> None:
    """Of 3,000 tokens all share 2,048; in every layer 952 are a sequence's own."""
    gemma = on_openvino("google/gemma-3-27b-it", num_kv_blocks=1200)
    config = {"kv_cache_memory_bytes": 4 * 2**30, "max_num_batched_tokens": 8192}
    setup = (
        gemma
        if engine == "openvino"
        else msgspec.structs.replace(gemma, engine=engine, config=config)
    )
    ask = Ask(3000, 0, 64, tuple(range(2048 // server_of(setup).rules.block)))
    whole, own = (memory_of(setup, length).sequences for length in (3000, 952))
    assert own < 120
    assert whole < most_at_once(setup, ask) <= own


@pytest.mark.parametrize("engine", ["openvino", "vllm"])
def test_a_prefix_that_all_share_makes_no_room_for_states(engine: str) -> None:
    config: dict[str, Value] = (
        {"num_kv_blocks": 4000} if engine == "openvino" else {"kv_cache_memory_bytes": 4 * 2**30}
    )
    shape = shape_of("tiiuae/Falcon-H1-7B-Instruct")
    setup = Setup(engine, shape, gpu_of("h200"), 1, config | {"max_num_batched_tokens": 8192})
    block = server_of(setup).rules.block
    ask = Ask(6400, 0, 64, tuple(range(6400 // block)))
    states = memory_of(setup, 1).sequences
    assert memory_of(setup, 6400).sequences < most_at_once(setup, ask) <= states < 120


def test_who_gives_a_state_up_computes_all_of_it_again() -> None:
    """A cache of 80 for the tokens of two, of 20 in and 40 out: at 40 and 40 it is full.

    The second gives up what the first needs, its last 19 tokens, for its 59th is the last in the
    cache; with a state it gives up all 40.
    """
    server = server_of(Setup("openvino", shape_of("tiny"), gpu_of("h200")))
    time = StepTime(server.work, server.graphs, MEDIANS.tolist())
    load = Load([Ask(20, 0, 40)], [0.0, 0.0], closed=False, duration_s=40.0, window_s=0.0)
    for states, again in ((0.0, 19), (20.0, 40)):
        rules = msgspec.structs.replace(
            server.rules, block=1, cache_tokens=80.0 + 2 * states, state_tokens=states
        )
        seen = simulate(rules, time, load)
        assert (seen.preempted, len(seen.e2e_s)) == (1, 2)
        assert seen.chunk == pytest.approx(2 * 20 + again)
