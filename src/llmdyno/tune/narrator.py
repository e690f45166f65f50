"""What a study tells a person while it goes on, and asks: the terminal and the live page do it."""

from collections.abc import Callable, Sequence

import msgspec

from llmdyno.load.progress import Progress
from llmdyno.tune.ledger import Ledger
from llmdyno.tune.outlook import Outlook, Proving
from llmdyno.wire.exchange import Meter


class Narrator(msgspec.Struct, frozen=True, kw_only=True):
    """How a study tells a person what goes on."""

    notify: Callable[[str], None]  # of a step that ended, or of one that begins
    notify_waiting: Callable[[str], None]  # while a server starts
    # Takes a run's name and the loads of its levels, and returns what shows the run's progress.
    display: Callable[[str, Sequence[float]], Callable[[Progress, Meter], None]]
    # Is given the ledger when a study goes on, and after each step.
    observe: Callable[[Ledger], None] = lambda _: None
    # Is told before each trial what it is, and how the study stands.
    foretell: Callable[[Outlook], None] = lambda _: None
    # Is told before each step of the proof what it is, and when the study will end.
    foretell_proof: Callable[[Proving], None] = lambda _: None
    # Tells whether a person has said that there were enough trials.
    enough: Callable[[], bool] = lambda: False
