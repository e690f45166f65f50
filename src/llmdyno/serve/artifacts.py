"""Artifacts: what builds make, each made once, kept, and listed.

Engine.build says which commands make an artifact; this module runs them, between the check of a
config and the launch of its server. An artifact's id is a hash of all that it depends on, its
commands included, so that a knob turned back finds the build of before:

    artifacts/ID/               the engine's files, and beside them:
    artifacts/ID/manifest.json  what it is, from what, by which commands, how long they took
    artifacts/ID/build.log      what they wrote
    artifacts/.ID-XXXX/         a build under way; what a kill leaves of it is swept, never used
    artifacts/ID.lock           held while ID is built: of two dyno at once, one builds, one waits
    artifacts/ID.log            what the last failed build of ID wrote

A build fills a folder under another name and moves it into place when it is whole and on the disk.
"""

import contextlib
import fcntl
import functools
import hashlib
import importlib.metadata
import os
import platform
import re
import shlex
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from time import monotonic, time

import msgspec

from llmdyno import __version__, store
from llmdyno.engines import Engine, Step
from llmdyno.errors import ServerError, StorageError, UsageError
from llmdyno.knobs import Config, Value, default
from llmdyno.machine import hardware
from llmdyno.processes import containers
from llmdyno.processes.child import run_step
from llmdyno.processes.containers import Container
from llmdyno.processes.secrets import is_secret

MANIFEST = "manifest.json"
BUILD_LOG = "build.log"

# The history of the manifest's format: llmdyno.artifact/1 (November 2026) is the first.
_SCHEMA = "llmdyno.artifact/1"
_ID_DIGITS = 16
# Stands for the folder in the commands that the id is a hash of, and that a script holds.
_PLACE = Path("/llmdyno-artifact-folder")
# Whose versions a build may depend on; those found stand in the manifest.
_PACKAGES = ("openvino", "openvino-genai", "nncf", "optimum-intel", "tensorrt-llm", "torch")


class Recipe(msgspec.Struct, frozen=True, kw_only=True):
    """All that an artifact depends on."""

    engine: str
    engine_version: str | None
    image: str  # of the container that it is built in; empty: natively
    gpus: tuple[str, ...]  # of this machine: compiled engines run on the kind they were built on
    model: str
    model_fingerprint: str
    knobs: dict[str, Value]  # of the layer `build`, as far as they are not the default
    commands: tuple[tuple[str, ...], ...]

    @property
    def id(self) -> str:
        """Return the artifact's id."""
        digest = hashlib.sha256(msgspec.json.encode(self, order="sorted"))
        return digest.hexdigest()[:_ID_DIGITS]


class DoneStep(msgspec.Struct, frozen=True, kw_only=True):
    """One command of a build that has been run."""

    what: str
    command: str
    seconds: float


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """What stands in manifest.json."""

    schema: str = _SCHEMA
    id: str
    recipe: Recipe
    steps: tuple[DoneStep, ...]
    versions: dict[str, str]
    built: str  # when, in ISO 8601
    seconds: float
    bytes: int
    files: dict[str, int]  # their sizes: what is missing or cut short is not served


class Artifact(msgspec.Struct, frozen=True, kw_only=True):
    """An artifact that can be used."""

    path: Path
    manifest: Manifest
    cached: bool  # it was there already
    seconds: float  # that it took now, waiting for another dyno's build included


def home() -> Path:
    """Return the folder of the artifacts: $XDG_CACHE_HOME/llmdyno/artifacts."""
    return store.cache_folder("artifacts")


def recipe(
    engine: Engine, model: str, config: Config, container: Container | None
) -> Recipe | None:
    """Return what a checked config's artifact depends on; None if there is nothing to build."""
    steps = engine.build(model, config, _PLACE)
    if not steps:
        return None
    version = engine.version()
    knobs = {
        knob.name: config[knob.name]
        for knob in engine.knobs
        if knob.layer == "build"
        and knob.name in config
        and config[knob.name] != default(knob, version)
    }
    # Another environment with the same Python makes the same of it.
    python = f"python{sys.version_info.major}.{sys.version_info.minor}"
    return Recipe(
        engine=engine.name,
        engine_version=version,
        image=container.image if container else "",
        gpus=tuple(sorted({gpu.name for gpu in hardware.gpus()})),
        model=model,
        model_fingerprint=_fingerprint(model),
        knobs=knobs,
        commands=tuple(
            tuple(python if word == sys.executable else word for word in step.argv)
            for step in steps
        ),
    )


def ensure(
    engine: Engine,
    model: str,
    config: Config,
    *,
    container: Container | None = None,
    says: Callable[[str], None],
) -> Artifact | None:
    """Return the artifact of a checked config, building it if it is not there.

    None: the engine serves the model as it is.

    Args:
        engine: what computes tokens.
        model: its model.
        config: checked.
        container: where the steps run; None: natively.
        says: told what is under way.

    Raises:
        ServerError: a step failed; its class is one of diagnosis.FAILURES. Nothing is left but a
            log.
        StorageError: the folder of the artifacts cannot be written.
    """
    begin_s = monotonic()
    wanted = recipe(engine, model, config, container)
    if wanted is None:
        return None
    folder = home() / wanted.id
    try:
        found = _use(folder)
        manifest = found or _build_once(
            wanted, lambda place: _steps(engine, model, config, place, container), says
        )
    except OSError as error:
        raise StorageError(f"cannot build into {home()}: {error.strerror}.") from error
    return Artifact(
        path=folder,
        manifest=manifest,
        cached=found is not None,
        seconds=round(monotonic() - begin_s, 3),
    )


def find(
    engine: Engine, model: str, config: Config, container: Container | None = None
) -> Path | None:
    """Return the folder of a checked config's artifact if it was built, else None."""
    wanted = recipe(engine, model, config, container)
    folder = None if wanted is None else home() / wanted.id
    return folder if folder is not None and _use(folder) is not None else None


def write_script(
    path: Path, engine: Engine, model: str, config: Config, container: Container | None = None
) -> None:
    """Write a shell script that builds the artifact into the folder that is its argument.

    It runs where the programs of the steps are. A secret of a step's environment does not stand in
    it: it asks that the variable be set.

    Raises:
        StorageError: it cannot be written.
    """
    lines = [
        "#!/usr/bin/env bash",
        f"# Builds what {engine.name} {engine.version() or ''} serves of {shlex.quote(model)}.",
        f"# Usage: [PYTHON=python3] bash {path.name} FOLDER",
        "set -euo pipefail",
        'folder=$(realpath -m "${1:?name the folder to build in}")',
        "python=${PYTHON:-python3}  # one with llmdyno, for steps that ask for it",
        'mkdir -p "$folder"',
    ]
    for step in _steps(engine, model, config, _PLACE, container):
        lines += ["", f"# {step.what}", *_exports(step)]
        lines.append(" ".join(_word(word) for word in step.argv))
    try:
        path.write_text("\n".join([*lines, "", 'echo "$folder"', ""]))
        path.chmod(0o755)
    except OSError as error:
        raise StorageError(f"cannot write {path}: {error.strerror}.") from error


def commands(
    engine: Engine, model: str, config: Config, container: Container | None = None
) -> list[str]:
    """Return the commands of a build as a shell would take them."""
    found = recipe(engine, model, config, container)
    if found is None:
        return []
    steps = _steps(engine, model, config, home() / found.id, container)
    return [shlex.join(step.argv) for step in steps]


def listed() -> list[Manifest | str]:
    """Return what is there, last used first: manifests, and the ids of damaged artifacts."""
    found = []
    for folder in _folders():
        manifest = _read(folder)
        found.append((_used_s(folder), manifest or folder.name))
    return [entry for _, entry in sorted(found, key=lambda pair: -pair[0])]


def last_used_s(artifact: str) -> float:
    """Return when an artifact was last used, in seconds since 1970."""
    return _used_s(home() / artifact)


def remove(ids: Sequence[str]) -> list[str]:
    """Remove artifacts by their ids, or beginnings of ids; return the whole ids.

    Raises:
        UsageError: an id is that of none, or of several.
        StorageError: one cannot be removed.
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
    """Remove what is damaged, logs of failed builds, and what the arguments say; return the ids.

    Args:
        older_than_s: remove what was not used for so long.
        keep: keep so many, those last used.

    Raises:
        StorageError: one cannot be removed.
    """
    chosen = []
    whole = 0
    for entry in listed():
        if isinstance(entry, str):
            chosen.append(entry)
            continue
        whole += 1
        too_old = older_than_s is not None and time() - last_used_s(entry.id) > older_than_s
        if too_old or (keep is not None and whole > keep):
            chosen.append(entry.id)
    for name in chosen:
        _remove(home() / name)
    _sweep(logs=True)
    return chosen


def _steps(
    engine: Engine, model: str, config: Config, folder: Path, container: Container | None
) -> tuple[Step, ...]:
    """Return the steps as they run: natively, or in a container."""
    steps = engine.build(model, config, folder)
    if container is None:
        return steps
    source = Path(model).expanduser()
    reads = [source] if source.exists() else []
    return tuple(
        containers.step_in(container, step, reads=reads, writes=[folder]) for step in steps
    )


def _build_once(
    wanted: Recipe, steps: Callable[[Path], tuple[Step, ...]], says: Callable[[str], None]
) -> Manifest:
    """Build, or wait for another dyno that does."""
    folder = home() / wanted.id
    folder.parent.mkdir(parents=True, exist_ok=True)
    _sweep()
    with _locked(wanted.id, says):
        if found := _use(folder):
            return found
        if folder.exists():
            says(f"{folder} is damaged; building it again")
            shutil.rmtree(folder)
        return _build(wanted, steps, folder, says)


def _build(
    wanted: Recipe,
    steps: Callable[[Path], tuple[Step, ...]],
    folder: Path,
    says: Callable[[str], None],
) -> Manifest:
    """Run the steps in an unfinished folder and move it into place."""
    log = folder.with_suffix(".log")
    log.unlink(missing_ok=True)
    unfinished = Path(tempfile.mkdtemp(prefix=f".{wanted.id}-", dir=folder.parent))
    begin_s = monotonic()
    try:
        done = []
        for step in steps(unfinished):
            says(step.what)
            command = shlex.join(step.argv)
            with log.open("a") as file:
                file.write(f"$ {command}\n")
            step_begin_s = monotonic()
            run_step(step, log=log, progress=says)
            seconds = round(monotonic() - step_begin_s, 3)
            done.append(DoneStep(what=step.what, command=command, seconds=seconds))
        files = _sizes(unfinished)
        if not files:
            raise ServerError("died", f"the build of {wanted.model} made no file. Log: {log}")
        manifest = Manifest(
            id=wanted.id,
            recipe=wanted,
            steps=tuple(done),
            versions=_versions(),
            built=datetime.now(UTC).isoformat(timespec="seconds"),
            seconds=round(monotonic() - begin_s, 3),
            bytes=sum(files.values()),
            files=files,
        )
        shutil.move(log, unfinished / BUILD_LOG)
        (unfinished / MANIFEST).write_bytes(msgspec.json.format(msgspec.json.encode(manifest)))
        unfinished.chmod(0o755)  # mkdtemp's is for nobody else
        _sync(unfinished)
        unfinished.rename(folder)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    return manifest


@contextlib.contextmanager
def _locked(artifact: str, says: Callable[[str], None]) -> Iterator[None]:
    with (home() / f"{artifact}.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            says("another dyno is building it; waiting")
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _sweep(*, logs: bool = False) -> None:
    """Remove what cut-off builds have left, and the logs of failed ones; leave those under way."""
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


def _use(folder: Path) -> Manifest | None:
    """Return the manifest of a whole artifact and note that it was used; None if it is not one."""
    manifest = _read(folder)
    if manifest is not None:
        with contextlib.suppress(OSError):  # a cache that others have filled, read-only to us
            os.utime(folder / MANIFEST)
    return manifest


def _read(folder: Path) -> Manifest | None:
    try:
        manifest = msgspec.json.decode((folder / MANIFEST).read_bytes(), type=Manifest)
    except (OSError, msgspec.MsgspecError):
        return None
    found = _sizes(folder)
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
    """Remove an artifact: renamed first, so that a kill in the middle leaves no half of it."""
    try:
        doomed = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
        folder.rename(doomed)
        shutil.rmtree(doomed)
    except OSError as error:
        raise StorageError(f"cannot remove {folder}: {error.strerror}.") from error


def _sync(folder: Path) -> None:
    """Bring a folder to the disk, lest its name be there before its content after a power cut."""
    for path in (*folder.rglob("*"), folder):
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _sizes(folder: Path) -> dict[str, int]:
    return {
        str(path.relative_to(folder)): path.stat().st_size
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def _versions() -> dict[str, str]:
    versions = {"llmdyno": __version__, "python": platform.python_version()}
    for name in _PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions[name] = importlib.metadata.version(name)
    return versions


def _fingerprint(model: str) -> str:
    """Return what changes when the model's content does, without reading gigabytes.

    Of files the sizes and the times of their last change; of a repository on the hub the revision;
    of a built-in model our own version.
    """
    path = Path(model).expanduser()
    if path.exists():
        files = [path] if path.is_file() else sorted(path.rglob("*"))
        facts = [
            (str(file.relative_to(path)), file.stat().st_size, file.stat().st_mtime_ns)
            for file in files
            if file.is_file()
        ]
        content = msgspec.json.encode([str(path.resolve()), facts])
        return hashlib.sha256(content).hexdigest()
    return _hub_revision(model) if "/" in model else f"llmdyno {__version__}"


@functools.cache  # one study, one revision
def _hub_revision(model: str) -> str:
    """Return the revision that the hub has, or without it the one that we have; or nothing."""
    try:
        import huggingface_hub
        from huggingface_hub.errors import HFValidationError
    except ImportError:
        return ""
    try:
        # Fetches one small file into a folder that is named by the revision; works offline, too.
        return Path(huggingface_hub.snapshot_download(model, allow_patterns="config.json")).name
    except (OSError, HFValidationError):  # the library's own are OSError, its network's as well
        return ""


def _exports(step: Step) -> list[str]:
    """Return lines that set a step's environment; a secret must be there already."""
    return [
        f': "${{{name}:?set it; it is a secret}}"'
        if is_secret(name)
        else f"export {name}={shlex.quote(value)}"
        for name, value in step.environment.items()
    ]


def _word(word: str) -> str:
    """Quote a word of a command, with our Python and the folder as variables of the script."""
    if word == sys.executable:
        return '"$python"'
    parts = [part and shlex.quote(part) for part in word.split(str(_PLACE))]
    return '"$folder"'.join(parts) or "''"
