"""A study over engines and fronts: baselines → rounds of trials → best of all → confirmation.

It conducts a study of each combination in a folder of its own, `stacks/ENGINE+FRONT`, whose ledger
holds what was measured of it. What it decides, it decides from these ledgers alone, so a study that
was killed comes to the same decisions again and goes on. Its own ledger holds what was asked, which
combinations were left out, and how the trials ended.

The winner of all is confirmed in ABBA pairs against the baseline of the first combination: that is
what the user named first, what runs today. `rounds` says how the trials are shared.
"""

from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any, Literal

from llmdyno import store
from llmdyno.errors import ServerError, StorageError, UsageError
from llmdyno.store import STACKS
from llmdyno.tune import going_on
from llmdyno.tune.arm import Arm
from llmdyno.tune.blame import is_suspect
from llmdyno.tune.budgeted import Shared
from llmdyno.tune.combinations import Combination, combinations, least_trials
from llmdyno.tune.combined_study import combined_document
from llmdyno.tune.entries import Event
from llmdyno.tune.folder import write_study
from llmdyno.tune.hosts import Hosts
from llmdyno.tune.joint_proof import JointProof
from llmdyno.tune.ledger import Ledger
from llmdyno.tune.narrator import Narrator
from llmdyno.tune.neighbours import Presence
from llmdyno.tune.reference import valued_reference_of
from llmdyno.tune.rounds import rounds_of, shares, survivors
from llmdyno.tune.runner import Runner
from llmdyno.tune.spec import Study
from llmdyno.tune.tuner import Tuner
from llmdyno.tune.where import are_hosts, are_left, check_hosts


class Combined:
    """Runs a study over engines and fronts; making one checks the study and writes nothing.

    Args:
        study: what is tuned; it names several engines or fronts.
        folder: of the study; one that was stopped is resumed.
        narrator: gets the lines for people.
        elsewhere: whether a study may go on with another engine's version, driver or machine.
        here: it will run on this machine, so the engines must be installed; a plan needs none.
        hosts: where its trials run; None: on this machine.

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
        hosts: Hosts | None = None,
    ) -> None:
        self._study = study
        self._folder = folder
        self._elsewhere = elsewhere
        found = combinations(study, here=here)
        self._left = [one for one in found if one.study is None]
        works = [one for one in found if one.study is not None]
        self._hosts = hosts
        self._over_hosts = hosts is not None or are_hosts(Ledger(folder))
        # Whether trials are to come; over hosts it is not tried otherwise, as none may be there.
        self._searches = not self._over_hosts or are_left(study, folder, works)
        _check_lanes(study, over_hosts=self._over_hosts)
        check_hosts(Ledger(folder), hosts, left=here and self._searches)
        self._arms = [
            Arm(
                one,
                one.study,
                folder / STACKS / one.folder,
                narrator,
                elsewhere=elsewhere,
                here=here,
                hosts=None if hosts is None else hosts.part(one.folder),
            )
            for one in works
            if one.study is not None
        ]
        self._whole = Runner(study, folder, self._arms[0].tuner.stack, narrator)
        self._budget = Shared(
            study, lambda: [arm.runner for arm in self._arms], by_clock=hosts is not None
        )

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
            self._whole.begin(presence, elsewhere=self._elsewhere, hosts=self._over_hosts)
            for arm in self._arms:
                arm.begin(presence)
            self._budget.begin()
            begins()
            self._move_together()
            self._share_larger_budgets()
            self._leave_out()
            self._open_hosts()
            try:
                arms = self._measured_baselines()
                while self._searches_and_proves(arms, presence):
                    pass
                for arm in arms:
                    arm.runner.see_that_it_is_mended()
            finally:
                if self._hosts is not None:
                    with suppress(StorageError):  # its own sentence is on its way, or no matter
                        self._hosts.close()
                self._whole.ledger.see_that_it_is_there()
                document, stack = combined_document(self._folder, Ledger(self._folder))
                document = write_study(self._folder, document, stack)
        return document

    def _open_hosts(self) -> None:
        if self._hosts is not None:
            parts = [arm.ledger for arm in self._arms]
            ledger, say = self._whole.ledger, self._whole.say
            self._hosts.open(self._folder, ledger, say, invites=self._searches, parts=parts)

    def _searches_and_proves(self, arms: Sequence[Arm], presence: Presence) -> bool:
        """Measure what is left; tell whether trials are to be measured again after that.

        Hosts have left before the proof: what is to be measured again over them is open until the
        study goes on.
        """
        for arm in arms:
            arm.given = 0
            # It was stopped before that was looked into.
            if not self._over_hosts and is_suspect(arm.ledger):
                arm.runner.check_machine()
        if self._searches:
            self._share_trials(arms, presence)
        if self._hosts is not None:
            self._hosts.release()
        mended = self._mended()
        self._prove(arms)
        return not self._over_hosts and self._mended() > mended

    def _mended(self) -> int:
        return sum(arm.ledger.mended for arm in self._arms)

    def _move_together(self) -> None:
        """Let all combinations be in one place: pairs are of runs in the same one."""
        runners = [arm.runner for arm in self._arms]
        moved = max(runners, key=lambda runner: runner.ledger.place).ledger
        whys = [event.why for event in moved.events if event.kind == "moved"]
        for runner in runners:
            for why in whys[runner.ledger.place :]:
                going_on.move(runner.ledger, why)

    def _share_larger_budgets(self) -> None:
        """Let all combinations know each larger budget: what a smaller one ended goes on."""
        events = self._whole.ledger.events
        larger = [e.why for e in events if e.kind == "extended" and "budget_s" in e.changes]
        for arm in self._arms:
            of = arm.ledger.events
            known = sum(event.kind == "extended" and not event.changes for event in of)
            for why in larger[known:]:
                arm.ledger.append(Event(kind="extended", why=why))

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
        proven = not self._searches or any(arm.ledger.of("best") for arm in self._arms)
        without = [arm for arm in self._arms if arm.never_had_one()] if proven else []
        if len(without) == len(self._arms):  # of a ledger that was mended by hand
            without = []
        found, faults = [], []
        for arm in self._arms:
            if arm in without:
                continue  # the pairs have begun without it
            if not self._searches and valued_reference_of(arm.ledger) is not None:
                found.append(arm)  # no host may be there any more
                continue
            self._whole.say(f"{arm.of.name}:")
            if self._hosts is not None:
                self._budget.for_proof(arm.runner)  # it ends the waiting for hosts
            try:
                with arm.at_work():
                    arm.leave_out_bad(self._arms)
                    arm.tuner.measure_baseline()
            except ServerError as error:
                if arm.ledger.stopped is not None:
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
        alive = [arm for arm in arms if arm.of.searches and arm.is_measured_in_trials]
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
        found = {arm.ledger.last_end.why for arm in arms if arm.ledger.last_end}
        if self._whole.enough():
            return "hand"
        if self._budget.over() or any(arm.ledger.ended("budget") for arm in alive or arms):
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
        with arm.at_work():
            arm.leave_out_bad(self._arms)
            arm.tuner.recall_baseline()
            if arm.hosts is None or not arm.hosts.nobody_can:
                arm.tuner.search()

    # What decides.

    def _prove(self, arms: Sequence[Arm]) -> None:
        """Confirm the best config of all; if it dies or is worse, the next best."""
        self._move_together()  # an engine may have been replaced while trials ran
        for arm in arms:
            self._budget.for_proof(arm.runner)
        if JointProof(self._whole, arms, self._arms).finds():
            return
        mended = self._mended()
        arms[0].runner.check_machine()
        if self._mended() > mended:
            return  # trials are to be measured again
        document, _ = combined_document(self._folder, Ledger(self._folder))
        if document["outcome"]["state"] == "unfinished":  # the gate has let none of them win
            self._whole.settle()


def _check_lanes(study: Study, *, over_hosts: bool) -> None:
    """Refuse several trials at once on one machine.

    Raises:
        UsageError: they are asked for.
    """
    if study.parallel > 1 and not over_hosts:
        raise UsageError(
            f"--parallel {study.parallel}: a study over several engines or fronts has one trial at"
            " a time on one machine; leave it out, or run its trials over so many hosts with"
            " --store."
        )
