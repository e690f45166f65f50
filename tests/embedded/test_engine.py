"""A generation as its request sees it; test_server.py has the worker at the other end."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from llmdyno.embedded.engine import (
    Engine,
    EngineDiedError,
    Generation,
    HungUpError,
    Mailbox,
    RefusedError,
)
from llmdyno.embedded.messages import Accepted, Load, Piece, Refused, Step, Tokens
from llmdyno.embedded.metrics import Metrics
from llmdyno.embedded.model import Model

REFUSED = Refused(1, "too long", "prompt", "context_length_exceeded")


def sample(metrics: Metrics, name: str) -> float:
    (line,) = (
        line for line in metrics.text().decode().splitlines() if line.startswith(f"llmdyno_{name} ")
    )
    return float(line.split()[1])


def test_a_generation_counts_its_tokens_until_its_finish() -> None:
    metrics = Metrics()

    async def main() -> Generation:
        mailbox = Mailbox()
        generation = Generation(mailbox, metrics)
        for mail in (Accepted(1, 9), Piece(1, "a", 1, None), Piece(1, "b", 2, "length")):
            mailbox.put_nowait(mail)
        await generation.accepted()
        assert (await generation.next()).text == "a"
        assert generation.finish is None
        assert (await generation.next()).text == "b"
        return generation

    generation = asyncio.run(main())

    assert (generation.prompt_tokens, generation.output_tokens) == (9, 3)
    assert (generation.finish, generation.outcome) == ("length", "length")
    assert sample(metrics, "prompt_tokens_total") == 9
    assert sample(metrics, "time_to_first_token_seconds_count") == 1
    assert sample(metrics, "inter_token_latency_seconds_count") == 1
    assert sample(metrics, "request_latency_seconds_count") == 1


@pytest.mark.parametrize(
    ("mail", "error", "outcome"),
    [
        (REFUSED, RefusedError, "refused"),
        (EngineDiedError(), EngineDiedError, "failed"),
    ],
)
def test_a_generation_that_is_not_taken_on_has_its_outcome(
    mail: Refused | EngineDiedError, error: type[Exception], outcome: str
) -> None:
    async def main() -> Generation:
        mailbox = Mailbox()
        generation = Generation(mailbox, Metrics())
        mailbox.put_nowait(mail)
        with pytest.raises(error):
            await generation.accepted()
        return generation

    assert asyncio.run(main()).outcome == outcome


def test_a_refusal_is_in_openais_terms() -> None:
    error = RefusedError(REFUSED)

    assert (str(error), error.param, error.code) == ("too long", "prompt", REFUSED.code)


def test_a_client_that_hangs_up_ends_the_wait_and_it_is_cancelled() -> None:
    async def main() -> str:
        generation = Generation(Mailbox(), Metrics())
        generation.hang_up()
        with pytest.raises(HungUpError):
            await generation.next()
        return generation.outcome

    assert asyncio.run(main()) == "cancelled"


def engine() -> Engine:
    return Engine(Model(name="m", path=Path("m"), context_length=128), {}, Metrics())


async def refused_by_the_dead(ask: Callable[[Engine], Awaitable[object]]) -> Engine:
    dead = engine()
    dead._bury()
    with pytest.raises(EngineDiedError):
        await ask(dead)
    return dead


def test_without_a_worker_everything_is_refused() -> None:
    async def generate(dead: Engine) -> None:
        async with dead.generate(prompt="a", max_tokens=1):  # fmt: skip
            raise AssertionError("it was taken on")

    asyncio.run(refused_by_the_dead(lambda dead: dead.tokenize("a", special=True)))
    dead = asyncio.run(refused_by_the_dead(generate))

    assert dead.state == "dead"
    assert b'llmdyno_requests_total{outcome="failed"} 1.0' in dead.metrics.text()


def test_a_step_goes_to_whom_it_concerns() -> None:
    async def main() -> None:
        running = engine()
        number, mailbox = running._open()
        step = Step(
            tokens=[Tokens(number, [5, 6])],
            pieces=[Piece(number + 1, "for one who has left", 3, None)],
            load=Load(1, 0, 0.5),
        )
        running._deliver(step)
        assert mailbox.get_nowait() == Tokens(number, [5, 6])
        assert mailbox.empty()
        assert sample(running.metrics, "generation_tokens_total") == 3
        assert sample(running.metrics, "requests_running") == 1

    asyncio.run(main())
