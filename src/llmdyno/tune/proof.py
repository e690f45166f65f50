"""The proof of a study: the best config in full, in pairs against the baseline, knob by knob."""

from collections.abc import Callable, Mapping, Sequence

from llmdyno.errors import UsageError
from llmdyno.knobs import Value
from llmdyno.tune.candidates import changed
from llmdyno.tune.ledger import Step
from llmdyno.tune.runner import Runner
from llmdyno.units import counted

Expected = Callable[[Sequence[Step]], list[float] | None]

_ABLATION_BUDGET_SHARE = 0.8  # past this much of the budget, no ablation starts


class Proof:
    """The phases of a study that decide; only they are believed.

    Args:
        runner: measures the runs.
    """

    def __init__(self, runner: Runner) -> None:
        self._runner = runner

    def best(self, reference: Step, expected: Expected) -> Step | None:
        """Measure the best config at every number of users; if it fails there, the next best.

        Args:
            reference: the baseline as a trial is measured.
            expected: ranks trials by all that the search has learnt; one lucky measurement
                makes no winner then. None: by their values.

        Returns None if no trial that can be served at every level beats the baseline.
        """
        for number, candidate in enumerate(self._better_than(reference, expected)):
            step = self._runner.step("best", number, candidate.config, self._runner.whole_load())
            if step.state == "measured":
                return step
        return None

    def _better_than(self, reference: Step, expected: Expected) -> list[Step]:
        """Return the trials that beat the baseline, best first.

        A trial that meets the SLOs comes before one that does not, whatever their values.
        """
        sign = 1.0 if self._runner.study.objective.maximise else -1.0

        def rank(step: Step) -> tuple[bool, float]:
            return step.slo_met is not False, sign * (step.value or 0.0)

        measured = [
            step
            for step in self._runner.ledger.of("trial")
            if step.state == "measured" and step.value is not None and rank(step) > rank(reference)
        ]
        measured.sort(key=rank, reverse=True)
        ranks = expected(measured)
        if ranks is None:
            return measured
        known = {step.number: place for step, place in zip(measured, ranks, strict=True)}
        return sorted(
            measured, key=lambda step: (step.slo_met is not False, known[step.number]), reverse=True
        )

    def confirm(self, before: Mapping[str, Value], after: Mapping[str, Value]) -> None:
        """Measure both configs in turn, A B B A …, each time on a fresh server."""
        self._runner.say(f"Confirmation: {counted(self._runner.study.pairs, 'interleaved pair')}.")
        for pair in range(self._runner.study.pairs):
            arms = (before, after) if pair % 2 == 0 else (after, before)
            for place, config in enumerate(arms):
                self._runner.step(
                    "confirm", 2 * pair + place, config, self._runner.trial_load(confirm=True)
                )

    def ablate(self, before: Mapping[str, Value], after: Mapping[str, Value]) -> None:
        """Undo one changed knob at a time, each time beside a fresh run of the winner."""
        load = self._runner.trial_load(confirm=True)
        for number, name in enumerate(changed(before, after)):
            if self._runner.over_budget(_ABLATION_BUDGET_SHARE):
                self._runner.say("The budget is nearly used up; the ablation ends here.")
                return
            config = self._without(name, before, after)
            if config is not None:
                for place, arm in enumerate((config, after)):
                    self._runner.step("ablation", 2 * number + place, arm, load, knob=name)

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
