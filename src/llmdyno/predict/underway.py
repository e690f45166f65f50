"""Requests on their way through the simulated engine, and what users ask next."""

from collections.abc import Iterator

from llmdyno.predict.rules import Ask, Load


class Request:
    """A request on its way; `context`: tokens that it holds in the cache when it joins."""

    __slots__ = (
        *("answer", "blocks", "cached", "context", "done", "first_s", "held"),
        *("first_tokens", "joined", "left", "sent_s", "user", "woken"),
    )

    def __init__(self, ask: Ask, sent_s: float, user: int) -> None:
        self.sent_s = sent_s
        self.user = user
        self.context = ask.prompt
        self.answer = ask.answer
        self.blocks = ask.blocks
        self.held = 0  # of the blocks, while it is in
        self.cached = min(ask.cached, ask.prompt - 1)
        self.left = ask.prompt - self.cached  # tokens still to be computed
        self.done = 0  # tokens of the answer made when it joined
        self.joined = 0  # the step that made the last of these
        self.first_s = 0.0
        self.first_tokens = 1  # that came with the first one
        self.woken = 0.0  # when its receiver is woken next, see wakes.py

    def compute(self, taken: int) -> float:
        """Compute tokens of the prompt; return the sum of the contexts that they look at."""
        start = self.context - self.left
        self.left -= taken
        return taken * (start + taken / 2)


class Asks:
    """What a load's users ask, in their order."""

    def __init__(self, load: Load) -> None:
        """Begin at the load's first."""
        self._load = load
        self._asked = 0  # requests
        self._sessions = iter(load.sessions or ())
        self._turns: dict[int, Iterator[Ask]] = {}  # that a user has still to ask

    def next(self, user: int) -> Ask | None:
        """Return what a user asks next, None if nothing is left."""
        load = self._load
        if load.sessions is None:
            self._asked += 1
            return load.asks[(self._asked - 1) % len(load.asks)]
        ask = next(self._turns.get(user, iter(())), None)
        if ask is None:
            self._turns[user] = iter(next(self._sessions, ()))
            ask = next(self._turns[user], None)
        return ask
