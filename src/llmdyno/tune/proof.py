"""The proof of a study: the best config in full, in pairs against the baseline, knob by knob."""

from collections.abc import Iterator, Mapping

from llmdyno.errors import UsageError
from llmdyno.knobs import Value
from llmdyno.tune.candidates import changed, effective, same
from llmdyno.tune.ledger import Step
from llmdyno.tune.runner import Runner
from llmdyno.units import counted

_ABLATION_BUDGET_SHARE = 0.8  # past this much of the budget, no ablation starts


class Proof:
    """The phases of a study that decide; only they are believed.

    Args:
        runner: measures the runs.
    """

    def __init__(self, runner: Runner) -> None:
        self._runner = runner

    def contenders(self, reference: Step) -> Iterator[Step]:
        """Yield the trials that beat the baseline, best first, each measured at every level.

        One that cannot be served at every level is passed over.
        """
        for trial in self._better_than(reference):
            step = self._in_full(trial.config)
            if step.state == "measured":
                yield step

    def _in_full(self, config: Mapping[str, Value]) -> Step:
        """Measure a would-be winner at every level, unless the ledger has it."""
        runner = self._runner
        steps = runner.ledger.of("best")
        for step in steps:
            if step.config == config and not runner.is_open(step):
                return step
        # A study may have gone on with more trials: their order is another one now.
        number = 1 + max((step.number for step in steps), default=-1)
        return runner.step("best", number, config, runner.whole_load(), contender=number)

    def _better_than(self, reference: Step) -> list[Step]:
        """Return the trials that beat the baseline, best first.

        A trial that meets the SLOs comes before one that does not, whatever their values.
        """
        study, knobs = self._runner.study, self._runner.stack.knobs
        sign = 1.0 if study.objective.maximise else -1.0

        def rank(step: Step) -> tuple[bool, float]:
            return step.slo_met is not False, sign * (step.value or 0.0)

        measured = [
            step
            for step in self._runner.ledger.of("trial")
            if step.state == "measured"
            and step.value is not None
            and rank(step) > rank(reference)
            and not same(step.config, study.baseline, knobs)
        ]
        return sorted(measured, key=rank, reverse=True)

    def confirm(self, before: Mapping[str, Value], best: Step) -> None:
        """Measure both configs in turn, A B B A …, each time on a fresh server.

        It ends early when the would-be winner dies.
        """
        runner = self._runner
        runner.say(f"Confirmation: {counted(runner.study.pairs, 'interleaved pair')}.")
        for pair in range(runner.study.pairs):
            arms = (before, best.config) if pair % 2 == 0 else (best.config, before)
            for place, config in enumerate(arms):
                load = runner.trial_load(confirm=True)
                number = 2 * pair + place
                step = runner.step("confirm", number, config, load, contender=best.contender)
                if step.state == "failed":
                    return

    def ablate(self, before: Mapping[str, Value], best: Step) -> None:
        """Undo one changed knob at a time, each time beside a fresh run of the winner."""
        runner, after = self._runner, best.config
        load = runner.trial_load(confirm=True)
        takes_effect = (effective(one, runner.stack.knobs) for one in (before, after))
        for number, name in enumerate(changed(*takes_effect)):
            if runner.over_budget(_ABLATION_BUDGET_SHARE):
                runner.say("The budget is nearly used up; the ablation ends here.")
                return
            config = self._without(name, before, after)
            if config is not None:
                for place, arm in enumerate((config, after)):
                    runner.step(
                        "ablation",
                        2 * number + place,
                        arm,
                        load,
                        knob=name,
                        contender=best.contender,
                    )

    def _without(
        self, name: str, before: Mapping[str, Value], after: Mapping[str, Value]
    ) -> dict[str, Value] | None:
        """Return the winner with one knob as it was, or None if that cannot be served."""
        config = {knob: value for knob, value in after.items() if knob != name}
        if name in before:
            config[name] = before[name]
        dependents = {
            knob.name for knob in self._runner.stack.knobs if knob.needs and knob.needs[0] == name
        }
        config = {knob: value for knob, value in config.items() if knob not in dependents}
        try:
            self._runner.stack.check(config)
        except UsageError:
            return None
        return config
