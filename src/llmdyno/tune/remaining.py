"""What is left of a study: the best so far, and about how long it will go on.

It is read from the ledger, and nothing is decided by it.
"""

from collections.abc import Mapping

from llmdyno.knobs import Value
from llmdyno.results.metrics import BY_NAME
from llmdyno.results.pairs import PAIRS_MIN
from llmdyno.tune.ablation import PAIRS, pairs_to_come
from llmdyno.tune.candidates import changed, effective
from llmdyno.tune.endings import rank
from llmdyno.tune.entries import Step
from llmdyno.tune.gate import asks_s
from llmdyno.tune.noise import spreads_before
from llmdyno.tune.outlook import Outlook
from llmdyno.tune.pairs import pairs_expected
from llmdyno.tune.reference import valued_reference_of
from llmdyno.tune.runner import Runner

_CHANGES_FORESEEN = 2  # knobs that a winner will have changed, while there is none


def outlook(runner: Runner, number: int, config: Mapping[str, Value], why: str) -> Outlook:
    """Return how a study stands before a trial.

    Args:
        runner: of the study.
        number: of the trial, from 0.
        config: of the trial.
        why: it is tried, in words.
    """
    reference = valued_reference_of(runner.ledger)
    best = best_so_far(runner)
    times = None
    if best is not None and reference is not None and best.value and reference.value:
        times = best.value / reference.value
    return Outlook(
        number=number + 1,
        # One that cannot work is none of those that were asked for.
        trials=runner.study.trials + _not_started(runner),
        config=runner.named(config),
        why=why,
        best=best,
        times=times,
        unit=BY_NAME[runner.study.objective.metric].unit,
        left_s=None if runner.over is not None else left_s(runner),
    )


def best_so_far(runner: Runner) -> Step | None:
    """Return the best of the trials and the baseline; None: none has a value."""
    steps = (valued_reference_of(runner.ledger), *runner.ledger.of("trial"))
    measured = [s for s in steps if s is not None and s.state == "measured" and s.value is not None]
    return max(measured, key=lambda step: rank(runner.study, step), default=None)


def left_s(runner: Runner) -> float:
    """Return about how long a study will go on: its trials, the confirmation, the ablation.

    A budget that ends before ends the trials; the first two pairs come all the same.
    """
    study = runner.study
    trial_s, whole_s, confirm_s = (
        runner.lasts_s(load)
        for load in (runner.trial_load(), runner.whole_load(), runner.trial_load(confirm=True))
    )
    started = len(runner.ledger.of("trial")) - _not_started(runner)
    at_once = len(runner.ledger.lanes) or study.parallel
    trials_s = max(1.0, (study.trials - started) / at_once) * trial_s
    pairs = pairs_expected(study, 0, [], spreads_before(runner.ledger)) + _taken_back(runner)
    at_least_s = trial_s + whole_s + 2 * PAIRS_MIN * confirm_s
    planned_s = trials_s + whole_s + 2 * pairs * confirm_s
    asked_s = asks_s(runner) if study.quality else 0.0
    return max(at_least_s, min(planned_s + asked_s, runner.left_s()))


def _not_started(runner: Runner) -> int:
    """Return how many trials were refused before anything was started."""
    return sum(step.state == "predicted-infeasible" for step in runner.ledger.of("trial"))


def _taken_back(runner: Runner) -> int:
    """Return about how many pairs the ablation takes, by what the best so far has changed."""
    best, knobs = best_so_far(runner), runner.stack.knobs
    changes: list[str] = []
    if best is not None:
        before = effective(runner.study.baseline, knobs)
        changes = changed(before, effective(best.config, knobs))
    count = len(changes)
    if not changes and len(runner.study.search) != 1:  # the baseline is the best yet
        count = _CHANGES_FORESEEN
    return pairs_to_come(count, [], 0, runner.study.pairs or PAIRS)
