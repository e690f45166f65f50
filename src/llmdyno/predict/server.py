"""A server before it is started: what its config means to the scheduler and to a step's cost."""

from collections.abc import Mapping

import msgspec

from llmdyno import plugins
from llmdyno.engines import Limit, Scheduling, facts
from llmdyno.errors import UsageError
from llmdyno.knobs import Value
from llmdyno.predict.decoder import Shape
from llmdyno.predict.gpus import Gpu
from llmdyno.predict.memory import Part, fit
from llmdyno.predict.schedule import Rules
from llmdyno.predict.steptime import Graphs
from llmdyno.predict.work import BYTES, Work, work_of

_LARGE_GPU_BYTES = 70 * 2**30


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
    asked = scheduling.formats.get(str(config.get(scheduling.weights)))
    cache = scheduling.formats.get(str(config.get(scheduling.cache)), "bf16")
    work = work_of(setup.shape, setup.gpu, gpus, asked, cache)
    sequences = int(_number(config, scheduling.sequences, setup.gpu))
    tokens = int(_number(config, scheduling.tokens, setup.gpu))
    graphs = _graphs(scheduling, setup, sequences)
    own = config.get(scheduling.cache_bytes) if scheduling.cache_bytes else None
    found = fit(
        setup.shape,
        setup.gpu,
        Part(
            tensor=gpus,
            weight_bytes=BYTES[asked] if asked else None,
            kv_bytes=BYTES[cache],
            share=_number(config, scheduling.memory_share, setup.gpu),
            step_tokens=tokens,
            sequences=sequences,
            longest=int(_number(config, scheduling.longest, setup.gpu)),
            graphs=graphs.decode_max > 0,
            cache_bytes=None if own is None else float(own) * scheduling.cache_unit_bytes,
            share_of_free=scheduling.memory_of_free,
        ),
    )
    return Server(
        rules=Rules(
            mixes=bool(config.get(scheduling.mixes_knob, scheduling.mixes)),
            admission=scheduling.admissions.get(
                str(config.get(scheduling.admission_knob)), scheduling.admission
            ),
            plans_ahead=scheduling.plans_ahead,
            chunks=scheduling.splits_prompts(config),
            sequences=sequences,
            tokens=tokens,
            cache_tokens=found.cache_tokens,
            block=int(_number(config, scheduling.block, setup.gpu)),
            servers=int(_number(config, Limit(scheduling.servers, 1), setup.gpu)),
        ),
        work=work,
        graphs=graphs,
        prefix_cache=bool(config.get(scheduling.prefix_cache, True)),
        why="" if found.fits else found.why,
    )


def _number(config: Mapping[str, Value], limit: Limit, gpu: Gpu) -> float:
    value = config.get(limit.knob) if limit.knob else None
    if value is None:
        small = gpu.memory_bytes < _LARGE_GPU_BYTES and limit.unset_small is not None
        return limit.unset_small if small and limit.unset_small is not None else limit.unset
    if isinstance(value, str) or value < 0:
        raise UsageError(f"{limit.knob} {value}: must be a number of 0 or more.")
    return float(value)


def _graphs(scheduling: Scheduling, setup: Setup, sequences: int) -> Graphs:
    size = int(_number(setup.config, scheduling.graph_size, setup.gpu))
    if scheduling.graph_size.knob not in setup.config:
        size = min(size, 2 * sequences)
    mode = setup.config.get(scheduling.graph_mode)
    if setup.config.get(scheduling.graph_off) is True or mode in scheduling.graph_none:
        return Graphs(decode_max=0)
    pieces = scheduling.pieces_size
    pieces_max = size if pieces is None else int(_number(setup.config, pieces, setup.gpu))
    return Graphs(
        decode_max=0 if mode in scheduling.graph_pieces else size,
        prompts_max=size if mode in scheduling.graph_whole else 0,
        pieces_max=0 if mode in scheduling.graph_decodes else pieces_max,
    )
