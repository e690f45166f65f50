"""Run an engine's server, or a step of its build, in the engine's container.

A Launch or a Step goes in, one that starts docker, podman or apptainer comes out; the supervisor
need not know. Paths are the same inside as outside, so the command stays as it is. No container was
run by us: tests look at the command lines, and let docker's client parse its own.

The container is on the host's network: the server binds to loopback in there as it would out
here, and no port is published. No secret stands on the command line: docker and podman are given
the names of variables only, apptainer reads its own.
"""

import os
import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal, get_args

import msgspec

from llmdyno.errors import UsageError, nearest
from llmdyno.processes.launch import Launch, Step

Runtime = Literal["docker", "podman", "apptainer"]
RUNTIMES: tuple[Runtime, ...] = get_args(Runtime)
SHARED_MEMORY = "16g"  # NCCL between the processes of one server; docker's own default is 64 MiB
PULL_TIMEOUT_S = 3600.0  # images are 10 to 20 GB; the first start pulls them

# Variables of ours that the server needs to load a model as it does natively.
_PASSED = ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HF_ENDPOINT", "HF_HUB_OFFLINE")
_GPUS = ("CUDA_VISIBLE_DEVICES", "CUDA_DEVICE_ORDER")
# NVIDIA's images start with a script that makes their libraries fit the driver, then run what they
# are given. Others start with their own program, which must not come before ours.
_RUNS_WHAT_IT_IS_GIVEN = "nvcr.io/"

_SYMPTOMS: tuple[tuple[str, str], ...] = (
    (r"Cannot connect to the Docker daemon|connect to the Docker daemon socket", "missing-library"),
    (r"could not select device driver|nvidia-container-cli|unresolvable CDI", "missing-library"),
    (r"manifest unknown|manifest for .* not found", "missing-library"),
    (r"pull access denied|unauthorized: authentication required", "auth"),
)


class Container(msgspec.Struct, frozen=True, kw_only=True):
    """An image and what runs it."""

    runtime: Runtime
    image: str


def choose(wanted: str, image: str, *, here: bool = True) -> Container:
    """Return the container of an image; `wanted` is a runtime's name, or auto.

    One that is not to run here need not be installed here; auto then means docker.

    Raises:
        UsageError: there is no such runtime, or it is not installed.
    """
    names = (wanted,) if wanted != "auto" else RUNTIMES
    for runtime in RUNTIMES:
        if runtime in names and (not here or shutil.which(runtime)):
            return Container(runtime=runtime, image=image)
    if wanted == "auto":
        raise UsageError("--container auto: install docker, podman or apptainer.")
    if wanted not in RUNTIMES:
        raise UsageError(f"--container {wanted}: no such runtime.{nearest(wanted, RUNTIMES)}")
    raise UsageError(f"--container {wanted}: it is not installed here.")


def hub_cache() -> Path:
    """Return the folder that Hugging Face models are kept in."""
    return Path(os.environ.get("HF_HOME") or Path.home() / ".cache" / "huggingface")


def split_command(image: str, command: tuple[str, ...]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return what replaces the program of an image, nothing where that must run, and the rest."""
    if image.startswith(_RUNS_WHAT_IT_IS_GIVEN):
        return (), command
    return command[:1], command[1:]


def launch_in(container: Container, launch: Launch, *, reads: Sequence[Path]) -> Launch:
    """Return what starts the server in a container.

    Args:
        container: in which.
        launch: as it would be started natively.
        reads: folders and files that it needs, beside those that it says itself.
    """
    mounts = {**dict.fromkeys((*reads, *map(Path, launch.files)), "ro"), hub_cache(): "rw"}
    argv, environment = _wrap(container, launch.argv, launch.environment, mounts)
    return msgspec.structs.replace(
        launch,
        argv=argv,
        environment=environment,
        runtime=_with_daemon(container),
        start_timeout_s=launch.start_timeout_s + PULL_TIMEOUT_S,
        symptoms=(*launch.symptoms, *_SYMPTOMS),
    )


def step_in(
    container: Container, step: Step, *, reads: Sequence[Path], writes: Sequence[Path]
) -> Step:
    """Return a step of a build in a container.

    Args:
        container: in which.
        step: as it would be run natively.
        reads: folders that it needs, such as the model's.
        writes: folders that it fills; what it makes there is the user's own.
    """
    mounts = {**dict.fromkeys(reads, "ro"), **dict.fromkeys((*writes, hub_cache()), "rw")}
    argv, environment = _wrap(container, step.argv, step.environment, mounts)
    symptoms = (*step.symptoms, *_SYMPTOMS)
    return msgspec.structs.replace(
        step,
        argv=argv,
        environment=environment,
        runtime=_with_daemon(container),
        symptoms=symptoms,
    )


def _with_daemon(container: Container) -> str:
    """Return the runtime if a container is not among its descendants, so must be ended by name."""
    return "" if container.runtime == "apptainer" else container.runtime


def _wrap(
    container: Container,
    argv: Sequence[str],
    environment: Mapping[str, str],
    mounts: Mapping[Path, str],
) -> tuple[tuple[str, ...], Mapping[str, str]]:
    """Return the command line and what is added to our environment."""
    # The container has a program of that name, not the host's path to it.
    program = "python3" if argv[0] == sys.executable else Path(argv[0]).name
    command = (program, *argv[1:])
    added = {**environment, "HF_HOME": str(hub_cache().absolute())}
    bound = [(str(path.expanduser().absolute()), mode) for path, mode in mounts.items()]
    if container.runtime == "apptainer":
        passed = {name: os.environ[name] for name in (*_PASSED, *_GPUS) if name in os.environ}
        binds = (word for path, mode in bound for word in ("--bind", f"{path}:{path}:{mode}"))
        # --cleanenv: our PYTHONPATH and the like must not reach the container's Python.
        options = ("--nv", "--cleanenv", *binds, "--pwd", str(Path.cwd()))
        return (
            ("apptainer", "exec", *options, f"docker://{container.image}", *command),
            {f"APPTAINERENV_{name}": value for name, value in {**passed, **added}.items()},
        )
    entrypoint, rest = split_command(container.image, command)
    started = (*(("--entrypoint", *entrypoint) if entrypoint else ()), container.image, *rest)
    return (
        (
            *(container.runtime, "run", "--rm", "--init", "--network", "host"),
            *_gpus_and_user(container.runtime),
            *("--shm-size", SHARED_MEMORY, "--ulimit", "memlock=-1", "--workdir", str(Path.cwd())),
            *(word for path, mode in bound for word in ("--volume", f"{path}:{path}:{mode}")),
            *(word for name in (*_PASSED, *_GPUS, *added) for word in ("--env", name)),
            *("--env", "HOME=/tmp"),  # the image knows no home of our user
            *started,
        ),
        added,
    )


def _gpus_and_user(runtime: Runtime) -> tuple[str, ...]:
    """Return the flags for all GPUs, and for files that belong to whoever runs dyno."""
    if runtime == "docker":
        return ("--gpus", "all", "--user", f"{os.getuid()}:{os.getgid()}")
    return ("--device", "nvidia.com/gpu=all", "--userns", "keep-id")
