"""BentoML in front of any engine that speaks OpenAI's chat.

The service itself is the folder _bentoml, which needs nothing of llmdyno: it starts the engine's
own server on a loopback port as its child, keeps it alive and passes requests on. `launch` writes
it into the server's folder and starts `bentoml serve` there, from a Python environment of its own;
`write_project` writes the same with all that `bentoml build` wants.
"""

import os
import re
import shutil
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import msgspec

from llmdyno.engines import Engine, Launch, pinned
from llmdyno.errors import ServerError, StorageError, UsageError
from llmdyno.fronts import Front, Portable
from llmdyno.knobs import Config, Knob, Value, default
from llmdyno.processes import environments, leash, spawn
from llmdyno.processes.ports import free_port
from llmdyno.processes.secrets import is_secret
from llmdyno.records.server_page import MetricsPage, Series, counter
from llmdyno.store import make_folder

VERSION = "1.4.39"  # 1.4.40 needs a certifi that some package indexes lack
# The loop and the parser that uvicorn prefers; the service reads the engine with them too.
REQUIREMENTS = (f"bentoml=={VERSION}", "httptools==0.9.0", "uvloop==0.23.0")
# `bentoml build` downloads uv even if it locks nothing; with uv installed it needs no network.
ENVIRONMENT = (*REQUIREMENTS, "uv==0.13.9")

HOME = "DYNO_BENTOML_HOME"  # names a folder with all packages, where no index can be reached

_SERVICE = Path(__file__).with_name("_bentoml")
_PACKAGE = "llmdyno_front"  # the name of the service's copy
_IMPORT = f"{_PACKAGE}.service:Front"
_IMPORTS_S = 120.0  # how long BentoML's own processes may take to start, beside the engine
_SOURCE = f"BentoML {VERSION} source"

SETTINGS: Mapping[str, str] = {"BENTOML_DO_NOT_TRACK": "True"}  # BentoML does not accept "1"

KNOBS: tuple[Knob, ...] = (
    Knob(
        name="service_workers",
        layer="front",
        kind="int",
        does="Processes that pass requests and tokens on. They share one engine.",
        turn="Raise it when a worker's core is full while the engine's are not: many users, short"
        " steps.",
        trades="Each worker takes some 100 MB, and a core that the engine may want.",
        source=f"{_SOURCE}, services.workers",
        defaults=(("0", 1),),
        low=1,
        high=64,
        unit="processes",
    ),
    Knob(
        name="max_concurrency",
        layer="front",
        kind="int",
        does="Requests in flight, all workers together, above which the next one gets status 429."
        " Unset: no limit, the engine queues.",
        turn="Set it where clients can go elsewhere and a late answer is worth nothing.",
        trades="Those who are let in wait less; the others get an error.",
        source=f"{_SOURCE}, traffic.max_concurrency; its traffic.concurrency refuses nobody",
        defaults=(("0", None),),
        low=1,
        high=1_000_000,
        unit="requests",
    ),
    Knob(
        name="request_timeout_s",
        layer="front",
        kind="float",
        does="How long a request may wait for the first byte of its answer; then it gets status"
        " 504 and is cancelled in the engine. A stream that has begun is not limited.",
        turn="Below what clients wait themselves, so that the engine does not work for nobody.",
        trades="Too short, and a burst that would have been served is refused after all its"
        " waiting.",
        source=f"{_SOURCE}, traffic.timeout (its own default is 60; the 2024 service had 300)",
        defaults=(("0", 300.0),),
        low=1,
        high=86_400,
        unit="s",
    ),
    Knob(
        name="engine_restarts",
        layer="front",
        kind="int",
        does="How often a dead engine is started again before the service gives up and ends. A"
        " minute of health clears the count; an engine that was never ready is not tried again.",
        turn="0 where whatever runs the service starts it again, and when engines are measured.",
        trades="Each restart hides a fault, and the requests of that time get status 503.",
        source="llmdyno's own service",
        defaults=(("0", 3),),
        low=0,
        high=1000,
        unit="restarts",
    ),
    Knob(
        name="engine_backoff_s",
        layer="front",
        kind="float",
        does="The pause before the first restart of an engine; it doubles with each one.",
        turn="Raise it when what kills the engine takes time to pass, such as memory that others"
        " hold.",
        trades="The service is down for that much longer.",
        source="llmdyno's own service",
        defaults=(("0", 1.0),),
        low=0,
        high=600,
        unit="s",
    ),
    Knob(
        name="access_log",
        layer="front",
        kind="bool",
        does="Writes a line for each request.",
        turn="On where the lines are read; BentoML's own default is on.",
        trades="Some CPU for each request, and the engine's last words drown in it.",
        source=f"{_SOURCE}, logging.access.enabled",
        defaults=(("0", False),),
    ),
)


_README = """\
# {model}, served by {engine} behind BentoML

    pip install -r requirements.txt
    bentoml serve llmdyno_front.service:Front       # from here
    bentoml build                                   # a Bento, without asking any network
    bentoml containerize llmdyno_front:latest       # an image, which does ask

`POST /v1/chat/completions`, `/v1/completions` and `GET /v1/models` are OpenAI's; `POST /generate`
takes `prompt`, `system_prompt` and `max_tokens` and streams text. `/readyz` and `/health` are green
once the engine has made a token. `llmdyno_front/spec.json` holds the engine's command and the
settings of the front; a model that it names by a folder must be in that place.
"""


METRICS = MetricsPage(
    kind="bentoml",
    prefix="bentoml_",
    series={
        "requests": counter("bentoml_service_request"),
        "running": Series(("bentoml_service_request_in_progress",)),
    },
)


class BentoFront:
    """`bentoml serve` of our service."""

    name = "bentoml"
    knobs = KNOBS
    metrics = METRICS
    ports_beside = 1  # the engine's own server
    target = "bento"

    def check(self, engine: Engine, model: str, config: Config) -> None:
        """Refuse nothing: only the engine's launch tells which protocol it speaks."""

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
        """Return what starts the service, in an environment that is made on first use.

        Raises:
            UsageError: the engine does not speak OpenAI's protocol.
            ServerError: BentoML cannot be installed, or no port is free for the engine.
            StorageError: the folder cannot be written.
        """
        folder = folder.absolute()  # the service's workers have it as their working directory
        inner_port = free_port()
        while inner_port == port:
            inner_port = free_port()
        inner = engine.launch(
            model, _without_ours(config), artifact=artifact, host="127.0.0.1", port=inner_port
        )
        require_openai(engine, inner)
        command = (*_program(folder, says), "serve", _IMPORT, "--working-dir", str(folder))
        # What BentoML puts there stays where it is killed: with the run.
        places = {"BENTOML_HOME": folder / "bentoml_home", "TMPDIR": folder / "tmp"}
        make_folder(places["TMPDIR"])
        environment = {name: str(place) for name, place in places.items()}
        # The engine keeps its own: the names of its sockets must be short.
        of_engine = inner.environment.get("TMPDIR") or os.environ.get("TMPDIR")
        own = [f"TMPDIR={of_engine}"] if of_engine else ["-u", "TMPDIR"]
        if engines := inner.environment.get("PATH"):
            # Its environment has a Python of its own, which is none of BentoML's.
            environment["PATH"] = os.environ.get("PATH", os.defpath)
            own.append(f"PATH={engines}")
        if path := os.environ.get("PYTHONPATH"):
            # What an engine finds there would take the place of BentoML's own packages.
            command = ("env", "-u", "PYTHONPATH", *command)
            own.append(f"PYTHONPATH={path}")
        write_service(
            folder, msgspec.structs.replace(inner, argv=("env", *own, *inner.argv)), config
        )
        launch = _service(inner, command, host, port)
        return msgspec.structs.replace(launch, environment={**launch.environment, **environment})

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
        says: Callable[[str], None],  # noqa: ARG002 - nothing takes long
    ) -> Portable:
        """Write a project for `bentoml build` into `folder`.

        Raises:
            UsageError: the engine does not speak OpenAI's protocol.
            StorageError: the folder cannot be written.
        """
        inner = engine.launch(
            model, _without_ours(config), artifact=artifact, host="127.0.0.1", port=port + 1
        )
        write_project(folder, inner, config, engine)
        return Portable(
            launch=_service(inner, ("bentoml", "serve", _IMPORT), host, port),
            wrote=_PACKAGE,
            requirements=(*REQUIREMENTS, *_requirements(engine)),
        )


def _program(folder: Path, says: Callable[[str], None]) -> tuple[str, ...]:
    """Return the command `bentoml`: of an environment, or of packages that were unpacked here.

    Raises:
        ServerError: it cannot be installed, or what was unpacked is not it.
        StorageError: the folder cannot be written.
    """
    name = os.environ.get(HOME, "")
    if not name:
        return (str(environments.ensure("bentoml", ENVIRONMENT, says) / "bentoml"),)
    packages = Path(name).expanduser().absolute()
    if not (packages / "bentoml" / "__main__.py").is_file():
        raise ServerError(
            "missing-library",
            f"{HOME}={name}: has no bentoml/; unpack the wheels of bentoml=={VERSION} and of all it"
            " needs there, or unset it (missing-library).",
        )
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    tag = f"cpython-{version.replace('.', '')}-"
    compiled = [file.name for file in packages.glob("pydantic_core/_pydantic_core.cpython-*")]
    if compiled and not any(tag in file for file in compiled):
        raise ServerError(
            "missing-library",
            f"{HOME}={name}: its packages are for another Python than this {version}"
            f" ({compiled[0]}); unpack those for {version} (missing-library).",
        )
    try:
        environments.link(folder / "python", Path(sys.executable).resolve(), version, packages)
    except OSError as error:
        raise StorageError(f"cannot write {folder}: {error.strerror}.") from error
    return (str(folder / "python" / "bin" / "python"), "-m", "bentoml")


def _service(inner: Launch, command: tuple[str, ...], host: str, port: int) -> Launch:
    """Return what starts the service in front of an engine's own launch."""
    return Launch(
        argv=(*command, "--host", host, "--port", str(port)),
        url=f"http://{host}:{port}",
        endpoint=inner.endpoint,
        model=inner.model,
        health_path="/readyz",
        probe=inner.probe if inner.probe and inner.probe[0].startswith("/v1/") else None,
        environment={**inner.environment, **SETTINGS},
        gpus=inner.gpus,
        files=inner.files,
        doubts=inner.doubts,
        start_timeout_s=inner.start_timeout_s + _IMPORTS_S,
        symptoms=inner.symptoms,
    )


def require_openai(engine: Engine, launch: Launch) -> None:
    """Refuse an engine whose server does not speak OpenAI's protocol.

    Raises:
        UsageError: it does not.
    """
    if not launch.endpoint.startswith("openai"):
        raise UsageError(
            f"--front bentoml: it passes on OpenAI's protocol, but --engine {engine.name} speaks"
            f" {launch.endpoint}: use --front native."
        )


def write_service(folder: Path, launch: Launch, config: Config) -> None:
    """Write the service for the engine that `launch` starts.

    Raises:
        StorageError: the folder cannot be written.
    """
    ours = {knob.name: config.get(knob.name, default(knob, None)) for knob in KNOBS}
    spec = {
        "argv": launch.argv,
        "url": launch.url,
        "model": launch.model,
        "health_path": launch.health_path,
        "probe": launch.probe,
        "start_timeout_s": launch.start_timeout_s,
        **ours,
    }
    try:
        package = folder / _PACKAGE
        package.mkdir(parents=True, exist_ok=True)
        for file in sorted(_SERVICE.glob("*.py")):
            shutil.copyfile(file, package / file.name)
        for module in (leash, spawn):
            source = Path(str(module.__file__))
            shutil.copyfile(source, package / source.name)
        text = msgspec.json.format(msgspec.json.encode(spec), indent=2)
        (package / "spec.json").write_bytes(text + b"\n")
    except OSError as error:
        raise StorageError(f"{folder}: cannot write the service: {error.strerror}.") from error


def write_project(folder: Path, launch: Launch, config: Config, engine: Engine) -> None:
    """Write all that `bentoml build` wants: the service, bentofile.yaml, requirements, README.

    Args:
        folder: where to; it is made.
        launch: starts the engine inside of the Bento, on a loopback port that is free there.
        config: the front's knobs are read from it.
        engine: what the Bento must have installed.

    Raises:
        UsageError: the engine does not speak OpenAI's protocol.
        StorageError: the folder cannot be written.
    """
    require_openai(engine, launch)
    program, *arguments = launch.argv
    # By name: a container has its programs elsewhere.
    name = "python" if program == sys.executable else Path(program).name
    portable = msgspec.structs.replace(launch, argv=(name, *arguments))
    write_service(folder, portable, config)
    try:
        (folder / "requirements.txt").write_text(
            "\n".join((*REQUIREMENTS, *_requirements(engine), ""))
        )
        (folder / "bentofile.yaml").write_text(_bentofile(launch, engine), "utf-8")
        readme = _README.format(engine=engine.name, model=launch.model)
        (folder / "README.md").write_text(readme, "utf-8")
    except OSError as error:
        raise StorageError(f"{folder}: cannot write the Bento: {error.strerror}.") from error


def _requirements(engine: Engine) -> tuple[str, ...]:
    """Return what pip must install for the engine; nothing where its container image has it."""
    return () if engine.image else pinned(engine)


def _bentofile(launch: Launch, engine: Engine) -> str:
    """Write bentofile.yaml; JSON is YAML. Of secrets it names the variable, never the value."""
    variables = [
        {"name": name} if is_secret(name) else {"name": name, "value": value}
        for name, value in {**launch.environment, **SETTINGS}.items()
    ]
    document = {
        "service": _IMPORT,
        "description": f"{launch.model}, served by {engine.name}; written by llmdyno",
        "labels": {"engine": engine.name, "model": re.sub(r"[^\w.-]", "_", launch.model)[-63:]},
        "include": [f"{_PACKAGE}/*", *launch.files],
        # Locking would need the package index, and the requirements are pinned already.
        "python": {"requirements_txt": "./requirements.txt", "lock_packages": False},
        "envs": variables,
    }
    if engine.image:
        document["docker"] = {"base_image": engine.image}
    return msgspec.json.format(msgspec.json.encode(document), indent=2).decode() + "\n"


def _without_ours(config: Config) -> dict[str, Value]:
    names = {knob.name for knob in KNOBS}
    return {name: value for name, value in config.items() if name not in names}


FRONT: Front = BentoFront()
