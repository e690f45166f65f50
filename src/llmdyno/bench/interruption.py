"""Ctrl-C and SIGTERM while a benchmark runs: the level ends, its records are kept."""

import asyncio
import contextlib
import signal
from collections.abc import Iterator

from llmdyno.load import LoadPoint


class Interruption:
    """Ends the level that runs, or whatever else the run waits for; its summary is still written.

    Made within the task of the run.
    """

    def __init__(self) -> None:
        task = asyncio.current_task()
        assert task is not None, "made within the run"
        self._task = task
        self.level: LoadPoint | None = None  # that runs now
        self.came = False

    def come(self) -> None:
        """End what runs: called by a signal."""
        self.came = True
        if self.level is not None:
            self.level.interrupt()
        else:
            self._task.cancel()

    def take(self) -> None:
        """Take back the cancellation that `come` asked for.

        Raises:
            CancelledError: somebody else asked for it.
        """
        if not self.came:
            raise asyncio.CancelledError
        self._task.uncancel()


@contextlib.contextmanager
def interruptible() -> Iterator[Interruption]:
    """Let SIGINT and SIGTERM interrupt what is done inside; before and after, they do as before."""
    interruption = Interruption()
    loop = asyncio.get_running_loop()
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    for number in before:
        loop.add_signal_handler(number, interruption.come)
    try:
        yield interruption
    finally:
        for number, handler in before.items():
            loop.remove_signal_handler(number)
            signal.signal(number, handler)  # the loop would leave the system's own
