"""A server before it is started: what its config means to the scheduler and to a step's cost."""

from collections.abc import Mapping

import msgspec

from llmdyno import plugins
from llmdyno.engines import Limit, Scheduling, facts
from llmdyno.errors import UsageError
from llmdyno.knobs import Value
from llmdyno.predict.gpus import Gpu
from llmdyno.predict.schedule import Rules
from llmdyno.predict.shapes import Shape
from llmdyno.predict.steptime import Graphs
from llmdyno.predict.work import Work, work_of

_LARGE_GPU_BYTES = 70 * 2**30
_GRAPH_BYTES = 1.0e9  # graphs, workspaces and the CUDA context
_ACTIVATION_VALUES = 6.0  # of the hidden and intermediate size, a token of the largest step
_COMPUTE = {"fp8": "fp8", "int8": "int8"}


class Setup(msgspec.Struct, frozen=True):
    """A server: `config` is in the engine's own names; knobs that it lacks are unset."""

    engine: str
    shape: Shape
    gpu: Gpu
    gpus: int = 1
    config: Mapping[str, Value] = {}


class Server(msgspec.Struct, frozen=True):
    """A setup as the simulation needs it; `why` says why it cannot start, if it cannot."""

    rules: Rules
    work: Work
    graphs: Graphs
    prefix_cache: bool
    why: str = ""


def server_of(setup: Setup) -> Server:
    """Return what a setup means.

    Raises:
        UsageError: nothing is known of the engine's scheduler, or a number is none.
    """
    scheduling = facts(plugins.load("engines", setup.engine)).scheduling
    if scheduling is None:
        raise UsageError(f"engine {setup.engine}: its scheduler is not known to the predictor.")
    config = setup.config
    gpus = max(setup.gpus, int(_number(config, Limit(scheduling.gpus, 1), setup.gpu)))
    weights = scheduling.formats.get(str(config.get(scheduling.weights)), "bf16")
    cache = scheduling.formats.get(str(config.get(scheduling.cache)), "bf16")
    work = work_of(setup.shape, setup.gpu, gpus, weights, cache, _COMPUTE.get(weights, "bf16"))
    sequences = int(_number(config, scheduling.sequences, setup.gpu))
    tokens = int(_number(config, scheduling.tokens, setup.gpu))
    room = _cache_bytes(scheduling, setup, work, tokens, gpus)
    longest = int(_number(config, scheduling.longest, setup.gpu))
    return Server(
        rules=Rules(
            mixes=bool(config.get(scheduling.mixes_knob, scheduling.mixes)),
            admission=scheduling.admissions.get(
                str(config.get(scheduling.admission_knob)), scheduling.admission
            ),
            plans_ahead=scheduling.plans_ahead,
            chunks=bool(config.get(scheduling.chunks, True)),
            sequences=sequences,
            tokens=tokens,
            cache_tokens=max(0.0, room / work.kv_bytes),
            block=int(_number(config, scheduling.block, setup.gpu)),
            servers=int(_number(config, Limit(scheduling.servers, 1), setup.gpu)),
        ),
        work=work,
        graphs=_graphs(scheduling, setup, sequences),
        prefix_cache=bool(config.get(scheduling.prefix_cache, True)),
        why=_why_not(setup, work, room, longest),
    )


def _number(config: Mapping[str, Value], limit: Limit, gpu: Gpu) -> float:
    value = config.get(limit.knob) if limit.knob else None
    if value is None:
        small = gpu.memory_bytes < _LARGE_GPU_BYTES and limit.unset_small is not None
        return limit.unset_small if small and limit.unset_small is not None else limit.unset
    if isinstance(value, str) or value < 0:
        raise UsageError(f"{limit.knob} {value}: must be a number of 0 or more.")
    return float(value)


def _cache_bytes(scheduling: Scheduling, setup: Setup, work: Work, tokens: int, gpus: int) -> float:
    """Return the bytes of one GPU that are left for the cache."""
    if scheduling.cache_bytes and scheduling.cache_bytes in setup.config:
        limit = Limit(scheduling.cache_bytes, 0)
        return _number(setup.config, limit, setup.gpu) * scheduling.cache_unit_bytes
    share = _number(setup.config, scheduling.memory_share, setup.gpu)
    weights = work.weight_bytes + work.expert_bytes
    values = _ACTIVATION_VALUES * (setup.shape.hidden + setup.shape.intermediate / gpus)
    taken = weights + tokens * values + _GRAPH_BYTES
    if scheduling.memory_of_free:
        return (setup.gpu.memory_bytes - taken) * share
    return setup.gpu.memory_bytes * share - taken


def _graphs(scheduling: Scheduling, setup: Setup, sequences: int) -> Graphs:
    size = int(_number(setup.config, scheduling.graph_size, setup.gpu))
    if scheduling.graph_size.knob not in setup.config:
        size = min(size, 2 * sequences)
    mode = setup.config.get(scheduling.graph_mode)
    if setup.config.get(scheduling.graph_off) is True or mode in scheduling.graph_none:
        return Graphs(decode_max=0)
    return Graphs(decode_max=size, prompts_max=size if mode in scheduling.graph_whole else 0)


def _why_not(setup: Setup, work: Work, room: float, longest: int) -> str:
    """Say why the server cannot start, with the sum that shows it; empty: it can."""
    weights = work.weight_bytes + work.expert_bytes
    gib = 2**30
    if weights > setup.gpu.memory_bytes:
        return (
            f"the weights take {weights / gib:,.1f} GiB of a GPU that has"
            f" {setup.gpu.memory_bytes / gib:,.1f} GiB"
        )
    if room < work.kv_bytes * max(1, longest):
        return (
            f"{max(0.0, room) / gib:,.1f} GiB are left for the KV cache, of"
            f" {setup.gpu.memory_bytes / gib:,.1f} GiB less {weights / gib:,.1f} GiB of weights; one"
            f" sequence of {max(1, longest):,} tokens takes {work.kv_bytes * max(1, longest) / gib:,.1f} GiB"
        )
    return ""
