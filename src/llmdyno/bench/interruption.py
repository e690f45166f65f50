"""Ctrl-C, SIGTERM and a closed terminal while a benchmark runs.

They end the level, and its records are kept.
"""

import asyncio
import contextlib
import signal
from collections.abc import Iterator
from types import FrameType

from llmdyno.load import LoadPoint
from llmdyno.processes.stops import handled


class Interruption:
    """Ends the level that runs, or else the step that the run waits for.

    The run then still writes its summary. It must be made within the task of the run.
    """

    def __init__(self) -> None:
        task = asyncio.current_task()
        assert task is not None, "made within the run"
        self._task = task
        self._loop = asyncio.get_running_loop()
        self._is_over = False
        self.level: LoadPoint | None = None  # the one that runs now
        self.unheard: int | None = None  # the signal that came and that the run has not heard of
        self.came = False

    def note(self, number: int, _frame: FrameType | None = None) -> None:
        """Take a signal: at once, even if the event loop is busy and never turns again."""
        self.came, self.unheard = True, number
        self._loop.call_soon_threadsafe(self._come)

    def _come(self) -> None:
        """Interrupt the level that runs, or cancel the task of the run."""
        if self._is_over:
            return
        if self.level is not None:
            self.level.interrupt()
        else:
            self._task.cancel()

    def heard(self) -> bool:
        """Return whether a signal came; the run then says so to its caller."""
        self.unheard = None
        return self.came

    def end(self) -> None:
        """Interrupt nothing any more: the run is over."""
        self._is_over = True

    def take(self) -> None:
        """Take back the cancellation that a signal requested, so that the task can go on.

        Raises:
            CancelledError: the cancellation is somebody else's.
        """
        if not self.came:
            raise asyncio.CancelledError
        self.unheard = None
        self._task.uncancel()


@contextlib.contextmanager
def interruptible() -> Iterator[Interruption]:
    """Let SIGINT, SIGTERM and SIGHUP interrupt the body of the `with`; then restore their handlers.

    The handlers are Python's and not the loop's. Those are called by the loop, which has no turn
    left while the run writes its summary: a Ctrl-C of that moment would be lost.
    """
    interruption = Interruption()
    with handled(interruption.note) as before:
        try:
            yield interruption
        finally:
            interruption.end()
    if interruption.unheard is not None:  # it came after the run had looked for the last time
        number = signal.Signals(interruption.unheard)
        signal.signal(number, before[number])  # a hang-up, too, is the caller's to hear now
        signal.raise_signal(number)
