"""One benchmark: workload → load → records → summary.

`run()` reads like the sentence in the docs: ask the server what it is, run the levels one after
the other, derive the summary from the journal. Everything that is measured is in the journal before
it is anywhere else.
"""

import asyncio
import gc
import random
import signal
import sys
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime
from pathlib import Path
from time import monotonic, perf_counter_ns
from typing import Any

import msgspec

from llmdyno import environment, plugins, store
from llmdyno.arrivals import due_times_s
from llmdyno.endpoints import Ask, Endpoint
from llmdyno.errors import TargetError
from llmdyno.load import Level, Plan, Progress
from llmdyno.records import Entry, Journal, Opened
from llmdyno.spec import Bench
from llmdyno.summary import capacity_point, level_name, read_levels, summarise
from llmdyno.transport import ConnectError, Connection, Meter, Response, Target, connect, parse_url
from llmdyno.until import Search
from llmdyno.workload import Prompts, synthetic_text

JOURNAL = "journal.jsonl"
SUMMARY = "summary.json"

_WATCH_S = 0.5
_PROBE_TIMEOUT_S = 60.0
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
    stopped: str | None = None  # by the watcher, and why


def run(
    spec: Bench, folder: Path, *, api_key: str | None = None, watcher: Watcher | None = None
) -> Outcome:
    """Run a benchmark into a folder and return how it ended.

    Raises:
        UsageError: the spec cannot be run; nothing was started.
        TargetError: the server cannot be reached; nothing was started.
        StorageError: a record could not be written; what was written before is kept.
    """
    target = parse_url(spec.url, api_key)
    if spec.endpoint != "auto":
        plugins.load("endpoints", spec.endpoint)
    if spec.workload.name != "synthetic":
        Prompts(spec.workload)  # a file that cannot be read is said before anything starts
    coroutine = _run(spec, folder.resolve(), target, watcher or Watcher())
    if sys.platform == "win32":
        return asyncio.run(coroutine)
    import uvloop

    return uvloop.run(coroutine)


async def _run(spec: Bench, folder: Path, target: Target, watcher: Watcher) -> Outcome:
    spec, endpoint = await _resolve(spec, target)
    scale = await _calibrate_synthetic(spec, target, endpoint)
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
        for number, point in enumerate(_loads(spec, folder / JOURNAL)):
            # A search comes back to a load: with other prompts, and other arrivals.
            stream = f"{point:g}/{number}" if spec.until else f"{point:g}"
            prompts = Prompts(spec.workload, stream, **scale)
            plan = _plan(spec, number, point, target, endpoint, prompts.due_s, stream)
            interrupted = await _run_level(
                plan, prompts, zero_ns, journal.append, watcher, stops.append
            )
            if interrupted or stops:
                break
    finally:
        journal.close()
    summary = summarise(folder / JOURNAL)
    store.write_json(folder / SUMMARY, summary)
    stopped = stops[0] if stops else None
    return Outcome(summary=summary, interrupted=interrupted and not stops, stopped=stopped)


def _loads(spec: Bench, journal: Path) -> Iterator[float]:
    """Yield the load of each level: as the spec has them, or as a search for the capacity goes."""
    if not spec.until:
        yield from spec.load.points
        return
    search = Search(spec.load.points[0], whole=not spec.load.is_open, seed=spec.workload.seed)
    level_s = 0.0 if spec.load.ends_by_count else spec.load.duration_s
    ends_s = monotonic() + spec.until_budget_s
    load = search.next_load()
    while load is not None:
        yield load
        _, levels = read_levels(journal)
        search.add(capacity_point(levels[-1], spec.slos))
        load = search.next_load() if monotonic() + level_s <= ends_s else None


def _plan(
    spec: Bench,
    level: int,
    point: float,
    target: Target,
    endpoint: Endpoint,
    traced_s: list[float],
    stream: str,
) -> Plan:
    """Return the plan of one load point: users, requests a second, or the times of a trace."""
    is_open, is_trace = spec.load.is_open, spec.load.arrival == "trace"
    due_s = None
    if is_trace:
        due_s = [due_s / point for due_s in traced_s[: spec.load.requests]]
    elif is_open:
        due_s = due_times_s(spec.load, point, f"{spec.workload.seed}/{stream}")
    return Plan(
        level=level,
        users=0 if is_open else round(point),
        rate=point if is_open and not is_trace else None,
        due_s=due_s,
        load=spec.load,
        target=target,
        endpoint=endpoint,
        model=spec.model,
    )


async def _run_level(
    plan: Plan,
    prompts: Prompts,
    zero_ns: int,
    sink: Callable[[Entry], None],
    watcher: Watcher,
    stop: Callable[[str], None],
) -> bool:
    """Run one level; return whether it was interrupted."""
    meter = Meter()
    progress = Progress(level=plan.level, load=_describe(plan))
    level = Level(plan, prompts, zero_ns=zero_ns, sink=sink, meter=meter, progress=progress)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
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
    # A full collection would stop the client for longer than a token takes: let it have little to
    # look at, and come seldom.
    gc.collect()
    gc.freeze()
    thresholds = gc.get_threshold()
    gc.set_threshold(100_000, 50, 1_000)
    try:
        await level.run()
    finally:
        gc.set_threshold(*thresholds)
        gc.unfreeze()
        watching.cancel()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.remove_signal_handler(number)
    progress.phase = "done"
    watcher.shows(progress, meter)
    return level.interrupted


def _describe(plan: Plan) -> str:
    """Return what a level's load is called before there is a document of it."""
    users = None if plan.load.is_open else plan.users
    return level_name({"users": users, "arrival": plan.load.arrival, "rate": plan.rate})


async def _resolve(spec: Bench, target: Target) -> tuple[Bench, Endpoint]:
    """Fill in what the user left to us: the model and the endpoint."""
    if spec.endpoint != "auto" and spec.model:
        (await _connect(target)).close()  # is anybody there?
        return spec, plugins.load("endpoints", spec.endpoint)
    model = spec.model or await _first_model(target)
    if spec.endpoint == "auto":
        name = await _find_endpoint(target, model)
    else:
        name = spec.endpoint
    chosen = msgspec.structs.replace(spec, model=model, endpoint=name)
    return chosen, plugins.load("endpoints", name)


async def _first_model(target: Target) -> str:
    response = await _answer(target, "GET", "/v1/models")
    try:
        models = msgspec.json.decode(response.body())["data"]
        return str(models[0]["id"])
    except (msgspec.MsgspecError, KeyError, IndexError, TypeError) as error:
        raise TargetError(
            f"{target.authority} does not list its models (GET {target.prefix}/v1/models:"
            f" status {response.status}): name one with --model."
        ) from error


async def _find_endpoint(target: Target, model: str) -> str:
    tried = []
    for name in ("openai-chat", "openai-completions"):
        endpoint: Endpoint = plugins.load("endpoints", name)
        body = endpoint.body(Ask(prompt="Hello", model=model, max_tokens=1))
        response = await _answer(target, "POST", endpoint.path(model), body)
        if response.status == 200:
            return name
        words = endpoint.error_of(response.body())
        tried.append(f"{name}: status {response.status} {words}".strip())
    raise TargetError(f"{target.authority} speaks no endpoint that we know ({'; '.join(tried)}).")


async def _calibrate_synthetic(spec: Bench, target: Target, endpoint: Endpoint) -> dict[str, float]:
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
        response = await _answer(target, "POST", endpoint.path(spec.model), endpoint.body(ask))
        counts.append(endpoint.read(response.pieces).input_tokens)
    if min(counts) <= 0 or counts[0] == counts[1]:
        return {}
    per_word = (counts[1] - counts[0]) / (_PROBE_WORDS[1] - _PROBE_WORDS[0])
    return {"tokens_per_word": per_word, "tokens_fixed": counts[0] - per_word * _PROBE_WORDS[0]}


async def _answer(target: Target, method: str, path: str, body: bytes = b"") -> Response:
    """Send one request outside any measurement.

    Raises:
        TargetError: nobody answers.
    """
    connection = await _connect(target)
    head = target.head(path, len(body))
    if method == "GET":
        head = head.replace(b"POST ", b"GET ", 1)
    done = connection.send(head + body)
    timer = asyncio.get_running_loop().call_later(
        _PROBE_TIMEOUT_S, connection.give_up, "timeout", f"no answer in {_PROBE_TIMEOUT_S:g} s"
    )
    response = await done
    timer.cancel()
    connection.close()
    if response.error:
        raise TargetError(
            f"{target.authority}{target.prefix}{path}: {response.detail or response.error}"
            f" ({response.error})."
        )
    return response


async def _connect(target: Target) -> Connection:
    try:
        return await connect(target, Meter(), timeout_s=10.0)
    except ConnectError as error:
        raise TargetError(f"--url {target.authority}: {error} ({error.kind}).") from error


def run_id(spec: Bench) -> str:
    """Return a new id for a run of this spec."""
    if spec.load.arrival == "trace":
        return store.new_id("trace")
    letter = "r" if spec.load.is_open else "c"
    points = "-".join(f"{point:g}" for point in spec.load.points)
    return store.new_id(f"{spec.workload.name}-{letter}{points}")
