"""A combination of a study over engines and fronts that can work, and the study of it alone."""

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import msgspec

from llmdyno.errors import UsageError
from llmdyno.knobs import Value
from llmdyno.tune.combinations import Combination
from llmdyno.tune.endings import rank
from llmdyno.tune.entries import Event, Step
from llmdyno.tune.hosts import Hosts
from llmdyno.tune.ledger import Ledger
from llmdyno.tune.narrator import Narrator
from llmdyno.tune.neighbours import Presence
from llmdyno.tune.reference import valued_reference_of
from llmdyno.tune.runner import Runner
from llmdyno.tune.spec import Study
from llmdyno.tune.tuner import Tuner

Named = tuple[str, str, dict[str, Value]]  # the engine, the front, the values


def named_in(told: Mapping[str, Any]) -> Named:
    """Return whose config an entry of study.json has."""
    return told["engine"], told["front"], told["config"]


class Arm:
    """One combination.

    Args:
        of: the combination.
        study: of it alone.
        folder: of that study.
        narrator: gets the lines for people.
        elsewhere: whether it may go on with another engine's version, driver or machine.
        here: it will run on this machine, so the engine must be installed; a plan needs none.
        hosts: where its trials run; None: on this machine.

    Raises:
        UsageError: it cannot be run as it is.
        StorageError: the folder holds a ledger that cannot be read.
    """

    def __init__(
        self,
        of: Combination,
        study: Study,
        folder: Path,
        narrator: Narrator,
        *,
        elsewhere: bool,
        here: bool,
        hosts: Hosts | None,
    ) -> None:
        self.of = of
        self.folder = folder
        self.hosts = hosts
        self.given = 0  # trials, in the rounds so far
        self._asked = study
        self._narrator = narrator
        self._elsewhere = elsewhere
        self._here = here
        self.tuner = self._made(study.trials)

    def _made(self, trials: int) -> Tuner:
        """Return the tuner for so many trials; never for fewer than its candidates and its past."""
        ledger = Ledger(self.folder)
        had = ledger.spec.trials if ledger.began is not None else 1
        trials = max(trials, had, len(self._asked.candidates))
        study = msgspec.structs.replace(self._asked, trials=trials)
        try:
            return Tuner(
                study,
                self.folder,
                self._narrator,
                elsewhere=self._elsewhere,
                here=self._here,
                hosts=self.hosts,
            )
        except UsageError as error:
            raise UsageError(f"{self.of.name}: {error}") from None

    def begin(self, presence: Presence, trials: int = 1) -> None:
        """Go on in its folder, towards so many trials."""
        self.tuner = self._made(trials)
        over_hosts = self.hosts is not None
        self.runner.called = self.of.name
        self.runner.begin(presence, elsewhere=self._elsewhere, hosts=over_hosts)

    @property
    def runner(self) -> Runner:
        """What measures its configs, one at a time, and writes its ledger."""
        return self.tuner.runner

    @property
    def ledger(self) -> Ledger:
        """What was measured of it."""
        return self.runner.ledger

    @property
    def is_measured_in_trials(self) -> bool:
        """Whether it may have trials: of several hosts some have measured its baseline."""
        return self.hosts is None or any(event.kind == "lanes" for event in self.ledger.events)

    def at_work(self) -> AbstractContextManager[None]:
        """Return within what its trials run: hosts have its jobs there, and no other's."""
        return nullcontext() if self.hosts is None else self.hosts.at_work()

    def leave_out_bad(self, others: "list[Arm]") -> None:
        """Leave out the hosts whose machines were found to be bad with another combination."""
        out = {host for event in self.ledger.lanes_left_out for host in event.devices}
        for other in others:
            for event in other.ledger.lanes_left_out:
                if event.stack or out >= {*event.devices}:
                    continue
                out.update(event.devices)
                why = f"it was left out of {other.of.name}: {event.why}"
                self.ledger.append(Event(kind="lane", why=why, devices=event.devices))

    def started(self) -> int:
        """Return how many of the trials given to it were started."""
        return len(self._trials())

    def standing(self) -> tuple[bool, float]:
        """Return how good its best config is, by its reference and the trials given to it."""
        reference = valued_reference_of(self.ledger)
        measured = [s for s in self._trials() if s.state == "measured" and s.value is not None]
        return max(rank(self._asked, step) for step in (*measured, reference) if step is not None)

    def never_had_one(self) -> bool:
        """Tell whether no baseline of it was ever measured; one whose run is gone was."""
        ledger = self.ledger
        voided = any(s.phase == "baseline" and s.state == "measured" for s in ledger.voided)
        return valued_reference_of(ledger) is None and not voided

    def _trials(self) -> list[Step]:
        trials = self.ledger.of("trial")
        return [step for step in trials if step.state != "predicted-infeasible"][: self.given]

    def named(self, config: dict[str, Value]) -> Named:
        """Return a config of it as named_in() does."""
        return self.of.engine, self.of.front, config

    def seen(self, step: Step) -> Step:
        """Return a step of it as the whole study sees it."""
        return msgspec.structs.replace(step, engine=self.of.engine, front=self.of.front)
