"""Files that say what runs on this machine now: each is locked by the process that wrote it.

The lock goes with the process, however it ends, so a file that is left over is known as such and
removed. A home that several machines or containers share has their files too: machines are told
apart by the boot, and of servers also containers, by their network.
"""

import fcntl
import ipaddress
import os
import secrets
import socket
from collections.abc import Collection, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import msgspec

from llmdyno import store
from llmdyno.knobs import Value

_BOOT = Path("/proc/sys/kernel/random/boot_id")
_NETWORK = Path("/proc/self/ns/net")
_SERVED = "servers-at-work"
_UNFINISHED = ".new"
_TRIES = 3  # another process may sweep our file away before it is locked


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
    host: str = ""  # where it listens
    names: tuple[str, ...] = ()  # of the model in requests, beside `model`
    boot: str = ""
    network: str = ""


@contextmanager
def present(place: Path, content: bytes) -> Iterator[None]:
    """Keep a file in a folder, which is the user's alone, while the `with` lasts.

    Where no such file can be written nobody hears of it; that is no failure.
    """
    path = place / f"{os.getpid()}-{secrets.token_hex(4)}.json"
    with ExitStack() as kept:
        for _ in range(_TRIES):
            with suppress(OSError):
                _make_private(place)
                kept.enter_context(_written(path, content))
                break
        yield


def _make_private(place: Path) -> None:
    place.mkdir(mode=0o700, parents=True, exist_ok=True)
    with suppress(OSError):
        place.chmod(0o700)  # an older version has made it for all to read


def _written(path: Path, content: bytes) -> ExitStack:
    """Write a locked file and return what removes it; nothing of it is left if that fails."""
    # Locked before it has its name, or somebody takes it for one that is left over.
    hidden = path.with_suffix(_UNFINISHED)
    with ExitStack() as made:
        file = made.enter_context(hidden.open("wb"))
        made.callback(_remove, hidden)
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        file.write(content)
        file.flush()
        made.callback(_remove, path)
        hidden.rename(path)
        return made.pop_all()


def _remove(path: Path) -> None:
    with suppress(OSError):
        path.unlink()


def at_work(place: Path) -> list[bytes]:
    """Return what the files say whose processes are alive; the others are removed."""
    with suppress(OSError):
        for path in place.glob(f"*{_UNFINISHED}"):
            _alive(path)
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


def network() -> str:
    """Return what tells the network of this process from that of a container; empty: unknown."""
    try:
        return str(_NETWORK.readlink())
    except OSError:
        return ""


@contextmanager
def serving(served: Served) -> Iterator[None]:
    """Let `dyno bench` know a server's settings while the `with` lasts."""
    here = msgspec.structs.replace(served, boot=boot(), network=network())
    with present(store.runtime_folder(_SERVED), msgspec.json.encode(here)):
        yield


def served_at(host: str, port: int, models: Collection[str]) -> Served | None:
    """Return the server that `dyno serve` has at an address of this machine now.

    Args:
        host: a name or an address of this machine, as a client asks it.
        port: of the server.
        models: the names in the requests; the server must have one of them. None are given where
            requests name no model.
    """
    for content in at_work(store.runtime_folder(_SERVED)):
        with suppress(msgspec.MsgspecError):
            found = msgspec.json.decode(content, type=Served)
            here = found.boot == boot() and found.network in ("", network())
            if here and found.port == port and _answers(found, models) and _hears(found, host):
                return found
    return None


def _answers(served: Served, models: Collection[str]) -> bool:
    return not models or not {served.model, *served.names}.isdisjoint(models)


def _hears(served: Served, host: str) -> bool:
    """Return whether a server listens where a client asks; one that says no host may."""
    if not served.host or _is_any(served.host):
        return True
    return not _addresses(served.host).isdisjoint(_addresses(host))


def _is_any(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_unspecified
    except ValueError:
        return False


def _addresses(host: str) -> set[str]:
    """Return the addresses of a host; a client that asks 0.0.0.0 or :: asks the loopback."""
    names = ("127.0.0.1", "::1") if _is_any(host) else (host,)
    found = set()
    for name in names:
        with suppress(OSError):
            known = socket.getaddrinfo(name, 0, type=socket.SOCK_STREAM)
            found |= {str(address[0]) for *_, address in known}
    return found
