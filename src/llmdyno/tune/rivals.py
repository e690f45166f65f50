"""Who is still confirmed after a would-be winner that is better and misses the SLOs it had met."""

from llmdyno.tune.entries import Step
from llmdyno.tune.rejected import claims_slo
from llmdyno.tune.runner import Runner

_MOST = 2  # each costs a run in full and its pairs


class Rivals:
    """The would-be winners that are looked at: any, until one misses the SLOs that it had met.

    After it at most `_MOST` others are, that have met the SLOs, as far as the budget goes.
    """

    def __init__(self) -> None:
        self._left: int | None = None  # None: any number

    def begin(self) -> None:
        """Look at few from now on; a second such one changes nothing."""
        if self._left is None:
            self._left = _MOST

    def has(self, runner: Runner, trial: Step) -> bool:
        """Tell whether a trial is looked at; one that is counts.

        Args:
            runner: of its study, or of its combination.
            trial: that did better than the baseline.
        """
        if self._left is None:
            return True
        if not self._left or not self._may_be(runner, trial):
            return False
        self._left -= 1
        return True

    def _may_be(self, runner: Runner, trial: Step) -> bool:
        """Tell whether it has met the SLOs, and was measured in full or can be in time."""
        begun = any(step.config == trial.config for step in runner.ledger.of("best"))
        affordable = begun or runner.least_proof_s() <= runner.left_s()
        return claims_slo(runner.ledger, trial) and affordable
