"""Python environments of servers and peers whose packages cannot live beside ours.

The Triton wheel pins numpy < 2, a BentoML service wants its own pydantic: each gets an environment
made on first use and kept, named by what is in it. A half-made one is never used: it is filled
under another name and moved into place when whole.
"""

import fcntl
import hashlib
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from llmdyno import store
from llmdyno.errors import ServerError, StorageError

_TAIL_LINES = 3


def home() -> Path:
    """Return the folder of the environments: $XDG_CACHE_HOME/llmdyno/environments."""
    return store.cache_folder("environments")


def ensure(name: str, requirements: Sequence[str], says: Callable[[str], None]) -> Path:
    """Return the bin folder of an environment with these packages; make it if it is not there.

    Raises:
        ServerError: a package cannot be installed; class "missing-library".
        StorageError: the folder cannot be written.
    """
    python = f"{sys.version_info.major}.{sys.version_info.minor}"
    content = "\n".join([python, *sorted(requirements)])
    digest = hashlib.sha256(content.encode()).hexdigest()[:12]
    folder = home() / f"{name}-{digest}"
    if folder.exists():
        return folder / "bin"
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with folder.with_suffix(".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # two servers that start at once make it once
            if not folder.exists():
                says(f"installing {name} into {folder}: {', '.join(requirements)}")
                _make(name, folder, requirements)
    except OSError as error:
        raise StorageError(f"cannot make the environment {folder}: {error.strerror}.") from error
    return folder / "bin"


def _make(name: str, folder: Path, requirements: Sequence[str]) -> None:
    # Beside its place, so that the last step is a rename; its scripts hold its path and are told.
    unfinished = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        _run(name, [sys.executable, "-m", "venv", str(unfinished)])
        pip = [str(unfinished / "bin" / "python"), "-m", "pip", "install", "--quiet"]
        _run(name, [*pip, "--disable-pip-version-check", *requirements])
        _point_scripts(unfinished, folder)
        unfinished.rename(folder)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def _run(name: str, command: Sequence[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if line.strip()][-_TAIL_LINES:]
        quoted = "".join(f"\n    {line[:500]}" for line in lines)
        raise ServerError(
            "missing-library", f"{name} cannot be installed (missing-library).{quoted}\n"
        )


def _point_scripts(unfinished: Path, folder: Path) -> None:
    """Let the scripts of bin/ start the Python of the place that the environment will have."""
    before, after = str(unfinished).encode(), str(folder).encode()
    for script in (unfinished / "bin").iterdir():
        if script.is_symlink() or not script.is_file():
            continue
        content = script.read_bytes()
        if before in content and b"\0" not in content[:1024]:
            script.write_bytes(content.replace(before, after))
