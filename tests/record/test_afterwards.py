"""What can wait is done when nothing new has come, in order, and little at a time."""

import asyncio

from llmdyno.record.afterwards import Afterwards


def test_what_waits_is_done_in_order_once_nothing_comes() -> None:
    done: list[int] = []

    async def work() -> None:
        later = Afterwards(asyncio.get_running_loop())
        for number in range(10):
            later.call(lambda number=number: done.append(number))  # type: ignore[misc]
            await asyncio.sleep(0)
            assert done == []  # each round has brought something new
        for _ in range(20):
            before = len(done)
            await asyncio.sleep(0)
            assert len(done) - before <= 4  # between these, what has come is passed on

    asyncio.run(asyncio.wait_for(work(), 5))
    assert done == list(range(10))


def test_a_loop_that_is_always_busy_keeps_nothing_waiting_for_ever() -> None:
    done: list[int] = []

    async def work() -> None:
        later = Afterwards(asyncio.get_running_loop())
        for number in range(2_000):
            for one in range(6):
                later.call(lambda one=6 * number + one: done.append(one))  # type: ignore[misc]
            await asyncio.sleep(0)
            assert 6 * (number + 1) - len(done) <= 256 + 12
        assert done == [*range(len(done))]

        for _ in range(200):  # the rest, four a round
            await asyncio.sleep(0)
        assert len(done) == 12_000
        done.clear()
        seldom = Afterwards(asyncio.get_running_loop())
        for _ in range(250):
            seldom.call(lambda: done.append(1))
            await asyncio.sleep(0)
        assert len(done) == 8  # four in each hundred rounds

    asyncio.run(asyncio.wait_for(work(), 20))


def test_one_that_fails_does_not_keep_the_others_from_being_done() -> None:
    done: list[int] = []
    told: list[object] = []

    def fail() -> None:
        raise ValueError("a bug")

    async def work() -> None:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _, context: told.append(context["exception"]))
        later = Afterwards(loop)
        for one in (fail, *(lambda: done.append(1) for _ in range(2))):
            later.call(one)
        for _ in range(20):  # rounds; some more than it takes
            await asyncio.sleep(0)

    asyncio.run(asyncio.wait_for(work(), 5))
    assert [str(one) for one in told] == ["a bug"]
    assert done == [1, 1]
