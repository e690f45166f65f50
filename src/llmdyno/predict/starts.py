"""How long the host takes to start a step, where steps of decodes are started in pieces of graphs.

vLLM has whole graphs for decodes up to a size below `max_num_seqs` only (23 sequences: to 16), so
fuller steps are started in pieces. In a row such steps start fast; after a step of another kind
(a prompt's, whose kernels are started one by one), they and it are slow, for some ten steps. Steps
of the same servers in the same minute: 6.9 ms a decode while all 34 answers ran on, 10 to 12 and 30
by turns with prompts (dev/LOG.md, "steps by turns"). What is slow is not known: caches of the
processor would do it. Where decodes are whole graphs no such difference was found.
"""

from llmdyno.predict.steptime import WARMS, StepTime, mean_cold

_LEAP = 4  # steps in one leap while starts become faster
_WARM = 0.05  # of being cold: less is none


class Starts:
    """What was started last. `cold` goes from 1, after a step of another kind, towards 0."""

    def __init__(self, time: StepTime) -> None:
        self._time = time
        self._cold = 0.0
        self._kind = 0
        self._in_pieces = False  # whether the last step of decodes was

    def leap(self, decodes: int, most: int) -> int:
        """Return how many steps of decodes are alike enough to be one leap."""
        if not self._time.decodes_in_pieces(decodes):
            return most
        changes = self._time.start_of(decodes, 0) != self._kind
        return min(most, _LEAP) if changes or self._cold > _WARM else most

    def more_s(self, steps: int, decodes: int, chunk: int) -> float:
        """Return what a start of so many equal steps takes beyond StepTime.parts(), on average."""
        if not (self._in_pieces if chunk else self._time.decodes_in_pieces(decodes)):
            return 0.0
        cold = self._cold if self._time.start_of(decodes, chunk) == self._kind else 1.0
        return float(self._time.cold_s(decodes, chunk, cold * mean_cold(steps)))

    def passed(self, steps: int, decodes: int, chunk: int) -> None:
        """Take note of equal steps."""
        kind = self._time.start_of(decodes, chunk)
        self._cold = (self._cold if kind == self._kind else 1.0) * WARMS**steps
        self._kind = kind
        if not chunk:
            self._in_pieces = self._time.decodes_in_pieces(decodes)
