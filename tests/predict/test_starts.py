"""Starts of steps in pieces are fast in a row, and slow after steps of another kind."""

import pytest

from llmdyno.predict.gpus import gpu_of
from llmdyno.predict.rules import Ask, Load
from llmdyno.predict.server import Server, Setup, server_of
from llmdyno.predict.shapes import shape_of
from llmdyno.predict.simulation import simulate
from llmdyno.predict.starts import Starts
from llmdyno.predict.steptime import MEDIANS, Graphs, StepTime


def served(**knobs: int | str) -> tuple[Server, StepTime]:
    """Return vLLM on an H200 and its step times."""
    server = server_of(
        Setup("vllm", shape_of("meta-llama/Llama-3.1-8B"), gpu_of("h200"), config=knobs)
    )
    return server, StepTime(server.work, server.graphs, MEDIANS.tolist())


@pytest.mark.parametrize(
    ("sequences", "users", "prompt", "answer", "measured"),
    [
        (34, 164, 46, 142, 4411),  # all end together: 140 decodes in a row, 6.9 ms each
        (18, 28, 47, 37, 901),  # by turns with prompts: 12 ms a decode, 30 a prompt
    ],
)
def test_servers_above_their_whole_graphs_are_foretold(
    sequences: int, users: int, prompt: int, answer: int, measured: float
) -> None:
    """Levels of evidence/h200-drawn: 2,868 and 1,184 tok/s were said when all starts cost alike."""
    server, time = served(max_num_seqs=sequences, max_num_batched_tokens=1024, api_server_count=2)
    starts = [user / users for user in range(users)]
    load = Load([Ask(prompt, 0, answer)], starts, True, 10.0, 5.0)
    assert simulate(server.rules, time, load).tokens / 5.0 == pytest.approx(measured, rel=0.2)


def test_a_row_of_equal_steps_starts_faster_and_faster() -> None:
    server, time = served(max_num_seqs=34)
    assert server.graphs.decode_max < 34 <= server.graphs.pieces_max
    starts, more = Starts(time), []
    for _ in range(3):
        more.append(starts.more_s(10, 34, 0))
        starts.passed(10, 34, 0)
    assert more[0] > 0 > more[1] > more[2]  # parts() says what lies between
    after = starts.more_s(1, 33, 100)
    starts.passed(1, 33, 100)
    assert after > 0.2 * 32 * 0.55e-3  # kernels one by one, after pieces
    assert starts.more_s(1, 34, 0) > more[0]


def test_whole_graphs_and_prompts_between_them_cost_what_they_did() -> None:
    _, time = served(max_num_seqs=34)
    starts = Starts(time)
    assert starts.more_s(5, 30, 0) == 0
    starts.passed(5, 30, 0)
    assert starts.more_s(1, 30, 100) == 0
    assert starts.leap(30, 64) == 64


def test_a_leap_is_short_while_starts_become_faster() -> None:
    _, time = served(max_num_seqs=34)
    starts = Starts(time)
    assert starts.leap(34, 64) == 4
    starts.passed(40, 34, 0)
    assert starts.leap(34, 64) == 64


def test_steps_that_are_padded_to_one_graph_start_alike() -> None:
    """VLLM pads up to 24, 32, 40, ... 256, and above that to each 16th."""
    _, time = served(max_num_seqs=512, cudagraph_mode="PIECEWISE")

    def alike(*steps: int) -> bool:
        return len({time.start_of(decodes, 0) for decodes in steps}) == 1

    assert alike(25, 31, 32)
    assert not alike(24, 25)
    assert not alike(32, 33)
    assert alike(257, 272)
    assert not alike(272, 273)
    assert time.start_of(25, 0) == time.start_of(20, 12)
    starts = Starts(time)
    starts.passed(40, 31, 0)
    assert starts.more_s(1, 32, 0) < starts.more_s(1, 33, 0)


def test_sizes_that_are_not_known_are_eight_apart() -> None:
    server, _ = served()
    graphs = Graphs(decode_max=0, pieces_max=512)
    time = StepTime(server.work, graphs, MEDIANS.tolist())
    assert [time.start_of(each, 0) for each in (24, 25, 32, 33)] == [3, 4, 4, 5]
