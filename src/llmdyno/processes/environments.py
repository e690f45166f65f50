"""Python environments of servers and peers whose packages cannot live beside ours.

The Triton wheel pins numpy < 2, a BentoML service needs its own pydantic. Each gets an environment,
made on first use, kept, and named by a hash of its packages. An unfinished environment is never
used: it is filled under another name and moved into place when it is complete.

uv installs the packages in a tenth of pip's time: the uv on the PATH, else one that is fetched
once. It gets the package indexes of pip's settings. If uv is not available or fails, pip installs.
"""

import fcntl
import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path

from llmdyno import store
from llmdyno.errors import ServerError, StorageError
from llmdyno.processes import indexes
from llmdyno.processes.spawn import OnLeash
from llmdyno.processes.starting import starting

_TAIL_LINES = 3
_PROGRESS_S = 2.0  # between two reports on an installation
_STOP_GRACE_S = 5.0
_UNREACHED = re.compile(r"connection broken|error sending request|[Ff]ailed to (connect|fetch)")

Notify = Callable[[str], None]


def home() -> Path:
    """Return the folder of the environments: $XDG_CACHE_HOME/llmdyno/environments."""
    return store.cache_folder("environments")


def ensure(name: str, requirements: Sequence[str], notify: Notify) -> Path:
    """Return the bin folder of an environment with these packages; it is made if need be.

    Args:
        name: in messages and in the folder's name.
        requirements: as pip takes them.
        notify: called with a line while packages are installed.

    Raises:
        ServerError: a package cannot be installed; class "missing-library", or that of a process
            which the system does not start.
        StorageError: the folder cannot be written.
    """
    return _ensure(name, requirements, notify, _fill)


def link(folder: Path, python: Path, version: str, packages: Path | None) -> None:
    """Make an environment in a folder that finds packages where they lie; nothing is installed.

    Args:
        folder: of the environment; its programs are in bin/.
        python: no link and no shim.
        version: that Python's, e.g. 3.12.
        packages: their folder; None: that Python's own packages are found.

    Raises:
        OSError: it cannot be written.
    """
    place = folder / "lib" / f"python{version}" / "site-packages"
    place.mkdir(parents=True, exist_ok=True)
    (folder / "bin").mkdir(exist_ok=True)
    shares = str(packages is None).lower()
    settings = f"home = {python.parent}\ninclude-system-site-packages = {shares}\n"
    (folder / "pyvenv.cfg").write_text(settings, "utf-8")
    for name in ("python3", "python", f"python{version}"):
        if not (folder / "bin" / name).is_symlink():
            (folder / "bin" / name).symlink_to(python)
    if packages is not None:
        (place / "packages.pth").write_text(f"{packages}\n", "utf-8")


def _ensure(
    name: str,
    requirements: Sequence[str],
    notify: Notify,
    fill: Callable[[str, Path, Sequence[str], Notify], None],
) -> Path:
    python = f"{sys.version_info.major}.{sys.version_info.minor}"
    content = "\n".join([python, *sorted(requirements)])
    digest = hashlib.sha256(content.encode()).hexdigest()[:12]
    folder = home() / f"{name}-{digest}"
    if folder.exists():
        return folder / "bin"
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with folder.with_suffix(".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # of two servers that start at once, one makes it
            if not folder.exists():
                begin_s = time.monotonic()
                notify(f"installing {name} into {folder}: {', '.join(requirements)}")
                _make(name, folder, requirements, notify, fill)
                notify(f"installed {name} in {time.monotonic() - begin_s:.1f} s; it is kept")
    except OSError as error:
        raise StorageError(f"cannot make the environment {folder}: {error.strerror}.") from error
    return folder / "bin"


def _make(
    name: str,
    folder: Path,
    requirements: Sequence[str],
    notify: Notify,
    fill: Callable[[str, Path, Sequence[str], Notify], None],
) -> None:
    prefix = f".{folder.name}-"
    for abandoned in folder.parent.glob(f"{prefix}*"):  # by a killed process: we hold the lock
        shutil.rmtree(abandoned, ignore_errors=True)
    # In the same folder, so that the last step is a rename.
    unfinished = Path(tempfile.mkdtemp(prefix=prefix, dir=folder.parent))
    try:
        # Without pip: unpacking it takes longer than all that uv does.
        _run(name, [sys.executable, "-m", "venv", "--without-pip", str(unfinished)], notify)
        fill(name, unfinished / "bin" / "python", requirements, notify)
        _point_scripts(unfinished, folder)
        unfinished.rename(folder)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def _fill(name: str, python: Path, requirements: Sequence[str], notify: Notify) -> None:
    """Install packages for a Python: by uv, and by pip where that cannot."""
    try:
        uv = shutil.which("uv") or str(_ensure("uv", [indexes.UV], notify, _fill_by_pip) / "uv")
        command = [uv, "pip", "install", "--python", str(python), *requirements]
        with starting("pip, which is asked for the package indexes,"):
            settings = indexes.settings()
        _run(name, command, notify, settings)
    except ServerError as error:
        notify(f"{str(error).strip()}\ninstalling {name} by pip instead")
        _fill_by_pip(name, python, requirements, notify)


def _fill_by_pip(name: str, python: Path, requirements: Sequence[str], notify: Notify) -> None:
    if find_spec("pip") is None:
        _run(name, [str(python), "-m", "ensurepip"], notify)
        pip = [str(python), "-m", "pip"]
    else:
        pip = [sys.executable, "-m", "pip", "--python", str(python)]
    # Python compiles modules on import; compiling all of them now takes a quarter of the time.
    options = ("--no-compile", "--disable-pip-version-check", "--progress-bar", "off")
    _run(name, [*pip, "install", *options, *requirements], notify)


def _run(
    name: str,
    command: Sequence[str],
    notify: Notify,
    environment: Mapping[str, str] | None = None,
) -> None:
    """Run a command on a leash, so that it survives neither Ctrl-C nor kill -9 of dyno."""
    begin_s = told_s = time.monotonic()
    lines: list[str] = []
    with starting(f"What installs {name}"):
        installer = OnLeash(
            command, environment={**os.environ, **(environment or {})}, output=subprocess.PIPE
        )
    try:
        assert installer.process.stdout is not None
        for raw in installer.process.stdout:
            line = raw.decode(errors="replace").strip()
            lines += [line] if line else []
            now_s = time.monotonic()
            if lines and now_s - told_s >= _PROGRESS_S:
                told_s = now_s
                notify(f"{name}, {now_s - begin_s:.0f} s: {lines[-1][:200]}")
        installer.ended(None)
    finally:
        installer.stop(grace_s=_STOP_GRACE_S)
    if installer.ending != "exit 0":
        # uv reports an index that cannot be reached; pip only warns and reports a missing version.
        why = ": the package index cannot be reached" if _UNREACHED.search("\n".join(lines)) else ""
        telling = [line for line in lines if not line.startswith("WARNING:")]
        quoted = "".join(
            f"\n    {_without_passwords(line)[:500]}" for line in telling[-_TAIL_LINES:]
        )
        raise ServerError(
            "missing-library", f"{name} cannot be installed{why} (missing-library).{quoted}\n"
        )


def _without_passwords(line: str) -> str:
    return re.sub(r"(://)[^/@\s]+@", r"\1•••@", line)


def _point_scripts(unfinished: Path, folder: Path) -> None:
    """Write the environment's final path into the scripts of bin/, before it is moved there."""
    before, after = str(unfinished).encode(), str(folder).encode()
    for script in (unfinished / "bin").iterdir():
        if script.is_symlink() or not script.is_file():
            continue
        content = script.read_bytes()
        if before in content and b"\0" not in content[:1024]:
            script.write_bytes(content.replace(before, after))
