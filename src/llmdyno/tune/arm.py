"""One engine behind one front, in a study over several: its own study, and what it was given."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from llmdyno.errors import UsageError
from llmdyno.knobs import Value
from llmdyno.tune.combinations import Combination
from llmdyno.tune.endings import rank
from llmdyno.tune.entries import Step
from llmdyno.tune.ledger import Ledger
from llmdyno.tune.narrator import Narrator
from llmdyno.tune.neighbours import Presence
from llmdyno.tune.reference import valued_reference_of
from llmdyno.tune.runner import Runner
from llmdyno.tune.spec import Study
from llmdyno.tune.tuner import Tuner

Named = tuple[str, str, dict[str, Value]]  # the engine, the front, the values


def whose(told: Mapping[str, Any]) -> Named:
    """Return whose config an entry of study.json has."""
    return told["engine"], told["front"], told["config"]


class Arm:
    """A combination that can work, and the study of it alone.

    Args:
        of: the combination.
        study: of it.
        folder: of that study.
        narrator: gets the lines for people.
        elsewhere: whether it may go on with another engine's version, driver or machine.
        here: it will run on this machine, so the engine must be installed; a plan needs none.

    Raises:
        UsageError: the study cannot be run as it is.
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
        here: bool = True,
    ) -> None:
        self.of = of
        self.folder = folder
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
                study, self.folder, self._narrator, elsewhere=self._elsewhere, here=self._here
            )
        except UsageError as error:
            raise UsageError(f"{self.of.name}: {error}") from None

    def begin(self, presence: Presence, trials: int = 1) -> None:
        """Go on in its folder, towards so many trials."""
        self.tuner = self._made(trials)
        self.runner.begin(presence, elsewhere=self._elsewhere)

    @property
    def runner(self) -> Runner:
        """That of its tuner, which is another one once it goes on towards more trials."""
        return self.tuner.runner

    def started(self) -> int:
        """Return how many of the trials given to it were started."""
        return len(self._trials())

    def standing(self) -> tuple[bool, float]:
        """Return how good its best config is, by its reference and the trials given to it."""
        reference = valued_reference_of(self.runner.ledger)
        measured = [s for s in self._trials() if s.state == "measured" and s.value is not None]
        return max(rank(self._asked, step) for step in (*measured, reference) if step is not None)

    def never_had_one(self) -> bool:
        """Tell whether no baseline of it was ever measured; one whose run is gone was."""
        ledger = self.runner.ledger
        voided = any(s.phase == "baseline" and s.state == "measured" for s in ledger.voided)
        return valued_reference_of(ledger) is None and not voided

    def _trials(self) -> list[Step]:
        trials = self.runner.ledger.of("trial")
        return [step for step in trials if step.state != "predicted-infeasible"][: self.given]

    def named(self, config: dict[str, Value]) -> Named:
        """Return a config of it as whose() does."""
        return self.of.engine, self.of.front, config

    def seen(self, step: Step) -> Step:
        """Return a step of it as the whole study sees it."""
        return msgspec.structs.replace(step, engine=self.of.engine, front=self.of.front)
