"""Builds: runs the commands that make an artifact, once, and keeps the artifact.

Engine.build returns the commands. This module runs them between the check of a config and the
launch of its server, or writes them as a script. A build fills a folder under another name, which
is moved into place when it is complete and on the disk. serve/artifacts.py describes that place.
"""

import contextlib
import functools
import hashlib
import importlib.metadata
import platform
import shlex
import shutil
import sys
import tempfile
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from time import monotonic

import msgspec

from llmdyno import __version__
from llmdyno.engines import Engine, Step, facts
from llmdyno.errors import ServerError, StorageError
from llmdyno.knobs import Config, default
from llmdyno.machine import hardware
from llmdyno.processes import containers
from llmdyno.processes.child import run_step
from llmdyno.processes.containers import Container
from llmdyno.processes.secrets import is_secret
from llmdyno.serve.artifacts import (
    BUILD_LOG,
    MANIFEST,
    DoneStep,
    Manifest,
    Recipe,
    home,
    locked,
    sizes,
    sweep,
    sync,
    use,
)

# Stands for the artifact's folder in hashed commands and in scripts.
_PLACE = Path("/llmdyno-artifact-folder")


class Artifact(msgspec.Struct, frozen=True, kw_only=True):
    """A complete artifact, and how this call got it."""

    path: Path
    manifest: Manifest
    cached: bool  # it was there already
    took_s: float  # this call took, including the wait for another dyno's build


def recipe(
    engine: Engine, model: str, config: Config, container: Container | None
) -> Recipe | None:
    """Return the recipe of a checked config's artifact; None if there is nothing to build."""
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
    # The version of Python matters, not its path.
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
    notify: Callable[[str], None],
) -> Artifact | None:
    """Return the artifact of a checked config, and wait for its build if it is not in the cache.

    None: the engine serves the model as it is.

    Args:
        engine: the engine.
        model: as the user named it.
        config: of the engine, checked.
        container: where the steps run; None: natively.
        notify: called with a line for each step, and while another dyno builds the same.

    Raises:
        ServerError: a step failed; its class is one of diagnosis.FAILURES. Only the log is left.
        StorageError: the folder of the artifacts cannot be written.
    """
    begin_s = monotonic()
    wanted = recipe(engine, model, config, container)
    if wanted is None:
        return None
    folder = home() / wanted.id
    try:
        found = use(folder)
        manifest = found or _build_once(
            engine, wanted, lambda place: _steps(engine, model, config, place, container), notify
        )
    except OSError as error:
        raise StorageError(f"cannot build into {home()}: {error.strerror}.") from error
    return Artifact(
        path=folder,
        manifest=manifest,
        cached=found is not None,
        took_s=round(monotonic() - begin_s, 3),
    )


def find(
    engine: Engine, model: str, config: Config, container: Container | None = None
) -> Path | None:
    """Return the folder of a checked config's artifact if it was built, else None."""
    wanted = recipe(engine, model, config, container)
    folder = None if wanted is None else home() / wanted.id
    return folder if folder is not None and use(folder) is not None else None


def write_script(
    path: Path, engine: Engine, model: str, config: Config, container: Container | None = None
) -> None:
    """Write a shell script that builds the artifact into the folder that is its argument.

    It runs on a machine that has the programs of the steps. It holds no secret: where a step needs
    one, the script requires that the variable is set.

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
    """Return the commands of a build, each quoted for a shell."""
    found = recipe(engine, model, config, container)
    if found is None:
        return []
    steps = _steps(engine, model, config, home() / found.id, container)
    return [shlex.join(step.argv) for step in steps]


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
    engine: Engine,
    wanted: Recipe,
    steps: Callable[[Path], tuple[Step, ...]],
    notify: Callable[[str], None],
) -> Manifest:
    """Build, or wait for another dyno that does."""
    folder = home() / wanted.id
    folder.parent.mkdir(parents=True, exist_ok=True)
    sweep()
    with locked(wanted.id, notify):
        if found := use(folder):
            return found
        if folder.exists():
            notify(f"{folder} is damaged; building it again")
            shutil.rmtree(folder)
        return _build(engine, wanted, steps, folder, notify)


def _build(
    engine: Engine,
    wanted: Recipe,
    steps: Callable[[Path], tuple[Step, ...]],
    folder: Path,
    notify: Callable[[str], None],
) -> Manifest:
    """Run the steps in an unfinished folder and move it into place."""
    log = folder.with_suffix(".log")
    log.unlink(missing_ok=True)
    unfinished = Path(tempfile.mkdtemp(prefix=f".{wanted.id}-", dir=folder.parent))
    begin_s = monotonic()
    try:
        done = []
        for step in steps(unfinished):
            notify(step.what)
            command = shlex.join(step.argv)
            with log.open("a") as file:
                file.write(f"$ {command}\n")
            step_begin_s = monotonic()
            run_step(step, log=log, progress=notify)
            duration_s = round(monotonic() - step_begin_s, 3)
            done.append(DoneStep(what=step.what, command=command, duration_s=duration_s))
        files = sizes(unfinished)
        if not files:
            raise ServerError("died", f"the build of {wanted.model} made no file. Log: {log}")
        manifest = Manifest(
            id=wanted.id,
            recipe=wanted,
            steps=tuple(done),
            versions=_versions(engine),
            built=datetime.now(UTC).isoformat(timespec="seconds"),
            build_s=round(monotonic() - begin_s, 3),
            size_bytes=sum(files.values()),
            files=files,
        )
        shutil.move(log, unfinished / BUILD_LOG)
        (unfinished / MANIFEST).write_bytes(msgspec.json.format(msgspec.json.encode(manifest)))
        unfinished.chmod(0o755)  # mkdtemp's mode keeps all others out
        sync(unfinished)
        unfinished.rename(folder)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    return manifest


def _versions(engine: Engine) -> dict[str, str]:
    """Return the versions of the packages that a build depends on, as far as installed here."""
    versions = {"llmdyno": __version__, "python": platform.python_version()}
    known = facts(engine)
    for name in (*known.distributions, *known.build_distributions):
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions[name] = importlib.metadata.version(name)
    return versions


def _fingerprint(model: str) -> str:
    """Return a text that changes with the model's content, without reading gigabytes.

    For files it is their sizes and times of change, for a repository on the hub its revision, for a
    built-in model our own version.
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


@functools.cache  # asked once a process, so that a study has one revision
def _hub_revision(model: str) -> str:
    """Return the hub's revision, offline that of our cache; empty if neither is known."""
    try:
        import huggingface_hub
        from huggingface_hub.errors import HFValidationError
    except ImportError:
        return ""
    try:
        # This fetches one small file into a folder named by the revision, or finds it offline.
        return Path(huggingface_hub.snapshot_download(model, allow_patterns="config.json")).name
    except (OSError, HFValidationError):  # the library's and its network's errors are OSError
        return ""


def _exports(step: Step) -> list[str]:
    """Return lines that set a step's environment, and require secrets to be set already."""
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
