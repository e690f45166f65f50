"""The load: users or arrivals that send requests to one target, in this process or in several.

plan.py says what to send, level.py (one process) or workers.py (several) send it, and recorder.py
takes the records. bench/run.py starts one LoadPoint after the other.
"""

from typing import Protocol


class LoadPoint(Protocol):
    """One load point under way: a level.Level in this process, or a workers.Crew."""

    interrupted: bool  # by a signal, a limit or a watcher
    stopped: str  # why it ended early, if a limit on errors or a lost worker ended it

    async def run(self) -> None:
        """Run the load point and wait for its end.

        Raises:
            TargetError: a worker does not start.
            StorageError: a record could not be written.
        """

    def interrupt(self) -> None:
        """End it early; requests in flight are cut and recorded. Returns at once."""
