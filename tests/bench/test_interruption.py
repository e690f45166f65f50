"""Ctrl-C and SIGTERM: what runs is ended, and what is not ours to take is let through."""

import asyncio
import os
import signal
from collections.abc import Callable

import pytest
import uvloop

from llmdyno.bench.interruption import Interruption, interruptible


class Level:
    """A level that is told to end."""

    def __init__(self) -> None:
        self.interrupted = asyncio.Event()

    async def run(self) -> None:
        """Do nothing."""

    def interrupt(self) -> None:
        """Note it."""
        self.interrupted.set()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_level_that_runs_and_not_the_run(number: signal.Signals) -> None:
    async def main() -> bool:
        level = Level()
        with interruptible() as interruption:
            interruption.level = level  # type: ignore[assignment]  # as far as it is needed
            os.kill(os.getpid(), number)
            async with asyncio.timeout(10):
                await level.interrupted.wait()
            return interruption.heard()

    assert asyncio.run(main())


def test_a_signal_between_levels_ends_the_wait_and_is_taken_back() -> None:
    async def main() -> str:
        with interruptible() as interruption:
            os.kill(os.getpid(), signal.SIGINT)
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                interruption.take()
            await asyncio.sleep(0)  # it can wait again
            return "went on"

    assert asyncio.run(main()) == "went on"


@pytest.mark.parametrize("loops", [asyncio.new_event_loop, uvloop.new_event_loop])
def test_a_signal_at_the_very_end_is_not_lost(
    loops: Callable[[], asyncio.AbstractEventLoop],
) -> None:
    """The run computes, its loop never turns again: it hears of the signal all the same."""

    async def main() -> bool:
        with interruptible() as interruption:
            os.kill(os.getpid(), signal.SIGINT)
            return interruption.heard()

    with asyncio.Runner(loop_factory=loops) as runner:
        assert runner.run(main())


def test_a_signal_that_the_run_did_not_hear_of_goes_on_to_who_had_it_before() -> None:
    taken: list[int] = []

    async def main() -> None:
        with interruptible() as interruption:
            assert not interruption.heard()
            os.kill(os.getpid(), signal.SIGTERM)
        await asyncio.sleep(0.01)  # and it cancels nobody

    before = signal.signal(signal.SIGTERM, lambda number, _: taken.append(number))
    try:
        asyncio.run(main())
    finally:
        signal.signal(signal.SIGTERM, before)
    assert taken == [signal.SIGTERM]


def test_a_cancellation_of_somebody_elses_is_not_taken() -> None:
    async def main() -> None:
        interruption = Interruption()
        with pytest.raises(asyncio.CancelledError):
            interruption.take()

    asyncio.run(main())


def test_signals_do_afterwards_what_they_did_before() -> None:
    def own(*_: object) -> None:
        """Be a handler."""

    async def main() -> None:
        before = signal.signal(signal.SIGTERM, own)
        try:
            with interruptible():
                assert signal.getsignal(signal.SIGTERM) is not own
            assert signal.getsignal(signal.SIGTERM) is own
        finally:
            signal.signal(signal.SIGTERM, before)

    asyncio.run(main())
