"""All knobs of TensorRT-LLM in one table, and what a config says by it in a release."""

from collections.abc import Callable

from llmdyno.engines._trtllm.build_knobs import BUILD, CHECKPOINT, SHARED
from llmdyno.engines._trtllm.pytorch_knobs import PYTORCH
from llmdyno.engines._trtllm.template_knobs import TEMPLATE
from llmdyno.knobs import Config, Value, default

KNOBS = (*SHARED, *CHECKPOINT, *BUILD, *TEMPLATE, *PYTORCH)
BY_NAME = {knob.name: knob for knob in KNOBS}

Rule = Callable[[Config, str], None]


def value(config: Config, name: str, version: str) -> Value | None:
    """Return a knob's value, or its default in that version."""
    return config.get(name, default(BY_NAME[name], version))


def on_engine_road(config: Config) -> bool:
    """Return whether an engine is built; the PyTorch road is the default."""
    return config.get("backend", default(BY_NAME["backend"], None)) == "tensorrt"
