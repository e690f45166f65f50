"""A request on its way through the simulated engine."""

from llmdyno.predict.rules import Ask


class Request:
    """A request on its way; `context`: tokens that it holds in the cache when it joins."""

    __slots__ = (
        *("answer", "blocks", "cached", "context", "done", "first_s", "held"),
        *("joined", "left", "promised", "sent_s", "user"),
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
