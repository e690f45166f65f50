"""What lies in the store: runs and studies with their engine, model, start, tags and size.

What `--out` has put into a folder beside the store is found with it, if it lies in this folder.

Tags are a file in the folder of a run or study, tags.json, so they go where the folder goes. What
is tagged, still running, or not in the store, is never pruned.
"""

import fcntl
import os
import re
import shutil
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any, Literal

import msgspec

from llmdyno import store, units
from llmdyno.errors import StorageError, UsageError
from llmdyno.results.documents import items, text
from llmdyno.store import JOURNAL, LEDGER, STUDY, SUMMARY

TAGS = "tags.json"
_TAG = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_STAMP = re.compile(r"(\d{8}-\d{6})-")
_GONE = ".pruned-"  # a folder that is being removed

Kind = Literal["run", "study"]

_FILES: Mapping[Kind, tuple[str, str]] = {"run": (JOURNAL, SUMMARY), "study": (LEDGER, STUDY)}
_HERE = Path()
_PLACES: tuple[tuple[Path, Kind], ...] = (
    (store.RUNS, "run"),
    (store.STUDIES, "study"),
    (_HERE, "run"),
    (_HERE, "study"),
)


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """A run or a study of the store."""

    folder: Path
    kind: Kind
    document: Mapping[str, Any]  # its summary.json or study.json; empty: there is none yet
    fault: str  # why that cannot be read; empty: it can
    started: datetime
    tags: tuple[str, ...]
    size_bytes: int
    running: bool
    stored: bool = True  # in the store; else in a folder that a person has named

    @property
    def id(self) -> str:
        """The name of its folder, by which `dyno` finds it."""
        return self.folder.name

    @property
    def engines(self) -> tuple[str, ...]:
        """The engines of a study, or what kind of server a run found; empty: it is not known."""
        found = self.document
        if self.kind == "study":
            names = [text(one, "engine") for one in items(found, "combinations")]
            return tuple(dict.fromkeys(name for name in [*names, text(found, "engine")] if name))
        kinds = (text(level, "server", "kind") for level in items(found, "levels"))
        return tuple(dict.fromkeys(kind for kind in kinds if kind))

    @property
    def model(self) -> str:
        """The model that was asked, or tuned."""
        return text(self.document, "model") or text(self.document, "spec", "model")


class Filter(msgspec.Struct, frozen=True, kw_only=True):
    """Which runs and studies are meant; an empty field asks for nothing."""

    engine: str = ""
    model: str = ""  # a part of its name
    tag: str = ""
    since: datetime | None = None

    def takes(self, entry: Entry) -> bool:
        """Tell whether an entry is among those that are meant."""
        return (
            (not self.engine or self.engine in entry.engines)
            and self.model.lower() in entry.model.lower()
            and (not self.tag or self.tag in entry.tags)
            and (self.since is None or entry.started >= self.since)
        )


def entries(wanted: Filter | None = None) -> list[Entry]:
    """Return the runs and studies of this folder that a filter takes, oldest first.

    They are those of the store, and those in folders beside it, but for links and copies.
    """
    found: list[Entry] = []
    for parent, kind in _PLACES:
        marker, document = _FILES[kind]
        for folder in _folders(parent):
            has_marker = _is_there(folder / marker)
            # An imported run has no journal.
            if not (has_marker or _is_there(folder / document)):
                continue
            entry = _entry(folder, marker, document, kind, stored=parent != _HERE)
            # Others write a summary.json, too.
            if entry.stored or ((has_marker or entry.document) and not _is_copy(entry, found)):
                found.append(entry)
    taken = found if wanted is None else [entry for entry in found if wanted.takes(entry)]
    return sorted(taken, key=lambda entry: (entry.started, entry.id))


def _is_copy(entry: Entry, found: Iterable[Entry]) -> bool:
    """Tell whether what lies beside the store is there already: a link to it, or its copy."""
    own = text(entry.document, entry.kind)
    began = (own, entry.started) if own else None
    return any(
        entry.folder.resolve() == other.folder.resolve()
        or began == (text(other.document, entry.kind), other.started)
        for other in found
        if other.kind == entry.kind
    )


def _folders(parent: Path) -> list[Path]:
    """Return the folders in a folder; a hidden one is none, as one that a prune has left."""
    try:
        return sorted(one for one in parent.iterdir() if not one.name.startswith("."))
    except OSError:
        return []


def _is_there(file: Path) -> bool:
    """Tell whether there is a file, and we may know it."""
    try:
        return file.exists()
    except OSError:
        return False


def _entry(folder: Path, marker: str, document: str, kind: Kind, *, stored: bool) -> Entry:
    read: Mapping[str, Any] = {}
    fault = ""
    try:
        if (folder / document).exists():
            read = store.read_document(folder / document)
    except StorageError as error:
        fault = str(error)
    return Entry(
        folder=folder,
        kind=kind,
        document=read,
        fault=fault,
        started=_started(folder, read),
        tags=tags_of(folder),
        size_bytes=size_bytes(folder),
        running=_is_locked(folder / (marker if kind == "run" else store.LOCK)),
        stored=stored,
    )


def _started(folder: Path, document: Mapping[str, Any]) -> datetime:
    """Return when it began: by its document, its id, its baseline, or the age of its folder."""
    if said := _moment(text(document, "started")):
        return said
    if stamp := _STAMP.match(folder.name):
        with suppress(ValueError):
            return datetime.strptime(stamp[1], "%Y%m%d-%H%M%S").replace(tzinfo=UTC)
    if said := _moment(text(document, "baseline", "summary", "started")):
        return said
    return datetime.fromtimestamp(folder.stat().st_mtime, UTC)


def _moment(words: str) -> datetime | None:
    """Read a moment as documents have it; None: it is none."""
    try:
        said = datetime.fromisoformat(words)
    except ValueError:
        return None
    return said if said.tzinfo else said.replace(tzinfo=UTC)


def _is_locked(file: Path) -> bool:
    """Tell whether a process that runs holds a file."""
    try:
        with file.open() as held:
            fcntl.flock(held, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:  # there is none, or no such locks here
        return False
    return False


def size_bytes(folder: Path) -> int:
    """Return what a folder takes on the disk; links are not followed."""
    total = 0
    for parent, _, files in os.walk(folder):
        for name in files:
            with suppress(OSError):  # it went meanwhile
                total += Path(parent, name).lstat().st_blocks * 512
    return total


def since(words: str, now: datetime) -> datetime:
    """Read --since: a day (2026-11-28), a moment, or how long ago (7d).

    Raises:
        UsageError: it is none of them.
    """
    with suppress(UsageError):
        return now - timedelta(seconds=units.seconds(words, "--since"))
    try:
        if len(words) == len("2026-11-28"):
            return datetime.combine(date.fromisoformat(words), datetime.min.time()).astimezone()
        return datetime.fromisoformat(words).astimezone()
    except ValueError:
        raise UsageError(
            f"--since {words}: write a day such as 2026-11-28, or how long ago, such as 7d."
        ) from None


def tags_of(folder: Path) -> tuple[str, ...]:
    """Return the tags of a run or study; a file that cannot be read counts as one, named "?"."""
    if not (folder / TAGS).exists():
        return ()
    try:
        return tuple(msgspec.json.decode((folder / TAGS).read_bytes(), type=list[str]))
    except (OSError, msgspec.MsgspecError):
        return ("?",)  # so that it is not pruned


def tag(folder: Path, name: str, *, remove: bool = False) -> tuple[str, ...]:
    """Give a run or study a tag, or take it away; return the tags that it has then.

    Raises:
        UsageError: the name is none for a tag, the folder is no run or study, or lacks the tag.
        StorageError: it cannot be written.
    """
    if not _TAG.fullmatch(name):
        raise UsageError(
            f"dyno runs tag: {name!r} is no tag; use letters, digits, dots, hyphens and"
            " underscores, 64 at most."
        )
    if not any((folder / one).exists() for one in store.HELD):
        raise UsageError(f"{folder}: holds neither a run nor a study.")
    tags = tags_of(folder)
    if remove and name not in tags:
        has = f"it has {', '.join(tags)}" if tags else "it has none"
        raise UsageError(f"dyno runs tag {folder.name}: has no tag {name}; {has}.")
    kept = [one for one in tags if one not in {name, "?"}] + ([] if remove else [name])
    if kept:
        store.write_json(folder / TAGS, sorted(kept))
    else:
        (folder / TAGS).unlink(missing_ok=True)
    return tuple(sorted(kept))


def prunable(
    found: Sequence[Entry], now: datetime, *, keep: int | None, older_than_s: float | None
) -> list[Entry]:
    """Return what may be removed, oldest first.

    What is tagged, runs, lies behind a link or outside the store stays; the newest `keep` stay,
    and all that is younger. Both limits hold at once.

    Args:
        found: as entries() has them.
        now: the time.
        keep: how many of the newest stay, whether tagged or not; None: no limit by number.
        older_than_s: the age from which one may go; None: any age.
    """
    stored = [entry for entry in found if entry.stored]
    newest_first = sorted(stored, key=lambda entry: entry.started, reverse=True)
    spare = newest_first[keep or 0 :]
    return [
        entry
        for entry in reversed(spare)
        if not (entry.tags or entry.running or entry.folder.is_symlink())
        and (older_than_s is None or (now - entry.started).total_seconds() > older_than_s)
    ]


def remove(chosen: Iterable[Entry]) -> list[Entry]:
    """Remove runs and studies whole; return those that are gone.

    Each is looked at once more: one that was tagged or taken up meanwhile stays.

    Raises:
        StorageError: one cannot be removed.
    """
    gone = []
    for parent in (store.RUNS, store.STUDIES):
        for left in parent.glob(f"{_GONE}*"):
            shutil.rmtree(left, ignore_errors=True)
    for entry in chosen:
        marker = JOURNAL if entry.kind == "run" else store.LOCK
        if tags_of(entry.folder) or _is_locked(entry.folder / marker):
            continue
        # Renamed first: a folder that is half gone must not look like a run.
        going = entry.folder.with_name(f"{_GONE}{entry.id}")
        try:
            entry.folder.rename(going)
            shutil.rmtree(going)
        except OSError as error:
            raise StorageError(f"cannot remove {entry.folder}: {error.strerror}.") from error
        gone.append(entry)
    return gone
