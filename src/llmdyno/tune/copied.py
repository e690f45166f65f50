"""A study, or a combination of one, as a worker has it: a copy of its ledger and of summaries.

What a trial is raced against is read from them. They tell, too, whether this machine can measure
it: its engine must be here, in the lead's version.
"""

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from llmdyno import store
from llmdyno.errors import HomeError, StorageError, UsageError
from llmdyno.serve.stack import Stack
from llmdyno.tune import going_on
from llmdyno.tune.folder import stack_of
from llmdyno.tune.ledger import Ledger
from llmdyno.tune.team import Team


class Copied:
    """A copy, brought up to date by fetch().

    Args:
        team: the rows of it.
        folder: for the copy.

    Raises:
        StorageError: it has no ledger in the database, or the folder cannot be written.
    """

    def __init__(self, team: Team, folder: Path) -> None:
        self.team, self.folder = team, folder
        self._lines = 0  # of the ledger, that are here
        self._runs: list[str] = []  # whose summaries are here
        store.make_folder(folder)
        self.fetch()
        if self.ledger.began is None:
            raise StorageError("the study has no ledger in the database; start its lead again.")

    @property
    def ledger(self) -> Ledger:
        """The ledger as it is here."""
        return Ledger(self.folder)

    @property
    def is_one_of_several(self) -> bool:
        """Whether it is a combination of a study over several."""
        return self.team.study != self.team.whole

    @property
    def called(self) -> str:
        """What stands before the name of one of its jobs: the combination, if there are several."""
        spec = self.ledger.spec
        return f"{spec.engine} behind {spec.front}, " if self.is_one_of_several else ""

    def fetch(self) -> None:
        """Bring what the ledger has by now, and the summaries that a race looks at."""
        lines = self.team.lines(self._lines)
        with (self.folder / store.LEDGER).open("a") as file:
            file.writelines(f"{line}\n" for line in lines)
        self._lines += len(lines)
        for run, content in self.team.summaries(self._runs).items():
            place = self.folder / run
            if place.resolve().is_relative_to(self.folder.resolve()):
                store.make_folder(place)
                store.write_atomically(place / store.SUMMARY, content)
            self._runs.append(run)

    def stack(self) -> Stack:
        """Return what is measured.

        Raises:
            UsageError: there is no such engine or front here.
        """
        return stack_of(self.ledger.spec)

    def unlike(
        self, here: Mapping[str, Any], *, version: str | None, without: Collection[str] = ()
    ) -> list[str]:
        """Say in what this machine is unlike the lead's, so that runs of both cannot be compared.

        Args:
            here: this machine, as environment.describe() has it.
            version: the engine's here; None: it is no matter.
            without: engines and fronts whose packages are no matter.
        """
        ledger = self.ledger
        # Another version may have begun the study; the lead's own now is what counts.
        lead = {**ledger.environment, "llmdyno": self.team.terms()["llmdyno"]}
        return going_on.moved(
            _without(lead, without),
            ledger.engine_version,
            _without(here, without),
            version,
            another_host=True,
        )

    def lacks(self, here: Mapping[str, Any], others: Collection[str]) -> str | None:
        """Say why this machine cannot measure this combination; None: it can.

        Args:
            here: this machine, as environment.describe() has it.
            others: the study's engines and fronts that are none of this combination's.

        Raises:
            HomeError: where the engine is installed here was named wrong.
        """
        ledger = self.ledger
        try:
            stack = self.stack()
            if stack.engine.version() is None:
                return f"it has no {stack.engine.name}; {stack.engine.install}."
            stack.check(ledger.spec.baseline)
            stack.check_served(ledger.spec.baseline)
        except UsageError as error:
            return str(error)
        if (why := self.replaced()) is not None:
            return why
        unlike = self.unlike(here, version=None, without=others)
        return f"it is unlike the lead's: {'; '.join(unlike)}." if unlike else None

    def replaced(self) -> str | None:
        """Say that the engine is of another version here than at the lead; None: it is not."""
        was, now = self.ledger.engine_version, self.version_now()
        if was is None or now == was:
            return None
        return f"it has {self.ledger.spec.engine} {now or 'no more'}, the lead {was}."

    def version_now(self) -> str | None:
        """Return the engine's version here; None: it is not here, or no more."""
        try:
            return self.stack().engine.version()
        except HomeError:  # it was there when the study began
            return None


def _without(environment: Mapping[str, Any], names: Collection[str]) -> dict[str, Any]:
    """Return the facts of a machine without the packages that bear one of these names."""
    packages = environment.get("packages", {})
    kept = {
        package: version
        for package, version in packages.items()
        if not any(name in package for name in names)
    }
    return {**environment, "packages": kept}
