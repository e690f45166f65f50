"""Run an engine's server, or a step of its build, in the engine's container.

`launch_in` and `step_in` turn a Launch or a Step into one that starts docker, podman or apptainer;
the supervisor need not know. Paths are the same inside and outside, so the command stays as it is.
We have run no container: tests check the command lines, and docker's own client parses them.

The container uses the host's network: the server binds to loopback as it does natively, and no port
is published. No secret stands on the command line: docker and podman get the names of variables
only, apptainer reads its own variables.
"""

import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal, get_args

import msgspec

from llmdyno import store
from llmdyno.errors import UsageError, nearest
from llmdyno.processes.launch import Launch, Step, elsewhere

Runtime = Literal["docker", "podman", "apptainer"]
RUNTIMES: tuple[Runtime, ...] = get_args(Runtime)
SHARED_MEMORY = "16g"  # NCCL between the processes of one server; docker's own default is 64 MiB
PULL_TIMEOUT_S = 3600.0  # images are 10 to 20 GB; the first start pulls them

# Variables of ours that the server needs to load a model as it does natively.
_PASSED = ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HF_ENDPOINT", "HF_HUB_OFFLINE")
_GPUS = ("CUDA_VISIBLE_DEVICES", "CUDA_DEVICE_ORDER")
# The entry point of NVIDIA's images prepares their libraries for the driver and then runs the
# command it is given, so it stays. Other images start their own program, which ours must replace.
_RUNS_WHAT_IT_IS_GIVEN = "nvcr.io/"

_SYMPTOMS: tuple[tuple[str, str], ...] = (
    (r"Cannot connect to the Docker daemon|connect to the Docker daemon socket", "missing-library"),
    (r"could not select device driver|nvidia-container-cli|unresolvable CDI", "missing-library"),
    (r"manifest unknown|manifest for .* not found", "missing-library"),
    (r"pull access denied|unauthorized: authentication required", "auth"),
)


class Container(msgspec.Struct, frozen=True, kw_only=True):
    """A container image, and the runtime that runs it."""

    runtime: Runtime
    image: str


def choose(wanted: str, image: str, *, here: bool = True) -> Container:
    """Return the container of an image.

    Args:
        wanted: the name of a runtime, or "auto" for the first that is installed.
        image: with its tag.
        here: it will run on this machine. If not, no runtime need be installed, and auto is docker.

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
    """Return the folder of Hugging Face's cache: $HF_HOME.

    Raises:
        UsageError: neither that variable nor a home folder is there.
    """
    cache = os.environ.get("HF_HOME") or store.home("HF_HOME") / ".cache" / "huggingface"
    return Path(cache).expanduser()


def split_command(image: str, command: tuple[str, ...]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Split a command into the program that replaces the image's entry point, and the rest.

    The first part is empty if the image's entry point must run.
    """
    if image.startswith(_RUNS_WHAT_IT_IS_GIVEN):
        return (), command
    return command[:1], command[1:]


def launch_in(container: Container, launch: Launch, *, reads: Sequence[Path]) -> Launch:
    """Return a launch that starts the server in a container.

    Args:
        container: the image and its runtime.
        launch: the native launch.
        reads: folders and files to mount besides those in `launch.files`.
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
        container: the image and its runtime.
        step: the native step.
        reads: folders to mount read-only, such as the model's.
        writes: folders to mount writable; the files made there belong to the user.
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
    """Return the runtime if its daemon owns the container, so that it must be removed by name."""
    return "" if container.runtime == "apptainer" else container.runtime


def _wrap(
    container: Container,
    argv: Sequence[str],
    environment: Mapping[str, str],
    mounts: Mapping[Path, str],
) -> tuple[tuple[str, ...], Mapping[str, str]]:
    """Return the command line, and the variables to add to our environment."""
    command = (elsewhere(argv), *argv[1:])
    # Our PATH would hide the container's own programs.
    own = {name: value for name, value in environment.items() if name != "PATH"}
    added = {**own, "HF_HOME": str(hub_cache().absolute())}
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
            *("--env", "HOME=/tmp"),  # our user has no home in the image
            *started,
        ),
        added,
    )


def _gpus_and_user(runtime: Runtime) -> tuple[str, ...]:
    """Return the flags for all GPUs, and for files that belong to the user of dyno."""
    if runtime == "docker":
        return ("--gpus", "all", "--user", f"{os.getuid()}:{os.getgid()}")
    return ("--device", "nvidia.com/gpu=all", "--userns", "keep-id")
