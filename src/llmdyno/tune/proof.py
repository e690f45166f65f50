"""The proof of a study: the best config in full, in pairs against the baseline, knob by knob."""

from collections.abc import Callable, Mapping

from llmdyno.knobs import Value
from llmdyno.tune.ablation import Ablation
from llmdyno.tune.ledger import Step
from llmdyno.tune.runner import Runner
from llmdyno.units import counted


class Proof:
    """The phases of a study that decide; only they are believed.

    Args:
        runner: measures the runs.
        admits: whether a config may win, by its answers.
    """

    def __init__(
        self, runner: Runner, *, admits: Callable[[Mapping[str, Value]], bool] = lambda _: True
    ) -> None:
        self._runner = runner
        self._admits = admits

    def best(self, reference: Step) -> Step | None:
        """Measure the best config at every number of users; if it fails there, the next best.

        Returns None if no trial that can be served at every level beats the baseline.
        """
        for number, candidate in enumerate(self._better_than(reference)):
            if not self._admits(candidate.config):
                continue
            step = self._runner.step("best", number, candidate.config, self._runner.whole_load())
            if step.state == "measured":
                return step
        return None

    def _better_than(self, reference: Step) -> list[Step]:
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
        return sorted(measured, key=rank, reverse=True)

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
        """Find out which of the changed knobs make the difference."""
        Ablation(self._runner, before, after).run()
