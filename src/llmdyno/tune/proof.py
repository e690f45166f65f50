"""The proof of a study: the best config in full, in pairs against the baseline, knob by knob."""

from collections.abc import Callable, Iterator, Mapping, Sequence

from llmdyno.knobs import Value
from llmdyno.tune.ablation import Ablation
from llmdyno.tune.candidates import same
from llmdyno.tune.endings import loses
from llmdyno.tune.ledger import Step
from llmdyno.tune.pair_runs import requests_of
from llmdyno.tune.pairs import Confirmation, Side
from llmdyno.tune.runner import Runner

Expected = Callable[[Sequence[Step]], list[float] | None]


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

    def contenders(self, reference: Step, expected: Expected) -> Iterator[Step]:
        """Yield the trials that beat the baseline, best first, each measured at every level.

        One that cannot be served at every level is passed over.

        Args:
            reference: the baseline as a trial is measured.
            expected: ranks trials by all that the search has learnt, so that one lucky
                measurement makes no winner; if it returns None, their values do.
        """
        for trial in self._better_than(reference, expected):
            if not self._admits(trial.config):
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
        return runner.step("best", number, config, runner.whole_load(), contender=number)

    def _better_than(self, reference: Step, expected: Expected) -> list[Step]:
        """Return the trials that beat the baseline, best first.

        A trial that meets the SLOs comes before one that does not, whatever their values; what
        loses requests that the baseline serves comes last.
        """
        study, knobs = self._runner.study, self._runner.stack.knobs
        sign = 1.0 if study.objective.maximise else -1.0

        folder = self._runner.folder
        requests = requests_of(folder, reference)

        def serves(step: Step) -> bool:
            return not loses(requests, requests_of(folder, step))

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
            return sorted(measured, key=serves, reverse=True)
        known = {step.number: place for step, place in zip(measured, ranks, strict=True)}

        def rank_expected(step: Step) -> tuple[bool, bool, float]:
            return serves(step), step.slo_met is not False, known[step.number]

        return sorted(measured, key=rank_expected, reverse=True)

    def confirm(self, before: Mapping[str, Value], best: Step) -> None:
        """Measure both configs in turn, A B B A B A A B …, each time on a fresh server.

        It ends early when the would-be winner dies.
        """
        before_side, after = Side(self._runner, before), Side(self._runner, best.config)
        Confirmation(before_side, after, best.contender).run()

    def ablate(self, before: Mapping[str, Value], best: Step) -> None:
        """Find out which of the changed knobs make the difference."""
        Ablation(self._runner, before, best).run()
