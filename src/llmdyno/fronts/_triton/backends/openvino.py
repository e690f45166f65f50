"""The embedded engine as a Triton model: our own Python model, between ours around it.

preprocessing, openvino, postprocessing, in an ensemble or called by tensorrt_llm_bls.
"""

import json
from collections.abc import Mapping
from pathlib import Path

import msgspec

from llmdyno.embedded.model import resolve
from llmdyno.engines import Engine
from llmdyno.fronts import MODELS
from llmdyno.fronts._triton import wire
from llmdyno.fronts._triton.backends import Backend, Served, image
from llmdyno.fronts._triton.chain import (
    CHAIN,
    NEWER,
    OLDER,
    SAMPLING,
    chain,
    chain_files,
    engine_inputs,
    parameters,
    python_file,
    python_model,
    tensor,
)
from llmdyno.fronts._triton.repository import OpenAiPort, Repository
from llmdyno.knobs import Config


def repository(
    model_path: str, context_length: int, acknowledgements: str, engine: Config, front: Config
) -> Repository:
    """Return the repository.

    Args:
        model_path: the model's file or folder.
        context_length: the most tokens that prompt and answer may have together.
        acknowledgements: the path of a FIFO.
        engine: settings of the engine.
        front: settings of the front, its defaults included.
    """
    inputs = {**SAMPLING, **NEWER, **OLDER}
    batch = int(front["triton_max_batch_size"])
    decoupled = bool(front["decoupled_mode"])
    outputs = [*wire.POSTPROCESSING, *wire.COUNTS]
    model = {
        **python_model("openvino", batch, decoupled=decoupled, instances=1),
        "input": [
            *engine_inputs(inputs),
            tensor(wire.RELAYED[1], "TYPE_INT32", [1], optional=True),
        ],
        "output": [
            tensor("output_ids", "TYPE_INT32", [-1, -1]),
            tensor("sequence_length", "TYPE_INT32", [-1]),
            *(tensor(name, "TYPE_INT32", [1]) for name in outputs[2:]),
        ],
        "parameters": parameters(
            {
                "model_path": model_path,
                "acknowledgements": acknowledgements,
                "context_length": context_length,
                "config": json.dumps(dict(engine), sort_keys=True),
                "max_queue_size": front["max_queue_size"],
                "decoupled_mode": decoupled,
            }
        ),
    }
    around = chain("openvino", model_path, "openvino", inputs, outputs, front, acknowledgements)
    return Repository(
        configs={**around, "openvino": model},
        files={**chain_files(), **python_file("openvino", "openvino", "OpenVino")},
        model="ensemble",
        empty=("ensemble/1",),
        imports=(*CHAIN, "openvino"),
    )


class OpenVinoBackend:
    """The embedded engine as a Python model of ours, with the chain around it."""

    requirements: tuple[str, ...] = ("openvino-genai>=2026.4", "msgspec>=0.19")
    in_wheel = True
    else_passes_on = ""
    speaks_openai = True

    def place(self, model: str, artifact: Path | None) -> str:
        """Return the path of the model's file, or of the artifact built from it.

        Raises:
            UsageError: there is no such model.
        """
        return str(resolve(model, artifact).path)

    def portable_place(self, model: str, artifact: Path | None) -> tuple[str, Mapping[str, Path]]:
        """Return the artifact's place, or that of a link to the model's file.

        Raises:
            UsageError: there is no such model.
        """
        if artifact is not None:  # whoever writes the bundle knows whether it is built
            return str(artifact), {}
        path = resolve(model).path
        place = str(MODELS / path.name)
        return place, {place: path}

    def repository(self, served: Served) -> Repository:
        """Return the chain around our model.

        Raises:
            UsageError: there is no such model.
        """
        # The weights are built by now; the pipeline knows no such settings.
        built = {knob.name for knob in served.engine.knobs if knob.layer == "build"}
        settings = {name: value for name, value in served.config.items() if name not in built}
        # What a bundle serves need not be built yet.
        is_built = served.artifact is not None and served.artifact.exists()
        model = resolve(served.model, served.artifact if is_built else None)
        content = repository(
            served.place, model.context_length, served.acknowledgements, settings, served.front
        )
        openai = OpenAiPort(
            engine="openvino",
            model=model.name,
            place=served.place,
            context_length=model.context_length,
        )
        return msgspec.structs.replace(content, openai=openai)

    def prepare(self, artifact: Path | None, models: Path) -> str:
        """Return nothing: the bundle holds all of it."""
        del artifact, models
        return ""

    def image(self, engine: Engine, config: Config) -> str:
        """Return the container without any engine: the bundle brings its own."""
        del engine, config
        return image("-py3")

    def doubts(self, engine: Engine, config: Config) -> tuple[str, ...]:
        """Return no doubts: this backend was run by us."""
        del engine, config
        return ()


BACKEND: Backend = OpenVinoBackend()
