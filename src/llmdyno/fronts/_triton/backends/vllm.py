"""vLLM behind Triton: the vLLM backend's one model. Not run by us."""

import json
from collections.abc import Mapping
from pathlib import Path

from llmdyno.engines import Engine
from llmdyno.fronts import model_link
from llmdyno.fronts._triton.backends import Backend, Served, image
from llmdyno.fronts._triton.repository import Repository
from llmdyno.knobs import Config


def repository(model: str, engine: Config) -> Repository:
    """Return the repository of the vLLM backend, which completes the config by itself."""
    return Repository(
        configs={
            "vllm_model": {
                "name": "vllm_model",
                "backend": "vllm",
                "instance_group": [{"count": 1, "kind": "KIND_MODEL"}],
            }
        },
        files={"vllm_model/1/model.json": json.dumps({"model": model, **engine}, indent=1) + "\n"},
        model="vllm_model",
    )


class VllmBackend:
    """The backend of NVIDIA's container."""

    requirements: tuple[str, ...] = ()
    in_wheel = False
    else_passes_on = "vllm"

    def place(self, model: str, artifact: Path | None) -> str:
        """Return the model as it is named."""
        del artifact
        return model

    def portable_place(self, model: str, artifact: Path | None) -> tuple[str, Mapping[str, Path]]:
        """Return the place of a local model in the bundle, or the name of one on the hub."""
        del artifact
        links = model_link(model)
        return next(iter(links), model), links

    def repository(self, served: Served) -> Repository:
        """Return the repository with the one model that the vLLM backend needs."""
        return repository(served.place, served.config)

    def prepare(self, artifact: Path | None, models: Path) -> str:
        """Return nothing: the container has the backend."""
        del artifact, models
        return ""

    def image(self, engine: Engine, config: Config) -> str:
        """Return the newest container with vLLM."""
        del engine, config
        return image("-vllm-python-py3")

    def doubts(self, engine: Engine, config: Config) -> tuple[str, ...]:
        """Return no doubts: no setting of this backend is known to be misleading."""
        del engine, config
        return ()


BACKEND: Backend = VllmBackend()
