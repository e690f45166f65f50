"""Baselines: runs that are kept under a name, to compare others with.

baselines/<name>/<machine>-<workload>/baseline.json    what is kept, and for which machine
baselines/<name>/<machine>-<workload>/<number>/        the files of each of its runs

A name holds one baseline for each machine and workload, so that one name serves several runners in
CI. The files are copies: a baseline outlives the folder of its run.
"""

import hashlib
import re
import shutil
import tempfile
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from llmdyno import store
from llmdyno.errors import StorageError, UsageError
from llmdyno.results import doubts
from llmdyno.results.documents import Document, items, level_name, part, text
from llmdyno.results.likeness import lengths
from llmdyno.results.lost import of_level
from llmdyno.results.pair_doubts import FAULTS
from llmdyno.results.sides import Start
from llmdyno.store import JOURNAL, SUMMARY

BASELINES = Path("baselines")
PREFIX = "baseline:"
_DOCUMENT = "baseline.json"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


class Kept(msgspec.Struct, frozen=True, kw_only=True):
    """One baseline. Its fields are the keys of baseline.json and of `dyno baseline show --json`."""

    name: str
    machine: str
    workload: str
    runs: tuple[str, ...]
    kept: str  # when, ISO 8601
    dir: str = ""  # where it lies; empty in the file, which may be moved


def check_name(name: str) -> None:
    """Refuse a name that cannot be a folder's.

    Raises:
        UsageError: it is none.
    """
    if not _NAME.fullmatch(name):
        raise UsageError(
            f"dyno baseline: '{name}' is no name; use letters, digits, dots, hyphens and"
            " underscores, e.g. main."
        )


def keep(name: str, starts: Sequence[Start]) -> tuple[Kept, Kept | None]:
    """Keep runs under a name; return what is kept, and what it has replaced.

    Raises:
        UsageError: it is no name, or a run's server answered nothing.
        StorageError: the runs cannot be copied.
    """
    check_name(name)
    _check_measured(starts)
    first = starts[0].summary
    kept = Kept(
        name=name,
        machine=machine(first),
        workload=workload(first),
        runs=tuple(start.run for start in starts),
        kept=datetime.now(UTC).isoformat(timespec="seconds"),
    )
    folder = BASELINES / name / _key(first)
    before = _read(folder)
    store.make_folder(folder.parent)
    try:
        made = Path(tempfile.mkdtemp(prefix=".new-", dir=folder.parent))
        for number, start in enumerate(starts):
            _copy(start, made / str(number))
        store.write_json(made / _DOCUMENT, kept)
        old = made.with_name(f".old-{made.name}")
        if folder.exists():
            folder.rename(old)
        made.rename(folder)
        shutil.rmtree(old, ignore_errors=True)
    except OSError as error:
        raise StorageError(f"cannot keep a baseline in {folder}: {error.strerror}.") from error
    return msgspec.structs.replace(kept, dir=str(folder)), before


def _check_measured(starts: Sequence[Start]) -> None:
    """Refuse a run with which nothing can be compared.

    Raises:
        UsageError: a level of it answered nothing.
    """
    for start in starts:
        for level in items(start.summary, "levels"):
            requests = of_level(level)
            if requests.failed and not requests.completed:
                raise UsageError(
                    f"dyno baseline: at {level_name(level)} all {requests.failed:,} requests of"
                    f" {start.run} failed; keep a run whose server answered."
                )


def faults(starts: Sequence[Start]) -> list[str]:
    """Say what befell runs that are to be a baseline: what is compared with them is held to it."""
    return [
        f"{start.run}, {one.sentence}"
        for start in starts
        for one in doubts.of(start.summary)
        if one.code in FAULTS
    ]


def kept(name: str | None = None) -> list[Kept]:
    """Return what is kept in this folder, or of it what has a name.

    Raises:
        UsageError: nothing has that name.
    """
    folders = sorted(BASELINES.glob("[!.]*/[!.]*")) if BASELINES.is_dir() else []
    found = [one for folder in folders if (one := _read(folder)) is not None]
    if name is None:
        return found
    named = [one for one in found if one.name == name]
    if not named:
        known = ", ".join(dict.fromkeys(one.name for one in found)) or "none"
        raise UsageError(
            f"{PREFIX}{name}: there is no such baseline here (kept: {known});"
            f" `dyno baseline set {name} RUN` keeps one."
        )
    return named


def find(name: str, like: Document) -> list[Path]:
    """Return the folders of the runs that are kept under a name for a run's machine and workload.

    Args:
        name: of the baseline.
        like: the summary of the run that is compared with it.

    Raises:
        UsageError: nothing is kept under it, or only for another machine or workload.
    """
    known = kept(name)
    folder = BASELINES / name / _key(like)
    if _read(folder) is None:
        listed = "; ".join(f"{one.workload} on {one.machine}" for one in known)
        raise UsageError(
            f"{PREFIX}{name}: nothing is kept for {workload(like)} on {machine(like)}, but for"
            f" {listed}; `dyno baseline set {name} RUN` keeps another one."
        )
    return sorted(
        (path for path in folder.iterdir() if path.is_dir()), key=lambda path: int(path.name)
    )


def machine(summary: Document) -> str:
    """Name the machine of a run: its GPUs, or else its CPU and cores."""
    place = part(summary, "environment")
    gpus = [text(gpu, "name") for gpu in items(place, "gpus")]
    cpu, cores = text(place, "cpu", "model"), text(place, "cpu", "cores_usable")
    if gpus:
        return f"{len(gpus)} x {gpus[0]}, {cpu}" if cpu else f"{len(gpus)} x {gpus[0]}"
    return f"{cpu}, {cores} cores" if cpu or cores else "an unknown machine"


def workload(summary: Document) -> str:
    """Name the workload of a run."""
    asked = part(summary, "spec", "workload")
    name = text(asked, "name") or text(summary, "spec", "tool") or "an unknown workload"
    told = [name, *(f"{key} {lengths(asked[key])}" for key in ("isl", "osl") if asked.get(key))]
    if dataset := text(asked, "dataset"):
        told.append(Path(dataset).name)
    return " ".join(told)


def _key(summary: Document) -> str:
    """Return the folder's name of a machine and a workload."""
    place = part(summary, "environment")
    cpu = part(place, "cpu")
    where = {
        "cpu": [cpu.get(key) for key in ("model", "cores_usable", "quota_cores")],
        "memory": place.get("memory_bytes"),
        "gpus": [text(gpu, "name") for gpu in items(place, "gpus")],
    }
    asked = {
        key: value
        for key, value in part(summary, "spec", "workload").items()
        if key != "seed" and value is not None
    }
    return "-".join(
        hashlib.sha256(msgspec.json.encode(facts, order="deterministic")).hexdigest()[:8]
        for facts in (where, asked or text(summary, "spec", "tool"))
    )


def _copy(start: Start, target: Path) -> None:
    """Copy what a run is read from: its journals, or the summary where that is all there is."""
    target.mkdir()
    journals = sorted(start.folder.glob("journal*.jsonl")) if start.folder.is_dir() else []
    for path in journals if (start.folder / JOURNAL).exists() else ():
        shutil.copyfile(path, target / path.name)
    store.write_json(target / SUMMARY, start.summary)


def _read(folder: Path) -> Kept | None:
    """Return what a folder keeps; None: it is no baseline."""
    try:
        content = (folder / _DOCUMENT).read_bytes()
        return msgspec.structs.replace(msgspec.json.decode(content, type=Kept), dir=str(folder))
    except (OSError, msgspec.MsgspecError):
        return None
