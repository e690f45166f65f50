"""A tritonserver: the one on the PATH, or the one inside the wheel of nvidia-pytriton.

For models that only pass requests on, one of an unpacked folder, too (home.py).
"""

import os
import shutil
import sys
import sysconfig
from importlib.util import find_spec
from pathlib import Path

from llmdyno.engines import Engine
from llmdyno.errors import ServerError, StorageError
from llmdyno.fronts._triton import home
from llmdyno.fronts._triton.backends import Backend
from llmdyno.fronts._triton.found import Triton
from llmdyno.processes import environments
from llmdyno.processes.environments import Notify

# The wheels of nvidia-pytriton that have a tritonserver pin numpy < 2: no Python newer than 3.12.
PYTHONS = ((3, 11), (3, 12))
SCHEMA = ("tritonclient[grpc]>=2.51",)
WHEEL = "nvidia-pytriton==0.7.0"


def find(engine: Engine, backend: Backend, folder: Path, notify: Notify) -> Triton:
    """Find a tritonserver, or install one for an engine that the wheel's can serve.

    Args:
        engine: what it is to serve.
        backend: the engine's.
        folder: the server's own.
        notify: is told what takes long.

    Raises:
        ServerError: there is none for this engine here.
        StorageError: the folder cannot be written.
    """
    native = shutil.which("tritonserver")
    if native is None and not backend.in_wheel:
        raise ServerError(
            "missing-library",
            f"tritonserver is not on the PATH: {engine.name} behind Triton needs NVIDIA's container"
            " nvcr.io/nvidia/tritonserver (missing-library).",
        )
    if native is not None:
        binaries = environments.ensure("triton-models", [*backend.requirements, *SCHEMA], notify)
        environment = _path(binaries) if backend.requirements else {}
        return Triton(command=(native,), environment=environment, python=binaries / "python")
    return wheel(backend, folder, notify)


def find_to_pass_on(folder: Path, notify: Notify) -> Triton:
    """Find a tritonserver with nothing but its Python backend, or install one.

    Args:
        folder: the server's own.
        notify: is told what takes long.

    Raises:
        ServerError: there is none here, or the unpacked one lacks a part.
        StorageError: the folder cannot be written.
    """
    if (unpacked := home.named()) is not None:
        return home.assemble(unpacked, folder)
    native = shutil.which("tritonserver")
    if native is not None:
        return Triton(command=(native,), environment={}, python=Path(sys.executable))
    return wheel(None, folder, notify)


def has_backend(library: str) -> bool:
    """Return whether the tritonserver that is here already has a backend of that name.

    Raises:
        ServerError: the environment names a folder without a tritonserver.
    """
    if (unpacked := home.named()) is not None:
        return (home.server_folder(unpacked) / "backends" / library).is_dir()
    native = shutil.which("tritonserver")
    return (
        native is not None and (Path(native).resolve().parents[1] / "backends" / library).is_dir()
    )


def schema_python(notify: Notify) -> Path:
    """Return a Python that has Triton's schema: this one, or one of an environment.

    Raises:
        ServerError: the schema's package cannot be installed.
        StorageError: the folder of the environments cannot be written.
    """
    if find_spec("tritonclient") is not None:
        return Path(sys.executable)
    return environments.ensure("triton-models", SCHEMA, notify) / "python"


def wheel_requirements(backend: Backend) -> tuple[str, ...]:
    """Return what pip must install for that tritonserver and an engine's models."""
    return (WHEEL, *backend.requirements, *SCHEMA)


def wheel(backend: Backend | None, folder: Path, notify: Notify) -> Triton:
    """Return the tritonserver inside nvidia-pytriton, with its parts where it looks for them.

    Args:
        backend: what its models import is installed, too; None: they import nothing.
        folder: the server's own.
        notify: is told what takes long.

    Raises:
        ServerError: this Python cannot run it, or it cannot be installed.
        StorageError: the folder cannot be written.
    """
    version = sys.version_info[:2]
    if version not in PYTHONS:
        raise ServerError(
            "missing-library",
            f"Python {version[0]}.{version[1]}: nvidia-pytriton has a tritonserver for 3.11 and"
            " 3.12; use one of them, or NVIDIA's container (missing-library).",
        )
    library = Path(sys.base_prefix) / "lib"
    name = sysconfig.get_config_var("INSTSONAME") or ""
    if not (library / name).is_file() and not sysconfig.get_config_var("Py_ENABLE_SHARED"):
        raise ServerError(
            "missing-library",
            f"Triton's Python backend needs a Python with a shared library (--enable-shared), which"
            f" {sys.executable} was built without (missing-library).",
        )
    requirements = (WHEEL,) if backend is None else wheel_requirements(backend)
    binaries = environments.ensure("triton", requirements, notify)
    python = f"{version[0]}.{version[1]}"
    packages = binaries.parent / "lib" / f"python{python}" / "site-packages"
    server = packages / "pytriton" / "tritonserver"
    backends = folder / "backends"
    try:
        # A model's process is started by the program beside the backend's library.
        shutil.copytree(server / "backends" / "python", backends / "python", dirs_exist_ok=True)
        stub = server / "python_backend_stubs" / python / "triton_python_backend_stub"
        shutil.copy2(stub, backends / "python")
    except OSError as error:
        raise StorageError(f"cannot write {backends}: {error.strerror}.") from error
    libraries = [str(library), str(packages / "nvidia_pytriton.libs")]
    libraries += filter(None, [os.environ.get("LD_LIBRARY_PATH")])
    return Triton(
        command=(
            str(server / "bin" / "tritonserver"),
            f"--backend-directory={backends}",
            f"--cache-directory={server / 'caches'}",
        ),
        environment={
            **_path(binaries),
            "LD_LIBRARY_PATH": ":".join(libraries),
        },
        python=binaries / "python",
    )


def _path(binaries: Path) -> dict[str, str]:
    """Let the models' processes find the environment's packages: by its Python, on the PATH.

    The processes are started in isolated mode, so PYTHONPATH means nothing to them.
    """
    return {"PATH": f"{binaries}:{os.environ.get('PATH', os.defpath)}"}
