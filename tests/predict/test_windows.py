"""Layers that forget, or keep a state: what a step reads of the context, and how many fit."""

import msgspec
import pytest

from llmdyno.predict.calibrate import prior
from llmdyno.predict.forecast import forecast
from llmdyno.predict.gpus import gpu_of
from llmdyno.predict.rules import Rules
from llmdyno.predict.server import Setup, server_of
from llmdyno.predict.shapes import Shape, shape_of
from llmdyno.predict.simulated import Point
from llmdyno.predict.steptime import MEDIANS, StepTime
from llmdyno.predict.work import work_of
from llmdyno.units import Lengths

GEMMA = shape_of("google/gemma-3-27b-it")  # 52 of 62 layers look back 1,024 tokens
NEXT = shape_of("Qwen/Qwen3-Next-80B-A3B-Instruct")  # 36 of 48 layers keep a state
H200 = gpu_of("h200")


def test_a_step_reads_what_is_left_of_the_context() -> None:
    work = work_of(GEMMA, H200, 1, None, "bf16")
    assert work.context_read(8 * 500, 8) == 8 * 500
    far, near = 10 / 62, 52 / 62
    assert work.context_read(8 * 9000, 8) == pytest.approx(8 * (far * 9000 + near * 1024))


def test_a_state_is_read_and_written_however_long_the_context_is() -> None:
    work = work_of(NEXT, H200, 1, None, "bf16")
    state = 36 * 548864 / (12 * 2 * 2 * 256)
    assert work.context_read(4 * 100, 4) == pytest.approx(4 * 100 + 2 * 4 * state)
    assert work.kv_bytes == 12 * 2 * 2 * 256 * 2


def without_windows(shape: Shape) -> Shape:
    return msgspec.structs.replace(shape, window=0, window_layers=0)


def rules(shape: Shape) -> Rules:
    return server_of(Setup("vllm", shape, H200)).rules


def test_the_cache_holds_more_sequences_of_layers_that_forget() -> None:
    all_kept, forgets = rules(without_windows(GEMMA)), rules(GEMMA)
    assert all_kept.cache_tokens == forgets.cache_tokens
    assert all_kept.kept(80_000, 10) == 80_000
    assert forgets.kept(80_000, 10) == pytest.approx(10 * (10 * 8000 + 52 * 1024) / 62)


def test_more_long_sequences_run_where_layers_forget() -> None:
    point = Point(users=60, isl=Lengths("fixed", 16000), osl=Lengths("fixed", 300))
    every, some = (
        forecast(Setup("vllm", shape, H200), point, prior())
        for shape in (without_windows(GEMMA), GEMMA)
    )
    assert every.bound_by == "KV memory"
    assert some.running_mean > 1.5 * every.running_mean


def test_a_step_of_decodes_over_long_contexts_is_shorter() -> None:
    every, some = (
        StepTime(server.work, server.graphs, MEDIANS.tolist()).seconds(32, 32 * 8000)
        for server in (server_of(Setup("vllm", s, H200)) for s in (without_windows(GEMMA), GEMMA))
    )
    assert some < 0.6 * every
