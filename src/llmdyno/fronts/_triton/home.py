"""A tritonserver in a folder that was unpacked here, for machines without a package index.

DYNO_TRITON_HOME names it. It is laid out as nvidia-pytriton's wheel is when it is unpacked:

    pytriton/tritonserver/bin/tritonserver
    pytriton/tritonserver/backends/python/
    pytriton/tritonserver/python_backend_stubs/3.12/triton_python_backend_stub
    nvidia_pytriton.libs/                       the server's own libraries
    numpy/ or np/numpy/                         of 1.26: with numpy 2 the stub crashes on texts

or as /opt/tritonserver of NVIDIA's container is: bin/, lib/ and backends/python/ with the stub in
it. A stub is for one version of Python, and needs its shared library. The Python is this one if it
is of that version, else the `python3.12` (or so) on the PATH.
"""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import msgspec

from llmdyno.errors import ServerError, StorageError
from llmdyno.fronts._triton.found import Triton
from llmdyno.processes import environments
from llmdyno.processes.diagnosis import LIMIT
from llmdyno.processes.starting import starting

VARIABLE = "DYNO_TRITON_HOME"
_SERVER = Path("bin", "tritonserver")
_STUB = "triton_python_backend_stub"
_ASK = """
import json, os, sys, sysconfig
folders = [sysconfig.get_config_var(name) or "" for name in ("LIBDIR", "MULTIARCH")]
print(json.dumps({
    "version": "%d.%d" % sys.version_info[:2],
    "executable": os.path.realpath(sys.executable),
    "libraries": [os.path.join(sys.base_prefix, "lib"), folders[0], os.path.join(*folders)],
}))
"""


class _Python(msgspec.Struct, frozen=True):
    """What a Python says of itself."""

    version: str  # e.g. 3.12
    executable: str  # no link, no shim
    libraries: list[str]  # where its shared library may be


def named() -> Path | None:
    """Return the folder that the environment names, if it does."""
    name = os.environ.get(VARIABLE, "")
    return Path(name).expanduser().absolute() if name else None


def server_folder(home: Path) -> Path:
    """Return the folder in it with bin/tritonserver.

    Raises:
        ServerError: there is none.
    """
    for place in (home / "pytriton" / "tritonserver", home):
        if (place / _SERVER).is_file():
            return place
    raise _missing(
        home,
        "pytriton/tritonserver/bin/tritonserver (nvidia-pytriton's wheel, unpacked) nor"
        " bin/tritonserver (/opt/tritonserver of NVIDIA's container)",
        "has neither",
    )


def assemble(home: Path, folder: Path) -> Triton:
    """Put the parts where the server looks for them, in the server's own folder; copy few of them.

    Raises:
        ServerError: names the part that is missing.
        StorageError: the server's folder cannot be written.
    """
    server = server_folder(home)
    backend = server / "backends" / "python"
    if not (backend / "libtriton_python.so").is_file():
        raise _missing(home, f"{backend.relative_to(home)}/libtriton_python.so")
    stubs = dict(_stubs(server))
    if not stubs:
        raise _missing(home, f"{_STUB} in {backend.relative_to(home)} or python_backend_stubs")
    python = _python(home, stubs)
    library = _library(home, python)
    numpy = next((place for place in (home / "np", home) if (place / "numpy").is_dir()), None)
    environment, backends = folder / "python", folder / "backends"
    try:
        shutil.copytree(backend, backends / "python", dirs_exist_ok=True)
        shutil.copyfile(stubs[python.version], backends / "python" / _STUB)
        (backends / "python" / _STUB).chmod(0o755)
        # The stub takes the packages of the first Python on the PATH.
        environments.link(environment, Path(python.executable), python.version, numpy)
    except OSError as error:
        raise StorageError(f"cannot write {folder}: {error.strerror}.") from error
    libraries = [str(home / "nvidia_pytriton.libs"), str(server / "lib"), library]
    libraries += filter(None, [os.environ.get("LD_LIBRARY_PATH")])
    return Triton(
        command=(str(server / _SERVER), f"--backend-directory={backends}"),
        environment={
            "PATH": f"{environment / 'bin'}:{os.environ.get('PATH', os.defpath)}",
            "LD_LIBRARY_PATH": ":".join(libraries),
        },
        python=Path(sys.executable),
    )


def _stubs(server: Path) -> Iterator[tuple[str, Path]]:
    """Yield the stubs by their version of Python; the library says which one the container's is."""
    for stub in sorted(server.glob(f"python_backend_stubs/*/{_STUB}")):
        yield stub.parent.name, stub
    beside = server / "backends" / "python" / _STUB
    if beside.is_file():
        found = re.search(rb"libpython(3\.\d+)\.so", beside.read_bytes())
        if found:
            yield found[1].decode(), beside


def _python(home: Path, stubs: Mapping[str, Path]) -> _Python:
    """Return the first Python that works and that one of the stubs is for.

    Raises:
        ServerError: there is none, or the system starts no further process.
    """
    ours = f"{sys.version_info.major}.{sys.version_info.minor}"
    candidates = [sys.executable] if ours in stubs else []
    candidates += filter(None, [shutil.which(f"python{version}") for version in stubs])
    for candidate in candidates:
        found = _about(candidate)
        if found is not None and found.version in stubs:
            return found
    raise ServerError(
        "missing-library",
        f"{VARIABLE}={home}: its Python backend is for Python {' or '.join(stubs)}; this is {ours},"
        f" and no python{next(iter(stubs))} that works is on the PATH (missing-library).",
    )


def _about(python: str) -> _Python | None:
    """Ask a Python about itself.

    Returns:
        Its answer; None if it does not run or says something else, such as a shim without its
        version, or one whose interpreter was removed.

    Raises:
        ServerError: the system starts no further process ("system-limit").
    """
    try:
        with starting(python):
            done = subprocess.run(
                [python, "-I", "-S", "-c", _ASK], capture_output=True, check=False
            )
    except ServerError as fault:
        if fault.kind == LIMIT:  # of any program, so that no other Python would start either
            raise
        return None
    try:
        return msgspec.json.decode(done.stdout, type=_Python) if done.returncode == 0 else None
    except msgspec.DecodeError:
        return None


def _library(home: Path, python: _Python) -> str:
    """Return the folder with a Python's shared library."""
    name = f"libpython{python.version}.so.1.0"
    for place in (str(home / "lib"), *python.libraries, "/usr/lib", "/usr/lib64", "/usr/local/lib"):
        if place and (Path(place) / name).is_file():
            return place
    raise ServerError(
        "missing-library",
        f"{VARIABLE}={home}: its Python backend needs {name}, which {python.executable} does not"
        f" have beside it; put it into {home / 'lib'} (missing-library).",
    )


def _missing(home: Path, what: str, has: str = "has no") -> ServerError:
    return ServerError("missing-library", f"{VARIABLE}={home}: {has} {what} (missing-library).")
