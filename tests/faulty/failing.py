"""A streamer that answers every third completion with status 500, once it has served a few."""

from typing import Any

from llmdyno.streamer import __main__ as command
from llmdyno.streamer.server import Streamer

_GOOD = 3  # the first, so that it is ready
_EVERY = 3


class Failing(Streamer):
    asked = 0

    def _complete(self, connection: Any, request: Any, *, chat: bool) -> None:
        self.asked += 1
        if self.asked > _GOOD and self.asked % _EVERY == 0:
            self._refuse(connection, 500, "It failed by itself.")
        else:
            super()._complete(connection, request, chat=chat)


if __name__ == "__main__":
    vars(command)["Streamer"] = Failing
    command.main()
