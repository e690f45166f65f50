"""Other studies on this machine: each keeps a locked file where all of a user's studies look.

The lock goes with the process, however it ends, so a file that is left over is known as such and
removed. A home that several machines share has their files too: they are told apart by the boot.
"""

import fcntl
import os
import secrets
from contextlib import suppress
from pathlib import Path
from typing import IO, Self

import msgspec

from llmdyno import store

_BOOT = Path("/proc/sys/kernel/random/boot_id")


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
        self._own = Neighbour(os.getpid(), str(folder.resolve()), _boot())
        self.sitting = secrets.token_hex(4)  # the study's: one that goes on has another
        self._place = store.runtime_folder("studies-at-work")
        self._file: IO[bytes] | None = None

    def __enter__(self) -> Self:
        path = self._place / f"{os.getpid()}-{secrets.token_hex(4)}.json"
        with suppress(OSError):
            self._place.mkdir(parents=True, exist_ok=True)
            # Locked before it has its name, or another study takes it for one that is left over.
            hidden = path.with_suffix(".new")
            file = hidden.open("wb")
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            file.write(msgspec.json.encode(self._own))
            file.flush()
            hidden.rename(path)
            self._file = file
            self._path = path
        return self

    def __exit__(self, *_: object) -> None:
        if self._file is not None:
            with suppress(OSError):
                self._path.unlink()
            self._file.close()

    def others(self) -> list[Neighbour]:
        """Return the other studies that run on this machine now."""
        found = []
        with suppress(OSError):
            for path in sorted(self._place.glob("*.json")):
                other = _alive(path)
                if other is not None and other.boot == self._own.boot and other != self._own:
                    found.append(other)
        return found


def _alive(path: Path) -> Neighbour | None:
    """Read a study's file; one that nobody has locked is left over and is removed."""
    with suppress(OSError, msgspec.MsgspecError), path.open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return msgspec.json.decode(file.read(), type=Neighbour)
        path.unlink()
    return None


def _boot() -> str:
    try:
        return _BOOT.read_text("ascii").strip()
    except OSError:
        return ""
