"""The tuner: baseline → trials → best → confirmation → ablation → document.

`Tuner.run` reads like that sentence. Every config gets a fresh server. Every step is in the ledger
before the next one begins, so a study that was stopped, killed or crashed goes on with `--resume`.
Trials are compared at the largest number of users, with each other and with the baseline measured
in the same way. The winner is then measured against the baseline in interleaved pairs (ABBA),
because a machine drifts, and because the best of many noisy numbers is partly luck: only the
confirmation is believed.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

from llmdyno import store, workload
from llmdyno.errors import ServerError, StorageError
from llmdyno.fronts import check_load
from llmdyno.knobs import Value
from llmdyno.machine import open_files
from llmdyno.machine.devices import Devices
from llmdyno.quality import likelihoods, lm_eval
from llmdyno.results.configs import described
from llmdyno.search.samplers import Searching, sampler
from llmdyno.serve.stack import Stack
from llmdyno.store import LEDGER
from llmdyno.tune import commands, endings, objectives
from llmdyno.tune.ablation import died
from llmdyno.tune.alike import reference_of_lanes
from llmdyno.tune.candidates import checked_candidates
from llmdyno.tune.endings import is_left, trials_left
from llmdyno.tune.entries import Step
from llmdyno.tune.folder import stack_of, write_study
from llmdyno.tune.foreseen import foreseen
from llmdyno.tune.gate import Gate
from llmdyno.tune.hosts import Hosts
from llmdyno.tune.known_good import known_good
from llmdyno.tune.narrator import Narrator
from llmdyno.tune.neighbours import Presence
from llmdyno.tune.parallel import ParallelTrials
from llmdyno.tune.proof import Expected, Proof
from llmdyno.tune.reference import reference_of
from llmdyno.tune.rejected import misses_what_it_met
from llmdyno.tune.rivals import Rivals
from llmdyno.tune.runner import Runner
from llmdyno.tune.search import space
from llmdyno.tune.spec import Study
from llmdyno.tune.starts import learnt
from llmdyno.tune.study import study_document
from llmdyno.tune.trials import Trials
from llmdyno.tune.where import are_hosts, check_hosts

# Why a config is tried first, by what names it.
_WHYS = {
    "given": "given",
    "foreseen": "foreseen by the predictor",
    "learnt": "learnt from an earlier study",
    "known_good": "named by the engine",
}


class Tuner:
    """Runs one study in one folder; making one checks the study and writes nothing.

    Args:
        study: what is tuned.
        folder: of the study; one that was stopped is resumed.
        narrator: gets the lines for people.
        make_search: makes what proposes configs, instead of the study's sampler; it takes the
            arguments of `search.memory.Memory`.
        elsewhere: whether a study may go on with another engine's version, driver or machine.
        here: whether the study runs here: a plan of it can be made without the engine.
        hosts: where its trials run; None: on this machine.

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
        elsewhere: bool = False,
        here: bool = True,
        hosts: Hosts | None = None,
    ) -> None:
        self._elsewhere = elsewhere
        objectives.check(study)
        stack = self.stack = stack_of(study)
        stack.check(study.baseline)
        stack.check_served(study.baseline)
        workload.check(study.workload, study.load)
        check_load(stack.front, study.baseline, streams=True)
        if study.lm_eval:
            stack.require_openai(study.baseline, f"--lm-eval {','.join(study.lm_eval)}")
        if here:
            stack.require_engine()
            open_files.allow(study.load.connections, otherwise="")
            if study.lm_eval:
                lm_eval.require(study.lm_eval, study.lm_eval_args)
                likelihoods.require(study.lm_eval, study.lm_eval_args, stack.engine, study.model)
        searched = space(
            stack.knobs,
            only=study.search,
            allow_altered_output=study.tries_altered_output,
            baseline=study.baseline,
        )
        given = checked_candidates(study, stack, searched)
        going_on = (folder / LEDGER).exists()
        seen = foreseen(study, stack, searched, given)
        known = learnt(study, stack, searched, [*given, *seen], going_on=going_on)
        named = known_good(study, stack, searched, [*given, *seen, *known])
        # The configs that are tried first, by what names them.
        self.starts = {"given": given, "foreseen": seen, "learnt": known, "known_good": named}
        candidates = [*given, *seen, *known, *named]
        whys = [_WHYS[by] for by, configs in self.starts.items() for _ in configs]
        self.searched = searched
        self._runner = self.runner = Runner(study, folder, stack, narrator)
        if commands.whole_of(folder) == folder:  # of a combination the whole has seen to it
            left = here and trials_left(self._runner.ledger, study)
            check_hosts(self._runner.ledger, hosts, left=left)
        self._hosts = hosts
        # What trials that run at once share out; None: each has the whole machine, or none is left.
        self.devices: Devices | Hosts | None = hosts
        if hosts is None and not are_hosts(self._runner.ledger):
            self.devices = _devices(study, stack)
        make = make_search or sampler(study.sampler)
        tries = Trials if study.parallel == 1 else partial(ParallelTrials, self.devices)
        self._trials = tries(self._runner, searched, candidates, make, whys=whys)
        self._told: Step | None = None  # what the search knows first
        self._gate = Gate(self._runner)
        self._proof = Proof(self._runner, self._gate)

    def run(self, begins: Callable[[], None] = lambda: None) -> dict[str, Any]:
        """Run the study, or what is left of it, and return its document.

        Args:
            begins: is called when nothing hinders it any more, before the first server starts.

        Raises:
            UsageError: another process runs it, or it began in another place.
            ServerError: the baseline cannot be measured, or has no value of the objective; or the
                machine is broken, and what has worked fails. study.json says so.
            InterruptError: the user stopped it; study.json holds what there is.
            StorageError: results cannot be written.
        """
        runner = self._runner
        store.make_folder(runner.folder)
        with store.hold(runner.folder), Presence(runner.folder) as presence:
            over_hosts = self._hosts is not None
            runner.begin(presence, elsewhere=self._elsewhere, hosts=over_hosts)
            begins()
            if self._hosts is not None:
                left = trials_left(runner.ledger, runner.study)
                self._hosts.open(runner.folder, runner.ledger, runner.say, invites=left)
            try:
                while self._searches_and_proves():
                    pass
                runner.see_that_it_is_mended()
            finally:
                if self.devices is not None:
                    self.devices.show_all()
                if self._hosts is not None:
                    with suppress(StorageError):  # its own sentence is on its way, or no matter
                        self._hosts.close()
                runner.ledger.see_that_it_is_there()
                document = study_document(runner.folder, runner.ledger, self.stack)
                document = write_study(runner.folder, document, self.stack)
        return document

    def _searches_and_proves(self) -> bool:
        """Measure what is left; tell whether trials are to be measured again after that.

        So it is where the machine has failed and mended meanwhile; or before a stop that came
        between the last trial and the check that tells. Hosts have left by then: their trials are
        open until the study goes on.
        """
        runner = self._runner
        mended = runner.ledger.mended
        baseline, _ = self.measure_baseline()
        self.search()
        if self._hosts is not None:
            self._hosts.release()
        here = self._hosts is None and not are_hosts(runner.ledger)
        if here and runner.ledger.mended > mended and trials_left(runner.ledger, runner.study):
            return True
        mended = runner.ledger.mended
        self._prove(baseline)
        return here and runner.ledger.mended > mended

    def measure_baseline(self) -> tuple[Step, Step | None]:
        """Return the baseline at every level, and as a trial is measured; None: by no host.

        Raises:
            ServerError: it cannot be measured, or has no value of the objective.
        """
        baseline = self._baseline()
        self._told = self._reference(baseline)
        return baseline, self._told

    def recall_baseline(self) -> None:
        """Let the search know the baseline that was measured before, and hosts gather for it."""
        baseline = self._runner.ledger.find("baseline", 0)
        assert baseline is not None, "trials come after it"
        self._told = self._reference(baseline)

    def search(self) -> None:
        """Try configs until there were enough; the baseline was measured, or recalled."""
        runner = self._runner
        names = ", ".join(runner.study.learn_from)
        if names and not self.starts["learnt"] and not runner.ledger.of("trial"):
            runner.say(
                f"Nothing to try first is learnt from {names}: its best configs cannot be served"
                " here or are tried anyway, or no trial is left for them: at most half are."
            )
        self._trials.run(self._told)

    def _prove(self, baseline: Step) -> None:
        """Confirm the best config; if it dies or is worse, the next best."""
        runner = self._runner
        over: list[dict[str, Value]] = []
        expected = _once(self._trials.expected)
        while (found := self._best_in_pairs(baseline, over, expected)) is not None:
            best, is_tie = found
            if is_tie or self._completed(baseline, best):
                return
            over.append(best.config)
            self._say_why_not(best, self._document())
        mended = runner.ledger.mended
        runner.check_machine()  # all may have failed because it does not work any more
        if runner.ledger.mended > mended:
            return  # trials are to be measured again
        if is_left(runner.ledger, self.stack.knobs):  # the gate has let none of them win
            runner.settle()

    def _best_in_pairs(
        self, baseline: Step, over: list[dict[str, Value]], expected: Expected
    ) -> tuple[Step, bool] | None:
        """Confirm would-be winners, best first, until one stands or is a tie; None: none does.

        Whether it is a tie, so that the baseline is the best, is the other half of the answer.

        One that is better and misses the SLOs that it had met stands if no other does; see Rivals.

        Args:
            baseline: measured in full.
            over: configs that are no winners; further ones are added.
            expected: as Proof.contenders() takes it.
        """
        proof, runner = self._proof, self._runner
        reference = reference_of(runner.ledger)  # lanes may have been left out since
        assert reference is not None, "trials come after it"
        rivals = Rivals()

        def wanted(trial: Step) -> bool:
            return trial.config not in over and rivals.has(runner, trial)

        seen = []
        for best in proof.contenders(reference, expected, wanted):
            proof.confirm(baseline.config, best)
            document = self._document()
            if endings.is_tie(document, best):
                return best, True
            seen.append(best)
            is_none = any(one["config"] == best.config for one in document["rejected"])
            if not is_none and misses_what_it_met(runner.ledger, best):
                runner.say(f"  {runner.named(best.config)} misses the SLOs that it had met.")
                rivals.begin()
            elif document["best"]["config"] == best.config:
                return best, False
            else:
                over += [best.config] if is_none else []
                self._say_why_not(best, document)
        if not seen:
            return None
        stands = self._document()["best"]["config"]
        return next(((one, False) for one in seen if one.config == stands), None)

    def _say_why_not(self, best: Step, document: Mapping[str, Any]) -> None:
        whys = [one["why"] for one in document["rejected"] if one["config"] == best.config]
        self._runner.say(
            f"  {self._runner.named(best.config)} {(whys or ['does not do better'])[0]}."
        )

    def _document(self) -> dict[str, Any]:
        """Return study.json as it stands."""
        return study_document(self._runner.folder, self._runner.ledger, self.stack)

    def _completed(self, baseline: Step, best: Step) -> bool:
        """Measure what follows the pairs of a winner; tell whether it lives on."""
        proof = self._proof
        if not proof.compare_answers(best):
            return False
        proof.ablate(baseline.config, best)
        alive = died(self._runner.ledger, best, self.stack.knobs) is None
        return alive and proof.examine(best)

    # How the baseline is measured.

    def _baseline(self) -> Step:
        runner, study = self._runner, self._runner.study
        runner.say(
            f"Baseline: {described(study.baseline)}."
            if study.baseline
            else "Baseline: the engine's own defaults."
        )
        step = runner.step("baseline", 0, study.baseline, runner.whole_load())
        if step.state != "measured":
            raise ServerError(
                step.failure_class or "died",
                f"the baseline cannot be measured ({step.failure_class}):"
                f" {(step.failure_why or '').rstrip('.')}.{self._tries_again()}",
            )
        objectives.require_value(study, step.value, of="the baseline", flag="--duration")
        return step

    def _tries_again(self) -> str:
        """Say how a study without a baseline goes on; one of several stacks may go on without."""
        folder = self._runner.folder
        if commands.whole_of(folder) != folder:
            return ""
        return (
            f" Once that is mended: {commands.resume(folder)}; other settings (--set) are another"
            " study."
        )

    def _reference(self, baseline: Step) -> Step | None:
        """Measure the baseline as a trial is measured, where that differs.

        A server that ran lower levels first is warmer: its prefix cache holds more. One that has
        neighbours is slower.
        """
        runner, ledger = self._runner, self._runner.ledger
        if runner.study.parallel > 1 and not trials_left(ledger, runner.study):
            return reference_of(ledger)
        if self.devices is not None:
            return reference_of_lanes(runner, self.devices)
        load = runner.trial_load()
        begun = bool(ledger.of("trial"))  # by a version that knew no reference
        if load == runner.whole_load() or (begun and ledger.find("reference", 0) is None):
            return baseline
        step = runner.step("reference", 0, baseline.config, load)
        objectives.require_value(
            runner.study, step.value, of="the reference", flag="--trial-duration"
        )
        return step


def _devices(study: Study, stack: Stack) -> Devices | None:
    """Return what a study of several trials at once shares out; None: it has one at a time.

    Raises:
        UsageError: there are not so many GPUs or cores, or the engine does not tell what it takes.
    """
    return None if study.parallel == 1 else Devices(study.parallel, stack.gpus(study.baseline))


def _once(expected: Expected) -> Expected:
    """Return what a search expects, asked once for the same trials: to ask again changes it."""
    known: dict[tuple[int, ...], list[float] | None] = {}

    def told(steps: Sequence[Step]) -> list[float] | None:
        numbers = tuple(step.number for step in steps)
        if numbers not in known:
            known[numbers] = expected(steps)
        return known[numbers]

    return told
