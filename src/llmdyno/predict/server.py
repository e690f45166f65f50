"""A server before it is started: what its config means to the scheduler and to a step's cost."""

from collections.abc import Mapping

import msgspec

from llmdyno import plugins
from llmdyno.engines import Limit, Scheduling, facts
from llmdyno.errors import UsageError
from llmdyno.knobs import Value, show
from llmdyno.predict.decoder import Shape
from llmdyno.predict.gpus import GIB, Gpu
from llmdyno.predict.links import link_bytes_s
from llmdyno.predict.memory import Fit, Part, fit
from llmdyno.predict.rules import Rules
from llmdyno.predict.steptime import NAMES, Graphs
from llmdyno.predict.work import BYTES, Work, work_of


class Setup(msgspec.Struct, frozen=True):
    """A server, or one of its data-parallel ranks, which has a part of the load.

    `config` is in the engine's own names; knobs that it lacks are unset. `batches`: of a pipeline,
    those that have requests at all; None: as many as stages.
    """

    engine: str
    shape: Shape
    gpu: Gpu
    gpus: int = 1
    config: Mapping[str, Value] = {}
    batches: int | None = None


class Server(msgspec.Struct, frozen=True):
    """A setup as the simulation needs it; `why` says why it cannot start, if it cannot."""

    rules: Rules
    work: Work
    graphs: Graphs
    prefix_cache: bool
    measured: bool = True  # whether the predictor was held against this engine
    seen: bool = False  # whether its engine was measured on its GPU
    start_spread: float = 1.0  # of its equal starts, in those of vLLM
    gpu: str = ""
    why: str = ""


def server_of(setup: Setup) -> Server:
    """Return what a setup means.

    Raises:
        UsageError: nothing is known of the engine's scheduler, or a number is none.
    """
    scheduling, config = scheduling_of(setup.engine).under(setup.config), setup.config
    work = work_of(
        setup.shape,
        setup.gpu,
        gpus_of(setup),
        scheduling.formats.get(str(config.get(scheduling.weights))),
        _cache_format(scheduling, setup),
    )
    stages = stages_of(setup)
    work = _handed_on(_paced(work, scheduling, setup), setup, stages)
    tokens, splits = _tokens(scheduling, setup)
    mixes = bool(config.get(scheduling.mixes_knob, scheduling.mixes))
    all_of = int(_number(setup, scheduling.sequences))
    sequences = all_of if scheduling.stages_have_sequences else -(-all_of // stages)
    if mixes:  # each that decodes takes a token of the step
        sequences = min(sequences, tokens)
    graphs = _graphs(scheduling, setup, min(all_of, tokens) if mixes else all_of)
    part = part_of(setup, int(_number(setup, scheduling.longest)))
    found = fit(setup.shape, setup.gpu, msgspec.structs.replace(part, graphs=graphs.decode_max > 0))
    return Server(
        rules=Rules(
            mixes=mixes,
            admission=scheduling.admissions.get(
                str(config.get(scheduling.admission_knob)), scheduling.admission
            ),
            plans_ahead=scheduling.plans_ahead,
            batches=int(work.batches),
            chunks=splits and scheduling.splits_prompts(config),
            whole=scheduling.whole,
            partly=scheduling.partly,
            interval=scheduling.interval,
            wakes=scheduling.wakes,
            sequences=sequences,
            tokens=tokens,
            cache_tokens=found.cache_tokens / stages,
            block=int(_number(setup, scheduling.block)),
            servers=max(1, servers_of(setup) // parts_of(setup)),
            merges=scheduling.outputs_at_once * servers_of(setup),
            window=work.window,
            window_share=work.window_share,
            state_tokens=setup.shape.state_tokens(part.kv_bytes, part.tensor),
        ),
        work=work,
        graphs=graphs,
        prefix_cache=bool(config.get(scheduling.prefix_cache, scheduling.prefix_cached))
        and config.get(scheduling.prefix_cache_off) is not True,
        measured=scheduling.measured,
        seen=setup.gpu.name in scheduling.measured_on,
        start_spread=scheduling.start_spread,
        gpu=setup.gpu.name,
        why="" if found.fits else found.why,
    )


def under_load(server: Server, users: int | None, longest: int) -> Server:
    """Return a server without the caps that so many users never reach: equal ones do the same.

    Args:
        server: the server.
        users: of it; None: a request rate, which may reach any cap.
        longest: tokens of their longest sequence.
    """
    if users is None:
        return server
    rules, graphs = server.rules, server.graphs
    return msgspec.structs.replace(
        server,
        rules=msgspec.structs.replace(
            rules,
            sequences=min(rules.sequences, users),
            cache_tokens=min(rules.cache_tokens, users * rules.kept(longest, 1)),
        ),
        graphs=msgspec.structs.replace(graphs, decode_max=min(graphs.decode_max, users)),
    )


def scheduling_of(engine: str) -> Scheduling:
    """Return what an engine's knobs mean to its scheduler.

    Raises:
        UsageError: there is no such engine, or nothing is known of its scheduler.
    """
    found = facts(plugins.load("engines", engine)).scheduling
    if found is None:
        known = [name for name in plugins.names("engines") if is_simulated(name)]
        raise UsageError(
            f"--engine {engine}: its scheduler is not known to the predictor; it knows"
            f" {', '.join(known)}."
        )
    return found


def not_simulated(engine: str, config: Mapping[str, Value]) -> str:
    """Return the settings whose effect no forecast has, as "name=value name=value"; empty: none.

    Raises:
        UsageError: there is no such engine, or nothing is known of its scheduler.
    """
    scheduling = scheduling_of(engine)
    rules = scheduling.under(config)
    knobs = {knob.name: knob for knob in plugins.load("engines", engine).knobs}
    return " ".join(
        f"{name}={show(value)}"
        for name, value in config.items()
        if name in knobs  # a front's are no business of the engine's scheduler
        and name != scheduling.variant  # the knob that has chosen these rules
        and not rules.holds_under(knobs[name], value)
    )


def is_simulated(name: str) -> bool:
    """Return whether the scheduler of an engine is known to the predictor."""
    return facts(plugins.load("engines", name)).scheduling is not None


def gpus_of(setup: Setup) -> int:
    """Return how many GPUs share every layer.

    Raises:
        UsageError: nothing is known of the engine's scheduler, or a number is none.
    """
    asked = Limit(scheduling_of(setup.engine).under(setup.config).gpus, 1)
    return max(setup.gpus, int(_number(setup, asked)))


def ranks_of(setup: Setup) -> int:
    """Return the data-parallel ranks of a server, between which its load is shared out.

    Raises:
        UsageError: nothing is known of the engine's scheduler, or a number is none.
    """
    asked = Limit(scheduling_of(setup.engine).under(setup.config).copies, 1)
    return max(1, int(_number(setup, asked)))


def stages_of(setup: Setup) -> int:
    """Return the groups of GPUs that share the layers out (pipeline parallelism).

    Raises:
        UsageError: nothing is known of the engine's scheduler, or a number is none.
    """
    asked = Limit(scheduling_of(setup.engine).under(setup.config).stages, 1)
    return max(1, int(_number(setup, asked)))


def parts_of(setup: Setup) -> int:
    """Return among how many the load of a server is shared out: what is simulated is one of these.

    They are its ranks, and the batches that are under way at once in each one's pipeline. A batch
    passes all layers, one stage at a time, while the others are in the other stages: the GPUs take
    as long as on a server without stages, and it has its part of the sequences and of the cache.
    Their host is one, so a step has the host's time for all of them: see steptime.py.

    Raises:
        UsageError: nothing is known of the engine's scheduler, or a number is none.
    """
    return ranks_of(setup) * stages_of(setup)


def servers_of(setup: Setup) -> int:
    """Return the processes that speak HTTP for all ranks of a server.

    Raises:
        UsageError: nothing is known of the engine's scheduler, or a number is none.
    """
    scheduling = scheduling_of(setup.engine).under(setup.config)
    unset = ranks_of(setup) if scheduling.servers_by_copies else 1
    return int(_number(setup, Limit(scheduling.servers, unset)))


def memory_of(setup: Setup, longest: int) -> Fit:
    """Return the sum of a setup's memory.

    Args:
        setup: the server.
        longest: tokens of the longest sequence that it will be asked for.

    Raises:
        UsageError: nothing is known of the engine's scheduler, or a number is none.
    """
    return fit(setup.shape, setup.gpu, part_of(setup, longest))


def part_of(setup: Setup, longest: int) -> Part:
    """Return how the model lies in memory.

    Args:
        setup: the server.
        longest: tokens of the longest sequence that its cache must hold.

    Raises:
        UsageError: nothing is known of the engine's scheduler, or a number is none.
    """
    scheduling, config = scheduling_of(setup.engine).under(setup.config), setup.config
    weights = scheduling.formats.get(str(config.get(scheduling.weights)))
    kv_bytes = BYTES[_cache_format(scheduling, setup)]
    gpus, stages = gpus_of(setup), stages_of(setup)
    cache_bytes = _number(setup, Limit(scheduling.cache_bytes, 0))
    cache_bytes *= scheduling.cache_unit_bytes
    blocks = _number(setup, Limit(scheduling.cache_blocks, 0))
    if blocks:
        if not setup.shape.cache_layers:
            raise UsageError(
                f"{scheduling.cache_blocks}={blocks:g}: {setup.shape.name} has no attention, and so"
                " no blocks of keys and values; leave it unset."
            )
        block = _number(setup, scheduling.block)
        cache_bytes = blocks * block * setup.shape.token_bytes(kv_bytes, gpus) / stages
    return Part(
        tensor=gpus,
        pipeline=stages,
        weight_bytes=BYTES[weights] if weights else None,
        kv_bytes=kv_bytes,
        share=_number(setup, scheduling.memory_share),
        step_tokens=_tokens(scheduling, setup)[0],
        sequences=int(_number(setup, scheduling.sequences)),
        longest=max(1, longest),
        graphs=config.get(scheduling.graph_off) is not True,
        cache_bytes=cache_bytes or None,
        share_of_free=scheduling.memory_of_free,
    )


def _cache_format(scheduling: Scheduling, setup: Setup) -> str:
    """Return in which numbers keys and values are kept, a key of `BYTES`."""
    asked, shape = setup.config.get(scheduling.cache, "auto"), setup.shape
    if asked == "auto" and shape.cache and shape.method in scheduling.cache_shipped:
        return shape.cache
    return scheduling.formats.get(str(asked), scheduling.cache_unset)


def _tokens(scheduling: Scheduling, setup: Setup) -> tuple[int, bool]:
    """Return the tokens of a step, and whether prompts may be split at all."""
    value = setup.config.get(scheduling.tokens.knob)
    if scheduling.whole_tokens and isinstance(value, int) and value < 0:
        return int(_number(setup, scheduling.whole_tokens)), False
    return int(_number(setup, scheduling.tokens)), True


def _number(setup: Setup, limit: Limit) -> float:
    value = setup.config.get(limit.knob) if limit.knob else None
    if value is None:
        gpu = setup.gpu
        return limit.on(gpu.name, gpu.memory_bytes / GIB, gpus_of(setup) if limit.shared else 1)
    if isinstance(value, str) or value < 0:
        raise UsageError(f"{limit.knob} {value}: must be a number of 0 or more.")
    return float(value)


def _paced(work: Work, scheduling: Scheduling, setup: Setup) -> Work:
    """Return the work with what the engine's own pace and a processor's threads make of it."""
    paces = tuple(scheduling.paces.get(name, 1.0) for name in NAMES)
    cores = setup.gpu.cores
    threads = int(_number(setup, Limit(scheduling.threads, 0))) or cores
    share = min(1.0, threads / cores) if cores else 1.0
    return msgspec.structs.replace(
        work, paces=paces, flops=work.flops * share, bandwidth=work.bandwidth * share
    )


def _handed_on(work: Work, setup: Setup, stages: int) -> Work:
    """Return the work with what stages need: activations handed on, batches planned in turn."""
    hop_s = setup.shape.hidden * BYTES["bf16"] / link_bytes_s(setup.gpu.name)
    return msgspec.structs.replace(
        work,
        exchange_s=work.exchange_s + (stages - 1) * hop_s,
        batches=stages if setup.batches is None else min(stages, setup.batches),
    )


def _graphs(scheduling: Scheduling, setup: Setup, sequences: int) -> Graphs:
    size = int(_number(setup, scheduling.graph_size))
    if scheduling.graph_sequences and scheduling.graph_size.knob not in setup.config:
        size = min(size, scheduling.graph_sequences * sequences)
    mode = setup.config.get(scheduling.graph_mode)
    in_turn = not scheduling.plans_ahead
    if setup.config.get(scheduling.graph_off) is True or mode in scheduling.graph_none:
        return Graphs(decode_max=0, in_turn=in_turn)
    pieces = scheduling.pieces_size
    size = _captured(scheduling, size)
    pieces_max = size if pieces is None else int(_number(setup, pieces))
    whole = mode in scheduling.graph_whole
    decode_max = size
    if scheduling.graph_sizes and not whole:
        decode_max = _captured(scheduling, min(size, sequences))
    return Graphs(
        decode_max=0 if mode in scheduling.graph_pieces else decode_max,
        prompts_max=size if whole else 0,
        pieces_max=0 if mode in scheduling.graph_decodes else pieces_max,
        in_turn=in_turn,
        sizes=scheduling.graph_sizes,
    )


def _captured(scheduling: Scheduling, most: int) -> int:
    """Return the largest batch with a graph that is not above `most`."""
    return max((each for each in scheduling.graph_sizes if each <= most), default=most)
