"""Triton Inference Server, with a complete model repository around the engine.

A tritonserver on the PATH (NVIDIA's container) is taken first; else, for the embedded engine, the
one inside the wheel of nvidia-pytriton, in an environment of its own. That is a real Triton 2.51
with its Python backend and its ensembles, and no other backend: TensorRT-LLM and vLLM need the
container, and were not run by us.

The repository's configs are made by the environment's Python, because Triton's protobuf schema is
there; llmdyno itself does without protobuf and gRPC. What is in the repository: _triton/.
"""

import json
import os
import shutil
import socket
import subprocess
import sys
import sysconfig
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from pathlib import Path

import msgspec

import llmdyno
from llmdyno.embedded.model import resolve
from llmdyno.engines import Engine, Launch
from llmdyno.engines.tensorrt_llm import RELEASE, llm_arguments
from llmdyno.errors import ServerError, StorageError, UsageError
from llmdyno.fronts import MODELS, Front, Portable, _triton, model_link
from llmdyno.fronts._triton import repository
from llmdyno.fronts._triton.repository import Repository
from llmdyno.knobs import Config, Knob, Value, default
from llmdyno.processes import environments

ENGINES = ("openvino", "tensorrt-llm", "vllm")
# The wheels of nvidia-pytriton that have a tritonserver pin numpy < 2: no Python newer than 3.12.
PYTHONS = ((3, 11), (3, 12))
_PARTS = Path(_triton.__file__).parent
_SCHEMA = ["tritonclient[grpc]>=2.51"]
_EMBEDDED = ["openvino-genai>=2026.4", "msgspec>=0.19", *_SCHEMA]
_WHEEL = ["nvidia-pytriton==0.7.0", *_EMBEDDED]
# Where NVIDIA's container of a release of TensorRT-LLM is, by its published compatibility matrix.
_IMAGE = "nvcr.io/nvidia/tritonserver"
_TAGS: Mapping[str, str] = {
    "1.1": "25.12",
    "1.0": "25.10",
    "0.21": "25.08",
    "0.20": "25.07",
    "0.17": "25.01",
    "0.16": "24.12",
    "0.15": "24.11",
    "0.14": "24.10",
    "0.13": "24.09",
    "0.12": "24.08",
    "0.11": "24.07",
    "0.10": "24.06",
    "0.9": "24.04",  # and 24.05; the former is what BentoML took
}
_NEWEST_TAG = "25.12"  # of those that were looked up
_IMAGE_FLAVOURS = {"tensorrt-llm": "-trtllm-python-py3", "vllm": "-vllm-python-py3"}
_BUNDLE = Path("triton")
# Where the container tritonserver:YY.MM-trtllm-python-py3 has NVIDIA's own models, by its tutorial
# on speculative decoding, which copies `llmapi` from there.
_CONTAINER_MODELS = Path("/app/all_models")
_LAUNCHER = "launcher.py"
_ACKNOWLEDGEMENTS = "acknowledgements"
_EXIT_TIMEOUT_S = 5

_SOURCE = "Triton's model configuration and TensorRT-LLM's templates for it"

KNOBS = (
    Knob(
        name="triton_max_batch_size",
        layer="front",
        kind="int",
        does="How many requests Triton hands to a model at once. The engine makes batches of its"
        " own and is not bound by it; tokenizing and detokenizing are.",
        turn="At least as many as users; in TensorRT-LLM's C++ backend at most as the engine was"
        " built for.",
        trades="Nothing is lost by a large value: Triton does not wait for a batch to fill.",
        source=_SOURCE,
        defaults=(("0", 256),),
        low=1,
        high=4096,
        unit="requests",
    ),
    Knob(
        name="preprocessing_instance_count",
        layer="front",
        kind="int",
        does="How many processes turn prompts into token ids.",
        turn="Raise it when long prompts arrive faster than one process tokenizes them.",
        trades="Each is a Python process with a tokenizer of its own, on the engine's cores.",
        source=_SOURCE,
        defaults=(("0", 1),),
        low=1,
        high=64,
        search=(1, 2),
        unit="processes",
    ),
    Knob(
        name="postprocessing_instance_count",
        layer="front",
        kind="int",
        does="How many processes turn token ids into text, for every token of every stream.",
        turn="Raise it when the token rate stops growing and this process is what is busy; BentoML"
        " went from 1 to 8 for 100 users on a GPU.",
        trades="Each is a Python process, on the engine's cores; the order of a stream's pieces is"
        " kept whatever their number.",
        source=f"{_SOURCE}; BentoML's tuning of TensorRT-LLM of September 2024",
        defaults=(("0", 1),),
        low=1,
        high=64,
        search=(1, 4),
        unit="processes",
    ),
    Knob(
        name="bls_instance_count",
        layer="front",
        kind="int",
        does="How many processes the model `tensorrt_llm_bls` has. Ours serves any number of"
        " requests in one, as coroutines.",
        turn="Raise it when clients call that model and its process is what is busy.",
        trades="Each is a Python process.",
        source=_SOURCE,
        defaults=(("0", 1),),
        low=1,
        high=64,
        unit="processes",
    ),
    Knob(
        name="decoupled_mode",
        conflicts="off in `dyno tune`, whose load streams",
        layer="front",
        kind="bool",
        does="Lets a request have many responses. Off: one response with the whole text.",
        turn="Leave it on, unless no client streams.",
        trades="Off, TTFT is as long as the whole answer.",
        source=_SOURCE,
        defaults=(("0", True),),
    ),
    Knob(
        name="accumulate_tokens",
        layer="front",
        kind="bool",
        does="Of the model `tensorrt_llm_bls`: each response of a stream holds the whole text so"
        " far, not only what is new.",
        turn="For clients that show each response instead of adding it to what they have.",
        trades="What is sent and decoded grows with the square of the answer's length.",
        source=_SOURCE,
        defaults=(("0", False),),
    ),
    Knob(
        name="max_queue_size",
        layer="front",
        kind="int",
        does="How many requests may wait for the engine beside those that run; more are refused"
        " with 503. 0: any number.",
        turn="Set it where a late answer is worth less than a refusal.",
        trades="A burst is refused though it could have been served a moment later.",
        source=_SOURCE,
        defaults=(("0", 0),),
        low=0,
        high=1 << 20,
        unit="requests",
    ),
)

# What tritonserver and its Python models write when they fail.
_SYMPTOMS = (
    (
        r"(failed to start|Unable to bind|bind).*(HTTP|GRPC|Metrics|socket|address|port)",
        "port-in-use",
    ),
    (r"[Aa]ddress already in use", "port-in-use"),
    (r"memory (size )?(available )?on the system|available memory", "out-of-memory"),
    (r"bad_alloc|MemoryError|[Cc]annot allocate memory|CUDA out of memory", "out-of-memory"),
    (r"[Nn]o space left on device|Failed to initialize Python stub.*shm|shm_open", "out-of-memory"),
    (r"cannot open shared object file|ModuleNotFoundError|ImportError", "missing-library"),
    (r"[Uu]nable to find backend library|unable to load backend", "missing-library"),
    (r"is no setting of|Wrong value|Unsupported property|Check '.*' failed", "bad-config"),
    (r"with this config|[Ii]nvalid argument|[Ff]ailed to parse|must specify", "bad-config"),
    (r"llmdyno\.triton: a Python model's process", "died"),
)


class Triton(msgspec.Struct, frozen=True, kw_only=True):
    """A tritonserver, and what its process and its Python models need to find things."""

    command: tuple[str, ...]
    environment: Mapping[str, str]
    python: Path  # one that has Triton's schema


class TritonFront:
    """Writes a repository and starts tritonserver on it."""

    name = "triton"
    knobs: tuple[Knob, ...] = KNOBS

    def check(self, engine: Engine, model: str, config: Config) -> None:  # noqa: ARG002
        """Refuse an engine that Triton has no backend for."""
        if engine.name not in ENGINES:
            raise UsageError(
                f"--front triton: cannot serve {engine.name}; it serves {', '.join(ENGINES)}."
            )

    def launch(
        self,
        engine: Engine,
        model: str,
        config: Config,
        *,
        artifact: Path | None,
        folder: Path,
        host: str,
        port: int,
        says: Callable[[str], None],
    ) -> Launch:
        """Write the repository into `folder` and return what starts tritonserver on it."""
        folder = folder.absolute()
        content = _repository(
            engine,
            model,
            config,
            place=str(resolve(model, artifact).path) if engine.name == "openvino" else model,
            artifact=artifact,
            acknowledgements=str(folder / _ACKNOWLEDGEMENTS),
            llmapi=_llmapi_python,
        )
        triton = _found(engine, folder, says)
        models = folder / "models"
        _write(content, models, triton.python, Path(llmdyno.__file__).parent)
        ports = (port, _port_beside(host, port, 1), _port_beside(host, port, 2))
        says(f"Triton: HTTP {host}:{port}, gRPC {host}:{ports[1]}, metrics {host}:{ports[2]}")
        command = (sys.executable, "-I", "-S", str(_PARTS / _LAUNCHER), *triton.command)
        launch = _launch(content, command, models, host, ports)
        return msgspec.structs.replace(launch, environment=triton.environment)

    def bundle(
        self,
        engine: Engine,
        model: str,
        config: Config,
        *,
        artifact: Path | None,
        folder: Path,
        host: str,
        port: int,
        says: Callable[[str], None],
    ) -> Portable:
        """Write a repository that finds all it needs below `folder`, for any tritonserver."""
        embedded = engine.name == "openvino"
        if embedded and artifact is not None:
            place, links = str(artifact), {}  # whoever bundles knows whether it is built
        elif embedded:
            path = resolve(model).path
            place = str(MODELS / path.name)
            links = {place: path}
        else:
            links = model_link(model)
            place = next(iter(links), model)
        content = _repository(
            engine,
            model,
            config,
            place=place,
            artifact=artifact,
            acknowledgements=_ACKNOWLEDGEMENTS,
            llmapi=dict,  # NVIDIA's code is copied where it lies
        )
        ours = folder.absolute() / _BUNDLE
        _copy_parts(ours)
        python = Path(sys.executable)
        if find_spec("tritonclient") is None:
            python = environments.ensure("triton-models", _SCHEMA, says) / "python"
        _write(content, ours / "models", python, Path("../../../llmdyno"))
        command = ("python3", "-I", "-S", str(_BUNDLE / _LAUNCHER), "tritonserver")
        models = _BUNDLE / "models"
        uses_llmapi = engine.name == "tensorrt-llm" and artifact is None
        source = _CONTAINER_MODELS / "llmapi" / "tensorrt_llm" / "1"
        launch = _launch(content, command, models, host, (port, port + 1, port + 2))
        return Portable(
            launch=msgspec.structs.replace(launch, doubts=_doubts(engine, config)),
            wrote=str(_BUNDLE),
            image=_image(engine, config),
            requirements=tuple(_EMBEDDED) if embedded else (),
            links=links,
            prepare=f"cp -u {source}/*.py {models}/tensorrt_llm/1/" if uses_llmapi else "",
        )


def _launch(
    content: Repository,
    command: tuple[str, ...],
    models: Path,
    host: str,
    ports: tuple[int, int, int],
) -> Launch:
    """Return what starts a tritonserver on a repository; ports: HTTP, gRPC, metrics."""
    http, grpc, metrics = ports
    return Launch(
        argv=(
            *command,
            f"--model-repository={models}",
            *_addresses(host, http, grpc, metrics),
            "--disable-auto-complete-config",
            "--allow-gpu-metrics=false",
            f"--exit-timeout-secs={_EXIT_TIMEOUT_S}",
        ),
        url=f"http://{host}:{http}",
        endpoint="triton-generate",
        also={"triton-grpc": f"grpc://{host}:{grpc}"},
        model=content.model,
        health_path="/v2/health/ready",
        probe=(
            f"/v2/models/{content.model}/generate",
            {"text_input": "a", "max_tokens": 1, "stream": False},
        ),
        metrics_url=f"http://{host}:{metrics}/metrics",
        symptoms=_SYMPTOMS,
    )


def _repository(
    engine: Engine,
    model: str,
    config: Config,
    *,
    place: str,
    artifact: Path | None,
    acknowledgements: str,
    llmapi: Callable[[], Mapping[str, str]],
) -> Repository:
    """Return what is to be served.

    Args:
        engine: the engine.
        model: as the user named it.
        config: of engine and front.
        place: where the server finds the model.
        artifact: what was built.
        acknowledgements: the path of a FIFO.
        llmapi: returns the code of NVIDIA's own Python model.
    """
    ours = {knob.name for knob in KNOBS}
    front: dict[str, Value] = {
        knob.name: value
        for knob in KNOBS
        if (value := config.get(knob.name, default(knob, None))) is not None
    }
    rest = {name: value for name, value in config.items() if name not in ours}
    if engine.name == "openvino":
        # The weights are built by now; the pipeline knows no such settings.
        built = {knob.name for knob in engine.knobs if knob.layer == "build"}
        rest = {name: value for name, value in rest.items() if name not in built}
        context_length = _context_length(model, artifact)
        return repository.openvino(place, context_length, acknowledgements, rest, front)
    if engine.name == "vllm":
        return repository.vllm(place, rest)
    if artifact is None:
        return repository.llmapi(place, llm_arguments(rest), front, llmapi())
    version = tuple(int(part) for part in _version(engine, config).split(".")[:2])
    return repository.tensorrt_llm(str(artifact / "engine"), place, version, rest, front)


def _context_length(model: str, artifact: Path | None) -> int:
    """Return that of the embedded engine's model; what a bundle serves need not be built yet."""
    built = artifact is not None and artifact.exists()
    return resolve(model, artifact if built else None).context_length


def _version(engine: Engine, config: Config) -> str:
    """Return the release of TensorRT-LLM that a config is for."""
    return str(config.get("version") or engine.version() or RELEASE)


def _image(engine: Engine, config: Config) -> str:
    release = ".".join(_version(engine, config).split(".")[:2])
    tag = _TAGS.get(release, _NEWEST_TAG) if engine.name == "tensorrt-llm" else _NEWEST_TAG
    return f"{_IMAGE}:{tag}{_IMAGE_FLAVOURS.get(engine.name, '-py3')}"


def _doubts(engine: Engine, config: Config) -> tuple[str, ...]:
    version = _version(engine, config)
    if engine.name != "tensorrt-llm" or ".".join(version.split(".")[:2]) in _TAGS:
        return ()
    unknown = f"the config is for TensorRT-LLM {version}, whose Triton container we do not know"
    return (f"{unknown}; {_NEWEST_TAG} has 1.1.0: name the right --image, or set version.",)


def _copy_parts(ours: Path) -> None:
    """Copy what the server's Python models import, and what keeps an eye on them."""
    try:
        shutil.copytree(
            Path(llmdyno.__file__).parent,
            ours / "llmdyno",
            dirs_exist_ok=True,
            ignore=shutil.ignore_patterns("__pycache__"),
        )
        shutil.copy2(_PARTS / _LAUNCHER, ours)
    except OSError as error:
        raise StorageError(f"cannot write {ours}: {error.strerror}.") from error


def _llmapi_python() -> dict[str, str]:
    """Return the code of NVIDIA's own Python model."""
    folder = _CONTAINER_MODELS / "llmapi" / "tensorrt_llm" / "1"
    try:
        return {name: (folder / name).read_text("utf-8") for name in ("model.py", "helpers.py")}
    except OSError as error:
        raise ServerError(
            "missing-library",
            f"{folder} cannot be read ({error.strerror}): NVIDIA's Triton container for"
            " TensorRT-LLM has it (missing-library).",
        ) from error


def _found(engine: Engine, folder: Path, says: Callable[[str], None]) -> Triton:
    """Find a tritonserver, or install one for the embedded engine.

    Raises:
        ServerError: there is none for this engine here.
    """
    native = shutil.which("tritonserver")
    embedded = engine.name == "openvino"
    if native is None and not embedded:
        raise ServerError(
            "missing-library",
            f"tritonserver is not on the PATH: {engine.name} behind Triton needs NVIDIA's container"
            " nvcr.io/nvidia/tritonserver (missing-library).",
        )
    if native is not None:
        binaries = environments.ensure("triton-models", _EMBEDDED if embedded else _SCHEMA, says)
        environment = _path(binaries) if embedded else {}
        return Triton(command=(native,), environment=environment, python=binaries / "python")
    return _wheel(folder, says)


def _wheel(folder: Path, says: Callable[[str], None]) -> Triton:
    """Return the tritonserver inside nvidia-pytriton, with its parts where it looks for them."""
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
    binaries = environments.ensure("triton", _WHEEL, says)
    python = f"{version[0]}.{version[1]}"
    packages = binaries.parent / "lib" / f"python{python}" / "site-packages"
    wheel = packages / "pytriton" / "tritonserver"
    backends = folder / "backends"
    try:
        # A model's process is started by the program beside the backend's library.
        shutil.copytree(wheel / "backends" / "python", backends / "python", dirs_exist_ok=True)
        stub = wheel / "python_backend_stubs" / python / "triton_python_backend_stub"
        shutil.copy2(stub, backends / "python")
    except OSError as error:
        raise StorageError(f"cannot write {backends}: {error.strerror}.") from error
    libraries = [str(library), str(packages / "nvidia_pytriton.libs")]
    libraries += filter(None, [os.environ.get("LD_LIBRARY_PATH")])
    return Triton(
        command=(
            str(wheel / "bin" / "tritonserver"),
            f"--backend-directory={backends}",
            f"--cache-directory={wheel / 'caches'}",
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


def _write(content: Repository, models: Path, python: Path, package: Path) -> None:
    """Write a repository; its configs through the schema, by the Python that has it.

    `package` is what its links to llmdyno point to.
    """
    try:
        for name in (*content.configs, *content.empty):
            (models / name).mkdir(parents=True, exist_ok=True)
        for name, text in content.files.items():
            (models / name).parent.mkdir(parents=True, exist_ok=True)
            (models / name).write_text(text, "utf-8")
        for name in content.imports:
            link = models / name / "1" / "llmdyno"
            if not link.is_symlink():
                link.symlink_to(package)
    except OSError as error:
        raise StorageError(f"cannot write {models}: {error.strerror}.") from error
    done = subprocess.run(
        [str(python), "-I", str(_PARTS / "pbtxt.py"), "write", str(models)],
        input=json.dumps(content.configs),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def _addresses(host: str, http: int, grpc: int, metrics: int) -> tuple[str, ...]:
    ports = {"http": http, "grpc": grpc, "metrics": metrics}
    return tuple(
        argument
        for name, port in ports.items()
        for argument in (f"--{name}-address={host}", f"--{name}-port={port}")
    )


def _port_beside(host: str, port: int, step: int) -> int:
    """Return the port at its usual distance from HTTP's, or a free one if that is taken."""
    for candidate in (port + step, 0):
        try:
            with socket.create_server((host, candidate)) as probe:
                return int(probe.getsockname()[1])
        except (OSError, OverflowError):
            continue
    raise ServerError("port-in-use", f"{host}: no port is free for Triton (port-in-use).")


FRONT: Front = TritonFront()
