"""A request on its way through the simulated engine."""

from llmdyno.predict.rules import Ask


class Request:
    """A request on its way; `context`: tokens that it holds in the cache when it joins."""

    __slots__ = (
        *("answer", "blocks", "cached", "context", "done", "first_s", "held"),
        *("first_tokens", "joined", "left", "promised", "sent_s", "user", "woken"),
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
        self.promised = 0  # tokens that admission has kept room for
        self.first_s = 0.0
        self.first_tokens = 1  # that came with the first one
        self.woken = 0.0  # when its receiver is woken next, see wakes.py

    def compute(self, taken: int) -> float:
        """Compute tokens of the prompt; return the sum of the contexts that they look at."""
        start = self.context - self.left
        self.left -= taken
        return taken * (start + taken / 2)
