"""Triton in front of an engine's own OpenAI server, which the launcher starts before Triton."""

import json
import os
import sys
from pathlib import Path

import msgspec

from llmdyno.engines import Engine, Launch, facts
from llmdyno.fronts._triton import install, repository, starting
from llmdyno.fronts._triton.backends import _passage
from llmdyno.knobs import Config
from llmdyno.processes.environments import Notify
from llmdyno.processes.ports import free_port

_TRITON_START_S = 60.0  # what Triton may take to start, beside the engine


def engine_launch(
    engine: Engine, model: str, config: Config, front: Config, artifact: Path | None, port: int
) -> Launch:
    """Return what starts the engine's own server on loopback.

    Raises:
        UsageError: it cannot be passed on to, or a setting of the front means nothing here.
    """
    inner = engine.launch(model, config, artifact=artifact, host="127.0.0.1", port=port)
    _passage.check(engine.name, inner.endpoint, front)
    return inner


def inner_port(ports: tuple[int, ...]) -> int:
    """Return a free port for the engine that is none of Triton's."""
    while (port := free_port()) in ports:
        pass
    return port


def launch(
    engine: Engine,
    inner: Launch,
    front: Config,
    *,
    folder: Path,
    host: str,
    ports: tuple[int, int, int],
    says: Notify,
) -> Launch:
    """Write the repository into the server's folder and return what starts engine and Triton.

    Args:
        engine: the one behind it.
        inner: of its own server.
        front: settings of the front, its defaults included.
        folder: the server's own.
        host: to listen on.
        ports: of HTTP, gRPC and the metrics.
        says: is told what takes long.

    Raises:
        ServerError: there is no tritonserver here, or it lacks a part.
        StorageError: the folder cannot be written.
    """
    triton = install.find_to_pass_on(folder, says)
    content = _passage.repository(inner, front)
    models = folder / "models"
    repository.write(content, models, triton.python, Path())
    # The libraries that Triton's process needs would be wrong ones for the engine, and the packages
    # that the engine finds by PYTHONPATH, for Triton's models. Triton computes nothing: no GPU.
    # The folder of an engine in an environment of its own has a Python that is none of Triton's.
    path = {"PATH": os.environ.get("PATH", os.defpath)} if "PATH" in inner.environment else {}
    variables = {**path, **triton.environment, "CUDA_VISIBLE_DEVICES": ""}
    alone = ("env", "-u", "PYTHONPATH", *(f"{name}={text}" for name, text in variables.items()))
    launcher = (sys.executable, "-I", "-S", str(starting.LAUNCHER))
    started = starting.launch(
        content,
        (*launcher, _engine_flag(inner), *alone, *triton.command),
        models,
        host,
        ports,
    )
    says(f"Triton passes requests on to {engine.name}'s own server, {inner.url}")
    if facts(engine).metrics is None:
        return _joined(started, inner)
    # The engine's page knows tokens and its cache; Triton's counts requests alone.
    page = inner.metrics_url or f"{inner.url}/metrics"
    return msgspec.structs.replace(_joined(started, inner), metrics_url=page)


def bundle(
    inner: Launch, front: Config, models: Path, command: tuple[str, ...], http: tuple[str, int]
) -> Launch:
    """Write the repository into a bundle; return what starts engine and Triton there.

    Args:
        inner: of the engine's own server, as it is started there.
        front: settings of the front, its defaults included.
        models: the repository's place here; the last two parts are those in the bundle.
        command: the launcher there.
        http: the host and port to listen on; Triton's other ports follow.

    Raises:
        StorageError: it cannot be written.
    """
    content = _passage.repository(inner, front)
    repository.write(content, models, Path(sys.executable), Path())
    host, port = http
    started = starting.launch(
        content,
        (*command, _engine_flag(inner), "tritonserver"),
        Path(*models.parts[-2:]),
        host,
        (port, port + 1, port + 2),
    )
    return _joined(started, inner)


def _engine_flag(inner: Launch) -> str:
    """Return the launcher's word that has it start the engine first."""
    asked = {
        "argv": inner.argv,
        "health": f"{inner.url}{inner.health_path}",
        "timeout_s": inner.start_timeout_s,
    }
    return f"--engine={json.dumps(asked)}"


def _joined(started: Launch, inner: Launch) -> Launch:
    """Return Triton's launch with what the engine behind it needs and says."""
    return msgspec.structs.replace(
        started,
        environment=inner.environment,
        files=inner.files,
        doubts=inner.doubts,
        gpus=inner.gpus,
        start_timeout_s=inner.start_timeout_s + _TRITON_START_S,
        symptoms=(*inner.symptoms, *started.symptoms),
    )
