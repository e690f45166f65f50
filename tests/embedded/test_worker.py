"""The worker's engine when the library fails it: one generation ends, or all of them with words."""

from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from llmdyno.embedded.messages import FAILED, Cancel, Generate, Sampling
from llmdyno.embedded.model import resolve
from llmdyno.embedded.pieces import Detokenizer
from llmdyno.embedded.pipeline import LOST
from llmdyno.embedded.worker import Engine, Setup

FAULT = "Exception from src/a.cpp:1:\nCheck 'x' failed at /src/a.cpp:2:\nbroken"


@pytest.fixture(scope="module")
def engine() -> Engine:
    model = resolve("tiny")
    return Engine(
        Setup(
            socket=0,
            parent=0,
            model=str(model.path),
            context_length=model.context_length,
            config={},
        )
    )


def asked(number: int, **fields: Any) -> Generate:
    usual: dict[str, Any] = {
        "prompt": "Once",
        "max_tokens": 4,
        "sampling": Sampling(seed=1),
        "stop": (),
        "ignore_eos": True,
    }
    return Generate(id=number, **{**usual, **fields})


def rest(engine: Engine) -> tuple[dict[int, str], dict[int, tuple[str, str | None]]]:
    """Run to the end; return the finish of each generation, and the words and code of others."""
    finishes: dict[int, str] = {}
    refused: dict[int, tuple[str, str | None]] = {}
    for _ in range(50):
        if not engine.busy():
            return finishes, refused
        step = engine.step([])
        finishes |= {piece.id: piece.finish for piece in step.pieces if piece.finish}
        refused |= {one.id: (one.message, one.code) for one in step.refused}
    raise AssertionError("it never came to its end")


class Broken:
    """A handle whose reads fail."""

    def __init__(self, handle: Any) -> None:
        self._handle = handle

    def can_read(self) -> bool:
        raise RuntimeError(FAULT)

    def cancel(self) -> None:
        self._handle.cancel()


def test_a_read_that_fails_ends_its_own_generation(engine: Engine) -> None:
    engine.step([asked(1), asked(2), asked(3)])
    engine._generations[2].handle = Broken(engine._generations[2].handle)

    finishes, refused = rest(engine)

    assert finishes == {1: "length", 3: "length"}
    assert refused == {2: ("The engine failed on this request: Check 'x' failed: broken", FAILED)}


class Picky:
    """A detokenizer that fails on one generation."""

    def __init__(self, inner: Detokenizer) -> None:
        self._inner = inner

    def feed(self, new: Mapping[int, Sequence[int]]) -> Mapping[int, str]:
        if 2 in new:
            raise ValueError("no text")
        return self._inner.feed(new)

    def forget(self, generation: int) -> None:
        self._inner.forget(generation)


def test_tokens_without_a_text_end_their_own_generation(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "_detokenizer", Picky(engine._detokenizer))
    engine.step([asked(1), asked(2), asked(3)])

    finishes, _ = rest(engine)

    assert finishes == {1: "length", 3: "length"}
    assert 2 not in engine._generations


def test_a_request_that_the_library_takes_for_wrong_is_refused_alone(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    add = engine._pipeline.add

    def picky(number: int, input_ids: Any, config: Any) -> Any:
        if number == 2:
            raise RuntimeError(FAULT)
        return add(number, input_ids, config)

    monkeypatch.setattr(engine._pipeline, "add", picky)
    step = engine.step([asked(1), asked(2)])

    assert [one.id for one in step.accepted] == [1]
    assert [(one.id, one.message) for one in step.refused] == [
        (2, "The engine refuses it: Check 'x' failed: broken")
    ]
    assert rest(engine) == ({1: "length"}, {})


def test_a_generation_that_the_engine_has_lost_is_told_so(engine: Engine) -> None:
    engine.step([asked(1), asked(2)])
    engine._generations[2].handle.cancel()  # as if by the library itself

    finishes, refused = rest(engine)

    assert finishes == {1: "length"}
    assert refused == {2: (f"The engine failed on this request: {LOST}", FAILED)}


def test_a_cancelled_generation_leaves_nothing(engine: Engine) -> None:
    engine.step([asked(1, max_tokens=4000)])
    engine.step([Cancel(id=1)])

    assert rest(engine) == ({}, {})
