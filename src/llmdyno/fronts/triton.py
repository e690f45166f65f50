"""Triton Inference Server, with a complete model repository around the engine.

A tritonserver on the PATH (NVIDIA's container) is taken first; else, for the embedded engine, the
one inside the wheel of nvidia-pytriton, in an environment of its own. That is a real Triton 2.51
with its Python backend and its ensembles, and no other backend: TensorRT-LLM and vLLM inside of
Triton need the container, and were not run by us. Any other engine with an OpenAI server, vLLM too
where there is no such backend, is started beside Triton and passed on to (_triton/passing.py).

The repository's configs are made by the environment's Python, because Triton's protobuf schema is
there; llmdyno itself does without protobuf and gRPC. What is in the repository: _triton/. What an
engine needs of it: _triton/backends/.
"""

import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import msgspec

import llmdyno
from llmdyno.engines import Engine, Launch, pinned
from llmdyno.errors import StorageError, UsageError
from llmdyno.fronts import Front, Portable, _triton
from llmdyno.fronts._triton import backends, install, passing, repository, starting
from llmdyno.fronts._triton.backends import Backend, Served
from llmdyno.fronts._triton.repository import Repository
from llmdyno.knobs import Config, Knob, Value, default
from llmdyno.records.server_page import MetricsPage, Series

_PARTS = Path(_triton.__file__).parent
_BUNDLE = Path("triton")
_LAUNCHER = "launcher.py"
_OPENAI_PORT = "llmdyno.fronts._triton.openai_port"
_ACKNOWLEDGEMENTS = "acknowledgements"

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
        does="How many processes turn token ids into text, for every token of every stream."
        " Where Triton passes requests on to an engine's own server: how many do that.",
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

METRICS = MetricsPage(
    # With the TensorRT-LLM backend. An ensemble and its parts each count every request, but
    # postprocessing counts each piece of a stream; what nobody calls counts none.
    kind="triton",
    prefix="nv_inference_",
    series={
        "output_tokens": Series(("nv_llm_output_token_len_sum",), several="max"),
        "input_tokens": Series(("nv_llm_input_token_len_sum",), several="max"),
        "requests": Series(("nv_inference_request_success",), several="least"),
        "ttft_sum_s": Series(
            ("nv_inference_first_response_histogram_ms_sum",), scale=1e-3, several="max"
        ),
        "ttft_count": Series(("nv_inference_first_response_histogram_ms_count",), several="max"),
        "queue_sum_s": Series(("nv_inference_queue_duration_us",), scale=1e-6, several="max"),
        "queue_count": Series(("nv_inference_request_success",), several="least"),
        "running": Series(("nv_trt_llm_request_metrics",), label='request_type="active"'),
        "waiting": Series(("nv_trt_llm_request_metrics",), label='request_type="waiting"'),
        "kv_use": Series(
            ("nv_trt_llm_kv_cache_block_metrics",),
            label='kv_cache_block_type="fraction"',
            several="max",
        ),
    },
)


class TritonFront:
    """Writes a repository and starts tritonserver on it."""

    name = "triton"
    knobs: tuple[Knob, ...] = KNOBS
    metrics = METRICS
    serves_by_engine = False
    has_image = True
    ports_beside = 2  # of gRPC and of the metrics; a bundle has none for OpenAI's protocol
    target = "triton"

    def check(self, engine: Engine, model: str, config: Config) -> None:
        """Refuse an engine that Triton has no backend for and whose own server is not OpenAI's.

        Raises:
            UsageError: says what would be right.
        """
        if backends.find(engine) is None:
            settings, front = _split(config)
            place = Path("artifact")  # any path will do: the launch is not started
            built = place if engine.build(model, settings, place) else None
            passing.engine_launch(engine, model, settings, front, built, 1)

    def starts_server_of(self, engine: Engine) -> bool:
        """Return whether that engine always runs beside Triton, not inside of it."""
        return backends.find(engine) is None

    def speaks_openai(self, engine: Engine) -> bool:
        """Return whether OpenAI's protocol is spoken beside Triton's: by a few backends alone."""
        return getattr(backends.find(engine), "speaks_openai", False)

    def check_load(self, config: Config, *, streams: bool) -> None:
        """Refuse a server whose requests have one response each where a load streams.

        Raises:
            UsageError: says to leave the knob out.
        """
        if streams and config.get("decoupled_mode") is False:
            raise UsageError(
                "decoupled_mode=false: a study's load streams, which it forbids; leave it out."
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
        """Write the repository into `folder` and return what starts tritonserver on it.

        Raises:
            UsageError: Triton cannot serve the engine, or there is no such model.
            ServerError: there is no tritonserver for it here, or no port is free.
            StorageError: the folder cannot be written.
        """
        folder = folder.absolute()
        backend = backends.find(engine)
        settings, front = _split(config)
        ports = (port, starting.port_beside(host, port, 1), starting.port_beside(host, port, 2))
        says(f"Triton: HTTP {host}:{port}, gRPC {host}:{ports[1]}, metrics {host}:{ports[2]}")
        if backend is None or _passes_on(backend):
            inner = passing.engine_launch(
                engine, model, settings, front, artifact, passing.inner_port(ports)
            )
            return passing.launch(
                engine, inner, front, folder=folder, host=host, ports=ports, says=says
            )
        content = backend.repository(
            Served(
                engine=engine,
                model=model,
                place=backend.place(model, artifact),
                config=settings,
                front=front,
                artifact=artifact,
                acknowledgements=str(folder / _ACKNOWLEDGEMENTS),
            )
        )
        triton = install.find(engine, backend, folder, says)
        models = folder / "models"
        repository.write(content, models, triton.python, Path(llmdyno.__file__).parent)
        openai = starting.port_beside(host, port, 3)
        beside = _openai(content, host, port, openai)
        if beside:
            says(f"OpenAI's protocol: http://{host}:{openai}")
        launcher = (sys.executable, "-I", "-S", str(_PARTS / _LAUNCHER), *beside)
        launch = starting.launch(content, (*launcher, *triton.command), models, host, ports)
        also = {"openai-chat": f"http://{host}:{openai}"} if beside else {}
        return msgspec.structs.replace(
            launch, environment=triton.environment, also={**launch.also, **also}
        )

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
        """Write a repository that finds all it needs below `folder`, for any tritonserver.

        Raises:
            UsageError: Triton cannot serve the engine, or there is no such model.
            ServerError: Triton's schema cannot be installed.
            StorageError: the folder cannot be written.
        """
        backend = backends.find(engine)
        settings, front = _split(config)
        ours = folder.absolute() / _BUNDLE
        command = ("python3", "-I", "-S", str(_BUNDLE / _LAUNCHER))
        if backend is None:
            inner = passing.engine_launch(engine, model, settings, front, artifact, port + 3)
            _copy(_PARTS / _LAUNCHER, ours)
            return Portable(
                launch=passing.bundle(inner, front, ours / "models", command, (host, port)),
                wrote=str(_BUNDLE),
                image=backends.image("-py3"),
                requirements=pinned(engine),
            )
        place, links = backend.portable_place(model, artifact)
        content = backend.repository(
            Served(
                engine=engine,
                model=model,
                place=place,
                config=settings,
                front=front,
                artifact=artifact,
                acknowledgements=_ACKNOWLEDGEMENTS,
                portable=True,
            )
        )
        _copy_parts(ours)
        python = install.schema_python(says)
        repository.write(content, ours / "models", python, Path("../../../llmdyno"))
        models = _BUNDLE / "models"
        launch = starting.launch(
            content, (*command, "tritonserver"), models, host, (port, port + 1, port + 2)
        )
        requirements = (*backend.requirements, *install.SCHEMA) if backend.requirements else ()
        return Portable(
            launch=msgspec.structs.replace(launch, doubts=_doubts(backend, engine, config)),
            wrote=str(_BUNDLE),
            image=backend.image(engine, config),
            requirements=requirements,
            links=links,
            prepare=backend.prepare(artifact, models),
        )


def _split(config: Config) -> tuple[dict[str, Value], dict[str, Value]]:
    """Return the engine's settings, and the front's with its defaults."""
    front = {
        knob.name: value
        for knob in KNOBS
        if (value := config.get(knob.name, default(knob, None))) is not None
    }
    ours = {knob.name for knob in KNOBS}
    return {name: value for name, value in config.items() if name not in ours}, front


def _passes_on(backend: Backend) -> bool:
    """Return whether the tritonserver here lacks a backend whose engine has a server of its own."""
    return bool(backend.else_passes_on) and not install.has_backend(backend.else_passes_on)


def _doubts(backend: Backend, engine: Engine, config: Config) -> tuple[str, ...]:
    """Return what of a bundle may not be meant; one is that here something else is served."""
    doubts = backend.doubts(engine, config)
    if not _passes_on(backend):
        return doubts
    name = engine.name
    here = f"a Triton without NVIDIA's backend, as here, passes requests on to {name}'s own server;"
    return (*doubts, f"{here} the bundle has {name} inside of Triton: measure it there, too.")


def _openai(content: Repository, host: str, port: int, openai: int) -> tuple[str, ...]:
    """Return what has the launcher speak OpenAI's protocol on a port beside Triton's own."""
    if content.openai is None:
        return ()
    asked = {
        "host": host,
        "port": openai,
        "argv": [sys.executable, "-m", _OPENAI_PORT],
        "settings": {**msgspec.to_builtins(content.openai), "host": host, "port": port},
    }
    return (f"--on-demand={msgspec.json.encode(asked).decode()}",)


def _copy_parts(ours: Path) -> None:
    """Copy what the server's Python models import, and what keeps an eye on them."""
    _copy(Path(llmdyno.__file__).parent, ours / "llmdyno")
    _copy(_PARTS / _LAUNCHER, ours)


def _copy(what: Path, where: Path) -> None:
    """Copy a file into a folder, or a folder's content, without what Python has compiled."""
    try:
        where.mkdir(parents=True, exist_ok=True)
        if what.is_file():
            shutil.copy2(what, where)
        else:
            ignored = shutil.ignore_patterns("__pycache__")
            shutil.copytree(what, where, dirs_exist_ok=True, ignore=ignored)
    except OSError as error:
        raise StorageError(f"cannot write {where}: {error.strerror}.") from error


FRONT: Front = TritonFront()
