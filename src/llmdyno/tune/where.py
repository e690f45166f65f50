"""Where a study's trials run: on this machine, or over hosts. It goes on as it began."""

from collections.abc import Sequence
from pathlib import Path

from llmdyno.errors import UsageError
from llmdyno.store import STACKS
from llmdyno.tune import going_on
from llmdyno.tune.combinations import Combination
from llmdyno.tune.crew import NAME
from llmdyno.tune.endings import to_measure_again
from llmdyno.tune.hosts import Hosts
from llmdyno.tune.ledger import Ledger, reopens
from llmdyno.tune.spec import Study


def are_hosts(ledger: Ledger, *, unknown: bool = False) -> bool:
    """Tell whether a study's trials run over hosts.

    Args:
        ledger: of the study.
        unknown: what is said of one that was begun by a version that did not write it down, and has
            measured nothing there.
    """
    if ledger.began is not None and ledger.began.hosts is not None:
        return ledger.began.hosts
    return any(name.startswith(NAME) for name in ledger.lanes) if ledger.lanes else unknown


def are_left(study: Study, folder: Path, combinations: Sequence[Combination]) -> bool:
    """Tell whether a study over several stacks has a trial to begin or to measure again.

    Args:
        study: as it goes on; it may ask for more than the ledger knows yet.
        folder: of the study.
        combinations: those that can work.
    """
    ledger = Ledger(folder)
    if ledger.began is None or reopens(going_on.changes(ledger, study)):
        return True
    parts = [Ledger(folder / STACKS / one.folder) for one in combinations]
    measured = [part for part in parts if part.lanes]  # one that no host can measure has no trials
    if any(part.out or to_measure_again(part) for part in measured):
        return True
    trials = [step for part in parts for step in part.of("trial")]
    started = sum(step.state != "predicted-infeasible" for step in trials)
    return started < study.trials and ledger.last_end is None


def check_hosts(ledger: Ledger, hosts: Hosts | None, *, left: bool) -> None:
    """Refuse to measure here what was begun over hosts, or there what was begun here.

    Args:
        ledger: of the study.
        hosts: where its trials are to run; None: here.
        left: whether a trial is left, that would run here.

    Raises:
        UsageError: the study was begun otherwise.
    """
    if ledger.began is None:
        return
    if hosts is None and are_hosts(ledger) and left:
        raise UsageError(
            f"--resume {ledger.path.parent}: the study's trials run over hosts; name their database"
            " with --store."
        )
    if hosts is not None and not are_hosts(ledger, unknown=not ledger.began.spec.combines):
        where = "on one machine" if ledger.began.spec.combines else "in lanes of one machine"
        raise UsageError(
            f"--store {hosts.shown}: the study's trials run {where}; leave it out, or begin"
            " another study."
        )
