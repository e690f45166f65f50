"""How a level ends: pauses and connections wake up when they should; in virtual time."""

import asyncio

import pytest

from llmdyno.load.ending import Ending
from llmdyno.wire.connect import ConnectError
from virtual_time import now_ns, run


def test_a_pause_lasts_as_long_as_it_is_told() -> None:
    async def main() -> tuple[bool, int]:
        return await Ending(now_ns).pause(30.0), now_ns()

    assert run(main()) == (True, 30_000_000_000)


def test_a_pause_ends_with_the_last_new_request() -> None:
    async def main() -> tuple[bool, int, int]:
        ending = Ending(now_ns)
        asyncio.get_running_loop().call_later(2.0, ending.stop)
        goes_on = await ending.pause(30.0)
        return goes_on, now_ns(), ending.stopped_ns

    assert run(main()) == (False, 2_000_000_000, 2_000_000_000)


def test_nobody_pauses_once_it_is_over_and_the_first_end_counts() -> None:
    async def main() -> tuple[bool, int, int]:
        ending = Ending(now_ns)
        ending.stop()
        await asyncio.sleep(1.0)
        ending.stop()
        return await ending.pause(30.0), now_ns(), ending.stopped_ns

    assert run(main()) == (False, 1_000_000_000, 0)


def test_a_task_that_was_woken_can_wait_again() -> None:
    """The cancellation that woke it is taken back."""

    async def main() -> int:
        ending = Ending(now_ns)
        asyncio.get_running_loop().call_later(2.0, ending.stop)
        await ending.pause(30.0)
        async with asyncio.timeout(5.0):
            await asyncio.sleep(3.0)
        return now_ns()

    assert run(main()) == 5_000_000_000


def test_somebody_elses_cancellation_ends_the_task() -> None:
    async def main() -> bool:
        pausing = asyncio.create_task(Ending(now_ns).pause(30.0))
        await asyncio.sleep(1.0)
        pausing.cancel()
        await asyncio.wait([pausing])
        return pausing.cancelled()

    assert run(main())


@pytest.mark.parametrize(("cut_s", "came", "after_s"), [(2.0, True, 2.0), (9.0, False, 5.0)])
def test_the_cut_is_waited_for_and_no_longer_than_asked(
    cut_s: float, came: bool, after_s: float
) -> None:
    async def main() -> tuple[bool, float]:
        ending = Ending(now_ns)
        asyncio.get_running_loop().call_later(cut_s, ending.cut)
        return await ending.until_cut(5.0), now_ns() / 1e9

    assert run(main()) == (came, after_s)


def test_a_cut_is_an_end_of_new_requests_too() -> None:
    async def main() -> tuple[bool, bool]:
        ending = Ending(now_ns)
        ending.cut()
        await ending.until_stopped()
        return ending.is_stopped, ending.is_cut

    assert run(main()) == (True, True)


def test_who_connects_goes_on_until_the_cut_is_released() -> None:
    async def main() -> tuple[str, float]:
        ending = Ending(now_ns)
        loop = asyncio.get_running_loop()
        loop.call_later(1.0, ending.cut)
        loop.call_later(3.0, ending.release)
        with pytest.raises(ConnectError) as raised:
            await ending.unless_cut(lambda: asyncio.sleep(30.0))
        return raised.value.kind, now_ns() / 1e9

    assert run(main()) == ("cut", 3.0)


def test_after_the_cut_nobody_connects() -> None:
    async def connect() -> None:
        raise AssertionError("asked to connect")

    async def main() -> None:
        ending = Ending(now_ns)
        ending.cut()
        with pytest.raises(ConnectError):
            await ending.unless_cut(connect)

    run(main())


def test_a_connection_in_time_is_handed_over() -> None:
    async def main() -> str:
        return await Ending(now_ns).unless_cut(lambda: asyncio.sleep(1.0, "a connection"))

    assert run(main()) == "a connection"
