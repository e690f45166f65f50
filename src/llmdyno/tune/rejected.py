"""Which would-be winners are none, and why: they died, are worse, or met their SLOs by luck."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from llmdyno.results import verdicts, wording
from llmdyno.results.lost import Requests, loses, together
from llmdyno.results.pairs import PAIRS_MIN
from llmdyno.tune.entries import OUT_OF_BUDGET, Step
from llmdyno.tune.ledger import Ledger
from llmdyno.units import counted


def has_its_pairs(ledger: Ledger, contender: int, pairs: int) -> bool:
    """Tell whether a confirmation with so many whole pairs has all that were planned.

    Where the noise, an interval or the budget ends the pairs, the ledger says that it did.
    """
    study = ledger.spec
    if ledger.pairs_ended(contender) == OUT_OF_BUDGET and pairs >= PAIRS_MIN:
        return True
    if study.pairs_fixed:
        return pairs >= study.pairs_least
    return pairs >= study.pairs_least and ledger.has_its_pairs(contender)


def rejection(
    ledger: Ledger,
    best: Step,
    confirmation: Mapping[str, Any],
    died: Step | None,
    undecided: Collection[str],
) -> str | None:
    """Say why a would-be winner is none; None: nothing speaks against it.

    Args:
        ledger: of the study.
        best: its measurement at every level.
        confirmation: of it.
        died: the run of its ablation in which it died itself; None: it did not.
        undecided: the runs that failed and are to be tried again: they do not speak.
    """
    if best.state != "measured" and best.run not in undecided:
        return f"{_ended(best.failure_class)} when it was measured in full ({best.failure_class})"
    if confirmation["verdict"] == "worse":
        return f"was confirmed as worse{_by_slo(confirmation)}"
    for run in confirmation["runs"]:
        failed = run["state"] == "failed" and run["run"] not in undecided
        if run["arm"] == "after" and failed:
            return f"{_ended(run['failure'])} in the confirmation ({run['failure']})"
    if died is not None:
        return f"{_ended(died.failure_class)} in the ablation ({died.failure_class})"
    return (
        _loses_requests(confirmation)
        or _met_by_luck(ledger, best, confirmation)
        or ledger.fell_out(best.contender)
    )


def _ended(failure: str | None) -> str:
    """Say what a config did that has failed: a server whose requests fail lives."""
    return "failed" if failure == "requests-failed" else "died"


def _met_by_luck(ledger: Ledger, best: Step, confirmation: Mapping[str, Any]) -> str | None:
    """Say that a config had met the SLOs and misses them in half of its pairs or more.

    One that is better all the same stays: the baseline misses them as often. Nothing is told before
    the pairs are whole.
    """
    if not claims_slo(ledger, best) or confirmation["verdict"] == "better":
        return None
    before, after = verdicts.slo_met(verdicts.judged(confirmation))
    if not _misses_often(after):
        return None
    if not has_its_pairs(ledger, best.contender, confirmation["pairs"]):
        return None
    missed, of_baseline = len(after) - sum(after), len(before) - sum(before)
    return (
        f"met the SLOs by luck: it misses them in {missed} of {counted(len(after), 'run')} of the"
        f" pairs, the baseline in {of_baseline} of {len(before)}"
    )


def claims_slo(ledger: Ledger, best: Step) -> bool:
    """Tell whether a would-be winner has met the SLOs in its trial or in full."""
    trials = [step for step in ledger.of("trial") if step.config == best.config]
    alike = [step for step in trials if (step.engine, step.front) == (best.engine, best.front)]
    return any(step.slo_met for step in (best, *alike))


def misses_what_it_met(ledger: Ledger, best: Step) -> bool:
    """Tell whether a would-be winner has met the SLOs and misses them in half of its pairs or more.

    Args:
        ledger: of a study of one engine and front.
        best: its measurement at every level.
    """
    runs = [one for one in ledger.of("confirm", best.contender) if one.config == best.config]
    after = [one.slo_met for one in runs if one.slo_met is not None]
    return claims_slo(ledger, best) and _misses_often(after)


def _misses_often(after: Sequence[bool]) -> bool:
    return bool(after) and 2 * sum(after) <= len(after)


def _by_slo(confirmation: Mapping[str, Any]) -> str:
    """Say that the SLOs alone have made it worse, where they have; its speed may be better."""
    before, after = verdicts.slo_met(verdicts.judged(confirmation))
    decided = before and after and all(before) and not any(after)
    return (
        ": it misses an SLO in all runs of the pairs, which the baseline meets" if decided else ""
    )


def word_of_rejected(confirmation: Mapping[str, Any]) -> verdicts.Word:
    """Return the verdict on a would-be winner that is none, whatever its speed was.

    What loses requests that the baseline serves is worse; what died later is not confirmed.
    """
    word: verdicts.Word = confirmation["verdict"]
    if word == "worse" or _loses_requests(confirmation) is not None:
        return "worse"
    return "not confirmed"


def _loses_requests(confirmation: Mapping[str, Any]) -> str | None:
    """Say that a config loses requests that the baseline serves, if it does in two runs or more.

    Goodput counts them by itself.
    """
    if confirmation["decided_by"].startswith("goodput"):
        return None
    before, after = (
        [
            Requests(failed=run["requests"]["failed"], completed=run["requests"]["completed"])
            for run in confirmation["runs"]
            if run["arm"] == arm and run["requests"] is not None
        ]
        for arm in ("before", "after")
    )
    if sum(bool(one.failed) for one in after) < 2:
        return None
    old, new = together(before), together(after)
    if not loses(old, new):
        return None
    said = [wording.share(side.lost, 1) for side in (new, old)]
    return f"failed {said[0]} of its requests in the confirmation, the baseline {said[1]}"
