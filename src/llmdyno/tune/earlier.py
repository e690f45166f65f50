"""What a start of a server costs, as the study itself or an earlier one in this folder tells it."""

from collections.abc import Iterator
from pathlib import Path

from llmdyno import store
from llmdyno.errors import StorageError
from llmdyno.store import LEDGER
from llmdyno.tune.budget import Costs
from llmdyno.tune.ledger import Ledger
from llmdyno.tune.narrator import Narrator
from llmdyno.tune.runner import Runner

_SILENT = Narrator(
    notify=lambda _: None, notify_waiting=lambda _: None, display=lambda *_: lambda *_: None
)


def known_costs(runner: Runner) -> tuple[str | None, Costs]:
    """Return what a start costs, and which study tells it; None: it is a guess."""
    own = runner.costs()
    if own.steps:
        return str(runner.folder), own
    asked = runner.study
    wanted = (asked.engine, asked.front, asked.model)
    for folder in _earlier(runner.folder):
        try:
            ledger = Ledger(folder)
        except StorageError:  # of another version: it tells nothing
            continue
        if ledger.began is None:
            continue
        spec = ledger.spec
        if (spec.engine, spec.front, spec.model) == wanted:
            found = Runner(spec, folder, runner.stack, _SILENT).costs()
            if found.steps:
                return str(folder), found
    return None, own


def _earlier(besides: Path) -> Iterator[Path]:
    """Yield the studies in this folder, the last one first; of those over several the parts."""
    # Those of the store, and those that --out has put beside it.
    parents = (store.STUDIES, Path())
    patterns = (f"*/{LEDGER}", f"*/stacks/*/{LEDGER}")
    ledgers = [found for parent in parents for one in patterns for found in parent.glob(one)]
    for ledger in sorted(ledgers, key=lambda path: path.stat().st_mtime, reverse=True):
        if ledger.parent.resolve() != besides.resolve():
            yield ledger.parent
