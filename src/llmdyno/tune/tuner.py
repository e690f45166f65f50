"""The tuner: baseline → trials → best → confirmation → ablation → document.

`Tuner.run` reads like that sentence. Every config gets a fresh server. Every step is in the ledger
before the next one begins, so a study that was stopped, killed or crashed goes on with `--resume`.
Trials are compared at the largest number of users, with each other and with the baseline measured
in the same way. The winner is then measured against the baseline in interleaved pairs (ABBA),
because a machine drifts, and because the best of many noisy numbers is partly luck: only the
confirmation is believed.
"""

from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from time import monotonic
from typing import Any

import msgspec

from llmdyno import store, workload
from llmdyno.errors import ServerError, UsageError
from llmdyno.fronts import check_load
from llmdyno.knobs import Knob, Value
from llmdyno.load.progress import Progress
from llmdyno.machine import environment
from llmdyno.spec import Load
from llmdyno.tune import objectives
from llmdyno.tune.candidates import changed, checked_candidates, describe
from llmdyno.tune.folder import stack_of, write_study
from llmdyno.tune.ledger import Began, Ledger, Phase, Step
from llmdyno.tune.measure import Measurement, measure
from llmdyno.tune.search import Search, space
from llmdyno.tune.spec import Study
from llmdyno.tune.steps import as_step, excess, outcome
from llmdyno.tune.study import study_document
from llmdyno.units import counted
from llmdyno.wire.exchange import Meter

# Configs that are refused before a server starts cost nothing. They do not count as trials, up to
# so many times the number of trials.
_INFEASIBLE_FACTOR = 3
_ABLATION_BUDGET_SHARE = 0.8  # past this much of the budget, no ablation starts


class Narrator(msgspec.Struct, frozen=True, kw_only=True):
    """How a study tells a person what goes on."""

    notify: Callable[[str], None]  # of a step that ended, or of one that begins
    notify_waiting: Callable[[str], None]  # while a server starts
    # Takes a run's name and the loads of its levels, and returns what shows the run's progress.
    display: Callable[[str, Sequence[float]], Callable[[Progress, Meter], None]]


class Tuner:
    """Runs one study in one folder; making one checks the study and writes nothing.

    Args:
        study: what is tuned.
        folder: of the study; one that was stopped is resumed.
        narrator: gets the lines for people.
        make_search: makes what proposes configs; it takes the arguments of Search.

    Raises:
        UsageError: the study cannot be run as it is.
        StorageError: the folder holds a ledger that cannot be read.
    """

    def __init__(
        self,
        study: Study,
        folder: Path,
        narrator: Narrator,
        *,
        make_search: Callable[..., Search] = Search,
    ) -> None:
        self._study = study
        self._folder = folder
        self._narrator = narrator
        self._make_search = make_search
        objectives.check(study)
        self.stack = stack_of(study)
        self.knobs: tuple[Knob, ...] = (*self.stack.engine.knobs, *self.stack.front.knobs)
        self.stack.check(study.baseline)
        self.stack.check_served(study.baseline)
        workload.check(study.workload, study.load)
        check_load(self.stack.front, study.baseline, streams=True)
        self.stack.require_engine()
        self._space = space(
            self.knobs,
            only=study.search,
            allow_altered_output=study.allow_altered_output,
            baseline=study.baseline,
        )
        self._candidates = checked_candidates(study, self.stack, self._space)
        self._ledger = Ledger(folder)
        self._began_s = self._spent_before_s = 0.0  # known when run() begins

    def run(self) -> dict[str, Any]:
        """Run the study, or what is left of it, and return its document.

        Raises:
            UsageError: another process runs it.
            ServerError: the baseline cannot be measured, or has no value of the objective.
            InterruptError: the user stopped it; study.json holds what there is.
            StorageError: results cannot be written.
        """
        store.make_folder(self._folder)
        with store.hold(self._folder):
            self._begin()
            try:
                baseline = self._baseline()
                reference = self._reference(baseline)
                self._search()
                best = self._best(reference)
                if best is not None:
                    self._confirm(baseline.config, best.config)
                    self._ablate(baseline.config, best.config)
            finally:
                document = study_document(self._folder, self._ledger, self.stack)
                document = write_study(self._folder, document, self.stack)
        return document

    # The steps.

    def _begin(self) -> None:
        self._began_s = monotonic()
        self._ledger = Ledger(self._folder)  # again, now that nobody else appends to it
        self._spent_before_s = sum(
            step.build_s + step.start_s + step.measure_s for step in self._ledger.steps
        )
        if self._ledger.began is None:
            self._ledger.append(
                Began(
                    study=self._folder.resolve().name,
                    spec=self._study,
                    environment=environment.describe(),
                    engine_version=self.stack.engine.version(),
                )
            )

    def _baseline(self) -> Step:
        self._narrator.notify(
            "Baseline: the engine's own defaults."
            if not self._study.baseline
            else f"Baseline: {describe(self._study.baseline)}."
        )
        step = self._step("baseline", 0, self._study.baseline, self._whole_load())
        if step.state != "measured":
            raise ServerError(
                step.failure_class or "died",
                f"the baseline cannot be measured ({step.failure_class}): {step.failure_why}",
            )
        objectives.require_value(self._study, step.value, of="the baseline", flag="--duration")
        return step

    def _reference(self, baseline: Step) -> Step:
        """Measure the baseline as a trial is measured, where that differs.

        A server that ran lower levels first is warmer: its prefix cache holds more.
        """
        load = self._trial_load()
        begun = bool(self._ledger.of("trial"))  # by a version that knew no reference
        if load == self._whole_load() or (begun and self._ledger.find("reference", 0) is None):
            return baseline
        step = self._step("reference", 0, baseline.config, load)
        if step.state != "measured":
            return baseline
        objectives.require_value(
            self._study, step.value, of="the reference", flag="--trial-duration"
        )
        return step

    def _search(self) -> None:
        study = self._study
        searched_names = {knob.name for knob in self._space}
        search = self._make_search(
            self._space,
            trials=study.trials,
            maximise=study.objective.maximise,
            seed=study.seed,
            # A knob that the user set and the search leaves alone has that value in every trial.
            fixed={k: v for k, v in study.baseline.items() if k not in searched_names},
        )
        names = ", ".join(knob.name for knob in self._space)
        given = f", the first {len(self._candidates)} of them given" if self._candidates else ""
        self._narrator.notify(
            f"Search over {names}: {counted(study.trials, 'trial')} at {study.compared_at}{given}."
        )
        tried: list[Step] = []
        while not self._enough(tried):
            new = self._ledger.find("trial", len(tried)) is None
            if new and self._over_budget(1.0):
                self._narrator.notify("The budget is used up; no further trials.")
                return
            config = self._next(search, tried)
            if config is None:
                self._narrator.notify("Every config that the search can think of has been tried.")
                return
            step = self._trial(len(tried), config)
            if step.config != config:  # done before a stop, by another version of the search
                search.give(step.config)
            search.tell(step.value, excess(self._study, self._folder, step))
            tried.append(step)

    def _next(self, search: Search, tried: Sequence[Step]) -> Mapping[str, Value] | None:
        """Return the next trial's config: a candidate while there are any, then the search's."""
        if len(tried) < len(self._candidates):
            config = self._candidates[len(tried)]
            search.give(config)
            return config
        return search.ask([self._study.baseline, *(step.config for step in tried)])

    def _trial(self, number: int, config: Mapping[str, Value]) -> Step:
        """Measure a config that the search proposes; one that cannot work is not started.

        Candidates were checked when the tuner was made.
        """
        if number >= len(self._candidates) and self._ledger.find("trial", number) is None:
            try:
                self.stack.check(config)
            except UsageError as error:
                infeasible = Measurement(
                    failure_class="predicted-infeasible", failure_why=str(error)
                )
                return self._record(infeasible, "trial", number, config)
        return self._step("trial", number, config, self._trial_load())

    def _enough(self, tried: Sequence[Step]) -> bool:
        started = sum(step.state != "predicted-infeasible" for step in tried)
        return started >= self._study.trials or len(tried) >= (
            _INFEASIBLE_FACTOR * self._study.trials
        )

    def _best(self, reference: Step) -> Step | None:
        """Measure the best config at every number of users; if it fails there, the next best.

        Returns None if no trial that can be served at every level beats the baseline.
        """
        for number, candidate in enumerate(self._better_than(reference)):
            step = self._step("best", number, candidate.config, self._whole_load())
            if step.state == "measured":
                return step
        return None

    def _better_than(self, reference: Step) -> list[Step]:
        """Return the trials that beat the baseline, best first.

        A trial that meets the SLOs comes before one that does not, whatever their values.
        """
        sign = 1.0 if self._study.objective.maximise else -1.0

        def rank(step: Step) -> tuple[bool, float]:
            return step.slo_met is not False, sign * (step.value or 0.0)

        measured = [
            step
            for step in self._ledger.of("trial")
            if step.state == "measured" and step.value is not None and rank(step) > rank(reference)
        ]
        return sorted(measured, key=rank, reverse=True)

    def _confirm(self, before: Mapping[str, Value], after: Mapping[str, Value]) -> None:
        """Measure both configs in turn, A B B A …, each time on a fresh server."""
        self._narrator.notify(f"Confirmation: {counted(self._study.pairs, 'interleaved pair')}.")
        for pair in range(self._study.pairs):
            arms = (before, after) if pair % 2 == 0 else (after, before)
            for place, config in enumerate(arms):
                self._step("confirm", 2 * pair + place, config, self._trial_load(confirm=True))

    def _ablate(self, before: Mapping[str, Value], after: Mapping[str, Value]) -> None:
        """Undo one changed knob at a time, each time beside a fresh run of the winner."""
        load = self._trial_load(confirm=True)
        for number, name in enumerate(changed(before, after)):
            if self._over_budget(_ABLATION_BUDGET_SHARE):
                self._narrator.notify("The budget is nearly used up; the ablation ends here.")
                return
            config = self._without(name, before, after)
            if config is not None:
                for place, arm in enumerate((config, after)):
                    self._step("ablation", 2 * number + place, arm, load, knob=name)

    def _without(
        self, name: str, before: Mapping[str, Value], after: Mapping[str, Value]
    ) -> dict[str, Value] | None:
        """Return the winner with one knob as it was, or None if that cannot be served."""
        config = {knob: value for knob, value in after.items() if knob != name}
        if name in before:
            config[name] = before[name]
        dependents = {knob.name for knob in self.knobs if knob.needs and knob.needs[0] == name}
        config = {knob: value for knob, value in config.items() if knob not in dependents}
        try:
            self.stack.check(config)
        except UsageError:
            return None
        return config

    def _step(
        self,
        phase: Phase,
        number: int,
        config: Mapping[str, Value],
        load: Load,
        *,
        knob: str = "",
    ) -> Step:
        """Measure one checked config, unless the ledger has it already."""
        done = self._ledger.find(phase, number)
        if done is not None and not (phase == "baseline" and done.state == "failed"):
            return done
        label = _label(phase, number)
        run = self._folder / "runs" / store.new_id(label)
        measurement = measure(
            self.stack,
            config,
            workload=self._study.workload,
            load=load,
            slos=self._study.slos,
            price_per_h=self._study.price_per_h,
            hang_s=self._study.hang_s,
            warmup_s=self._study.warmup_s,
            folder=run,
            calibration=phase == "baseline",  # the machine is one for the whole study
            report_progress=self._narrator.display(label, load.points),
            notify=self._narrator.notify_waiting,
        )
        measurement = msgspec.structs.replace(
            measurement, folder=str(run.relative_to(self._folder))
        )
        return self._record(measurement, phase, number, config, knob=knob)

    def _record(
        self,
        measurement: Measurement,
        phase: Phase,
        number: int,
        config: Mapping[str, Value],
        *,
        knob: str = "",
    ) -> Step:
        """Append to the ledger what came of a config, and tell it."""
        step = as_step(self._study, measurement, phase, number, config, knob)
        self._ledger.append(step)
        told = f"{outcome(self._study, step)}  {describe(config)}"
        self._narrator.notify(f"  {_label(phase, number)}: {told}")
        return step

    def _whole_load(self) -> Load:
        """Return the load at which a config is measured in full."""
        return self._lasting(self._study.load, self._study.load.duration_s)

    def _trial_load(self, *, confirm: bool = False) -> Load:
        """Return the load of a trial: the largest number of users only, and a shorter run."""
        load = msgspec.structs.replace(self._study.load, users=(self._study.level,))
        return self._lasting(load, load.duration_s if confirm else self._study.trial_duration_s)

    def _lasting(self, load: Load, duration_s: float) -> Load:
        """Return a load of this duration; of a trace the requests that are due within it."""
        load = msgspec.structs.replace(load, duration_s=duration_s)
        if load.arrival != "trace":
            return load
        asked = self._study.workload
        due_s = workload.due_s(workload.load(asked.name), asked)
        return msgspec.structs.replace(load, requests=max(1, bisect_right(due_s, duration_s)))

    def _over_budget(self, share: float) -> bool:
        budget_s = self._study.budget_s
        if budget_s is None:
            return False
        return self._spent_before_s + monotonic() - self._began_s > share * budget_s


def _label(phase: Phase, number: int) -> str:
    """Return what a step is called: "baseline", "trial 3"."""
    return phase if phase in {"baseline", "reference"} else f"{phase} {number + 1}"
