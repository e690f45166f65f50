"""The trials of a study: candidates first, then what the search proposes."""

from collections.abc import Callable, Mapping, Sequence

from llmdyno.errors import UsageError
from llmdyno.knobs import Knob, Value
from llmdyno.search.samplers import Searching
from llmdyno.tune import blame
from llmdyno.tune.candidates import effective
from llmdyno.tune.endings import enough
from llmdyno.tune.entries import Step
from llmdyno.tune.measure import Measurement
from llmdyno.tune.patience import Patience
from llmdyno.tune.remaining import outlook
from llmdyno.tune.runner import Runner
from llmdyno.tune.starts import begin, suggested
from llmdyno.tune.steps import error_of, excess
from llmdyno.tune.whole_prompts import check_prompt, longest_prompt
from llmdyno.units import counted


class Trials:
    """The phase of a study that looks for a better config.

    Args:
        runner: measures what is proposed.
        space: the knobs that are searched.
        candidates: configs to try first; they are checked.
        make_search: makes what proposes configs; it takes the arguments of
            `search.memory.Memory`.
        whys: why each candidate is tried, in words.
    """

    def __init__(
        self,
        runner: Runner,
        space: Sequence[Knob],
        candidates: Sequence[Mapping[str, Value]],
        make_search: Callable[..., Searching],
        *,
        whys: Sequence[str] = (),
    ) -> None:
        self._runner = runner
        self._space = space
        self._candidates = candidates
        self._make_search = make_search
        self._whys = [*whys, *(["given"] * (len(candidates) - len(whys)))]
        self._search: Searching | None = None
        self._has_read = False  # what the reference says of the load

    def expected(self, steps: Sequence[Step]) -> list[float] | None:
        """Return a number a measured trial that ranks them, larger is better, by what was learnt.

        Returns:
            None if the search has no such opinion.
        """
        ranked = getattr(self._search, "expected", None)
        if ranked is None or not steps:
            return None
        found: list[float] | None = ranked([step.config for step in steps])
        return found

    def run(self, reference: Step | None) -> None:
        """Try configs until there were enough, or the budget or the space is used up.

        Args:
            reference: the baseline as a trial is measured; the search knows it first.
        """
        runner = self._runner
        self._announce()
        if reference is not None:
            self._read_reference(reference)
        if blame.is_suspect(runner.ledger):  # it was stopped before that was looked into
            runner.check_machine()
        mended = -1
        while mended != runner.ledger.mended:  # a search cannot forget what it was told
            mended = runner.ledger.mended
            self._try(reference, mended)

    def _try(self, reference: Step | None, mended: int) -> None:
        """Try configs with a new search, which knows all trials that count.

        It ends when there were enough, or when trials are to be measured again: the machine, which
        let them fail, has mended once more than `mended` times.
        """
        study = self._runner.study
        search = self._search = self._new_search(study.seed)
        if reference is not None:
            begin(search, self._runner, reference)
        tried: list[Step] = []
        patience = Patience(study, reference)
        while not self._enough(tried):
            new = self._runner.ledger.find("trial", len(tried)) is None
            if new and ended_from_outside(self._runner):
                return
            config = self._next(search, tried)
            if config is None:
                self._runner.say("Every config that the search can think of has been tried.")
                self._runner.ended("space")
                return
            if len(tried) >= len(self._candidates) and patience.ends(search, tried) and new:
                self._runner.say(patience.said)
                self._runner.ended("patience", patience.gain)
                return
            if new:
                self._look_ahead(config, len(tried))
            step = self._trial(len(tried), config)
            if self._runner.ledger.mended > mended:
                return
            if step.config != config:  # done before a stop, by another version of the search
                search.give(step.config)
            self._tell(search, step)
            tried.append(step)

    def _new_search(self, seed: int) -> Searching:
        """Return a search that knows nothing yet."""
        study = self._runner.study
        searched_names = {knob.name for knob in self._space}
        return self._make_search(
            self._space,
            trials=study.trials,
            maximise=study.objective.maximise,
            seed=seed,
            # A knob that the user set and the search leaves alone has that value in every trial.
            fixed={k: v for k, v in study.baseline.items() if k not in searched_names},
        )

    def _announce(self) -> None:
        """Tell what is searched, and how many trials there will be."""
        study = self._runner.study
        names = ", ".join(knob.name for knob in self._space)
        given = f", the first {len(self._candidates)} of them given" if self._candidates else ""
        self._runner.say(
            f"Search over {names}: {counted(study.trials, 'trial')} at {study.compared_at}{given}."
        )

    def _read_reference(self, reference: Step) -> None:
        """Take what the reference run says of the load, and what to try first for it."""
        if self._has_read:
            return
        self._has_read = True
        configs, why = suggested(self._runner, reference, self._space, self._candidates)
        self._candidates = [*self._candidates, *configs]
        self._whys = [*self._whys, *[why] * len(configs)]

    def _tell(self, search: Searching, step: Step) -> None:
        missed = excess(self._runner.study, self._runner.folder, step)
        if step.state == "pruned":
            search.tell(
                step.value, missed, error_of(step, maximise=self._runner.study.objective.maximise)
            )
        else:
            search.tell(step.value, missed)

    def _look_ahead(self, config: Mapping[str, Value], number: int) -> None:
        """Tell what is tried next and why, and how the study stands."""
        self._runner.foretell(outlook(self._runner, number, config, self._why(number)))

    def _why(self, number: int) -> str:
        """Say why a trial is made, by who named it."""
        if number < len(self._candidates):
            return self._whys[number]
        return getattr(self._search, "reason", "")

    def _next(self, search: Searching, tried: Sequence[Step]) -> Mapping[str, Value] | None:
        """Return the next trial's config: a candidate while there are any, then the search's."""
        if len(tried) < len(self._candidates):
            config = self._candidates[len(tried)]
            search.give(config)
            return config
        known = [self._runner.study.baseline, *(step.config for step in tried)]
        return search.ask([self._as_proposed(config) for config in known])

    def _as_proposed(self, config: Mapping[str, Value]) -> dict[str, Value]:
        """Return a config as the search writes it: without a searched knob's own default."""
        names = {knob.name for knob in self._space}
        takes_effect = effective(config, self._runner.stack.knobs)
        return {k: v for k, v in config.items() if k in takes_effect or k not in names}

    def _trial(self, number: int, config: Mapping[str, Value]) -> Step:
        """Measure a config that the search proposes; one that cannot work is not started."""
        if self._runner.ledger.find("trial", number) is None:
            why = self._refused(number, config)
            if why is not None:
                infeasible = Measurement(failure_class="predicted-infeasible", failure_why=why)
                return self._runner.record(infeasible, "trial", number, config)
        return self._runner.step("trial", number, config, self._runner.trial_load())

    def _refused(self, number: int, config: Mapping[str, Value]) -> str | None:
        """Say why a config cannot work, by what is known before a start; None: it may.

        Candidates were checked when the tuner was made.
        """
        if number < len(self._candidates):
            return None
        runner = self._runner
        try:
            runner.stack.check(config)
            check_prompt(runner.stack, config, longest_prompt(runner.folder, runner.ledger.steps))
        except UsageError as error:
            return str(error)
        return None

    def _enough(self, tried: Sequence[Step]) -> bool:
        infeasible = sum(step.state == "predicted-infeasible" for step in tried)
        return enough(len(tried), infeasible, self._runner.study.trials)


def ended_from_outside(runner: Runner) -> bool:
    """Tell whether the budget or a person ends the trials; if so, write it down and say it."""
    if _has_no_time(runner):
        runner.ended("budget")
    elif runner.enough():
        runner.say("Ended by hand; no further trials.")
        runner.ended("hand")
    else:
        return False
    return True


def _has_no_time(runner: Runner) -> bool:
    """Tell whether the budget has no room for another trial, and say so."""
    budget = "The budget" if runner.left is None else "Its part of the budget"
    if runner.over_budget(1.0):
        runner.say(f"{budget} is used up; no further trials.")
        return True
    takes_s, kept_s = runner.trial_s(), 0.0
    if any(step.state == "measured" for step in runner.ledger.of("trial")):
        kept_s = runner.kept_s()
    if takes_s + kept_s <= runner.left_s():
        return False
    beside = f"; {kept_s:.0f} s are kept for the proof" if kept_s else ""
    runner.say(f"{budget} has no time for another trial, which takes {takes_s:.0f} s{beside}.")
    return True


def given_up(runner: Runner) -> bool:
    """Tell whether nothing that runs elsewhere is waited for any longer, while nobody is there."""
    ledger = runner.ledger
    return ledger.ended("budget") or ledger.ended("hand") or ended_from_outside(runner)
