"""When another trial does not pay: `--patience`.

The search says by how much it expects a proposal to be better than the best so far, times the
chance that it starts. After some proposals in a row that promise less than 1 %, which no
confirmation of a usual length would find, the trials end. A search that has no such opinion is
judged by what came of its trials. Without the flag all trials are made: what this saves, it costs
(benchmarks/tuner/README.md).
"""

from collections.abc import Sequence

from llmdyno.results import wording
from llmdyno.search.samplers import Searching
from llmdyno.tune.entries import Step
from llmdyno.tune.spec import Study

PAYS = 0.01  # of the value, that a trial must be expected to gain


class Patience:
    """Counts proposals that do not pay.

    Args:
        study: says how many there may be in a row.
        reference: the baseline as a trial is measured.
    """

    def __init__(self, study: Study, reference: Step | None) -> None:
        self._most = study.patience
        self._sign = 1.0 if study.objective.maximise else -1.0
        self._reference = reference
        self._idle = 0
        self.gain: float | None = None  # that the next trial was expected to have
        self.said = ""

    def ends(self, search: Searching, tried: Sequence[Step]) -> bool:
        """Tell whether the trial that the search has just proposed is one too many.

        Ask once a proposal, in order: a study that goes on counts again what it did.
        """
        if self._most is None:
            return False
        if hasattr(search, "expected_gain"):
            self.gain = search.expected_gain
            self._idle = self._idle + 1 if self.gain is not None and self.gain < PAYS else 0
            why = f"the next one is expected to gain {wording.share(self.gain or 0.0, 1)}"
        else:
            self._idle = self._since_better(tried)
            why = f"the last {self._most} were no better"
        if self._idle < self._most:
            return False
        self.said = f"No further trials: {why}."
        return True

    def _since_better(self, tried: Sequence[Step]) -> int:
        """Return how many trials there were since the best one."""
        steps = [*([self._reference] if self._reference is not None else []), *tried]
        ranks = [self._rank(step) for step in steps]
        return len(ranks) - 1 - ranks.index(max(ranks)) if ranks else 0

    def _rank(self, step: Step) -> tuple[bool, bool, float]:
        measured = step.state == "measured" and step.value is not None
        return measured, step.slo_met is not False, self._sign * (step.value or 0.0)
