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
from datetime import datetime
from pathlib import Path
from time import monotonic, perf_counter_ns
from typing import Any

import msgspec

from llmdyno import environment, gpu, plugins, scrape, store
from llmdyno.arrivals import due_times_s
from llmdyno.calibrate import calibrate
from llmdyno.detect import detect
from llmdyno.endpoints import Ask, Endpoint
from llmdyno.exposition import Board, serving
from llmdyno.load import Level, Plan, Progress, rare_collections
from llmdyno.probe import Prober
from llmdyno.records import Entry, Journal, Opened, Record, read_journal
from llmdyno.recount import LocalTokenizer, recount
from llmdyno.spec import ROUNDS_MIN, Bench
from llmdyno.summary import (
    capacity_point,
    level_name,
    read_levels,
    summarise,
    token_rate_intervals,
)
from llmdyno.transport import Meter, Target, parse_url
from llmdyno.until import Search
from llmdyno.workload import Prompts, synthetic_text

JOURNAL = "journal.jsonl"
SUMMARY = "summary.json"

_WATCH_S = 0.5
_PROBE_WORDS = (50, 250)


class Watcher(msgspec.Struct, frozen=True, kw_only=True):
    """What a caller wants to be told while a benchmark runs."""

    # Called twice a second, and once when a level is over, with what to show.
    shows: Callable[[Progress, Meter], None] = lambda _progress, _meter: None
    # Asked as often; a sentence ends the run (the server has died, the time is up).
    stop_because: Callable[[], str | None] = lambda: None


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
        StorageError: a record could not be written; what was written before is kept.
    """
    target = parse_url(
        spec.url, api_key, ca_cert=spec.ca_cert, insecure=spec.insecure, proxy=spec.proxy
    )
    if spec.endpoint != "auto":
        plugins.load("endpoints", spec.endpoint)
    if spec.workload.name != "synthetic":
        Prompts(spec.workload)  # a file that cannot be read is said before anything starts
    tokenizer = LocalTokenizer(spec.tokenizer) if spec.tokenizer else None
    coroutine = _run_shown(
        spec, folder.resolve(), target, tokenizer, watcher or Watcher(), metrics_port
    )
    if sys.platform == "win32":
        return asyncio.run(coroutine)
    import uvloop

    return uvloop.run(coroutine)


async def _run_shown(
    spec: Bench,
    folder: Path,
    target: Target,
    tokenizer: LocalTokenizer | None,
    watcher: Watcher,
    metrics_port: int | None,
) -> Outcome:
    if metrics_port is None:
        return await _run(spec, folder, target, tokenizer, watcher)
    board = Board()

    def shows(progress: Progress, meter: Meter) -> None:
        board.show(progress, meter)
        watcher.shows(progress, meter)

    async with serving(board, metrics_port):
        shown = msgspec.structs.replace(watcher, shows=shows)
        return await _run(spec, folder, target, tokenizer, shown)


async def _run(
    spec: Bench, folder: Path, target: Target, tokenizer: LocalTokenizer | None, watcher: Watcher
) -> Outcome:
    prober = Prober(target)
    try:
        spec, endpoint = await _resolve(spec, prober)
        scale = await _calibrate_synthetic(spec, prober, endpoint)
    finally:
        prober.close()
    scraper = None
    if spec.scrape:
        scraper = await scrape.find(target, spec.endpoint, spec.metrics_url)
    store.make_folder(folder)
    zero_ns = perf_counter_ns()
    journal = Journal(folder / JOURNAL)
    opened = Opened(
        run=folder.name,
        started=datetime.now().astimezone().isoformat(timespec="seconds"),
        spec=msgspec.to_builtins(spec),
        environment=environment.describe(),
    )
    stops: list[str] = []
    interrupted = False
    try:
        journal.append(opened)
        if spec.calibration:
            journal.append(await calibrate())
        for number, (repeat, point) in enumerate(_loads(spec, journal.path)):
            # Another round asks other prompts: a cache of prefixes must not know them. So does a
            # search that comes back to a load, and its arrivals are others, too.
            again = number if spec.until else repeat
            stream = f"{point:g}/{again}" if again else f"{point:g}"
            prompts = Prompts(spec.workload, stream, **scale)
            due_s = _due_s(spec, point, prompts, stream)
            plan = _plan(spec, number, repeat, point, due_s, target, endpoint)
            async with _observed(plan, scraper, zero_ns, journal.append):
                level = await _run_level(
                    plan, prompts, zero_ns, journal.append, watcher, stops.append
                )
            interrupted = level.interrupted
            if level.uncounted and not stops:
                records = _uncounted(journal.path, number)
                await recount(records, target, spec.model, tokenizer, journal.append)
            if interrupted or stops:
                break
    finally:
        journal.close()
        if scraper is not None:
            scraper.close()
    summary = summarise(folder / JOURNAL)
    store.write_json(folder / SUMMARY, summary)
    stopped = stops[0] if stops else None
    return Outcome(summary=summary, interrupted=interrupted and not stops, stopped=stopped)


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
    search = Search(spec.load.points[0], whole=not spec.load.is_open, seed=spec.workload.seed)
    level_s = 0.0 if spec.load.ends_by_count else spec.load.duration_s
    ends_s = monotonic() + spec.until_budget_s
    load = search.next_load()
    while load is not None:
        yield load
        _, levels = read_levels(journal)
        search.add(capacity_point(levels[-1], spec.slos))
        load = search.next_load() if monotonic() + level_s <= ends_s else None


def _due_s(spec: Bench, point: float, prompts: Prompts, stream: str) -> list[float] | None:
    """Return when the requests of an open loop are due, as drawn or as in the trace."""
    if spec.load.arrival == "trace":
        return [due_s / point for due_s in prompts.due_s[: spec.load.requests]]
    if spec.load.is_open:
        return due_times_s(spec.load, point, f"{spec.workload.seed}/{stream}")
    return None


def _plan(
    spec: Bench,
    level: int,
    repeat: int,
    point: float,
    due_s: list[float] | None,
    target: Target,
    endpoint: Endpoint,
) -> Plan:
    """Return the plan of one load point: users, requests a second, or the times of a trace."""
    has_rate = spec.load.is_open and spec.load.arrival != "trace"
    return Plan(
        level=level,
        users=0 if spec.load.is_open else round(point),
        rate=point if has_rate else None,
        due_s=due_s,
        load=spec.load,
        target=target,
        endpoint=endpoint,
        model=spec.model,
        repeat=repeat,
    )


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


async def _run_level(
    plan: Plan,
    prompts: Prompts,
    zero_ns: int,
    sink: Callable[[Entry], None],
    watcher: Watcher,
    stop: Callable[[str], None],
) -> Level:
    """Run one level."""
    meter = Meter()
    progress = Progress(level=plan.level, load=_describe(plan))
    level = Level(plan, prompts, zero_ns=zero_ns, sink=sink, meter=meter, progress=progress)
    loop = asyncio.get_running_loop()
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    for number in before:
        loop.add_signal_handler(number, level.interrupt)

    async def watch() -> None:
        while True:
            watcher.shows(progress, meter)
            await asyncio.sleep(_WATCH_S)
            if reason := watcher.stop_because():
                stop(reason)
                level.interrupt()
                return

    watching = asyncio.create_task(watch())
    try:
        with rare_collections():
            await level.run()
    finally:
        watching.cancel()
        for number, handler in before.items():
            loop.remove_signal_handler(number)
            signal.signal(number, handler)  # the loop would leave the system's own
    progress.phase = "done"
    watcher.shows(progress, meter)
    if level.stopped:
        stop(level.stopped)
    return level


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
    """Fill in what the user left to us: the endpoint and the model."""
    name, model = await detect(prober, spec.endpoint, spec.model)
    chosen = msgspec.structs.replace(spec, endpoint=name, model=model)
    return chosen, plugins.load("endpoints", name)


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
        ask = Ask(prompt=text, model=spec.model, max_tokens=1)
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
