"""Random configs under random loads whose clients hang up: benchmarks/embedded_fuzz, small.

The engine is in this process and time is counted in its steps, so that a seed is the same run on
every machine.
"""

import importlib.util
import random
from pathlib import Path
from typing import Any

import pytest

from llmdyno.embedded.messages import Cancel, Command, Generate, Sampling, Step
from llmdyno.embedded.model import resolve
from llmdyno.embedded.worker import Engine, Setup

FUZZ = Path(__file__).parents[2] / "benchmarks" / "embedded_fuzz" / "fuzz.py"
BLOCKS = (4, 16)  # of the KV cache: so few that generations are preempted and dropped
STEPS = 25  # under load; after them all clients hang up
STEPS_TO_IDLE = 5
STEPS_OF_ONE_ANSWER = 200
USERS = 10


def fuzz() -> Any:
    spec = importlib.util.spec_from_file_location("embedded_fuzz", FUZZ)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class Clients:
    """Users of one engine, and how their requests ended."""

    def __init__(self, engine: Engine, rng: random.Random, load: Any) -> None:
        self.waiting: set[int] = set()
        self.ended: dict[int, str] = {}
        self._engine = engine
        self._rng = rng
        self._load = load
        self._asked = 0

    def step(self, *, ask: bool) -> None:
        commands: list[Command] = []
        for number in sorted(self.waiting):
            if not ask or self._rng.random() < self._load.hang_up / 10:
                commands.append(Cancel(id=number))
                self.waiting.discard(number)
        while ask and len(self.waiting) < USERS:
            commands.append(self.request(drawn.draw_request(self._rng, self._load)))
        self.take(self._engine.step(commands))

    def request(self, fields: dict[str, Any]) -> Generate:
        self._asked += 1
        self.waiting.add(self._asked)
        return Generate(
            id=self._asked,
            prompt=fields["prompt"],
            max_tokens=fields["max_tokens"],
            sampling=Sampling(temperature=fields["temperature"], top_p=1.0, seed=1),
            stop=tuple(fields["stop"] or ()),
            ignore_eos=fields["ignore_eos"],
        )

    def take(self, step: Step) -> None:
        for piece in step.pieces:
            if piece.finish:
                self.ended[piece.id] = piece.finish
        self.ended |= {refused.id: refused.code or "refused" for refused in step.refused}
        self.waiting -= self.ended.keys()


drawn = fuzz()


# 1 and 6 found that a read may be empty.
@pytest.mark.parametrize("number", [1, 2, 4, 6])
def test_a_config_that_is_let_through_survives_any_load(number: int) -> None:
    rng = random.Random(f"short/{number}")
    config, _ = drawn.draw_allowed(rng, blocks=BLOCKS)
    load = drawn.Load(
        users=USERS,
        words=rng.choice(((4, 20), (20, 80))),
        tokens=rng.choice(((1, 8), (8, 40))),
        shared=0.5,
        sampled=0.5,
        hang_up=rng.choice((0.2, 0.6)),
        stops=0.3,
    )
    model = resolve("tiny")
    engine = Engine(
        Setup(
            socket=0,
            parent=0,
            model=str(model.path),
            context_length=model.context_length,
            config=config,
        )
    )
    clients = Clients(engine, rng, load)

    for _ in range(STEPS):
        clients.step(ask=True)
    clients.step(ask=False)
    for _ in range(STEPS_TO_IDLE):
        clients.step(ask=False)
    assert not engine.busy()
    assert "generation_failed" not in clients.ended.values()

    last = {"prompt": "One more", "max_tokens": 5, "temperature": 0.0, "stop": None}
    asked = clients.request({**last, "ignore_eos": True})
    clients.take(engine.step([asked]))
    for _ in range(STEPS_OF_ONE_ANSWER):
        if asked.id in clients.ended:
            break
        clients.take(engine.step([]))
    assert clients.ended[asked.id] == "length"
