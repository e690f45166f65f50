"""A step of a study: one config measured, at a load, once, and written into the ledger.

Every step is in the ledger before the next one begins, so a study that was stopped, killed or
crashed goes on with `--resume`.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import msgspec

from llmdyno import store
from llmdyno.engines import facts
from llmdyno.errors import DynoError, HomeError
from llmdyno.knobs import Value
from llmdyno.machine import environment
from llmdyno.serve.stack import Stack
from llmdyno.spec import Load
from llmdyno.tune import blame, commands, going_on
from llmdyno.tune.budgeted import Budgeted
from llmdyno.tune.candidates import same, told
from llmdyno.tune.entries import Began, Event, Phase, Step, key, label
from llmdyno.tune.ledger import Ledger
from llmdyno.tune.measure import Measurement, measure, unstopped
from llmdyno.tune.narrator import Narrator
from llmdyno.tune.neighbours import Presence
from llmdyno.tune.outlook import Outlook, Proving
from llmdyno.tune.race import race
from llmdyno.tune.spec import Study
from llmdyno.tune.steps import account, as_step


class Runner(Budgeted):
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
        super().__init__(study, Ledger(folder), stack)
        self.folder = folder
        self._narrator = narrator
        self._presence: Presence | None = None
        self._elsewhere = False
        self.called = ""  # in a study over several, the engine and front that it measures
        # Has the other runs of the pairs: in a study over engines each side has its own ledger.
        self.partner: Ledger | None = None

    def begin(self, presence: Presence, *, elsewhere: bool = False, hosts: bool = False) -> None:
        """Read the ledger again, now that nobody else appends to it; begin it if it is new.

        Args:
            presence: tells of other studies on this machine.
            elsewhere: whether it may go on with another engine's version, driver or machine.
            hosts: whether its trials run over hosts.

        Raises:
            UsageError: that has changed, and the study may not go on so.
        """
        self._presence, self._elsewhere = presence, elsewhere
        self.ledger = Ledger(self.folder)
        self.begin_budget()
        peaks = facts(self.stack.engine).on_cpu
        here, version = environment.describe(peaks=peaks), self.stack.engine.version()
        if self.ledger.began is None:
            self.ledger.append(
                Began(
                    study=self.folder.resolve().name,
                    spec=self.study,
                    environment=here,
                    engine_version=version,
                    hosts=hosts,
                )
            )
            return
        self._narrator.observe(self.ledger)
        going_on.check_place(self.ledger, here, version, elsewhere=elsewhere, say=self.say)
        going_on.check_knobs(self.ledger, self.stack.knobs, version)
        going_on.take_back_gone(self.ledger, self.say)
        blame.give_back(self.ledger, self.stack.knobs, self.say)  # it was stopped before that
        if changes := going_on.changes(self.ledger, self.study):
            said = ", ".join(going_on.told(self.study, name) for name in changes)
            self.ledger.append(Event(kind="extended", why=said, changes=changes))

    def _version_now(self) -> str | None:
        """Return the engine's version.

        Raises:
            DynoError: it was there when the study began, and cannot be found any more.
        """
        try:
            return self.stack.engine.version()
        except HomeError as error:
            again = commands.resume(self.folder)
            raise DynoError(f"{error} The study had begun: go on with: {again}") from error

    def look_around(self) -> None:
        """See whether a server that is started now can be compared with those before.

        Other studies that run on this machine are warned of, each once, and written down.

        Raises:
            DynoError: the engine was replaced by another version, and the study may not go on so.
            StorageError: the study's folder is not there any more.
        """
        self.ledger.see_that_it_is_there()
        going_on.check_version(
            self.ledger,
            self._version_now(),
            elsewhere=self._elsewhere,
            say=self.say,
            partner=self.partner,
        )
        for other in self._presence.others() if self._presence is not None else ():
            why = f"{Path(other.folder).name} (process {other.pid})"
            if any(event.kind == "beside" and event.why == why for event in self.ledger.events):
                continue
            self.ledger.append(Event(kind="beside", why=why))
            self.say(
                f"! Another study runs on this machine, in {other.folder} (process {other.pid}):"
                " both measure each other's load. Stop one of them."
            )

    def ended(
        self, why: Literal["budget", "space", "patience", "hand"], gain: float | None = None
    ) -> None:
        """Write down why there will be no further trial, and what the next was to gain."""
        if not self.ledger.ended(why):
            self.ledger.append(Event(kind="ended", why=why, gain=gain))

    def settle(self) -> None:
        """Write down that every would-be winner was tried, and none is one."""
        if not self.ledger.settled:
            self.ledger.append(Event(kind="settled", why="no config is left to confirm"))

    def enough(self) -> bool:
        """Tell whether a person has ended the trials, now or before the study was stopped.

        Of a study over several engines the ledger of the whole knows.
        """
        alone = self.over is None
        return self._narrator.enough() or (alone and self.ledger.ended("hand"))

    def say(self, line: str) -> None:
        """Tell a person what goes on."""
        self._narrator.notify(line)

    def foretell(self, outlook: Outlook) -> None:
        """Tell a person what is tried next, and how the study stands."""
        self._narrator.foretell(outlook)

    def foretell_proof(self, comes: str, left_s: float) -> None:
        """Tell a person what of the proof comes next, and how long the study will go on."""
        self._narrator.foretell_proof(Proving(comes=comes, left_s=left_s))

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
        contender: int = 0,
    ) -> Step:
        """Measure one checked config, unless the ledger has it already.

        One that has worked before and fails now is tried once more; and again if the baseline is
        started then and fails at first, too: the machine was broken, and has mended by itself.

        Raises:
            ServerError: the machine is at fault, not the config. The ledger says so, and what
                failed is measured when the study goes on.
        """
        done = self.ledger.find(phase, number, contender)
        if done is not None and not self.is_open(done):
            return done
        worked = blame.has_worked(self.ledger, config, self.stack.knobs)
        step = self._measured(phase, number, config, load, knob, contender)
        if step.state != "failed":
            return step
        if worked:
            self.say("  This config has worked before; it is tried once more.")
            step = self._measured(phase, number, config, load, knob, contender)
            if step.state == "failed" and self._judge(step):
                self.say("  The baseline had failed with it; it is tried a last time.")
                step = self._measured(phase, number, config, load, knob, contender)
                if step.state == "failed":
                    self._judge(step)
        elif phase == "trial" and blame.looks_broken(self.ledger):
            self.check_machine()
        return step

    def is_open(self, step: Step) -> bool:
        """Tell whether a step is to be measured again: it failed, or its pair is torn."""
        failed = blame.is_open(self.ledger, step, self.study.baseline, self.stack.knobs)
        return failed or blame.is_half(self.ledger, step, self.partner)

    def check_machine(self) -> bool:
        """Start the baseline once more if all has failed since something was measured.

        Returns:
            Whether it failed at first, and worked when it was tried once more. The trials that
            failed before it are void then.

        Raises:
            ServerError: the baseline fails too: the machine is at fault.
        """
        if not blame.failed_last(self.ledger):
            return False
        self.say("The baseline is started to see whether the machine still works.")
        step = self.step("check", self.ledger.next_check, self.study.baseline, self.trial_load())
        blame.give_back(self.ledger, self.stack.knobs, self.say)
        return len(self.ledger.tries(key(step))) > 1

    def see_that_it_is_mended(self) -> None:
        """Start the baseline if nothing was measured since the machine failed.

        A study that goes on may have nothing left to measure, and must not say for ever that it
        stopped.

        Raises:
            ServerError: the machine fails still.
        """
        if self.ledger.stopped is None:
            return
        self.say("The machine had failed; the baseline is started to see whether it works now.")
        self.step("check", self.ledger.next_check, self.study.baseline, self.trial_load())

    def named(self, config: Mapping[str, Value]) -> str:
        """Return what a config is called in a line: what it sets otherwise than the baseline."""
        return told(config, self.study.baseline)

    def _judge(self, step: Step) -> bool:
        """Find whose fault it is that a config has failed twice that had worked.

        Returns:
            Whether the baseline failed at first, too: the config's failures tell nothing then.
        """
        is_baseline = same(step.config, self.study.baseline, self.stack.knobs)
        if not is_baseline and step.failure_class not in blame.MACHINES:
            return self.check_machine()
        why = f"{self.named(step.config)} has worked, and failed twice in a row now"
        raise blame.stopped(self.ledger, f"{why} {blame.said(step)}", step)

    def _measured(
        self,
        phase: Phase,
        number: int,
        config: Mapping[str, Value],
        load: Load,
        knob: str,
        contender: int,
    ) -> Step:
        name = label(phase, number)
        measurement = unstopped(lambda: self._run(phase, name, config, load), name, self.say)
        whole = load == self.whole_load()
        return self.record(
            measurement, phase, number, config, knob=knob, contender=contender, whole=whole
        )

    def _run(self, phase: Phase, name: str, config: Mapping[str, Value], load: Load) -> Measurement:
        """Measure a config on a fresh server, in a folder of its own."""
        self.look_around()
        run = self.folder / "runs" / store.new_id(name)
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
            race=race(self.study, self.ledger, self.folder, load) if phase == "trial" else None,
            report_progress=self._narrator.display(name, load.points),
            notify=self._narrator.notify_waiting,
        )
        return msgspec.structs.replace(measurement, folder=str(run.relative_to(self.folder)))

    def record(
        self,
        measurement: Measurement,
        phase: Phase,
        number: int,
        config: Mapping[str, Value],
        *,
        knob: str = "",
        contender: int = 0,
        whole: bool = False,
        **beside: Any,
    ) -> Step:
        """Append to the ledger what came of a config, and tell it.

        Args:
            measurement: of it.
            phase: of the study.
            number: within the phase.
            config: that was measured.
            knob: that an ablation takes back.
            contender: which would-be winner it is of.
            whole: whether it was measured alone at every level, each as long as it is to be.
            beside: of one that ran beside others: the step's `beside`, `device` and `wall_s`.
        """
        step = as_step(self.study, measurement, phase, number, config, knob)
        step = msgspec.structs.replace(
            step,
            contender=contender,
            whole=whole,
            place=self.ledger.place,
            sitting=self._presence.sitting if self._presence is not None else "",
            **beside,
        )
        self.ledger.append(step)
        said = ", ".join(one for one in (self.called, self.named(config)) if one)
        came = account(self.study, step, said)
        where = f" on {step.device}" if step.device else ""
        self._narrator.notify(f"  {label(phase, number)}{where}: {came}")
        self._narrator.observe(self.ledger)
        return step
