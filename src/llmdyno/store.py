"""The store: where runs and studies lie on disk, and how they are found again.

runs/<id>/journal.jsonl    everything that happened, appended as it happens
runs/<id>/journal-0.jsonl  ... by its workers, should it have some: a file each
runs/<id>/summary.json     derived from the journal; can be made again at any time
studies/<id>/ledger.jsonl  a line for each config that was measured, appended as it is known
studies/<id>/study.json    derived from the ledger and the journals of the study's runs
"""

import fcntl
import os
import re
import secrets
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any

import msgspec

from llmdyno.errors import StorageError, UsageError

RUNS = Path("runs")
STACKS = "stacks"  # within the folder of a study over several engines: a study of each
STUDIES = Path("studies")
JOURNAL = "journal.jsonl"
SUMMARY = "summary.json"
LEDGER = "ledger.jsonl"
STUDY = "study.json"
SCHEMAS = {SUMMARY: "llmdyno.summary/1", STUDY: "llmdyno.study/1"}
REPORT = "report.html"
BUNDLE = "bundle"
LOCK = ".lock"
_ID_END_MIN = 4
HELD = (JOURNAL, SUMMARY, LEDGER, STUDY)  # by one of which a folder is a run or a study


def home(instead: str | None = None) -> Path:
    """Return the user's home folder.

    Args:
        instead: the variable that the caller has read before, if there is one; it would do, too.

    Raises:
        UsageError: it is not known, as of a container's user without a name.
    """
    try:
        return Path.home()
    except RuntimeError:
        names = f"HOME, or {instead}," if instead else "HOME"
        raise UsageError(
            f"HOME is not set, and user {os.getuid()} has no home folder on this machine: set"
            f" {names} to a folder that can be written."
        ) from None


def cache_folder(kind: str) -> Path:
    """Return the folder for files that can be made again: $XDG_CACHE_HOME/llmdyno/KIND.

    Raises:
        UsageError: neither that variable nor a home folder is there.
    """
    cache = os.environ.get("XDG_CACHE_HOME") or home("XDG_CACHE_HOME") / ".cache"
    return Path(cache) / "llmdyno" / kind


def runtime_folder(kind: str) -> Path:
    """Return the folder for what holds while processes run: $XDG_RUNTIME_DIR/llmdyno/KIND.

    Without that variable it is the cache's.
    """
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    return Path(runtime) / "llmdyno" / kind if runtime else cache_folder(kind)


def new_id(label: str) -> str:
    """Return a new id: the time (UTC), the label, and four random hexadecimal digits."""
    stamp = datetime.now(UTC).strftime("%Y%m%d-%H%M%S")
    return f"{stamp}-{re.sub(r'[^a-z0-9.]+', '-', label.lower()).strip('-')}-{secrets.token_hex(2)}"


def began(name: str) -> str:
    """Return the time in an id of new_id(), which sorts as time does: "20261130-082446"."""
    return "-".join(name.split("-")[:2])


def choose_folder(wanted: str | None, parent: Path, name: str, marker: str) -> Path:
    """Return the folder for a new run or study: `wanted`, or parent/name. Nothing is made yet.

    Raises:
        UsageError: `wanted` already holds a run or study (it has a file called `marker`).
    """
    folder = Path(wanted) if wanted else parent / name
    check_folder(folder)
    if (folder / marker).exists():
        raise UsageError(f"--out {folder}: already holds results; name another folder.")
    return folder


def check_folder(folder: Path) -> None:
    """Refuse a folder for results that cannot be one. Nothing is made.

    Raises:
        UsageError: a file is in its way, it may not be written, or its name is no text.
    """
    _check_text(folder)
    there = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    if not there.is_dir():
        raise UsageError(f"--out {folder}: {there} is a file; name a folder.")
    if not os.access(there, os.W_OK | os.X_OK):
        raise UsageError(f"--out {folder}: {there} may not be written; name another folder.")


def _check_text(path: Path) -> None:
    """Refuse a path that no document can name: its bytes are not of this system's encoding.

    Raises:
        UsageError: it is such a one.
    """
    where = str(path.absolute())
    try:
        where.encode()
    except UnicodeEncodeError:
        readable = os.fsencode(where).decode("ascii", "backslashreplace")
        raise UsageError(
            f"{readable}: is no {sys.getfilesystemencoding()}; rename that folder, or work in"
            " another one."
        ) from None


def check_file(flag: str, file: Path) -> None:
    """Refuse a file to write that cannot be one.

    Raises:
        UsageError: there is no such folder, it is a folder, or it may not be written.
    """
    if not file.parent.is_dir():
        raise UsageError(f"{flag} {file}: there is no folder {file.parent}.")
    if file.is_dir():
        raise UsageError(f"{flag} {file}: is a folder; name a file.")
    if not os.access(file if file.exists() else file.parent, os.W_OK):
        raise UsageError(f"{flag} {file}: may not be written; name another one.")


def make_folder(folder: Path) -> None:
    """Make a folder, if it is not there.

    Raises:
        StorageError: it cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StorageError(f"cannot make the folder {folder}: {error.strerror}.") from error


def hold(folder: Path) -> IO[str]:
    """Lock a folder until the returned file is closed or this process ends; it does not wait.

    On a file system without such locks nothing is locked.

    Raises:
        UsageError: another process has locked it.
        StorageError: the lock's file cannot be made.
    """
    try:
        lock = (folder / LOCK).open("w")
    except OSError as error:
        raise StorageError(f"cannot write {folder / LOCK}: {error.strerror}.") from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        lock.close()
        raise UsageError(
            f"{folder}: another dyno is at work there; wait for it, or stop it."
        ) from None
    except OSError:
        pass
    return lock


@contextmanager
def temporary_folder(name: str) -> Iterator[Path]:
    """Make a temporary folder for the `with`, and remove those of processes that were killed.

    Raises:
        StorageError: the folder cannot be made.
    """
    parent = Path(tempfile.gettempdir())
    for left in parent.glob(f"{name}-*/{LOCK}"):
        with suppress(OSError), left.open("r+") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)  # OSError: its owner still runs
            shutil.rmtree(left.parent, ignore_errors=True)
    try:
        folder = tempfile.TemporaryDirectory(prefix=f"{name}-", dir=parent)
        lock = Path(folder.name, f"{LOCK}.new").open("w")  # noqa: SIM115 - held until the end
        fcntl.flock(lock, fcntl.LOCK_EX)
        Path(lock.name).rename(Path(folder.name, LOCK))
    except OSError as error:
        raise StorageError(f"cannot make a folder in {parent}: {error.strerror}.") from error
    with folder as path, lock:
        yield Path(path)


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file whole or not at all.

    Raises:
        StorageError: it cannot be written; an older file of that name is untouched.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        temporary.write_bytes(content)
        temporary.replace(path)
    except OSError as error:
        with suppress(OSError):  # a read-only file system refuses this, too
            temporary.unlink()
        raise StorageError(f"cannot write {path}: {error.strerror}.") from error


def write_json(path: Path, document: Any) -> None:
    """Write a document as indented JSON, whole or not at all.

    Raises:
        StorageError: it cannot be written; an older file of that name is untouched.
    """
    write_atomically(path, msgspec.json.format(msgspec.json.encode(document), indent=2) + b"\n")


def read_json(path: Path) -> Any:
    """Read a JSON document.

    Raises:
        StorageError: there is no such file or it is not JSON.
    """
    try:
        return msgspec.json.decode(path.read_bytes())
    except OSError as error:
        raise StorageError(f"cannot read {path}: {error.strerror}.") from error
    except msgspec.MsgspecError as error:
        raise StorageError(f"{path}: is not JSON: {error}.") from error


def read_document(path: Path) -> dict[str, Any]:
    """Read a summary.json or study.json.

    Raises:
        StorageError: there is no such file, or it holds something else, as of another tool or a
            newer version.
    """
    document, schema = read_json(path), SCHEMAS[path.name]
    found = document.get("schema") if isinstance(document, dict) else None
    if found != schema:
        what = f"the schema {found}" if found else "no document of dyno's"
        raise StorageError(f"{path}: holds {what}; this version reads {schema}.")
    return dict(document)


def find(name: str) -> Path:
    """Return the folder of a run or study.

    Args:
        name: the folder, a file in it, the id, or the end of the id, from four characters on: a
            shorter one, or one from its middle, would be met by chance.

    Raises:
        UsageError: no run or study has that name, several have it, or it may not be read.
    """
    path = Path(name)
    try:
        folder = path.parent if path.is_file() else path
        if path.is_file() and not any((folder / one).exists() for one in HELD):
            raise UsageError(f"{name}: is no file of a run or study; `dyno import` reads others'.")
        if folder.is_dir():
            _check_text(folder)
            next(folder.iterdir(), None)
            (folder / JOURNAL).exists()
            return folder
    except OSError as error:
        raise UsageError(f"{name}: cannot be read: {error.strerror}.") from error
    long = len(name) >= _ID_END_MIN
    matches = [
        folder
        for parent in (RUNS, STUDIES)
        if parent.is_dir()
        for folder in sorted(parent.iterdir())
        if folder.is_dir() and (folder.name == name or (long and folder.name.endswith(name)))
    ]
    if len(matches) == 1:
        return matches[0]
    if not matches:
        raise UsageError(f"{name}: no such run or study here. `dyno runs` lists them.")
    listed = ", ".join(folder.name for folder in matches[:5])
    raise UsageError(f"{name}: matches {len(matches)} runs: {listed}. Name one of them.")
