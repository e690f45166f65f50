"""One benchmark: workload → load → records → summary.

`run()` reads like the sentence in the docs: ask the server what it is, run the levels one after
the other, derive the summary from the journal. Everything that is measured is in the journal before
it is anywhere else.
"""

import asyncio
import contextlib
import random
import signal
import sys
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from datetime import datetime
from pathlib import Path
from time import monotonic, perf_counter_ns
from typing import Any, Protocol

import msgspec

from llmdyno import plugins, store
from llmdyno.bench import gpu
from llmdyno.bench import scraper as scrape
from llmdyno.bench.detect import detect, tensors
from llmdyno.bench.live_metrics import Board, serving
from llmdyno.bench.prober import Prober
from llmdyno.bench.recount import LocalTokenizer, recount
from llmdyno.calibration.calibrate import calibrate
from llmdyno.endpoints import Ask, Endpoint
from llmdyno.errors import InterruptError, UsageError
from llmdyno.load import ray_workers
from llmdyno.load.level import Level, Plan, Progress, rare_collections
from llmdyno.load.plan import Point
from llmdyno.load.workers import Crew, Here, Site, workers_for
from llmdyno.machine import environment, hardware, open_files
from llmdyno.records.entries import Entry, Opened, Record
from llmdyno.records.journal import Journal, read_journal, worker_journal
from llmdyno.results.capacity import CapacitySearch, measured_point
from llmdyno.results.documents import level_name
from llmdyno.results.facts import read_levels
from llmdyno.results.measures import token_rate_intervals
from llmdyno.results.summary import summarise
from llmdyno.spec import ROUNDS_MIN, Bench
from llmdyno.store import JOURNAL, SUMMARY
from llmdyno.wire.http1 import Meter, Target, parse_url
from llmdyno.workload.prompts import Prompts, synthetic_text
from llmdyno.workload.share import Share

_WATCH_S = 0.5
_PROBE_WORDS = (50, 250)


class Watcher(msgspec.Struct, frozen=True, kw_only=True):
    """What a caller wants to be told while a benchmark runs."""

    # Called twice a second, and once when a level is over, with what to show.
    shows: Callable[[Progress, Meter], None] = lambda _progress, _meter: None
    # Asked as often; a sentence ends the run (the server has died, the time is up).
    stop_because: Callable[[], str | None] = lambda: None


class LoadPoint(Protocol):
    """One load point under way: a load.Level in this process, or a Crew of workers."""

    interrupted: bool
    stopped: str
    uncounted: int

    async def run(self) -> None:
        """Run it to its end."""

    def interrupt(self) -> None:
        """End it now."""


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """How a benchmark ended."""

    summary: Mapping[str, Any]
    interrupted: bool = False  # by the user
    stopped: str | None = None  # by the watcher or for too many errors, and why


def run(
    spec: Bench,
    folder: Path,
    *,
    api_key: str | None = None,
    watcher: Watcher | None = None,
    metrics_port: int | None = None,
) -> Outcome:
    """Run a benchmark into a folder and return how it ended.

    With a metrics_port, what it counts is served there for Prometheus while it runs.

    Raises:
        UsageError: the spec cannot be run; nothing was started.
        TargetError: the server cannot be reached; nothing was started.
        InterruptError: the user interrupted it before anything was measured.
        StorageError: a record could not be written; what was written before is kept.
    """
    target = parse_url(
        spec.url, api_key, ca_cert=spec.ca_cert, insecure=spec.insecure, proxy=spec.proxy
    )
    if spec.endpoint != "auto":
        _check_scheme(spec, target, plugins.load("endpoints", spec.endpoint))
    Prompts(spec.workload)  # a file that cannot be read is said before anything starts
    open_files.allow(_connections(spec))
    with _site(spec, target, api_key) as site:
        means = _Means(
            target=target,
            tokenizer=LocalTokenizer(spec.tokenizer) if spec.tokenizer else None,
            watcher=watcher or Watcher(),
            site=site,
        )
        coroutine = _run_shown(spec, folder.resolve(), means, metrics_port)
        if sys.platform == "win32":
            return asyncio.run(coroutine)
        import uvloop

        return uvloop.run(coroutine)


def _check_scheme(spec: Bench, target: Target, endpoint: Endpoint) -> None:
    """Refuse an endpoint that is not spoken at such a URL."""
    if endpoint.rpc != target.rpc:
        wanted = "grpc://host:port" if endpoint.rpc else "http://host:port"
        raise UsageError(f"--url {spec.url}: --endpoint {spec.endpoint} needs {wanted}.")


def _site(spec: Bench, target: Target, api_key: str | None) -> AbstractContextManager[Site]:
    """Return where the workers of a run would be."""
    if spec.ray:
        return ray_workers.joined(spec.ray, spec.workers, api_key)
    cores = hardware.cpu().cores_usable
    # A server on this machine needs cores, too.
    own = cores // 2 if gpu.is_local(target.host) else cores - 1
    return contextlib.nullcontext(Here(api_key, own))


class _Means(msgspec.Struct, frozen=True, kw_only=True):
    """What a run is done with."""

    target: Target
    tokenizer: LocalTokenizer | None
    watcher: Watcher
    site: Site  # of workers, should a level have some


async def _run_shown(spec: Bench, folder: Path, means: _Means, metrics_port: int | None) -> Outcome:
    if metrics_port is None:
        return await _run(spec, folder, means)
    board = Board()
    watcher = means.watcher

    def shows(progress: Progress, meter: Meter) -> None:
        board.show(progress, meter)
        watcher.shows(progress, meter)

    async with serving(board, metrics_port):
        shown = msgspec.structs.replace(watcher, shows=shows)
        return await _run(spec, folder, msgspec.structs.replace(means, watcher=shown))


async def _run(spec: Bench, folder: Path, means: _Means) -> Outcome:
    with _interruptible() as interruption:
        try:
            spec, endpoint, scale = await _ask(spec, means.target)
            scraper = None
            if spec.scrape:
                scraper = await scrape.find(means.target, spec.endpoint, spec.metrics_url)
        except asyncio.CancelledError:
            interruption.take()
            raise InterruptError("interrupted before anything was measured.") from None
        store.make_folder(folder)
        run = _Run(
            spec=spec,
            endpoint=endpoint,
            scale=scale,
            means=means,
            scraper=scraper,
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
            if scraper is not None:
                scraper.close()
        summary = summarise(folder / JOURNAL)
        store.write_json(folder / SUMMARY, summary)
        interrupted = interruption.came and not stopped
        return Outcome(summary=summary, interrupted=interrupted, stopped=stopped)


class _Interruption:
    """What Ctrl-C and SIGTERM do: they end the level that runs, or what else is being waited for.

    Whatever it is, the run then goes on to its summary.
    """

    def __init__(self) -> None:
        task = asyncio.current_task()
        assert task is not None, "made within the run"
        self._task = task
        self.level: LoadPoint | None = None
        self.came = False

    def come(self) -> None:
        self.came = True
        if self.level is not None:
            self.level.interrupt()
        else:
            self._task.cancel()

    def take(self) -> None:
        """Take back the cancellation that was ours; another one goes on."""
        if not self.came:
            raise asyncio.CancelledError
        self._task.uncancel()


@contextlib.contextmanager
def _interruptible() -> Iterator[_Interruption]:
    interruption = _Interruption()
    loop = asyncio.get_running_loop()
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    for number in before:
        loop.add_signal_handler(number, interruption.come)
    try:
        yield interruption
    finally:
        for number, handler in before.items():
            loop.remove_signal_handler(number)
            signal.signal(number, handler)  # the loop would leave the system's own


class _Run(msgspec.Struct, frozen=True, kw_only=True):
    """What all levels of a run have in common."""

    spec: Bench
    endpoint: Endpoint
    scale: Mapping[str, float]  # of synthetic prompts
    means: _Means
    scraper: scrape.Scraper | None
    zero_ns: int
    journal: Journal
    interruption: _Interruption


async def _ask(spec: Bench, target: Target) -> tuple[Bench, Endpoint, dict[str, float]]:
    """Ask the server what it is, and how it counts."""
    prober = Prober(target)
    try:
        spec, endpoint = await _resolve(spec, prober)
        return spec, endpoint, await _calibrate_synthetic(spec, prober, endpoint)
    finally:
        prober.close()


async def _measure(run: _Run, name: str) -> str | None:
    """Run the levels one after the other; return why they ended early, if it was not the user."""
    spec, journal = run.spec, run.journal
    journal.append(
        Opened(
            run=name,
            started=datetime.now().astimezone().isoformat(timespec="seconds"),
            spec=msgspec.to_builtins(spec),
            environment=environment.describe(),
        )
    )
    calibration = await calibrate() if spec.calibration else None
    if calibration is not None:
        journal.append(calibration)
    ceiling = calibration.events_per_s_max if calibration else None
    for number, (repeat, load) in enumerate(_loads(spec, journal.path)):
        again = number if spec.until else repeat
        point = Point(spec=spec, level=number, repeat=repeat, load=load, again=again, **run.scale)
        prompts = point.prompts(Share())
        plan = point.plan(prompts, run.means.target, run.endpoint, Share())
        workers = workers_for(plan, spec.workers, ceiling, run.means.site.cores)
        meter, progress = Meter(), Progress(level=number, load=_describe(plan))
        level = _new_level(
            *(plan, prompts, point),
            workers=workers,
            site=run.means.site,
            zero_ns=run.zero_ns,
            journal=journal,
            meter=meter,
            progress=progress,
        )
        async with _observed(plan, run.scraper, run.zero_ns, journal.append):
            stopped = await _run_level(level, meter, progress, run)
        if level.uncounted and not stopped:
            records = _uncounted(journal.path, number)
            means = run.means
            await recount(records, means.target, spec.model, means.tokenizer, journal.append)
        if level.interrupted or stopped:
            return stopped
    return None


def _loads(spec: Bench, journal: Path) -> Iterator[tuple[int, float]]:
    """Yield round and load of each level: as the spec has them, or as a search for the capacity."""
    if spec.until:
        yield from ((0, load) for load in _searched(spec, journal))
        return
    for number, (repeat, load) in enumerate(spec.levels):
        begins_round = number == repeat * len(spec.load.points)
        if begins_round and _is_known(spec, journal, repeat):
            return
        yield repeat, load


def _searched(spec: Bench, journal: Path) -> Iterator[float]:
    """Yield the loads of a search for the highest one that meets the SLOs."""
    search = CapacitySearch(
        spec.load.points[0], whole=not spec.load.is_open, seed=spec.workload.seed
    )
    level_s = 0.0 if spec.load.ends_by_count else spec.load.duration_s
    ends_s = monotonic() + spec.until_budget_s
    load = search.next_load()
    while load is not None:
        yield load
        _, levels = read_levels(journal)
        search.add(measured_point(levels[-1], spec.slos))
        load = search.next_load() if monotonic() + level_s <= ends_s else None


def _connections(spec: Bench) -> int:
    """Return how many connections one process of a run needs, as far as that is known."""
    load = spec.load
    most = (load.max_concurrency or 0) if load.is_open else max(load.users)
    return most if spec.workers == "auto" else Share(of=spec.workers).count(most)


@contextlib.asynccontextmanager
async def _observed(
    plan: Plan, scraper: scrape.Scraper | None, zero_ns: int, sink: Callable[[Entry], None]
) -> AsyncIterator[None]:
    """Keep what the server and this machine's GPUs say of themselves around a level."""
    interval_s = plan.load.interval_s
    async with contextlib.AsyncExitStack() as stack:
        if scraper is not None:
            await stack.enter_async_context(scraper.around(plan.level, zero_ns, interval_s, sink))
        if gpu.is_local(plan.target.host):
            await stack.enter_async_context(gpu.around(plan.level, zero_ns, interval_s, sink))
        yield


def _new_level(
    plan: Plan,
    prompts: Prompts,
    point: Point,
    *,
    workers: int,
    site: Site,
    zero_ns: int,
    journal: Journal,
    meter: Meter,
    progress: Progress,
) -> LoadPoint:
    """Make a level of this process, or of so many workers."""
    sink = journal.append
    if workers == 1 and not point.spec.ray:
        return Level(plan, prompts, zero_ns=zero_ns, sink=sink, meter=meter, progress=progress)
    files = [worker_journal(journal.path, number) for number in range(workers)]
    return Crew(
        plan, point, site, files, zero_ns=zero_ns, sink=sink, meter=meter, progress=progress
    )


async def _run_level(level: LoadPoint, meter: Meter, progress: Progress, run: _Run) -> str | None:
    """Run one level; return why it ended early, if it did and it was not the user."""
    watcher = run.means.watcher
    reasons: list[str] = []

    async def watch() -> None:
        while True:
            watcher.shows(progress, meter)
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
    progress.phase = "done"
    watcher.shows(progress, meter)
    return next(iter(reasons), level.stopped or None)


def _describe(plan: Plan) -> str:
    """Return what a level's load is called before there is a document of it."""
    users = None if plan.load.is_open else plan.users
    return level_name({"users": users, "arrival": plan.load.arrival, "rate": plan.rate})


def _is_known(spec: Bench, journal: Path, rounds: int) -> bool:
    """Whether so many rounds have told each token rate as exactly as the user wants it."""
    if spec.repeat_until is None or rounds < ROUNDS_MIN:
        return False
    return all(
        (high - low) / 2 <= spec.repeat_until * (low + high) / 2
        for low, high in token_rate_intervals(journal)
    )


def _uncounted(journal: Path, level: int) -> Iterator[Record]:
    """Yield the records of a level whose tokens nobody has counted."""
    for entry in read_journal(journal):
        if isinstance(entry, Record) and entry.level == level and entry.texts:
            yield entry


async def _resolve(spec: Bench, prober: Prober) -> tuple[Bench, Endpoint]:
    """Fill in what the user left to us: the endpoint, the model and what it takes."""
    name, model = await detect(prober, spec.endpoint, spec.model)
    chosen = msgspec.structs.replace(spec, endpoint=name, model=model)
    endpoint: Endpoint = plugins.load("endpoints", name)
    if endpoint.rpc:
        inputs, _ = await tensors(prober, model)
        chosen = msgspec.structs.replace(chosen, tensors=inputs)
    return chosen, endpoint


async def _calibrate_synthetic(spec: Bench, prober: Prober, endpoint: Endpoint) -> dict[str, float]:
    """Learn from two probes how many tokens the server makes of our words.

    Two prompts of different length give the line tokens = fixed + per_word x words. A server that
    reports no usage leaves it at one token a word.
    """
    if spec.workload.name not in {"synthetic", "trace"}:
        return {}
    counts = []
    for words in _PROBE_WORDS:
        text = synthetic_text(words, random.Random(words))
        ask = Ask(prompt=text, model=spec.model, max_tokens=1, tensors=spec.tensors)
        response = await prober.ask("POST", endpoint.path(spec.model), endpoint.body(ask))
        counts.append(endpoint.read(response.pieces).input_tokens)
    if min(counts) <= 0 or counts[0] == counts[1]:
        return {}
    per_word = (counts[1] - counts[0]) / (_PROBE_WORDS[1] - _PROBE_WORDS[0])
    return {"tokens_per_word": per_word, "tokens_fixed": counts[0] - per_word * _PROBE_WORDS[0]}


def run_id(spec: Bench) -> str:
    """Return a new id for a run of this spec."""
    if spec.load.arrival == "trace":
        return store.new_id("trace")
    letter = "r" if spec.load.is_open else "c"
    points = "-".join(f"{point:g}" for point in spec.load.points)
    return store.new_id(f"{spec.workload.name}-{letter}{points}")
