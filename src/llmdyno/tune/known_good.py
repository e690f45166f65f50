"""What an engine itself names to begin with: `starts` of its file, for this model, GPU and load."""

from collections.abc import Mapping, Sequence

from llmdyno.engines import Circumstances, Sizes, facts
from llmdyno.errors import UsageError
from llmdyno.knobs import Knob, Value
from llmdyno.machine import hardware
from llmdyno.predict.gpus import gpu_of
from llmdyno.predict.shapes import shape_of
from llmdyno.serve.stack import Stack
from llmdyno.tune.spec import Study
from llmdyno.tune.starts import kept

KNOWN_MAX = 3
_SHARE = 0.25  # of the trials, that they may take
_MIB = 2.0**20


def known_good(
    study: Study,
    stack: Stack,
    searched: Sequence[Knob],
    candidates: Sequence[Mapping[str, Value]],
) -> list[dict[str, Value]]:
    """Return the configs that the engine names, those of them that this study can try.

    They only order the search. What cannot be served here, is no searched knob or is tried anyway
    is left out.

    Args:
        study: that begins.
        stack: what is tuned.
        searched: the knobs of the search.
        candidates: configs that are tried anyway.
    """
    starts = facts(stack.engine).starts
    if starts is None:
        return []
    room = max(0, min(KNOWN_MAX, round(study.trials * _SHARE), study.trials - len(candidates)))
    named = starts(_circumstances(study, stack))
    return kept(named, study, stack, searched, candidates)[:room]


def _circumstances(study: Study, stack: Stack) -> Circumstances:
    own = {knob.name for knob in stack.engine.knobs}
    workload = study.workload
    return Circumstances(
        baseline={name: value for name, value in study.baseline.items() if name in own},
        model=_sizes(study.model),
        gpu_bytes=_gpu_bytes(study),
        prompt_tokens=workload.isl.typical if workload.isl else None,
        answer_tokens=workload.osl.typical if workload.osl else None,
    )


def _sizes(model: str) -> Sizes | None:
    try:
        shape = shape_of(model)
    except UsageError:
        return None
    if shape.kv_lora_rank:
        return None  # its cache has no keys and values a head
    return Sizes(
        params=shape.params,
        weight_bytes=shape.bytes_as_shipped,
        layers=shape.layers,
        kv_heads=shape.kv_heads,
        head_dim=shape.head_dim,
    )


def _gpu_bytes(study: Study) -> float | None:
    """Return the memory of the GPU that the study names, else of the first one here."""
    if study.predict_on:
        return gpu_of(study.predict_on).memory_bytes
    here = [gpu.memory_mib for gpu in hardware.gpus() if gpu.memory_mib]
    return here[0] * _MIB if here else None
