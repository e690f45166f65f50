"""The proof of a study: the best config in full, in pairs against the baseline, knob by knob."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial

from llmdyno.errors import ServerError
from llmdyno.knobs import Value
from llmdyno.results.lost import loses
from llmdyno.results.stats import Spread
from llmdyno.results.wording import short
from llmdyno.tune.ablation import Ablation
from llmdyno.tune.candidates import same
from llmdyno.tune.endings import rank
from llmdyno.tune.entries import Event, Step
from llmdyno.tune.gate import Gate
from llmdyno.tune.noise import noise_so_far
from llmdyno.tune.pair_runs import requests_of
from llmdyno.tune.pairs import Confirmation, Side
from llmdyno.tune.runner import Runner

_FALLEN_MAX = 3  # would-be winners that do worse alone, after which no other is looked at

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

    def contenders(
        self,
        reference: Step,
        expected: Expected,
        wanted: Callable[[Step], bool] = lambda _: True,
    ) -> Iterator[Step]:
        """Yield the trials that beat the baseline, best first, each measured at every level.

        One that cannot be served at every level is passed over. So is, where trials ran beside each
        other, one that does worse than the baseline once both have run alone; after three such ones
        there is no further contender.

        Args:
            reference: the baseline as a trial is measured.
            expected: ranks trials by all that the search has learnt, so that one lucky
                measurement makes no winner; if it returns None, their values do.
            wanted: tells of a trial whether it is in question, before it is measured in full.
        """
        fallen = 0
        for trial in self._better_than(reference, expected):
            if not wanted(trial):
                continue
            if self._gate is not None and not self._gate.admits(trial.config):
                continue
            step = self._in_full(trial.config)
            if step.state != "measured":
                continue
            if not self._falls_behind(step):
                yield step
                continue
            fallen += 1
            if fallen == _FALLEN_MAX:
                self._runner.say(f"  None of the best {fallen} does as well alone.")
                return

    def _falls_behind(self, best: Step) -> bool:
        """Tell whether a trial that was good beside others is none alone, and write it down.

        Both it and the baseline have run alone, at every level. The baseline runs once more,
        because the machine may have changed since its first run. It must be worse than both by
        more than equal runs usually are: what is as good, the pairs will tell.
        """
        ledger, study = self._runner.ledger, self._runner.study
        if study.parallel == 1 or ledger.of("confirm", best.contender):
            return False
        if ledger.fell_out(best.contender) is not None:
            return True
        first = ledger.find("baseline", 0)
        assert first is not None, "trials come after it"
        if not self._behind(best, first):
            return False
        why = self._behind(best, self._baseline_again())
        if not why:
            return False
        ledger.append(Event(kind="alone", why=why, contender=best.contender))
        self._runner.say(f"  {self._runner.named(best.config)} {why}.")
        return True

    def _behind(self, best: Step, baseline: Step) -> str:
        """Say why a would-be winner does worse than a run of the baseline; empty: it does not.

        Runs of two machines tell nothing.
        """
        if baseline.place != best.place:
            return ""
        if best.slo_met is False and baseline.slo_met is not False:
            return "misses an SLO once it runs alone, which the baseline meets"
        noise = noise_so_far(self._runner.ledger)
        if not _is_worse(best, baseline, noise, maximise=self._runner.study.objective.maximise):
            return ""
        value, of_baseline = _shown(best), _shown(baseline)
        return f"does worse than the baseline once it runs alone: {value} against {of_baseline}"

    def _baseline_again(self) -> Step:
        """Return the baseline, measured in full since would-be winners are; one run is enough.

        A check whether the machine works is shorter than they are, and at one level.

        Raises:
            ServerError: it fails: the machine is at fault.
        """
        runner = self._runner
        ledger, baseline = runner.ledger, runner.study.baseline
        seen = [step.phase for step in ledger.steps]
        for step in ledger.steps[seen.index("best") :]:
            in_full = step.phase == "check" and step.state == "measured" and step.whole
            if in_full and step.place == ledger.place and step.config == dict(baseline):
                return step
        runner.say("  The baseline runs once more, to see whether the machine has changed.")
        return runner.step("check", ledger.next_check, baseline, runner.whole_load())

    def _in_full(self, config: Mapping[str, Value]) -> Step:
        """Measure a would-be winner at every level, unless the ledger has it."""
        runner = self._runner
        for step in runner.ledger.of("best"):
            if step.config == config and not runner.is_open(step):
                return step
        number = self._number_of(config)
        best = Step(
            phase="best", number=number, config=dict(config), state="measured", contender=number
        )
        self._foretell_best(best)
        return runner.step("best", number, config, runner.whole_load(), contender=number)

    def _number_of(self, config: Mapping[str, Value]) -> int:
        """Return the number that a config had as a would-be winner, if that run is made again.

        So it is where the run alone is gone, or failed and is open. Else it has one of its own: a
        study may have gone on with more trials, whose order is another one now.
        """
        ledger = self._runner.ledger
        for step in ledger.of("best"):
            if step.config == config and self._runner.is_open(step):
                return step.contender
        for step in reversed(ledger.voided):
            if step.phase == "best" and step.config == config:
                return ledger.next_contender if ledger.fell_out(step.contender) else step.contender
        return ledger.next_contender

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
        asks_s = exam_s = 0.0
        if self._gate is not None:
            asks_s, exam_s = self._gate.left_s(best.config), self._gate.exam_left_s(best.config)
        return asks_s + exam_s + Ablation(self._runner, before, best).left_s(before_s + asks_s)

    def _better_than(self, reference: Step, expected: Expected) -> list[Step]:
        """Return the trials that beat the baseline, best first.

        A trial that meets the SLOs comes before one that does not, whatever their values; what
        loses requests that the baseline serves comes last.
        """
        study, knobs = self._runner.study, self._runner.stack.knobs
        folder = self._runner.folder
        requests = requests_of(folder, reference)

        def serves(step: Step) -> bool:
            return not loses(requests, requests_of(folder, step))

        found = [
            step
            for step in self._runner.ledger.of("trial")
            if step.state == "measured"
            and step.value is not None
            and rank(study, step) > rank(study, reference)
            and not same(step.config, study.baseline, knobs)
        ]
        found.sort(key=partial(rank, study), reverse=True)
        ranks = expected(found)
        if ranks is None:
            return sorted(found, key=serves, reverse=True)
        known = {step.number: place for step, place in zip(found, ranks, strict=True)}

        def rank_expected(step: Step) -> tuple[bool, bool, float]:
            return serves(step), step.slo_met is not False, known[step.number]

        return sorted(found, key=rank_expected, reverse=True)

    def confirm(self, before: Mapping[str, Value], best: Step) -> None:
        """Measure both configs in turn, A B B A B A A B …, each time on a fresh server.

        It ends early when the would-be winner dies.
        """
        before_side, after = Side(self._runner, before), Side(self._runner, best.config)
        Confirmation(before_side, after, best.contender).run(
            then_s=lambda left_s: self._after_pairs_s(before, best, left_s)
        )

    def compare_answers(self, best: Step) -> bool:
        """Compare a winner's answers with the baseline's; return whether it lives on.

        If its server fails at that, it is measured as every config is that has worked and fails.

        Raises:
            ServerError: the machine is at fault, not the config.
        """
        gate = self._gate
        return gate is None or self._lives_on(best, gate.after_confirmation(best.config))

    def examine(self, best: Step) -> bool:
        """Compare a winner's scores in lm-eval's tasks with the baseline's, as compare_answers().

        It comes last: it may take long, and its time is what the budget has left.

        Raises:
            ServerError: the machine is at fault, not the config.
        """
        return self._gate is None or self._lives_on(best, self._gate.examine(best.config))

    def _lives_on(self, best: Step, fault: ServerError | None) -> bool:
        if fault is None:
            return True
        runner = self._runner
        runner.say(f"  {runner.named(best.config)} is started again to see whether it still works.")
        number = runner.ledger.next_check
        step = runner.step("check", number, best.config, runner.trial_load())
        if step.state == "measured":
            return True
        why = f"died after the confirmation ({step.failure_class})"
        runner.ledger.append(Event(kind="died", why=why, contender=best.contender))
        return False

    def ablate(self, before: Mapping[str, Value], best: Step, *, one_stack: bool = True) -> None:
        """Find out which of the changed knobs make the difference.

        Args:
            before: the baseline's config.
            best: the winner, measured in full.
            one_stack: whether it was confirmed against that baseline, and not another stack's.
        """
        Ablation(self._runner, before, best, one_stack=one_stack).run()


def _shown(step: Step) -> str:
    return "no value" if step.value is None else f"{short(step.value)}"


def _is_worse(one: Step, other: Step, noise: Spread, *, maximise: bool) -> bool:
    """Tell whether a run is worse than another by more than equal runs usually are."""
    if one.value is None or other.value is None:
        return one.value is None and other.value is not None
    sign = 1.0 if maximise else -1.0
    if min(one.value, other.value) <= 0:
        return sign * (one.value - other.value) < 0
    return sign * math.log(one.value / other.value) < -math.sqrt(2 * noise.variance)
