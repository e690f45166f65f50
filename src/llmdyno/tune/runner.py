"""A step of a study: one config measured, at a load, once; the ledger and the budget.

Every step is in the ledger before the next one begins, so a study that was stopped, killed or
crashed goes on with `--resume`.
"""

from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from time import monotonic

import msgspec

from llmdyno import store, workload
from llmdyno.knobs import Value
from llmdyno.load.progress import Progress
from llmdyno.machine import environment
from llmdyno.serve.stack import Stack
from llmdyno.spec import Load
from llmdyno.tune.candidates import describe
from llmdyno.tune.ledger import Began, Ledger, Phase, Step
from llmdyno.tune.measure import Measurement, measure
from llmdyno.tune.spec import Study
from llmdyno.tune.steps import as_step, outcome
from llmdyno.wire.exchange import Meter


class Narrator(msgspec.Struct, frozen=True, kw_only=True):
    """How a study tells a person what goes on."""

    notify: Callable[[str], None]  # of a step that ended, or of one that begins
    notify_waiting: Callable[[str], None]  # while a server starts
    # Takes a run's name and the loads of its levels, and returns what shows the run's progress.
    display: Callable[[str, Sequence[float]], Callable[[Progress, Meter], None]]


class Runner:
    """Measures configs for one study, each unless the ledger has it already.

    Args:
        study: what is tuned.
        folder: of the study.
        stack: what is served.
        narrator: gets the lines for people.

    Raises:
        StorageError: the folder holds a ledger that cannot be read.
    """

    def __init__(self, study: Study, folder: Path, stack: Stack, narrator: Narrator) -> None:
        self.study = study
        self.folder = folder
        self.stack = stack
        self.ledger = Ledger(folder)
        self._narrator = narrator
        self._began_s = self._spent_before_s = 0.0  # known when begin() was called

    def begin(self) -> None:
        """Read the ledger again, now that nobody else appends to it; begin it if it is new."""
        self._began_s = monotonic()
        self.ledger = Ledger(self.folder)
        self._spent_before_s = sum(
            step.build_s + step.start_s + step.measure_s for step in self.ledger.steps
        )
        if self.ledger.began is None:
            self.ledger.append(
                Began(
                    study=self.folder.resolve().name,
                    spec=self.study,
                    environment=environment.describe(),
                    engine_version=self.stack.engine.version(),
                )
            )

    def say(self, line: str) -> None:
        """Tell a person what goes on."""
        self._narrator.notify(line)

    def wait(self, line: str) -> None:
        """Tell a person what is waited for."""
        self._narrator.notify_waiting(line)

    def step(
        self,
        phase: Phase,
        number: int,
        config: Mapping[str, Value],
        load: Load,
        *,
        knob: str = "",
    ) -> Step:
        """Measure one checked config, unless the ledger has it already."""
        done = self.ledger.find(phase, number)
        if done is not None and not (phase == "baseline" and done.state == "failed"):
            return done
        label = _label(phase, number)
        run = self.folder / "runs" / store.new_id(label)
        measurement = measure(
            self.stack,
            config,
            workload=self.study.workload,
            load=load,
            slos=self.study.slos,
            price_per_h=self.study.price_per_h,
            hang_s=self.study.hang_s,
            warmup_s=self.study.warmup_s,
            folder=run,
            calibration=phase == "baseline",  # the machine is one for the whole study
            report_progress=self._narrator.display(label, load.points),
            notify=self._narrator.notify_waiting,
        )
        measurement = msgspec.structs.replace(measurement, folder=str(run.relative_to(self.folder)))
        return self.record(measurement, phase, number, config, knob=knob)

    def record(
        self,
        measurement: Measurement,
        phase: Phase,
        number: int,
        config: Mapping[str, Value],
        *,
        knob: str = "",
    ) -> Step:
        """Append to the ledger what came of a config, and tell it."""
        step = as_step(self.study, measurement, phase, number, config, knob)
        self.ledger.append(step)
        told = f"{outcome(self.study, step)}  {describe(config)}"
        self._narrator.notify(f"  {_label(phase, number)}: {told}")
        return step

    def whole_load(self) -> Load:
        """Return the load at which a config is measured in full."""
        return self._lasting(self.study.load, self.study.load.duration_s)

    def trial_load(self, *, confirm: bool = False) -> Load:
        """Return the load of a trial: the largest number of users only, and a shorter run."""
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

    def over_budget(self, share: float) -> bool:
        """Whether this share of the budget is spent."""
        budget_s = self.study.budget_s
        if budget_s is None:
            return False
        return self._spent_before_s + monotonic() - self._began_s > share * budget_s


def _label(phase: Phase, number: int) -> str:
    """Return what a step is called: "baseline", "trial 3"."""
    return phase if phase in {"baseline", "reference"} else f"{phase} {number + 1}"
