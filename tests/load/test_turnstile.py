"""Requests that are due together go out over several turns of the event loop."""

import asyncio
from collections import Counter

from llmdyno.load.turnstile import Turnstile


class Turns:
    """Counts the turns of the event loop, and who passed in which."""

    def __init__(self) -> None:
        self._now = 0
        self.passed: list[tuple[int, int]] = []

    async def run(self, users: int, *, cancelled: int = -1) -> None:
        turnstile = Turnstile()
        tasks = [asyncio.create_task(self._user(turnstile, user)) for user in range(users)]
        if cancelled >= 0:
            await asyncio.sleep(0)
            tasks[cancelled].cancel()
        while not all(task.done() for task in tasks):
            self._now += 1
            await asyncio.sleep(0)

    async def _user(self, turnstile: Turnstile, user: int) -> None:
        await turnstile.pass_through()
        self.passed.append((self._now, user))


def test_a_few_pass_in_each_turn_in_the_order_in_which_they_came() -> None:
    turns = Turns()
    asyncio.run(turns.run(50))

    assert [user for _, user in turns.passed] == list(range(50))
    assert max(Counter(turn for turn, _ in turns.passed).values()) == 4


def test_who_is_cancelled_holds_up_nobody() -> None:
    turns = Turns()
    asyncio.run(turns.run(30, cancelled=7))

    assert [user for _, user in turns.passed] == [user for user in range(30) if user != 7]


def test_who_comes_alone_need_not_wait() -> None:
    async def alone() -> int:
        turnstile = Turnstile()
        turns = 0
        for _ in range(10):
            passing = asyncio.create_task(turnstile.pass_through())
            while not passing.done():
                turns += 1
                await asyncio.sleep(0)
        return turns

    assert asyncio.run(alone()) <= 20
