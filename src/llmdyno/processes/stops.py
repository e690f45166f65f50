"""The signals that end what dyno does, with what was measured kept."""

import signal
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any


def stops() -> tuple[signal.Signals, ...]:
    """Return the signals by which a person or a machine ends dyno politely.

    A terminal that is closed, or a connection to it that breaks, hangs up; but for who started dyno
    with nohup, which lets it ignore that, and but for a hang-up that was heard.
    """
    hears = signal.getsignal(signal.SIGHUP) not in {signal.SIG_IGN, _heard_before}
    return (signal.SIGINT, signal.SIGTERM, *((signal.SIGHUP,) if hears else ()))


@contextmanager
def handled(
    handler: Callable[[int, FrameType | None], Any], numbers: Iterable[signal.Signals] | None = None
) -> Iterator[dict[signal.Signals, Any]]:
    """Handle signals in the body of the `with`; yield the handlers that come back after it.

    A hang-up is heard once, and ignored until the process ends. The kernel hangs up on all that run
    in the terminal, bash among them, and bash then on what it runs: a moment later the same comes
    again, in the middle of the cleanup, and nobody asked twice.

    Args:
        handler: of each signal; called between two steps of the main thread.
        numbers: which; all of stops() if None.
    """

    def heard(number: int, frame: FrameType | None) -> None:
        if number == signal.SIGHUP:
            signal.signal(number, _heard_before)
        handler(number, frame)

    chosen = stops() if numbers is None else numbers
    before = {number: signal.signal(number, heard) for number in chosen}
    try:
        yield before
    finally:
        for number, earlier in before.items():
            if signal.getsignal(number) is not _heard_before:
                signal.signal(number, earlier)


def _heard_before(_number: int, _frame: FrameType | None) -> None:
    """Ignore it; unlike SIG_IGN no process that is started later inherits that."""
