"""The proof of a study: the best config in full, in pairs against the baseline, knob by knob."""

from collections.abc import Callable, Iterator, Mapping, Sequence

from llmdyno.knobs import Value
from llmdyno.tune.ablation import Ablation
from llmdyno.tune.candidates import same
from llmdyno.tune.gate import Gate
from llmdyno.tune.ledger import Step
from llmdyno.tune.pairs import Confirmation, Side
from llmdyno.tune.runner import Runner

Expected = Callable[[Sequence[Step]], list[float] | None]


class Proof:
    """The phases of a study that decide; only they are believed.

    Args:
        runner: measures the runs.
        gate: compares answers; a config that it does not admit may not win. None: there is none.
    """

    def __init__(self, runner: Runner, gate: Gate | None = None) -> None:
        self._runner = runner
        self._gate = gate

    def contenders(self, reference: Step, expected: Expected) -> Iterator[Step]:
        """Yield the trials that beat the baseline, best first, each measured at every level.

        One that cannot be served at every level is passed over.

        Args:
            reference: the baseline as a trial is measured.
            expected: ranks trials by all that the search has learnt, so that one lucky
                measurement makes no winner; if it returns None, their values do.
        """
        for trial in self._better_than(reference, expected):
            if self._gate is not None and not self._gate.admits(trial.config):
                continue
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
        best = Step(
            phase="best", number=number, config=dict(config), state="measured", contender=number
        )
        self._foretell_best(best)
        return runner.step("best", number, config, runner.whole_load(), contender=number)

    def _foretell_best(self, best: Step) -> None:
        """Tell that a would-be winner comes, and how long the study will go on with it."""
        runner = self._runner
        before = runner.study.baseline
        sides = Side(runner, before), Side(runner, best.config)
        left_s = runner.lasts_s(runner.whole_load())
        left_s += Confirmation(*sides, best.contender).left_s(left_s)
        runner.foretell_proof(
            "the best in full", left_s + self._after_pairs_s(before, best, left_s)
        )

    def _after_pairs_s(self, before: Mapping[str, Value], best: Step, before_s: float) -> float:
        """Return about how long what follows the pairs of a would-be winner will take."""
        asks_s = self._gate.left_s(best.config) if self._gate is not None else 0.0
        return asks_s + Ablation(self._runner, before, best).left_s(before_s + asks_s)

    def _better_than(self, reference: Step, expected: Expected) -> list[Step]:
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
        measured.sort(key=rank, reverse=True)
        ranks = expected(measured)
        if ranks is None:
            return measured
        known = {step.number: place for step, place in zip(measured, ranks, strict=True)}

        def rank_expected(step: Step) -> tuple[bool, float]:
            return step.slo_met is not False, known[step.number]

        return sorted(measured, key=rank_expected, reverse=True)

    def confirm(self, before: Mapping[str, Value], best: Step) -> None:
        """Measure both configs in turn, A B B A B A A B …, each time on a fresh server.

        It ends early when the would-be winner dies.
        """
        before_side, after = Side(self._runner, before), Side(self._runner, best.config)
        Confirmation(before_side, after, best.contender).run(
            then_s=lambda left_s: self._after_pairs_s(before, best, left_s)
        )

    def ablate(self, before: Mapping[str, Value], best: Step) -> None:
        """Find out which of the changed knobs make the difference."""
        Ablation(self._runner, before, best).run()
