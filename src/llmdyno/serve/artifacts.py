"""Artifacts: the results of builds (serve/build.py), each made once, kept, listed and removed.

An artifact's id is a hash of everything that it depends on, including its commands, so that a knob
set back to an old value finds the earlier build:

    artifacts/ID/               the engine's files, and beside them:
    artifacts/ID/manifest.json  what it is, from what, by which commands, how long they took
    artifacts/ID/build.log      what they wrote
    artifacts/.ID-XXXX/         a build under way; what a kill leaves of it is swept, never used
    artifacts/ID.lock           held while ID is built: of two dyno at once, one builds, one waits
    artifacts/ID.log            what the last failed build of ID wrote
"""

import contextlib
import fcntl
import hashlib
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from time import time

import msgspec

from llmdyno import store
from llmdyno.errors import StorageError, UsageError
from llmdyno.knobs import Value

MANIFEST = "manifest.json"
BUILD_LOG = "build.log"

# The history of the manifest's format: llmdyno.artifact/1 (November 2026) is the first.
_SCHEMA = "llmdyno.artifact/1"
_ID_DIGITS = 16


class Recipe(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that an artifact depends on; its hash is the artifact's id."""

    engine: str
    engine_version: str | None
    image: str  # of the container that it is built in; empty: natively
    gpus: tuple[str, ...]  # of this machine: compiled engines run on the kind they were built on
    model: str
    model_fingerprint: str
    knobs: dict[str, Value]  # of the layer `build`, without those at their defaults
    commands: tuple[tuple[str, ...], ...]

    @property
    def id(self) -> str:
        """The artifact's id: 16 hexadecimal digits of a hash of all the above."""
        digest = hashlib.sha256(msgspec.json.encode(self, order="sorted"))
        return digest.hexdigest()[:_ID_DIGITS]


class DoneStep(msgspec.Struct, frozen=True, kw_only=True):
    """One command of a build that has been run."""

    what: str
    command: str
    duration_s: float = msgspec.field(name="seconds")


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """The content of manifest.json."""

    schema: str = _SCHEMA
    id: str
    recipe: Recipe
    steps: tuple[DoneStep, ...]
    versions: dict[str, str]
    built: str  # when, in ISO 8601
    build_s: float = msgspec.field(name="seconds")
    size_bytes: int = msgspec.field(name="bytes")
    files: dict[str, int]  # path → size in bytes; an artifact with other files is not served


class Damaged(msgspec.Struct, frozen=True, kw_only=True):
    """An artifact whose manifest cannot be read or whose files are not whole; never served."""

    id: str


def home() -> Path:
    """Return the folder of the artifacts: $XDG_CACHE_HOME/llmdyno/artifacts."""
    return store.cache_folder("artifacts")


def listed() -> list[Manifest | Damaged]:
    """Return all artifacts in the cache, the last used one first."""
    found = []
    for folder in _folders():
        manifest = _read(folder)
        found.append((_used_s(folder), manifest or Damaged(id=folder.name)))
    return [entry for _, entry in sorted(found, key=lambda pair: -pair[0])]


def last_used_s(artifact: str) -> float:
    """Return when an artifact was last used, in seconds since 1970."""
    return _used_s(home() / artifact)


def remove(ids: Sequence[str]) -> list[str]:
    """Remove artifacts by their ids, or beginnings of ids; return the whole ids.

    Raises:
        UsageError: no artifact has that id, or several have it.
        StorageError: an artifact cannot be removed.
    """
    known = [folder.name for folder in _folders()]
    chosen = []
    for beginning in ids:
        name = Path(beginning).name  # the folder that `dyno build` has printed will do
        matches = [known_name for known_name in known if name and known_name.startswith(name)]
        if len(matches) != 1:
            found = f"{len(matches)} begin so" if matches else "none begins so"
            raise UsageError(f"artifact '{beginning}': {found}; `dyno artifacts` lists their ids.")
        chosen += matches
    for name in chosen:
        _remove(home() / name)
    return chosen


def prune(*, older_than_s: float | None, keep: int | None) -> list[str]:
    """Remove damaged and old artifacts and the logs of failed builds; return the ids removed.

    Args:
        older_than_s: remove artifacts that were not used for so long; None: no such limit.
        keep: the number of artifacts to keep, those last used; None: no such limit.

    Raises:
        StorageError: an artifact cannot be removed.
    """
    chosen = []
    whole = 0
    for entry in listed():
        if isinstance(entry, Damaged):
            chosen.append(entry.id)
            continue
        whole += 1
        too_old = older_than_s is not None and time() - last_used_s(entry.id) > older_than_s
        if too_old or (keep is not None and whole > keep):
            chosen.append(entry.id)
    for name in chosen:
        _remove(home() / name)
    sweep(logs=True)
    return chosen


@contextlib.contextmanager
def locked(artifact: str, notify: Callable[[str], None]) -> Iterator[None]:
    """Hold the lock of an artifact during the `with`; wait for another dyno that builds it.

    Args:
        artifact: its id.
        notify: called with a line if we must wait.
    """
    with (home() / f"{artifact}.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            notify("another dyno is building it; waiting")
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def sweep(*, logs: bool = False) -> None:
    """Remove the folders of builds that were killed, but not those of builds under way.

    Args:
        logs: remove the logs of failed builds, too.
    """
    left = [(path, path.name[1 : 1 + _ID_DIGITS]) for path in home().glob(".*-*")]
    if logs:
        left += [(path, path.stem) for path in home().glob("*.log")]
    for path, artifact in left:
        with (home() / f"{artifact}.lock").open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                continue
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)


def use(folder: Path) -> Manifest | None:
    """Return the manifest of a complete artifact and set its time of use; None: it is damaged."""
    manifest = _read(folder)
    if manifest is not None:
        with contextlib.suppress(OSError):  # a shared cache may be read-only for us
            os.utime(folder / MANIFEST)
    return manifest


def _read(folder: Path) -> Manifest | None:
    try:
        manifest = msgspec.json.decode((folder / MANIFEST).read_bytes(), type=Manifest)
    except (OSError, msgspec.MsgspecError):
        return None
    found = sizes(folder)
    whole = all(found.get(name) == size for name, size in manifest.files.items())
    return manifest if whole and manifest.id == folder.name else None


def _used_s(folder: Path) -> float:
    for path in (folder / MANIFEST, folder):
        with contextlib.suppress(OSError):
            return path.stat().st_mtime
    return 0.0


def _folders() -> list[Path]:
    pattern = re.compile(rf"[0-9a-f]{{{_ID_DIGITS}}}")
    if not home().is_dir():
        return []
    return [folder for folder in home().iterdir() if pattern.fullmatch(folder.name)]


def _remove(folder: Path) -> None:
    """Remove an artifact; it is renamed first, so that a kill leaves no half of it."""
    try:
        doomed = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
        folder.rename(doomed)
        shutil.rmtree(doomed)
    except OSError as error:
        raise StorageError(f"cannot remove {folder}: {error.strerror}.") from error


def sync(folder: Path) -> None:
    """Flush a folder's files to the disk, so that after a power cut no name lacks its content."""
    for path in (*folder.rglob("*"), folder):
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def sizes(folder: Path) -> dict[str, int]:
    """Return the files below a folder and their sizes in bytes."""
    return {
        str(path.relative_to(folder)): path.stat().st_size
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }
