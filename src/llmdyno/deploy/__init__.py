"""The bundle: the files that serve one config on another machine.

`dyno deploy` and the end of a study write it: a script, a compose file, Kubernetes manifests, the
front's files, a README with the figures. All of them start the same launch, which is made here once
in the same way as for `dyno serve`. Engine and front need not be installed.

YAML is written by PyYAML, which Optuna brings along. JSON would be valid YAML too, but people read
and change these files.
"""

import re
import shlex
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import msgspec

from llmdyno import fronts, plugins, store
from llmdyno.deploy import compose, dockerfile, kubernetes, readme, script
from llmdyno.deploy.plan import HOST, BundlePlan, Image
from llmdyno.deploy.portable import ARTIFACT, PortableEngine
from llmdyno.engines import Engine, facts, pinned
from llmdyno.errors import StorageError, UsageError, nearest
from llmdyno.fronts import Portable, model_link
from llmdyno.knobs import Config
from llmdyno.processes.secrets import is_secret
from llmdyno.results import conclusions
from llmdyno.serve import build
from llmdyno.serve.stack import Stack

PORT = 8000
_IMAGE_NAME = re.compile(
    r"([a-zA-Z0-9.-]+(:\d+)?/)?([a-z0-9._-]+/)*[a-z0-9._-]+(:\w[\w.-]*)?(@sha256:[0-9a-f]{64})?"
)
HIGHEST_PORT = 65535

_IN_CONTAINERS = {"compose": compose.text, "kubernetes": kubernetes.text}
_PYTHON_IMAGE = "docker.io/library/python:3.12-slim"  # for engines that pip installs whole


def write(
    folder: Path,
    stack: Stack,
    config: Config,
    *,
    target: str = "all",
    port: int = PORT,
    image: str = "",
    study: Mapping[str, Any] | None = None,
    notify: Callable[[str], None],
) -> tuple[str, ...]:
    """Write the bundle of a checked config; files of the same names are replaced.

    Args:
        folder: where to; it is made.
        stack: engine, front and model.
        config: what is set.
        target: one of targets().
        port: to listen on.
        image: a container image instead of the engine's or the front's own.
        study: a study's document, for the figures in the README.
        notify: called with a line before a long wait, and for each file that is left out.

    Returns:
        The names of the files, without those in the front's own folder.

    Raises:
        UsageError: there is no such target, or it needs a front or an image that is not given.
        ServerError: a package that writes the front's files cannot be installed.
        StorageError: a file cannot be written.
    """
    wanted = _wanted(target, stack)
    _check_place(stack, port, image)
    _check_image(target, stack, image)
    store.make_folder(folder)
    plan = _plan(folder, stack, config, port=port, image=image, study=study, notify=notify)
    for doubt in (plan.unproven, *plan.launch.doubts):
        if doubt:
            notify(f"! {doubt}")
    texts = dict(plan.launch.files)
    if "script" in wanted:
        texts["serve.sh"] = script.serve(plan)
    contained = wanted & set(_IN_CONTAINERS)
    if contained and plan.image is None:
        notify(f"! {_without_image(stack)}")
    elif contained and plan.image is not None:
        texts |= {f"{name}.yaml": _IN_CONTAINERS[name](plan) for name in sorted(contained)}
        if plan.image.made:
            texts |= {"Dockerfile": dockerfile.text(plan), ".dockerignore": dockerfile.ignored()}
    if plan.built:
        engine = PortableEngine(stack.engine)
        build.write_script(folder / script.BUILD, engine, stack.model, config)
    texts["README.md"] = readme.text(plan, tuple(texts), study)
    _write(folder, texts, plan.links)
    return (*texts, *((script.BUILD,) if plan.built else ()))


def _check_place(stack: Stack, port: int, image: str) -> None:
    highest = HIGHEST_PORT - fronts.facts(stack.front).ports_beside
    if not 1 <= port <= highest:
        raise UsageError(
            f"--port {port}: must be from 1 to {highest}, as what the front {stack.front.name}"
            " listens on begins there."
        )
    if image and re.fullmatch(_IMAGE_NAME, image) is None:
        raise UsageError(f"--image {image}: write a name such as registry/name:tag.")


def _check_image(target: str, stack: Stack, image: str) -> None:
    if target not in _IN_CONTAINERS or image or fronts.facts(stack.front).has_image:
        return
    if not stack.engine.image and not facts(stack.engine).packages:
        raise UsageError(f"--target {target}: {_without_image(stack)}")


def _without_image(stack: Stack) -> str:
    return f"{stack.engine.name} has no container image: name one with --image."


def _wanted(target: str, stack: Stack) -> set[str]:
    """Return the kinds of files to write besides the front's own, which are always written."""
    common = {"script", *_IN_CONTAINERS}
    if target == "all":
        return common
    if target in common:
        return {target}
    own = fronts.facts(stack.front).target
    if own and target == own:
        return set()
    owners = _front_targets()
    if target in owners:
        raise UsageError(f"--target {target}: needs --front {owners[target]}.")
    raise UsageError(f"--target {target}: no such target.{nearest(target, targets())}")


def targets() -> list[str]:
    """Return what `dyno deploy --target` takes: the fronts' own targets come last."""
    return ["all", "script", *_IN_CONTAINERS, *_front_targets()]


def _front_targets() -> dict[str, str]:
    """Return the fronts' own targets, each with the name of its front."""
    named = {name: fronts.facts(plugins.load("fronts", name)) for name in plugins.names("fronts")}
    return {known.target: name for name, known in named.items() if known.target}


def _plan(
    folder: Path,
    stack: Stack,
    config: Config,
    *,
    port: int,
    image: str,
    study: Mapping[str, Any] | None,
    notify: Callable[[str], None],
) -> BundlePlan:
    built = bool(stack.engine.build(stack.model, config, ARTIFACT))
    engine = PortableEngine(stack.engine)
    served = stack.front.bundle(
        engine,
        stack.model,
        config,
        artifact=ARTIFACT if built else None,
        folder=folder,
        host=HOST,
        port=port,
        says=notify,
    )
    links = {**model_link(stack.model), **served.links}
    found = build.find(stack.engine, stack.model, config) if built else None
    if found is not None:
        links[str(ARTIFACT)] = found
    hub = "/" in stack.model and not Path(stack.model).expanduser().exists()
    secrets = [name for name in served.launch.environment if is_secret(name)]
    # An engine with its own image needs GPUs, and without a limit some engines take all of them.
    gpus = served.launch.gpus or (1 if engine.image else 0)
    name = str(study["study"]) if study else f"{Path(stack.model).name}-{engine.name}"
    return BundlePlan(
        # A DNS label has at most 63 characters; the rest is left for suffixes.
        name=re.sub(r"[^a-z0-9]+", "-", name.lower())[:50].strip("-"),
        engine=engine.name,
        engine_version=engine.version(),
        install=_install(stack.engine),
        front=stack.front.name,
        model=stack.model,
        config=dict(config),
        engine_args=stack.engine_args,
        port=port,
        launch=msgspec.structs.replace(
            served.launch, gpus=gpus, doubts=(*served.launch.doubts, *_places_named(stack))
        ),
        image=_image(engine, served, image),
        prepare=served.prepare,
        secrets=tuple(dict.fromkeys([*secrets, *(["HF_TOKEN"] if hub else [])])),
        hub=hub,
        built=built,
        links=links,
        # In one line: it is a comment in files that are run.
        unproven=" ".join(conclusions.unproven(study).split()) if study else "",
    )


def _places_named(stack: Stack) -> list[str]:
    """Return a sentence for each path of this machine among the words for the engine."""
    places = [
        word.partition("=")[2] if word.startswith("-") else word for word in stack.engine_args
    ]
    return [
        f"--engine-arg names {place}, which the bundle does not hold: put it there."
        for place in places
        if place.startswith(("/", "~")) and Path(place).expanduser().exists()
    ]


def _image(engine: Engine, served: Portable, wanted: str) -> Image | None:
    """Return the container's image: that of the front or the engine, or Python's for packages."""
    base = wanted or served.image or engine.image
    packages = list(served.requirements)
    if not base and facts(engine).packages:
        base = _PYTHON_IMAGE
        packages = list(dict.fromkeys([*packages, *pinned(engine)]))
    if not base:
        return None
    return Image(base=base, requirements=tuple(packages), made=bool(packages or served.wrote))


def _install(engine: Engine) -> str:
    """Return the command that installs an engine elsewhere, or else what it says itself."""
    packages = facts(engine).packages
    if any(name.startswith("llmdyno") for name in packages):
        # Ours is found beside the bundle: on that machine no index need have it.
        return f"pip install --find-links={dockerfile.WHEELS} {shlex.join(pinned(engine))}"
    return f"pip install {shlex.join(packages)}" if packages else engine.install


def _write(folder: Path, texts: Mapping[str, str], links: Mapping[str, Path]) -> None:
    for name, text in texts.items():
        store.make_folder((folder / name).parent)
        store.write_atomically(folder / name, text.encode())
        if name.endswith(".sh"):
            (folder / name).chmod(0o755)
    for name, target in links.items():
        link = folder / name
        store.make_folder(link.parent)
        try:
            if link.is_symlink():
                link.unlink()
            if not link.exists():  # it may have been replaced by the real file
                link.symlink_to(target)
        except OSError as error:
            raise StorageError(f"cannot write {link}: {error.strerror}.") from error
