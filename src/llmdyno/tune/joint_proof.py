"""The proof of a study over engines and fronts: the best config of all, beside what runs today."""

from collections.abc import Iterator, Mapping, Sequence

from llmdyno.knobs import Value
from llmdyno.tune.ablation import Ablation, died
from llmdyno.tune.arm import Arm, Named, named_in
from llmdyno.tune.candidates import same
from llmdyno.tune.combined_study import combined_document
from llmdyno.tune.endings import is_tie, rank
from llmdyno.tune.entries import Step
from llmdyno.tune.gate import Across, Gate
from llmdyno.tune.ledger import Ledger
from llmdyno.tune.pairs import Confirmation, Side
from llmdyno.tune.proof import Proof
from llmdyno.tune.reference import valued_reference_of
from llmdyno.tune.rejected import misses_what_it_met
from llmdyno.tune.rivals import Rivals
from llmdyno.tune.runner import Runner


class JointProof:
    """Confirms would-be winners of any combination against the baseline of the first one.

    Args:
        whole: the study over all of them; gets the lines for people.
        arms: the combinations that have a baseline, in the order in which they are named.
        everyone: all combinations that can work.
    """

    def __init__(self, whole: Runner, arms: Sequence[Arm], everyone: Sequence[Arm]) -> None:
        self._whole = whole
        self._arms = arms
        self._everyone = everyone
        self._first = arms[0]

    def finds(self) -> bool:
        """Measure what is left of the proof; tell whether a config stands, or ties."""
        over: list[Named] = []
        while (found := self._best_in_pairs(over)) is not None:
            arm, best, ties = found
            if ties or self._completed(arm, best):
                return True
            over.append(arm.named(best.config))
            self._say_no_better(arm, best.config)
        return False

    def _best_in_pairs(self, over: list[Named]) -> tuple[Arm, Step, bool] | None:
        """Confirm would-be winners as Tuner does; return who stands, and whether it is a tie.

        Args:
            over: configs that are no winners; further ones are added.
        """
        rivals, seen = Rivals(), []
        for arm, trial in self._contenders():
            name = arm.named(trial.config)
            if name in over or not rivals.has(arm.runner, trial):
                continue
            best = self._admitted(arm, trial)
            if best is None:
                continue
            self._confirm(arm, best)
            document, _ = combined_document(self._whole.folder, Ledger(self._whole.folder))
            if is_tie(document, arm.seen(best)):
                return arm, best, True
            seen.append((arm, best))
            is_none = any(named_in(one) == name for one in document["rejected"])
            if not is_none and misses_what_it_met(arm.ledger, best):
                self._whole.say(
                    f"  {arm.of.name}, {arm.runner.named(best.config)}: misses its SLOs."
                )
                rivals.begin()
            elif named_in(document["best"]) == name:
                return arm, best, False
            else:
                over += [name] if is_none else []
                self._say_no_better(arm, best.config)
        if not seen:
            return None
        document, _ = combined_document(self._whole.folder, Ledger(self._whole.folder))
        stands = named_in(document["best"])
        return next(((a, b, False) for a, b in seen if a.named(b.config) == stands), None)

    def _admitted(self, arm: Arm, trial: Step) -> Step | None:
        """Return a would-be winner, measured at every level; None: the gate or a level forbids."""
        if not self._gate(arm).admits(trial.config):
            return None
        best = self._in_full(arm, trial.config)
        return best if best.state == "measured" else None

    def _gate(self, arm: Arm) -> Gate:
        across = Across(self._first.runner, self._whole.folder, (arm.of.engine, arm.of.front))
        return Gate(arm.runner, across)

    def _completed(self, arm: Arm, best: Step) -> bool:
        """Measure what follows the pairs of a winner; tell whether it lives on."""
        proof = Proof(arm.runner, self._gate(arm))
        if not proof.compare_answers(best):
            return False
        proof.ablate(arm.runner.study.baseline, best, one_stack=arm is self._first)
        alive = died(arm.ledger, best, arm.runner.stack.knobs) is None
        return alive and proof.examine(best)

    def _say_no_better(self, arm: Arm, config: Mapping[str, Value]) -> None:
        self._whole.say(f"  {arm.of.name}, {arm.runner.named(config)}: does not do better.")

    def _contenders(self) -> Iterator[tuple[Arm, Step]]:
        """Yield what did better than the first combination's baseline, best first."""
        study = self._whole.study
        first = valued_reference_of(self._first.ledger)
        assert first is not None
        found = []
        for arm in self._arms:
            own = valued_reference_of(arm.ledger)
            for step in (own, *arm.ledger.of("trial")):
                if step is None or step.state != "measured" or step.value is None:
                    continue
                is_first = arm is self._first and same(
                    step.config, first.config, arm.runner.stack.knobs
                )
                if not is_first and rank(study, step) > rank(study, first):
                    found.append((rank(study, step), arm, step))
        for _, arm, step in sorted(found, key=lambda one: one[0], reverse=True):
            yield arm, step

    def _in_full(self, arm: Arm, config: dict[str, Value]) -> Step:
        """Measure a would-be winner at every level, unless its ledger has it."""
        runner = arm.runner
        # One row of would-be winners over all combinations.
        number = max(one.ledger.next_contender for one in self._everyone)
        for step in runner.ledger.of("best"):
            if step.config != config:
                continue
            if not runner.is_open(step):
                return step
            number = step.contender
        self._whole.say(f"Best of all: {arm.of.name}, {arm.runner.named(config)}.")
        return runner.step("best", number, config, runner.whole_load(), contender=number)

    def _confirm(self, arm: Arm, best: Step) -> None:
        """Measure the first baseline and the winner in turn, on fresh servers."""
        before = Side(self._first.runner, self._first.runner.study.baseline)
        after = Side(arm.runner, best.config)
        heading = f"Confirmation against {self._first.of.name}"
        ablation = Ablation(
            arm.runner, arm.runner.study.baseline, best, one_stack=arm is self._first
        )
        Confirmation(before, after, best.contender).run(heading, ablation.left_s)
