"""The plan of a bundle; the script, compose file, manifests and README are all made from it.

deploy/__init__.py asks engine and front and makes the plan. Each module beside this one turns it
into the text of a file, so the files cannot contradict one another.
"""

import math
from collections.abc import Mapping
from pathlib import Path

import msgspec

from llmdyno.engines import Launch
from llmdyno.knobs import Value

HOST = "LLMDYNO_HOST"  # stands in a launch for the address to listen on
EVERYWHERE = "0.0.0.0"  # noqa: S104 - inside a container, whose port is published on loopback
INSIDE = "/bundle"  # where a container has the bundle
HUB = "/huggingface"  # where a container has the hub's cache
SHARED_MEMORY_GIB = 16  # for NCCL and Triton's Python models; a container's default is 64 MiB
HEALTH_PERIOD_S = 10


class Image(msgspec.Struct, frozen=True, kw_only=True):
    """A container image: one that is there, or one that the Dockerfile makes of it."""

    base: str
    requirements: tuple[str, ...] = ()  # what pip must install
    made: bool = False


class BundlePlan(msgspec.Struct, frozen=True, kw_only=True):
    """All facts of a bundle that its files state."""

    name: str  # of the service: a label as DNS and Docker take it
    engine: str
    engine_version: str | None
    install: str
    front: str
    model: str
    config: Mapping[str, Value]
    engine_args: tuple[str, ...] = ()  # words of the user at the end of the engine's command
    port: int
    launch: Launch  # from the bundle's folder, on HOST
    image: Image | None
    prepare: str  # a command that completes the front's files
    secrets: tuple[str, ...]  # variables, by name
    hub: bool  # the model comes from the Hugging Face hub
    built: bool  # an artifact must be built first
    links: Mapping[str, Path]  # path in the bundle → what that links to on this machine
    unproven: str = ""  # that the config is not shown to be better than the baseline

    @property
    def variables(self) -> dict[str, str]:
        """The variables of the server's environment that are no secrets, with their values."""
        return {
            name: value
            for name, value in self.launch.environment.items()
            if name not in self.secrets
        }

    @property
    def ports(self) -> dict[str, int]:
        """The server's ports by protocol; the first one answers the health checks."""
        others = {name: int(url.rpartition(":")[2]) for name, url in self.launch.also.items()}
        return {"http": self.port, **others}

    @property
    def contained(self) -> tuple[str, ...]:
        """The command inside a container, which listens on all of its addresses."""
        return tuple(word.replace(HOST, EVERYWHERE) for word in self.launch.argv)

    @property
    def image_name(self) -> str:
        """The image that runs: the one that the Dockerfile makes, or the one that is there."""
        assert self.image is not None
        return f"{self.name}:latest" if self.image.made else self.image.base

    @property
    def places(self) -> tuple[str, ...]:
        """The paths in the bundle that the user must fill: a model, an artifact."""
        return tuple(dict.fromkeys((*self.links, *(("artifact",) if self.built else ()))))

    @property
    def start_periods(self) -> int:
        """How many health checks may fail while the server starts."""
        return math.ceil(self.launch.start_timeout_s / HEALTH_PERIOD_S)
