"""One benchmark: workload → load → records → summary.

`run()` asks the server what it is, runs the levels one after the other, and derives the summary
from the journal. Every measurement goes to the journal first, so a run that is killed keeps all
finished requests.
"""

import asyncio
import contextlib
import sys
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from datetime import datetime
from pathlib import Path
from time import perf_counter_ns
from typing import Any

import msgspec

from llmdyno import endpoints, plugins, store, workload
from llmdyno.bench import gpu, rapl, scraper
from llmdyno.bench.interruption import Interruption, interruptible
from llmdyno.bench.questions import ask
from llmdyno.bench.recount import LocalTokenizer, recount
from llmdyno.bench.schedule import loads
from llmdyno.bench.settling import Settler
from llmdyno.endpoints import Endpoint
from llmdyno.engines import facts
from llmdyno.errors import InterruptError, UsageError
from llmdyno.load import LoadPoint
from llmdyno.load.level import Level, rare_collections
from llmdyno.load.plan import Plan, Point, target_of
from llmdyno.load.progress import Progress
from llmdyno.load.recorder import Recorder
from llmdyno.load.workers import Crew, LocalSite, Site, workers_for
from llmdyno.machine import environment, hardware, open_files
from llmdyno.machine.blas import import_numpy
from llmdyno.processes import presence
from llmdyno.records.entries import Entry, Opened, Record, Settled
from llmdyno.records.journal import Journal, read_journal, worker_journal
from llmdyno.results.documents import level_name
from llmdyno.spec import Bench
from llmdyno.store import JOURNAL, SUMMARY
from llmdyno.units import counted
from llmdyno.wire.exchange import Meter
from llmdyno.wire.headers import Header
from llmdyno.wire.target import Target
from llmdyno.workload.share import Share

_WATCH_S = 0.5
_WORKERS_A_CORE = 8  # more only take the cores from each other, and memory
# What a run says of a server of dyno's own.
_SERVED = ("engine", "front", "model", "config", "engine_args")
_ENERGY_S = 1.0  # between two samples at most: a gap of 3 s is too long for a sum


class Watcher(msgspec.Struct, frozen=True, kw_only=True):
    """The callbacks by which a caller watches a running benchmark and ends it."""

    # Called twice a second, and once at the end of a level.
    report_progress: Callable[[Progress, Meter], None] = lambda _progress, _meter: None
    # Called as often. A sentence ends the run, e.g. "the server has died"; None continues it.
    stop_because: Callable[[], str | None] = lambda: None


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """The result of a benchmark: its summary, and why it ended early if it did."""

    summary: Mapping[str, Any]
    interrupted: bool = False  # by the user
    stopped: str | None = None  # why the watcher, a limit on errors or a lost worker ended it


def run(
    spec: Bench,
    folder: Path,
    *,
    secrets: Sequence[Header] = (),
    watcher: Watcher | None = None,
    metrics_port: int | None = None,
    rehearsed: bool = True,
    settler: Settler | None = None,
) -> Outcome:
    """Run a benchmark and wait for its end; journal and summary go into the folder.

    Args:
        spec: what to run.
        folder: of the run; it is made once the server has answered.
        secrets: headers whose values are never written anywhere: see wire/headers.py.
        watcher: the callbacks of the caller.
        metrics_port: where the live counts are served for Prometheus; None: nowhere.
        rehearsed: send one request before the run as the run will; False: the server is ours.
        settler: of the runs on this server, so that a later one knows what an earlier one has
            learned of the idle server; None: one of this run's own.

    Raises:
        UsageError: the spec cannot be run; nothing was started.
        TargetError: the server cannot be reached or refuses the requests, or a worker or the
            streamer does not start.
        InterruptError: the user interrupted it before anything was measured.
        StorageError: a record could not be written; what was written before is kept.
    """
    target = target_of(spec, secrets)
    spec = _as_the_url_says(spec)
    if spec.endpoint != endpoints.AUTO:
        _check_scheme(spec, target, endpoints.load(spec.endpoint))
    workload.check(spec.workload, spec.load)
    open_files.allow(_connections(spec))
    with _site(spec, target, secrets) as site:
        context = _RunContext(
            target=target,
            tokenizer=LocalTokenizer(spec.tokenizer) if spec.tokenizer else None,
            watcher=watcher or Watcher(),
            site=site,
            rehearsed=rehearsed,
            settler=settler,
        )
        coroutine = _run_shown(spec, folder.resolve(), context, metrics_port)
        if sys.platform == "win32":
            return asyncio.run(coroutine)
        import uvloop

        return uvloop.run(coroutine)


def _as_the_url_says(spec: Bench) -> Bench:
    """Fill in the endpoint and the model that the user left open and the URL's path names."""
    place = endpoints.locate(spec.url, spec.endpoint)
    named = spec.endpoint if spec.endpoint != endpoints.AUTO else place.endpoint or endpoints.AUTO
    return msgspec.structs.replace(spec, endpoint=named, model=spec.model or place.model)


def _check_scheme(spec: Bench, target: Target, endpoint: Endpoint) -> None:
    """Raise UsageError if the endpoint does not go with the scheme of the URL."""
    if endpoint.rpc != target.rpc:
        wanted = "grpc://host:port" if endpoint.rpc else "http://host:port"
        raise UsageError(f"--url {spec.url}: --endpoint {spec.endpoint} needs {wanted}.")


def _site(spec: Bench, target: Target, secrets: Sequence[Header]) -> AbstractContextManager[Site]:
    """Return where the workers of a run start, if a level needs any.

    Raises:
        UsageError: there are to be far more than cores, which would only take them from each other.
    """
    if spec.ray:
        from llmdyno.load import ray_workers  # few runs need it

        return ray_workers.joined(spec.ray, spec.workers, secrets)
    cores = hardware.cpu().cores_usable
    if spec.workers != "auto" and spec.workers > (most := _WORKERS_A_CORE * cores):
        raise UsageError(
            f"--workers {spec.workers}: each is a process, and this machine has"
            f" {counted(cores, 'core')}; write {most} at most, or auto."
        )
    # A server on this machine needs cores too.
    own = cores // 2 if gpu.is_local(target.host) else cores - 1
    return contextlib.nullcontext(LocalSite(secrets, own))


class _RunContext(msgspec.Struct, frozen=True, kw_only=True):
    """What a run needs besides its spec and its folder, made before anything starts."""

    target: Target
    tokenizer: LocalTokenizer | None
    watcher: Watcher
    site: Site  # where workers start, if a level needs any
    rehearsed: bool  # whether one request goes before the run
    settler: Settler | None  # of several runs on one server; None: there is this run alone


async def _run_shown(
    spec: Bench, folder: Path, context: _RunContext, metrics_port: int | None
) -> Outcome:
    if metrics_port is None:
        return await _run(spec, folder, context)
    from llmdyno.bench.live_metrics import LivePage, serving  # few runs need it

    page = LivePage()
    watcher = context.watcher

    def report_progress(progress: Progress, meter: Meter) -> None:
        page.show(progress, meter)
        watcher.report_progress(progress, meter)

    async with serving(page, metrics_port):
        shown = msgspec.structs.replace(watcher, report_progress=report_progress)
        return await _run(spec, folder, msgspec.structs.replace(context, watcher=shown))


async def _run(spec: Bench, folder: Path, context: _RunContext) -> Outcome:
    settler = context.settler or Settler(context.target)
    with interruptible() as interruption:
        try:
            spec, endpoint, scale = await ask(
                spec, context.target, rehearsed=context.rehearsed, settler=settler
            )
            if context.settler is not None:
                await settler.learn(spec, endpoint)
            metrics_page = None
            if spec.scrape:
                metrics_page = await scraper.find(context.target, spec.endpoint, spec.metrics_url)
        except asyncio.CancelledError:
            interruption.take()
            raise InterruptError("interrupted before anything was measured.") from None
        store.make_folder(folder)
        run = _Run(
            spec=spec,
            endpoint=endpoint,
            scale=scale,
            context=context,
            metrics_page=metrics_page,
            settler=settler,
            zero_ns=perf_counter_ns(),
            journal=Journal(folder / JOURNAL),
            interruption=interruption,
        )
        stopped = None
        try:
            stopped = await _measure(run, folder.name)
        except asyncio.CancelledError:
            interruption.take()
        finally:
            run.journal.close()
            if metrics_page is not None:
                metrics_page.close()
        summary = _summarised(folder)
        interrupted = interruption.heard() and not stopped
        return Outcome(summary=summary, interrupted=interrupted, stopped=stopped)


def _summarised(folder: Path) -> Mapping[str, Any]:
    """Write the summary of a run, and return it."""
    # What derives numbers is imported once they are there: it costs as much CPU as all the rest.
    import_numpy()
    from llmdyno.results.summary import summarise

    summary = summarise(folder / JOURNAL)
    store.write_json(folder / SUMMARY, summary)
    return summary


class _Run(msgspec.Struct, frozen=True, kw_only=True):
    """What all levels of a run share, once the server has answered."""

    spec: Bench
    endpoint: Endpoint
    scale: Mapping[str, float]  # of synthetic prompts: Point's tokens_per_word, tokens_fixed
    context: _RunContext
    metrics_page: scraper.Scraper | None  # of the server
    settler: Settler
    zero_ns: int  # of the journal, by perf_counter_ns
    journal: Journal
    interruption: Interruption


async def _measure(run: _Run, name: str) -> str | None:
    """Run the levels one after the other; return why they ended early, if the user did not."""
    spec, journal = run.spec, run.journal
    journal.append(
        Opened(
            run=name,
            started=datetime.now().astimezone().isoformat(timespec="seconds"),
            spec=msgspec.to_builtins(spec.kept),
            environment=_environment(run.context.target, spec),
        )
    )
    calibration = None
    if spec.calibration:
        import_numpy()
        from llmdyno.calibration.calibrate import calibrate  # brings a server of its own

        calibration = await calibrate()
        if calibration is not None:
            journal.append(calibration)
    ceiling = calibration.events_per_s_max if calibration else None
    for number, (repeat, load) in enumerate(loads(spec, journal.path)):
        again = number if spec.until else repeat
        point = Point(spec=spec, level=number, repeat=repeat, load=load, again=again, **run.scale)
        prompts = point.prompts(Share())
        plan = point.plan(prompts, run.context.target, run.endpoint, Share())
        workers = workers_for(plan, spec.workers, ceiling, run.context.site.cores)
        recorder = Recorder(
            sink=journal.append,
            zero_ns=run.zero_ns,
            meter=Meter(),
            progress=Progress(level=number, load=_describe(plan)),
        )
        level: LoadPoint
        if workers == 1 and not spec.ray:
            level = Level(plan, prompts, recorder)
        else:
            files = [worker_journal(journal.path, worker) for worker in range(workers)]
            level = Crew(plan, point, run.context.site, files, recorder)
        if run.settler.is_due and (settled := await _settle(run, number)):
            journal.append(settled)
        async with _observed(plan, run.metrics_page, run.zero_ns, journal.append):
            stopped = await _run_level(level, recorder, run)
        run.settler.is_due = recorder.progress.hung_up > 0
        if recorder.progress.uncounted and not stopped:
            records = _uncounted(journal.path, number)
            context = run.context
            model = spec.models[0].name
            await recount(records, context.target, model, context.tokenizer, journal.append)
        if level.interrupted or stopped:
            return stopped
    return None


async def _settle(run: _Run, level: int) -> Settled | None:
    """Wait until the server is done with what we hung up on; return how long that took."""
    page = run.metrics_page
    told = () if page is None else (page.under_way,)
    return await run.settler.settle(run.spec, run.endpoint, level, *told)


def _environment(target: Target, spec: Bench) -> dict[str, Any]:
    """Return the facts of this machine, and the settings of a server of `dyno serve` on it."""
    models = [model.name for model in spec.models if model.name]
    local = gpu.is_local(target.host)
    found = presence.served_at(target.host, target.port, models) if local else None
    if found is None:
        return environment.describe()
    here = environment.describe(peaks=facts(plugins.load("engines", found.engine)).on_cpu)
    return {**here, "server": {name: getattr(found, name) for name in _SERVED}}


def _connections(spec: Bench) -> int:
    """Return how many connections one process of a run needs; 0 if that is not known."""
    most = spec.load.connections
    return most if spec.workers == "auto" else Share(of=spec.workers).count(most)


@contextlib.asynccontextmanager
async def _observed(
    plan: Plan, metrics_page: scraper.Scraper | None, zero_ns: int, sink: Callable[[Entry], None]
) -> AsyncIterator[None]:
    """Record the server's metrics page, and what this machine uses, during the `with`."""
    interval_s = plan.load.interval_s
    async with contextlib.AsyncExitStack() as stack:
        if metrics_page is not None:
            await stack.enter_async_context(
                metrics_page.around(plan.level, zero_ns, interval_s, sink)
            )
        if gpu.is_local(plan.target.host):
            often_s = min(interval_s, _ENERGY_S)
            await stack.enter_async_context(gpu.around(plan.level, zero_ns, often_s, sink))
            await stack.enter_async_context(rapl.around(plan.level, zero_ns, often_s, sink))
        yield


async def _run_level(level: LoadPoint, recorder: Recorder, run: _Run) -> str | None:
    """Run one level; return why it ended early, if it did and the user did not end it."""
    watcher = run.context.watcher
    reasons: list[str] = []

    async def watch() -> None:
        while True:
            watcher.report_progress(recorder.progress, recorder.meter)
            await asyncio.sleep(_WATCH_S)
            if reason := watcher.stop_because():
                reasons.append(reason)
                level.interrupt()
                return

    watching = asyncio.create_task(watch())
    run.interruption.level = level
    try:
        with rare_collections():
            await level.run()
    finally:
        run.interruption.level = None
        watching.cancel()
    recorder.progress.phase = "done"
    watcher.report_progress(recorder.progress, recorder.meter)
    return next(iter(reasons), level.stopped or None)


def _describe(plan: Plan) -> str:
    """Return the name of a level's load, e.g. "50 users"."""
    users = None if plan.load.is_open else plan.users
    return level_name({"users": users, "arrival": plan.load.arrival, "rate": plan.rate})


def _uncounted(journal: Path, level: int) -> Iterator[Record]:
    """Yield the records of a level whose tokens the server did not count."""
    for entry in read_journal(journal):
        if isinstance(entry, Record) and entry.level == level and entry.texts:
            yield entry


def run_id(spec: Bench) -> str:
    """Return a new id for a run of this spec; it becomes the name of the run's folder."""
    if spec.load.arrival == "trace":
        return store.new_id("trace")
    letter = "r" if spec.load.is_open else "c"
    points = "-".join(f"{point:g}" for point in spec.load.points)
    return store.new_id(f"{spec.workload.name}-{letter}{points}")
