"""Ctrl-C and SIGTERM while a benchmark runs: they end the level, and its records are kept."""

import asyncio
import contextlib
import signal
from collections.abc import Iterator

from llmdyno.load import LoadPoint


class Interruption:
    """Ends the level that runs, or else the step that the run waits for.

    The run then still writes its summary. It must be made within the task of the run.
    """

    def __init__(self) -> None:
        task = asyncio.current_task()
        assert task is not None, "made within the run"
        self._task = task
        self.level: LoadPoint | None = None  # the one that runs now
        self.came = False

    def come(self) -> None:
        """Interrupt the level that runs, or cancel the task of the run; a signal calls this."""
        self.came = True
        if self.level is not None:
            self.level.interrupt()
        else:
            self._task.cancel()

    def take(self) -> None:
        """Take back the cancellation that `come` requested, so that the task can go on.

        Raises:
            CancelledError: the cancellation is somebody else's.
        """
        if not self.came:
            raise asyncio.CancelledError
        self._task.uncancel()


@contextlib.contextmanager
def interruptible() -> Iterator[Interruption]:
    """Let SIGINT and SIGTERM interrupt the body of the `with`; then restore their handlers."""
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
            signal.signal(number, handler)  # the loop would restore the system's default
