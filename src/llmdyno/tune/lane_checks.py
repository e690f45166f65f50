"""Lanes that fail again and again, or find no GPU: the baseline shows whether they still work.

A lane is a part of this machine, or a host. One of several parts is checked by itself; so is every
host, as the baseline on the lead's machine tells nothing of another machine.
"""

from collections.abc import Sequence

from llmdyno.machine.devices import Devices, shares
from llmdyno.tune import blame
from llmdyno.tune.entries import Step
from llmdyno.tune.hosts import Hosts
from llmdyno.tune.lanes import Job
from llmdyno.tune.runner import Runner

_IN_A_ROW = 3  # failures of one lane, and it must show that it works: else it eats all trials


class LaneChecks:
    """The checks of lanes that have not ended.

    Args:
        runner: of the study.
        devices: the lanes.
    """

    def __init__(self, runner: Runner, devices: Devices | Hosts) -> None:
        self._runner, self._devices = runner, devices
        self._next = 0  # the number of the next one
        self._out: set[str] = set()  # lanes that have one

    @property
    def by_lane(self) -> bool:
        """Whether a lane is checked by itself."""
        return self._devices.lanes > 1 or isinstance(self._devices, Hosts)

    def is_suspect(self, device: str) -> bool:
        """Tell whether a lane is to be checked by itself: it failed so often, or lost its GPU."""
        last = [s for s in self._runner.ledger.steps if shares(s.device, device)][-_IN_A_ROW:]
        failed = len(last) == _IN_A_ROW and all(step.state == "failed" for step in last)
        return (failed or any(map(blame.lacks_gpu, last[-1:]))) and self.by_lane

    def explains(self, failed: Sequence[Step]) -> bool:
        """Tell whether all that has failed did so in one lane, which is checked by itself."""
        return self.by_lane and len({step.device for step in failed}) == 1

    def of(self, suspect: str, gpus: int) -> list[Job]:
        """Return the jobs that show whether a lane works; none that is waited for already.

        Args:
            suspect: the lane.
            gpus: that the baseline takes.
        """
        runner = self._runner
        self._next = max(self._next, runner.ledger.next_check)
        names = [name for name in self._devices.checked_by(suspect) if name not in self._out]
        self._out.update(names)
        first, self._next = self._next, self._next + len(names)
        return [
            Job(
                phase="check",
                number=number,
                config=runner.study.baseline,
                load=runner.trial_load(),
                gpus=gpus,
                races=False,
                device=name,
            )
            for number, name in enumerate(names, first)
        ]

    def ended(self, device: str) -> None:
        """Let a lane be checked again: its check has ended, or will never be."""
        self._out = {name for name in self._out if not shares(name, device)}


def broken(check: Step) -> str:
    """Say that a lane's check has failed."""
    return f"its baseline has worked, and fails now {blame.said(check)}"
