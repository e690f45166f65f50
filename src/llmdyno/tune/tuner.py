"""The tuner: baseline → trials → best → confirmation → ablation → document.

`Tuner.run` reads like that sentence. Every config gets a fresh server. Every step is in the ledger
before the next one begins, so a study that was stopped, killed or crashed goes on with `--resume`.
Trials are compared at the largest number of users, with each other and with the baseline measured
in the same way. The winner is then measured against the baseline in interleaved pairs (ABBA),
because a machine drifts, and because the best of many noisy numbers is partly luck: only the
confirmation is believed.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from llmdyno import store, workload
from llmdyno.errors import ServerError
from llmdyno.fronts import check_load
from llmdyno.search.samplers import Searching, sampler
from llmdyno.tune import objectives
from llmdyno.tune.candidates import checked_candidates, describe
from llmdyno.tune.folder import stack_of, write_study
from llmdyno.tune.ledger import Step
from llmdyno.tune.proof import Proof
from llmdyno.tune.runner import Narrator, Runner
from llmdyno.tune.search import space
from llmdyno.tune.spec import Study
from llmdyno.tune.starts import learnt
from llmdyno.tune.study import study_document
from llmdyno.tune.trials import Trials


class Tuner:
    """Runs one study in one folder; making one checks the study and writes nothing.

    Args:
        study: what is tuned.
        folder: of the study; one that was stopped is resumed.
        narrator: gets the lines for people.
        make_search: makes what proposes configs, instead of the study's sampler; it takes the
            arguments of `search.memory.Memory`.

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
        make_search: Callable[..., Searching] | None = None,
    ) -> None:
        objectives.check(study)
        stack = self.stack = stack_of(study)
        stack.check(study.baseline)
        stack.check_served(study.baseline)
        workload.check(study.workload, study.load)
        check_load(stack.front, study.baseline, streams=True)
        stack.require_engine()
        searched = space(
            stack.knobs,
            only=study.search,
            allow_altered_output=study.allow_altered_output,
            baseline=study.baseline,
        )
        candidates = checked_candidates(study, stack, searched)
        candidates += learnt(study, stack, searched, candidates, going_on=folder.is_dir())
        self._runner = Runner(study, folder, stack, narrator)
        self._trials = Trials(
            self._runner, searched, candidates, make_search or sampler(study.sampler)
        )
        self._proof = Proof(self._runner)

    def run(self) -> dict[str, Any]:
        """Run the study, or what is left of it, and return its document.

        Raises:
            UsageError: another process runs it.
            ServerError: the baseline cannot be measured, or has no value of the objective.
            InterruptError: the user stopped it; study.json holds what there is.
            StorageError: results cannot be written.
        """
        runner = self._runner
        store.make_folder(runner.folder)
        with store.hold(runner.folder):
            runner.begin()
            try:
                baseline = self._baseline()
                reference = self._reference(baseline)
                self._trials.run(reference)
                best = self._proof.best(reference, self._trials.expected)
                if best is not None:
                    self._proof.confirm(baseline.config, best.config)
                    self._proof.ablate(baseline.config, best.config)
            finally:
                document = study_document(runner.folder, runner.ledger, self.stack)
                document = write_study(runner.folder, document, self.stack)
        return document

    # How the baseline is measured.

    def _baseline(self) -> Step:
        runner, study = self._runner, self._runner.study
        runner.say(
            f"Baseline: {describe(study.baseline)}."
            if study.baseline
            else "Baseline: the engine's own defaults."
        )
        step = runner.step("baseline", 0, study.baseline, runner.whole_load())
        if step.state != "measured":
            raise ServerError(
                step.failure_class or "died",
                f"the baseline cannot be measured ({step.failure_class}): {step.failure_why}",
            )
        objectives.require_value(study, step.value, of="the baseline", flag="--duration")
        return step

    def _reference(self, baseline: Step) -> Step:
        """Measure the baseline as a trial is measured, where that differs.

        A server that ran lower levels first is warmer: its prefix cache holds more.
        """
        runner, ledger = self._runner, self._runner.ledger
        load = runner.trial_load()
        begun = bool(ledger.of("trial"))  # by a version that knew no reference
        if load == runner.whole_load() or (begun and ledger.find("reference", 0) is None):
            return baseline
        step = runner.step("reference", 0, baseline.config, load)
        if step.state != "measured":
            return baseline
        objectives.require_value(
            runner.study, step.value, of="the reference", flag="--trial-duration"
        )
        return step
