"""The load: users or arrivals against one target, in this process or in several."""

from typing import Protocol


class LoadPoint(Protocol):
    """One load point under way: a level.Level in this process, or a workers.Crew."""

    interrupted: bool  # by a signal, a limit or a watcher
    stopped: str  # why it ended early, if a limit on errors or a lost worker ended it

    async def run(self) -> None:
        """Run it to its end."""

    def interrupt(self) -> None:
        """End it now; requests in flight are cut and recorded."""
