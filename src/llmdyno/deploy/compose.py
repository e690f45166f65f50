"""compose.yaml: one container, its port on this machine's loopback only."""

from typing import Any

from llmdyno.deploy.plan import HEALTH_PERIOD_S, HUB, INSIDE, SHARED_MEMORY_GIB, BundlePlan
from llmdyno.deploy.portable import FILES, PYTHON
from llmdyno.deploy.yaml_text import dump
from llmdyno.processes import containers

_SERVICE = "llm"
_HUB_VOLUME = "huggingface"


def text(plan: BundlePlan) -> str:
    """Return the compose file of a plan that has an image, as YAML."""
    assert plan.image is not None
    volumes: list[Any] = [_mount(place) for place in plan.places]
    if plan.launch.files and not plan.image.made:
        volumes.append(_mount(str(FILES)))
    if plan.hub:
        volumes.append({"type": "volume", "source": _HUB_VOLUME, "target": HUB})
    document = {
        "name": plan.name,
        "services": {_SERVICE: _service(plan, volumes)},
        **({"volumes": {_HUB_VOLUME: {}}} if plan.hub else {}),
    }
    return dump(
        [document],
        heading="docker compose up --wait    (written by llmdyno, checked against the Compose\n"
        "specification's schema; not run by us)",
        mind=plan.unproven,
    )


def _service(plan: BundlePlan, volumes: list[Any]) -> dict[str, Any]:
    assert plan.image is not None
    entrypoint, command = containers.split_command(plan.image.base, plan.contained)
    service: dict[str, Any] = {
        "image": plan.image_name,
        **({"build": "."} if plan.image.made else {}),
        **({"entrypoint": _escaped(entrypoint)} if entrypoint else {}),
        "command": _escaped(command),
        "working_dir": INSIDE,
        "environment": [
            *_escaped([f"{name}={value}" for name, value in plan.variables.items()]),
            *([f"HF_HOME={HUB}"] if plan.hub else []),
            *plan.secrets,  # a name alone: compose takes the value from its caller's environment
        ],
        "ports": [f"127.0.0.1:{port}:{port}" for port in plan.ports.values()],
        "volumes": volumes,
        "healthcheck": {
            "test": ["CMD", PYTHON, "-c", _health(plan)],
            "interval": f"{HEALTH_PERIOD_S}s",
            "timeout": f"{HEALTH_PERIOD_S}s",
            "retries": 3,
            "start_period": f"{plan.launch.start_timeout_s:g}s",
        },
        "shm_size": f"{SHARED_MEMORY_GIB}gb",
        "ulimits": {"memlock": -1},
        "init": True,
        "restart": "unless-stopped",
    }
    if plan.launch.gpus:
        device = {"driver": "nvidia", "count": plan.launch.gpus, "capabilities": ["gpu"]}
        service["deploy"] = {"resources": {"reservations": {"devices": [device]}}}
    return {name: value for name, value in service.items() if value not in ([], {})}


def _health(plan: BundlePlan) -> str:
    """Return a program that fails unless the server is well; curl is not in every image."""
    url = f"http://127.0.0.1:{plan.port}{plan.launch.health_path}"
    return f"import urllib.request as r; r.urlopen('{url}', timeout=5)"


def _mount(place: str) -> dict[str, Any]:
    return {
        "type": "bind",
        "source": f"./{place}",
        "target": f"{INSIDE}/{place}",
        "read_only": True,
    }


def _escaped(words: list[str] | tuple[str, ...]) -> list[str]:
    """Write dollars as compose takes them: it puts variables into every text."""
    return [word.replace("$", "$$") for word in words]
