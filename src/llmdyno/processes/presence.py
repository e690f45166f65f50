"""Files that say what runs on this machine now: each is locked by the process that wrote it.

The lock goes with the process, however it ends, so a file that is left over is known as such and
removed. A home that several machines share has their files too: they are told apart by the boot.
"""

import fcntl
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import msgspec

from llmdyno import store
from llmdyno.knobs import Value

_BOOT = Path("/proc/sys/kernel/random/boot_id")
_SERVED = "servers-at-work"


class Served(msgspec.Struct, frozen=True, kw_only=True):
    """A server of this machine that `dyno serve` has started, and its settings.

    A file that an older llmdyno has written lacks the fields that have a default.
    """

    port: int
    engine: str
    front: str
    model: str
    config: dict[str, Value]
    engine_args: tuple[str, ...] = ()  # words of the user at the end of the engine's command
    boot: str = ""


@contextmanager
def present(place: Path, content: bytes) -> Iterator[None]:
    """Keep a file in a folder while the `with` lasts.

    Where no such file can be written nobody hears of it; that is no failure.
    """
    path = place / f"{os.getpid()}-{secrets.token_hex(4)}.json"
    with suppress(OSError):
        place.mkdir(parents=True, exist_ok=True)
        # Locked before it has its name, or somebody takes it for one that is left over.
        hidden = path.with_suffix(".new")
        file = hidden.open("wb")
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        file.write(content)
        file.flush()
        hidden.rename(path)
    try:
        yield
    finally:
        with suppress(OSError, UnboundLocalError):
            path.unlink()
            file.close()


def at_work(place: Path) -> list[bytes]:
    """Return what the files say whose processes are alive; the others are removed."""
    with suppress(OSError):
        found = [_alive(path) for path in sorted(place.glob("*.json"))]
        return [content for content in found if content is not None]
    return []


def _alive(path: Path) -> bytes | None:
    with suppress(OSError), path.open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return file.read()
        path.unlink()
    return None


def boot() -> str:
    """Return what tells this machine, since it was started, from others."""
    try:
        return _BOOT.read_text("ascii").strip()
    except OSError:
        return ""


@contextmanager
def serving(served: Served) -> Iterator[None]:
    """Let `dyno bench` know a server's settings while the `with` lasts."""
    here = msgspec.structs.replace(served, boot=boot())
    with present(store.runtime_folder(_SERVED), msgspec.json.encode(here)):
        yield


def served_at(port: int) -> Served | None:
    """Return the server that `dyno serve` has at a port of this machine now."""
    for content in at_work(store.runtime_folder(_SERVED)):
        with suppress(msgspec.MsgspecError):
            found = msgspec.json.decode(content, type=Served)
            if found.port == port and found.boot == boot():
                return found
    return None
