"""What the steps of a study last, and what is left of its budget.

The flags say how long a load lasts; the ledger says what the steps before have taken beside it.
"""

import math
from bisect import bisect_right
from collections.abc import Callable, Sequence
from time import monotonic

import msgspec

from llmdyno import fronts, workload
from llmdyno.engines import facts
from llmdyno.results.pairs import PAIRS_MIN
from llmdyno.serve.stack import Stack
from llmdyno.spec import Load
from llmdyno.tune.budget import UNKNOWN_START_S, Costs, costs, lasts_s, usual_s
from llmdyno.tune.ledger import Ledger
from llmdyno.tune.spec import Study

PROOF_SHARE = 1 / 3  # of a budget, that trials leave to the proof at most


def kept_for_proof_s(study: Study, best_s: float, pair_s: float) -> float:
    """Return how much of a study's budget, in s, trials leave to the proof; 0 without a budget.

    That is the proof as asked, the winner in full and the pairs of --pairs (the least without it),
    but no more than PROOF_SHARE of the budget: without trials there is nothing to prove.

    Args:
        study: with the budget.
        best_s: what the winner in full takes.
        pair_s: what a pair takes.
    """
    if study.limit_s is None:
        return 0.0
    return min(best_s + study.pairs_least * pair_s, PROOF_SHARE * study.limit_s)


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
        """Return the load of a trial: the largest level only, and a shorter run."""
        if confirm and self.study.confirm_levels == "all":
            return self.whole_load()
        load = self.study.load.alone(self.study.level)
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

        Of a budget that is shared nothing: who shares it says how much is left for trials.
        """
        return kept_for_proof_s(self.study, *self._proof_takes_s())

    def least_proof_s(self) -> float:
        """Return how long a would-be winner takes: in full, and the pairs that no budget ends."""
        best_s, pair_s = self._proof_takes_s()
        return best_s + PAIRS_MIN * pair_s

    def _proof_takes_s(self) -> tuple[float, float]:
        """Return how long the winner in full and a pair take, in s."""
        confirm_s = self.lasts_s(self.trial_load(confirm=True))
        return self.lasts_s(self.whole_load()), 2 * confirm_s

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


class Shared:
    """The budget of a study over several stacks, which the studies of each of them share.

    What it decides, it decides from their ledgers alone, as the study does.

    Args:
        study: the whole one, whose budget it is.
        sharing: returns what shares it, the baseline that the others are compared with first; they
            are made anew when their studies go on.
        by_clock: whether time in which nothing is measured counts, too: hosts are waited for.
    """

    def __init__(
        self, study: Study, sharing: Callable[[], Sequence[Budgeted]], *, by_clock: bool = False
    ) -> None:
        self._study = study
        self._sharing = sharing
        self._by_clock = by_clock
        self._began_s = self._spent_before_s = 0.0  # known when begin() was called

    def begin(self) -> None:
        """Count from now on, and what the ledgers say was spent before."""
        self._began_s = monotonic()
        self._spent_before_s = sum(one.ledger.spent_s for one in self._sharing())

    @property
    def limit_s(self) -> float:
        """The budget, in s; infinite without one."""
        return math.inf if self._study.limit_s is None else self._study.limit_s

    def over(self, share: float = 1.0) -> bool:
        """Whether all together have spent this share of the budget."""
        return self._spent_s() > share * self.limit_s

    def for_trials(self, one: Budgeted, until: float) -> None:
        """Let one of them have trials until a share of what they all have for trials is spent.

        That is what the baselines and the proof leave of the budget. The first trial of each comes
        while there is any: what was never tried would be told by its baseline alone.
        """

        def end_s() -> float:
            started = any(s.state != "predicted-infeasible" for s in one.ledger.of("trial"))
            return self._trials_end_s(until) if started else self.limit_s

        one.over = lambda share: self._spent_s() > share * end_s()
        one.left = lambda: end_s() - self._spent_s()

    def for_proof(self, one: Budgeted) -> None:
        """Let one of them have all that is left."""
        one.over = self.over
        one.left = lambda: self.limit_s - self._spent_s()

    def _spent_s(self) -> float:
        told_s = sum(one.ledger.spent_s for one in self._sharing())
        if not self._by_clock:
            return told_s
        return max(told_s, self._spent_before_s + monotonic() - self._began_s)

    def _trials_end_s(self, until: float) -> float:
        """Return how much all have spent, in s, when this share of the time for trials is over."""
        if math.isinf(self.limit_s):
            return math.inf
        fixed_s = sum(
            step.charged_s
            for one in self._sharing()
            for step in one.ledger.steps
            if step.phase in {"baseline", "reference", "check"}
        )
        return fixed_s + max(0.0, self.limit_s - fixed_s - self._kept_s()) * until

    def _kept_s(self) -> float:
        """Return what trials leave to the proof, whose winner may be the dearest to measure."""
        works = [
            one
            for one in self._sharing()
            if any(step.state == "measured" for step in one.ledger.of("baseline"))
        ]
        if not works:
            return 0.0
        first, dearest = works[0], max(works, key=Budgeted.trial_s)
        pair_s = sum(one.lasts_s(one.trial_load(confirm=True)) for one in (first, dearest))
        return kept_for_proof_s(self._study, dearest.lasts_s(dearest.whole_load()), pair_s)
