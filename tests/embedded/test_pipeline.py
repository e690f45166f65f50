"""OpenVINO GenAI's continuous batching on the model `tiny`: room, steps, load, words."""

from collections.abc import Mapping, Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import openvino
import openvino_genai
import pytest

from llmdyno.embedded.messages import Load
from llmdyno.embedded.model import resolve
from llmdyno.embedded.pipeline import Handle, Pipeline, TooLongError, dropped, read, reason


@pytest.fixture(scope="module")
def pipeline() -> Pipeline:
    model = resolve("tiny")
    config = {"max_num_batched_tokens": 64, "max_num_seqs": 8, "dynamic_split_fuse": False}
    return Pipeline(str(model.path), 100, config)


def test_tokens_come_step_by_step_and_the_last_has_its_finish(pipeline: Pipeline) -> None:
    config = pipeline.config(max_tokens=5, ignore_eos=True)
    ids = pipeline.tokenizer.encode("Once upon a time").input_ids

    handle = pipeline.add(1, ids, config)
    tokens: list[int] = []
    finish = None
    while pipeline.busy():
        pipeline.step()
        made, finish = read(handle)
        tokens += made

    assert len(tokens) == 5
    assert finish == "length"
    assert not dropped(handle)


class Scripted(Handle):
    """A handle with outputs that are hard to bring about."""

    def __init__(self, status: str, outputs: Sequence[Mapping[int, Any]]) -> None:
        self._made = []
        self._status = getattr(openvino_genai.GenerationStatus, status)
        self._outputs = list(outputs)

    def can_read(self) -> bool:
        return bool(self._outputs)

    def read(self) -> Mapping[int, Any]:
        return self._outputs.pop(0)

    def get_status(self) -> Any:
        return self._status


def output(tokens: Sequence[int], reason: str = "NONE") -> Mapping[int, Any]:
    why = getattr(openvino_genai.GenerationFinishReason, reason)
    return {0: SimpleNamespace(generated_ids=list(tokens), finish_reason=why)}


@pytest.mark.parametrize(
    ("status", "outputs", "made"),
    [
        ("RUNNING", [], ([], None)),
        ("RUNNING", [output([5])], ([5], None)),
        ("FINISHED", [output([5]), output([6], "LENGTH")], ([5, 6], "length")),
        ("FINISHED", [{}], ([], "stop")),  # all of it was handed out before
        ("FINISHED", [output([5], "STOP"), {}], ([5], "stop")),
        ("IGNORED", [{}], ([], None)),  # dropped() tells the rest
        ("RUNNING", [{}, output([5])], ([5], None)),
    ],
)
def test_an_output_may_be_empty(
    status: str, outputs: list[Mapping[int, Any]], made: tuple[list[int], str | None]
) -> None:
    handle = Scripted(status, outputs)

    assert read(handle) == made
    assert dropped(handle) == (status == "IGNORED")


def test_what_has_room_is_told_how_much(pipeline: Pipeline) -> None:
    assert pipeline.room(10, 20) == 20
    assert pipeline.room(10, None) == 64 - 10  # prompts are not split, and may be computed again


@pytest.mark.parametrize(
    ("prompt_tokens", "max_tokens", "param", "words"),
    [
        (10, 91, "max_tokens", "maximum is 100 tokens"),
        (100, None, "prompt", "maximum is 100 tokens"),
        (10, 60, "max_tokens", "exceed max_num_batched_tokens=64"),
        (64, 1, "prompt", "exceed max_num_batched_tokens=64"),
    ],
)
def test_what_has_no_room_says_which_is_too_long(
    pipeline: Pipeline, prompt_tokens: int, max_tokens: int | None, param: str, words: str
) -> None:
    with pytest.raises(TooLongError, match=words) as raised:
        pipeline.room(prompt_tokens, max_tokens)

    assert raised.value.param == param


def test_with_eviction_a_prompt_may_be_little_longer_than_what_is_never_evicted() -> None:
    pipeline = Pipeline(str(resolve("tiny").path), 8192, {"use_cache_eviction": True})
    config = pipeline.config(max_tokens=2, ignore_eos=True)
    handles = [
        pipeline.add(tokens, openvino.Tensor(np.full((1, tokens), 7, dtype=np.int64)), config)
        for tokens in range(31, 42)
    ]
    while pipeline.busy():
        pipeline.step()

    made = [read(handle) for handle in handles]
    assert [(len(tokens), finish) for tokens, finish in made] == [(2, "length")] * 11


def test_who_waits_is_not_dropped_because_others_hang_up() -> None:
    config = {"max_num_batched_tokens": 512, "max_num_seqs": 2, "dynamic_split_fuse": False}
    pipeline = Pipeline(str(resolve("tiny").path), 8192, config)
    asked = pipeline.config(max_tokens=6, ignore_eos=True)
    ids = pipeline.tokenizer.encode("Once upon a time").input_ids
    alone = pipeline.add(1, ids, asked)
    told, _ = run(pipeline, alone)

    running = [
        pipeline.add(number, ids, pipeline.config(max_tokens=90, ignore_eos=True))
        for number in (2, 3)
    ]
    pipeline.step()
    waiting = pipeline.add(4, ids, pipeline.config(max_tokens=6, ignore_eos=True))
    pipeline.step()
    for handle in running:
        handle.cancel()

    assert run(pipeline, waiting) == (told, "length")


def test_a_generation_that_begins_again_goes_on_where_it_was(pipeline: Pipeline) -> None:
    ids = pipeline.tokenizer.encode("Once upon a time").input_ids
    whole, _ = run(pipeline, pipeline.add(5, ids, pipeline.config(max_tokens=9, ignore_eos=True)))

    handle = pipeline.add(6, ids, pipeline.config(max_tokens=9, ignore_eos=True))
    made: list[int] = []
    while len(made) < 4:
        pipeline.step()
        made += read(handle)[0]
    handle._cancel()
    pipeline.step()
    handle.begin_again()

    rest, finish = run(pipeline, handle)
    assert (made + rest, finish) == (whole, "length")


def run(pipeline: Pipeline, handle: Handle) -> tuple[list[int], str | None]:
    tokens: list[int] = []
    finish = None
    while pipeline.busy():
        pipeline.step()
        made, finish = read(handle)
        tokens += made
    return tokens, finish


def test_without_generations_there_is_no_load(pipeline: Pipeline) -> None:
    assert pipeline.load(0) == Load(0, 0, 0.0)


def test_a_setting_that_there_is_not_is_named() -> None:
    with pytest.raises(RuntimeError, match="'max_num_batched' is no setting of OpenVINO GenAI's"):
        Pipeline("nowhere", 100, {"max_num_batched": 1})


def test_the_librarys_words_come_without_its_source() -> None:
    said = (
        "Exception from src/inference.cpp:1:\nCheck 'x' failed at /home/src/a.cpp:27:\n no   room"
    )

    assert reason(RuntimeError(said)) == "Check 'x' failed: no room"
    assert reason(RuntimeError("Check 'y' failed at /src/b.cpp:3")) == "Check 'y' failed"
    assert reason(RuntimeError("")) == "RuntimeError"
