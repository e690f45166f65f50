"""What the steps of a study last, and what is left of its budget.

The flags say how long a load lasts; the ledger says what the steps before have taken beside it.
"""

import math
from bisect import bisect_right
from collections.abc import Callable
from time import monotonic

import msgspec

from llmdyno import fronts, workload
from llmdyno.engines import facts
from llmdyno.serve.stack import Stack
from llmdyno.spec import Load
from llmdyno.tune.budget import UNKNOWN_START_S, Costs, costs, lasts_s, usual_s
from llmdyno.tune.ledger import Ledger
from llmdyno.tune.spec import Study

PROOF_SHARE = 1 / 3  # of a budget, that trials leave to the proof at most


class Budgeted:
    """Knows the loads of a study's steps, what they last and what is left for them.

    Args:
        study: what is tuned.
        ledger: of the study.
        stack: what is served.
    """

    def __init__(self, study: Study, ledger: Ledger, stack: Stack) -> None:
        self.study = study
        self.ledger = ledger
        self.stack = stack
        # Tells of a budget that this study shares with others; None: it has its own.
        self.over: Callable[[float], bool] | None = None
        self.left: Callable[[], float] | None = None  # of it, in s
        self._began_s = self._spent_before_s = 0.0  # known when begin_budget() was called

    def begin_budget(self) -> None:
        """Count from now on, and what the ledger says was spent before."""
        self._began_s = monotonic()
        self._spent_before_s = self.ledger.spent_s

    def whole_load(self) -> Load:
        """Return the load at which a config is measured in full."""
        return self._lasting(self.study.load, self.study.load.duration_s)

    def trial_load(self, *, confirm: bool = False) -> Load:
        """Return the load of a trial: the largest number of users only, and a shorter run."""
        if confirm and self.study.confirm_levels == "all":
            return self.whole_load()
        load = msgspec.structs.replace(self.study.load, users=(self.study.level,))
        return self._lasting(load, load.duration_s if confirm else self.study.trial_duration_s)

    def _lasting(self, load: Load, duration_s: float) -> Load:
        """Return a load of this duration; of a trace the requests that are due within it."""
        load = msgspec.structs.replace(load, duration_s=duration_s)
        if load.arrival != "trace":
            return load
        asked = self.study.workload
        due_s = workload.due_s(workload.load(asked.name), asked)
        return msgspec.structs.replace(load, requests=max(1, bisect_right(due_s, duration_s)))

    def costs(self) -> Costs:
        """Return what steps have cost lately, beside their load."""
        study = self.study
        alone = fronts.facts(self.stack.front).runs_in_container  # no server before the engine's
        known_s = facts(self.stack.engine).start_s(study.model) if alone else None
        guess_s = UNKNOWN_START_S if known_s is None else known_s
        return costs(self.ledger.steps, self._loads(), study.warmup_s, guess_s=guess_s)

    def _loads(self) -> dict[str, Load]:
        """Return the load of each phase, as planned."""
        whole, trial, confirm = self.whole_load(), self.trial_load(), self.trial_load(confirm=True)
        loads: dict[str, Load] = {"baseline": whole, "best": whole, "confirm": confirm}
        return loads | {"reference": trial, "trial": trial, "ablation": confirm}

    def lasts_s(self, load: Load) -> float:
        """Return about how long a step with this load will take, by how long others took."""
        found = lasts_s(self.ledger.steps, self._loads(), load)
        return self.costs().step_s(load, self.study.warmup_s) if found is None else found

    def trial_s(self) -> float:
        """Return how long a trial takes: as the last ones did, else by what steps cost."""
        alike = {"reference", "trial"}
        if self.trial_load() == self.whole_load():
            alike |= {"baseline"}
        taken_s = usual_s(self.ledger.steps, alike)
        return (
            self.costs().step_s(self.trial_load(), self.study.warmup_s)
            if taken_s is None
            else taken_s
        )

    def kept_s(self) -> float:
        """Return how much of the budget, in s, trials leave to the proof; 0 without a budget.

        That is what the winner in full and the least number of pairs take, but no more than
        PROOF_SHARE of the budget: without trials there is nothing to prove.
        """
        if self.study.limit_s is None:
            return 0.0
        pairs_s = 2 * self.study.pairs_least * self.lasts_s(self.trial_load(confirm=True))
        return min(self.lasts_s(self.whole_load()) + pairs_s, PROOF_SHARE * self.study.limit_s)

    def left_s(self) -> float:
        """Return how much of the budget is left, in s; infinite without one."""
        if self.left is not None:
            return self.left()
        if self.study.limit_s is None:
            return math.inf
        return self.study.limit_s - self._spent_before_s - (monotonic() - self._began_s)

    def over_budget(self, share: float) -> bool:
        """Whether this share of the budget is spent."""
        if self.over is not None:
            return self.over(share)
        limit_s = self.study.limit_s
        if limit_s is None:
            return False
        return self._spent_before_s + monotonic() - self._began_s > share * limit_s
