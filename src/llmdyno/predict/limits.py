"""How far a measured server was from the limit of its GPU or CPU, and what was predicted of it.

Of a study all is known: engine, config, model, GPU. Of a run it is where `dyno serve` has started
the server on the machine that measured it. Where the GPU, the model or the scheduler is not known,
or --engine-arg may have changed what the config says, nothing is said.
"""

from collections.abc import Mapping
from typing import Any

import msgspec

from llmdyno import plugins
from llmdyno.engines import facts
from llmdyno.errors import UsageError
from llmdyno.machine import hardware
from llmdyno.machine.peaks import kept
from llmdyno.predict.calibrate import prior
from llmdyno.predict.copies import Level, shared_out, together
from llmdyno.predict.document import number
from llmdyno.predict.forecast import Forecast, Point, Setup, forecast
from llmdyno.predict.gpus import CPU, Gpu, cpu_gpu, gpu_of
from llmdyno.predict.points import Measured, Whose, of_a_part, run_points
from llmdyno.predict.server import Server, not_simulated, parts_of, server_of
from llmdyno.predict.shapes import shape_of
from llmdyno.units import Lengths


def with_limits(study: Mapping[str, Any]) -> dict[str, Any]:
    """Return a study's document in which each level of before and after has its `limit`.

    It is {"mbu", "mfu", "share", "bound_by", "machine", "predicted": {"token_rate", "ttft_ms_p50",
    "tpot_ms_p50"}, "cached", "cached_by", "not_simulated", "peaks"}: the bandwidth and the FLOP/s
    used, as measured, as shares of the GPU's peaks; the larger one; what bounds the simulated
    server; what data sheets alone predict; the share of the prompts' tokens that a prefix cache
    held, which are not computed, as the "server" has counted it, or by the "prompts" what one that
    never evicts would hold; the settings whose effect the prediction leaves out; of a CPU, when its
    peaks were measured, and whether with the result: {"measured", "with_result"}.
    """
    found = dict(study)
    whose = _whose(study, study)
    if whose is None:
        return found
    said = _peaks(study, whose.gpu)
    for key in ("baseline", "best"):
        side = study.get(key)
        if not isinstance(side, Mapping) or not side.get("summary"):
            continue
        setup = Setup(whose.engine, whose.shape, whose.gpu, config=side.get("config") or {})
        found[key] = {**side, "summary": _summary(side["summary"], setup, whose, said)}
    return found


def run_with_limits(summary: Mapping[str, Any]) -> dict[str, Any]:
    """Return a run's document with the `limit` of each level, see with_limits."""
    server = (summary.get("environment") or {}).get("server") or {}
    whose = _whose(summary, server)
    if whose is None:
        return dict(summary)
    setup = Setup(whose.engine, whose.shape, whose.gpu, config=server.get("config") or {})
    return _summary(summary, setup, whose, _peaks(summary, whose.gpu))


def _whose(document: Mapping[str, Any], server: Mapping[str, Any]) -> Whose | None:
    """Return what is known of a server, on the machine of a run's or a study's document."""
    if not server.get("engine") or not server.get("model") or server.get("engine_args"):
        return None
    try:
        gpu = _machine(document.get("environment") or {}, server["engine"])
        if gpu is None:
            return None
        return Whose(gpu=gpu, engine=server["engine"], shape=shape_of(server["model"]))
    except UsageError:
        return None


def _machine(environment: Mapping[str, Any], engine: str) -> Gpu | None:
    """Return the one kind of GPU; of an engine on the CPU, that CPU, if its peaks are known.

    An older result has not its CPU's peaks: where it was measured on this machine, they are those.

    Raises:
        UsageError: there is no such engine, or no such GPU is known.
    """
    if facts(plugins.load("engines", engine)).on_cpu:
        cpu = environment.get("cpu") or {}
        if (peaks := kept(cpu)) is not None:
            return cpu_gpu(peaks)
        return gpu_of(CPU) if cpu.get("model") == hardware.cpu().model else None
    names = {gpu.get("name", "") for gpu in environment.get("gpus") or []}
    return gpu_of(str(names.pop())) if len(names) == 1 else None


def _peaks(document: Mapping[str, Any], gpu: Gpu) -> dict[str, Any]:
    """Return what is said of a CPU's peaks; nothing is of a GPU's, which its maker states."""
    if not gpu.measured:
        return {}
    with_result = kept((document.get("environment") or {}).get("cpu") or {}) is not None
    return {"peaks": {"measured": gpu.measured, "with_result": with_result}}


def _summary(
    summary: Mapping[str, Any], setup: Setup, whose: Whose, said: Mapping[str, Any]
) -> dict[str, Any]:
    levels = []
    for level in summary.get("levels") or []:
        points = list(run_points({**summary, "levels": [level]}, whose, ""))
        limit = _limit(points[0], setup) if points else None
        if limit is None:
            levels.append(level)
            continue
        counted = (level.get("server") or {}).get("prefix_cache_hits") is not None
        limit |= {"cached_by": "server" if counted else "prompts", **said}
        levels.append({**level, "limit": limit})
    return {**summary, "levels": levels}


def _limit(measured: Measured, setup: Setup) -> dict[str, Any] | None:
    """Return a level's distance from the limit; None: nothing is known of such a server."""
    if not measured.tpot_ms_p50:
        return None
    try:
        one = of_a_part(msgspec.structs.replace(measured, config=setup.config))
        setup = msgspec.structs.replace(setup, batches=one.batches)
        server = server_of(setup)
        shared = shared_out((measured.users, measured.request_rate), parts_of(setup))
        predicted = together(
            [(parts, forecast(setup, _point(one, level), prior())) for parts, level in shared]
        )
    except UsageError:
        return None
    if not predicted.fits:
        return None
    mbu, mfu = _used(one, server)
    return {
        "mbu": number(mbu),
        "mfu": number(mfu),
        "share": number(max(mbu, mfu)),
        "bound_by": predicted.bound_by,
        "machine": "CPU" if setup.gpu.cores else "GPU",
        "cached": number(_cached(measured, server)),
        "predicted": _predicted(predicted),
        "not_simulated": not_simulated(setup.engine, setup.config),
    }


def _point(measured: Measured, level: Level) -> Point:
    """Return the load of a part of a server: its users or its rate, and the measured lengths."""
    return Point(
        users=level[0],
        request_rate=level[1],
        isl=Lengths("fixed", max(1.0, measured.isl)),
        osl=Lengths("fixed", max(1.0, measured.osl)),
        cached_share=min(1.0, measured.cached_share),
        duration_s=max(5.0, measured.duration_s),
    )


def _used(measured: Measured, server: Server) -> tuple[float, float]:
    """Return the shares of the peak bandwidth and FLOP/s that what was measured needs.

    A step takes a TPOT and has a token of each running sequence: token rate x TPOT of them, by
    Little's law. It reads the weights once and the keys and values of half an answer and a prompt.
    """
    work = server.work
    assert measured.tpot_ms_p50 is not None
    step_s = measured.tpot_ms_p50 / 1e3
    running = measured.token_rate * step_s
    computed = 1 - _cached(measured, server)
    prompts_s = measured.token_rate / measured.osl * measured.isl * computed
    context = running * (measured.isl + measured.osl / 2)
    read = work.read_bytes(running + prompts_s * step_s)
    read += work.context_read(context, running) * work.kv_bytes
    flops = (measured.token_rate + prompts_s) * work.token_flops
    return read / step_s / work.bandwidth, flops / work.flops


def _cached(measured: Measured, server: Server) -> float:
    """Return the share of the prompts' tokens that are not computed: a prefix cache has them."""
    return min(1.0, measured.cached_share) if server.prefix_cache else 0.0


def _predicted(one: Forecast) -> dict[str, Any]:
    named = (
        ("token_rate", one.token_rate),
        ("ttft_ms_p50", one.ttft_ms_p50),
        ("tpot_ms_p50", one.tpot_ms_p50),
    )
    return {
        name: {"mean": number(value.mean), "ci80": [number(end) for end in value.ci80]}
        for name, value in named
    }
