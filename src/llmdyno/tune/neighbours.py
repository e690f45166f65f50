"""Other studies on this machine: each keeps a file where all of a user's studies look."""

import os
import secrets
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Self

import msgspec

from llmdyno import store
from llmdyno.processes import presence


class Neighbour(msgspec.Struct, frozen=True):
    """A study that runs now."""

    pid: int
    folder: str
    boot: str = ""


class Presence:
    """That a study runs on this machine, for as long as the `with` lasts.

    Where no such file can be written nobody is warned; the study goes on.
    """

    def __init__(self, folder: Path) -> None:
        self._own = Neighbour(os.getpid(), str(folder.resolve()), presence.boot())
        self.sitting = secrets.token_hex(4)  # the study's: one that goes on has another
        self._place = store.runtime_folder("studies-at-work")
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        self._stack.enter_context(presence.present(self._place, msgspec.json.encode(self._own)))
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def others(self) -> list[Neighbour]:
        """Return the other studies that run on this machine now."""
        found = []
        for content in presence.at_work(self._place):
            with suppress(msgspec.MsgspecError):
                other = msgspec.json.decode(content, type=Neighbour)
                if other.boot == self._own.boot and other != self._own:
                    found.append(other)
        return found
