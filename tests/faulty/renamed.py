"""A streamer that names another model than the one that is asked, as a router's fallback does."""

from typing import Any

import msgspec

from llmdyno.streamer import __main__ as command
from llmdyno.streamer.server import Streamer


class Renamed(Streamer):
    def _complete(self, connection: Any, request: Any, *, chat: bool) -> None:
        asked = msgspec.json.decode(request.body)
        request.body[:] = msgspec.json.encode({**asked, "model": "another"})
        super()._complete(connection, request, chat=chat)


if __name__ == "__main__":
    vars(command)["Streamer"] = Renamed
    command.main()
