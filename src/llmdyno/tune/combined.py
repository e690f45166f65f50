"""A study over engines and fronts: baselines → rounds of trials → best of all → confirmation.

It conducts a study of each combination in a folder of its own, `stacks/ENGINE+FRONT`, whose ledger
holds what was measured of it. What it decides, it decides from these ledgers alone, so a study that
was killed comes to the same decisions again and goes on. Its own ledger holds what was asked, which
combinations were left out, and how the trials ended.

The winner of all is confirmed in ABBA pairs against the baseline of the first combination: that is
what the user named first, what runs today. `rounds` says how the trials are shared.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Literal

from llmdyno import store
from llmdyno.errors import ServerError
from llmdyno.knobs import Value
from llmdyno.store import STACKS
from llmdyno.tune import going_on
from llmdyno.tune.ablation import Ablation, died
from llmdyno.tune.arm import Arm, Named, whose
from llmdyno.tune.blame import is_suspect
from llmdyno.tune.budgeted import Shared
from llmdyno.tune.candidates import same
from llmdyno.tune.combinations import Combination, combinations, least_trials
from llmdyno.tune.combined_study import combined_document
from llmdyno.tune.endings import is_tie, rank
from llmdyno.tune.entries import Event, Step
from llmdyno.tune.folder import write_study
from llmdyno.tune.gate import Across, Gate
from llmdyno.tune.ledger import Ledger
from llmdyno.tune.narrator import Narrator
from llmdyno.tune.neighbours import Presence
from llmdyno.tune.pairs import Confirmation, Side
from llmdyno.tune.proof import Proof
from llmdyno.tune.reference import valued_reference_of
from llmdyno.tune.rejected import misses_what_it_met
from llmdyno.tune.rivals import Rivals
from llmdyno.tune.rounds import rounds_of, shares, survivors
from llmdyno.tune.runner import Runner
from llmdyno.tune.spec import Study
from llmdyno.tune.tuner import Tuner


class Combined:
    """Runs a study over engines and fronts; making one checks the study and writes nothing.

    Args:
        study: what is tuned; it names several engines or fronts.
        folder: of the study; one that was stopped is resumed.
        narrator: gets the lines for people.
        elsewhere: whether a study may go on with another engine's version, driver or machine.
        here: it will run on this machine, so the engines must be installed; a plan needs none.

    Raises:
        UsageError: no combination can work, or the study cannot be run as it is.
        StorageError: the folder holds a ledger that cannot be read.
    """

    def __init__(
        self,
        study: Study,
        folder: Path,
        narrator: Narrator,
        *,
        elsewhere: bool = False,
        here: bool = True,
    ) -> None:
        self._study = study
        self._folder = folder
        self._elsewhere = elsewhere
        found = combinations(study, here=here)
        self._left = [one for one in found if one.study is None]
        self._arms = [
            Arm(
                one,
                one.study,
                folder / STACKS / one.folder,
                narrator,
                elsewhere=elsewhere,
                here=here,
            )
            for one in found
            if one.study is not None
        ]
        self._whole = Runner(study, folder, self._arms[0].tuner.stack, narrator)
        self._budget = Shared(study, lambda: [arm.runner for arm in self._arms])

    @property
    def tuners(self) -> list[Tuner]:
        """The tuners of the combinations that can work, in the order in which they are named."""
        return [arm.tuner for arm in self._arms]

    @property
    def searching(self) -> list[Tuner]:
        """Those of them that have a knob to search or a candidate to try."""
        return [arm.tuner for arm in self._arms if arm.of.searches]

    @property
    def left_out(self) -> list[Combination]:
        """The combinations that cannot work, each with the reason."""
        return self._left

    def run(self, begins: Callable[[], None] = lambda: None) -> dict[str, Any]:
        """Run the study, or what is left of it, and return its document.

        Args:
            begins: is called when nothing hinders it any more, before the first server starts.

        Raises:
            UsageError: another process runs it, or it began in another place.
            ServerError: no combination's baseline can be measured; or the machine is broken.
            InterruptError: the user stopped it; study.json holds what there is.
            StorageError: results cannot be written.
        """
        store.make_folder(self._folder)
        with ExitStack() as held, Presence(self._folder) as presence:
            held.enter_context(store.hold(self._folder))
            for arm in self._arms:
                store.make_folder(arm.folder)
                held.enter_context(store.hold(arm.folder))
            self._whole.begin(presence, elsewhere=self._elsewhere)
            for arm in self._arms:
                arm.begin(presence)
            begins()
            self._move_together()
            self._leave_out()
            try:
                arms = self._measured_baselines()
                while self._searches_and_proves(arms, presence):
                    pass
                for arm in arms:
                    arm.runner.see_that_it_is_mended()
            finally:
                self._whole.ledger.see_that_it_is_there()
                document, stack = combined_document(self._folder, Ledger(self._folder))
                document = write_study(self._folder, document, stack)
        return document

    def _searches_and_proves(self, arms: Sequence[Arm], presence: Presence) -> bool:
        """Measure what is left; tell whether trials are to be measured again after that."""
        for arm in arms:
            arm.given = 0
            if is_suspect(arm.runner.ledger):  # it was stopped before that was looked into
                arm.runner.check_machine()
        self._share_trials(arms, presence)
        mended = self._mended()
        self._prove(arms)
        return self._mended() > mended

    def _mended(self) -> int:
        return sum(arm.runner.ledger.mended for arm in self._arms)

    def _move_together(self) -> None:
        """Let all combinations be in one place: pairs are of runs in the same one."""
        runners = [arm.runner for arm in self._arms]
        moved = max(runners, key=lambda runner: runner.ledger.place).ledger
        whys = [event.why for event in moved.events if event.kind == "moved"]
        for runner in runners:
            for why in whys[runner.ledger.place :]:
                going_on.move(runner.ledger, why)

    def _leave_out(self) -> None:
        """Name what cannot work, and write it down once."""
        known = {event.stack for event in self._whole.ledger.events if event.kind == "left"}
        for one in self._left:
            self._whole.say(f"Left out: {one.name}: {one.why}")
            if one.folder not in known:
                self._whole.ledger.append(Event(kind="left", why=str(one.why), stack=one.folder))

    def _measured_baselines(self) -> list[Arm]:
        """Measure every combination's baseline; return those that have one, in their order.

        Raises:
            ServerError: none has one, or the machine is broken.
        """
        proven = any(arm.runner.ledger.of("best") for arm in self._arms)
        without = [arm for arm in self._arms if arm.never_had_one()] if proven else []
        if len(without) == len(self._arms):  # of a ledger that was mended by hand
            without = []
        found, faults = [], []
        for arm in self._arms:
            if arm in without:
                continue  # the pairs have begun without it
            self._whole.say(f"{arm.of.name}:")
            try:
                arm.tuner.measure_baseline()
            except ServerError as error:
                if arm.runner.ledger.stopped is not None:
                    raise
                faults.append(error)
                self._whole.say(f"  Left out: {error}")
            else:
                found.append(arm)
        if not found:
            raise faults[0]
        return found

    # How the trials are shared.

    def _share_trials(self, arms: Sequence[Arm], presence: Presence) -> None:
        """Give the trials in rounds; after each the better half goes on."""
        alive = [arm for arm in arms if arm.of.searches]
        rounds = rounds_of(len(alive))
        for number in range(rounds if alive else 0):
            if self._whole.enough():
                break
            left = self._study.trials - sum(arm.started() for arm in arms)
            least = [1 if number else least_trials(arm.of) for arm in alive]
            given = shares(left, rounds - number, least)
            if not any(given):
                break
            names = ", ".join(f"{a.of.name} {g}" for a, g in zip(alive, given, strict=True))
            self._whole.say(f"Round {number + 1} of {rounds}, trials: {names}.")
            for place, (arm, more) in enumerate(zip(alive, given, strict=True)):
                until = (number + (place + 1) / len(alive)) / rounds
                self._try(arm, arm.started() + more, until, presence)
            alive = sorted(alive, key=Arm.standing, reverse=True)[: survivors(len(alive))]
        short = sum(arm.started() for arm in arms) < self._study.trials
        if short:
            self._whole.ended(self._why_short(arms, alive))

    def _why_short(
        self, arms: Sequence[Arm], alive: Sequence[Arm]
    ) -> Literal["budget", "space", "patience", "hand"]:
        """Return why fewer trials were made than were asked for.

        Args:
            arms: the combinations.
            alive: those that have come through all rounds.
        """
        found = {arm.runner.ledger.last_end.why for arm in arms if arm.runner.ledger.last_end}
        if self._whole.enough():
            return "hand"
        if self._budget.over() or any(arm.runner.ledger.ended("budget") for arm in alive):
            return "budget"
        return "patience" if "patience" in found else "space"

    def _try(self, arm: Arm, trials: int, until: float, presence: Presence) -> None:
        """Give a combination trials up to a number, while this share of the budget is not spent."""
        before, arm.given = arm.given, trials
        if trials <= before or arm.started() >= trials or self._whole.enough():
            return  # done before a stop, or a person had enough
        self._whole.say(f"{arm.of.name}:")
        arm.begin(presence, trials)
        self._budget.for_trials(arm.runner, until)
        arm.tuner.search()

    # What decides.

    def _prove(self, arms: Sequence[Arm]) -> None:
        """Confirm the best config of all; if it dies or is worse, the next best."""
        first = arms[0]
        self._move_together()  # an engine may have been replaced while trials ran
        for arm in arms:
            self._budget.for_proof(arm.runner)
        over: list[Named] = []
        while (found := self._best_in_pairs(arms, over)) is not None:
            arm, best, is_tie = found
            if is_tie or self._completed(first, arm, best):
                return
            over.append(arm.named(best.config))
            self._say_no_better(arm, best.config)
        mended = self._mended()
        first.runner.check_machine()
        if self._mended() > mended:
            return  # trials are to be measured again
        document, _ = combined_document(self._folder, Ledger(self._folder))
        if document["outcome"]["state"] == "unfinished":  # the gate has let none of them win
            self._whole.settle()

    def _best_in_pairs(
        self, arms: Sequence[Arm], over: list[Named]
    ) -> tuple[Arm, Step, bool] | None:
        """Confirm would-be winners as Tuner does; return who stands, and whether it is a tie.

        Args:
            arms: the combinations.
            over: configs that are no winners; further ones are added.
        """
        rivals, seen = Rivals(), []
        for arm, trial in self._contenders(arms):
            name = arm.named(trial.config)
            if name in over or not rivals.has(arm.runner, trial):
                continue
            best = self._admitted(arms[0], arm, trial)
            if best is None:
                continue
            self._confirm(arms[0], arm, best)
            document, _ = combined_document(self._folder, Ledger(self._folder))
            if is_tie(document, arm.seen(best)):
                return arm, best, True
            seen.append((arm, best))
            is_none = any(whose(one) == name for one in document["rejected"])
            if not is_none and misses_what_it_met(arm.runner.ledger, best):
                self._whole.say(
                    f"  {arm.of.name}, {arm.runner.named(best.config)}: misses its SLOs."
                )
                rivals.begin()
            elif whose(document["best"]) == name:
                return arm, best, False
            else:
                over += [name] if is_none else []
                self._say_no_better(arm, best.config)
        if not seen:
            return None
        document, _ = combined_document(self._folder, Ledger(self._folder))
        stands = whose(document["best"])
        return next(((a, b, False) for a, b in seen if a.named(b.config) == stands), None)

    def _admitted(self, first: Arm, arm: Arm, trial: Step) -> Step | None:
        """Return a would-be winner, measured at every level; None: the gate or a level forbids."""
        if not self._gate(first, arm).admits(trial.config):
            return None
        best = self._in_full(arm, trial.config)
        return best if best.state == "measured" else None

    def _gate(self, first: Arm, arm: Arm) -> Gate:
        across = Across(first.runner, self._folder, (arm.of.engine, arm.of.front))
        return Gate(arm.runner, across)

    def _completed(self, first: Arm, arm: Arm, best: Step) -> bool:
        """Measure what follows the pairs of a winner; tell whether it lives on."""
        proof = Proof(arm.runner, self._gate(first, arm))
        if not proof.compare_answers(best):
            return False
        proof.ablate(arm.runner.study.baseline, best, one_stack=arm is first)
        alive = died(arm.runner.ledger, best, arm.runner.stack.knobs) is None
        return alive and proof.examine(best)

    def _say_no_better(self, arm: Arm, config: Mapping[str, Value]) -> None:
        self._whole.say(f"  {arm.of.name}, {arm.runner.named(config)}: does not do better.")

    def _contenders(self, arms: Sequence[Arm]) -> Iterator[tuple[Arm, Step]]:
        """Yield what did better than the first combination's baseline, best first."""
        first = valued_reference_of(arms[0].runner.ledger)
        assert first is not None
        found = []
        for arm in arms:
            own = valued_reference_of(arm.runner.ledger)
            for step in (own, *arm.runner.ledger.of("trial")):
                if step is None or step.state != "measured" or step.value is None:
                    continue
                is_first = arm is arms[0] and same(
                    step.config, first.config, arm.runner.stack.knobs
                )
                if not is_first and rank(self._study, step) > rank(self._study, first):
                    found.append((rank(self._study, step), arm, step))
        for _, arm, step in sorted(found, key=lambda one: one[0], reverse=True):
            yield arm, step

    def _in_full(self, arm: Arm, config: dict[str, Value]) -> Step:
        """Measure a would-be winner at every level, unless its ledger has it."""
        runner = arm.runner
        # One row of would-be winners over all combinations.
        number = max(one.runner.ledger.next_contender for one in self._arms)
        for step in runner.ledger.of("best"):
            if step.config != config:
                continue
            if not runner.is_open(step):
                return step
            number = step.contender
        self._whole.say(f"Best of all: {arm.of.name}, {arm.runner.named(config)}.")
        return runner.step("best", number, config, runner.whole_load(), contender=number)

    def _confirm(self, first: Arm, arm: Arm, best: Step) -> None:
        """Measure the first baseline and the winner in turn, on fresh servers."""
        before = Side(first.runner, first.runner.study.baseline)
        after = Side(arm.runner, best.config)
        heading = f"Confirmation against {first.of.name}"
        ablation = Ablation(arm.runner, arm.runner.study.baseline, best, one_stack=arm is first)
        Confirmation(before, after, best.contender).run(heading, ablation.left_s)
