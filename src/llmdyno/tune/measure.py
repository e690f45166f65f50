"""One measurement of one config: build what it needs, serve it, put it under load, stop it.

This is the tuner's only way to a number. A server that does not start, dies or hangs is a result
like any other: it has a class, a reason and a cost, and no process is left running.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from time import monotonic
from typing import Any

import msgspec

from llmdyno.bench import run
from llmdyno.bench.settling import Settler
from llmdyno.errors import InterruptError, ServerError, TargetError, UsageError
from llmdyno.knobs import Config
from llmdyno.load.plan import target_of
from llmdyno.load.progress import Progress
from llmdyno.processes import ports
from llmdyno.processes import server as supervise
from llmdyno.results.documents import level_name
from llmdyno.results.slo import Slo
from llmdyno.serve.build import Artifact
from llmdyno.serve.stack import Stack
from llmdyno.spec import Bench, Load, Workload
from llmdyno.tune.race import Lost, Race
from llmdyno.units import counted
from llmdyno.wire.exchange import Meter

HOST = "127.0.0.1"
SERVER_LOG = "server.log"
SERVER_FILES = "server"  # what the server reads
WARMUP = "warmup"
_PORT_TRIES = 3
_STOOD_STILL_S = 1.0  # without a look at the server: this process was stopped, or suspended
STANDS_MAX = 2  # so often a run in which it was is made again
_STOOD_SHARE = 0.02  # of a level; what is less than that is lost in its noise
_DYING_S = 5.0  # what a server may take to end after its engine has


class Measurement(msgspec.Struct, frozen=True, kw_only=True):
    """What came of one config. Without a summary there is a failure."""

    summary: dict[str, Any] | None = None
    failure_class: str | None = None
    failure_why: str | None = None
    lost: Lost | None = None  # why it was ended early: it could not win any more
    build_s: float = 0.0
    start_s: float = 0.0
    measure_s: float = 0.0
    folder: str = ""
    stood_s: float = 0.0  # so long this process was stopped under load: it measured itself
    dropped_s: float = 0.0  # what those runs took that were made again for it


def measure(
    stack: Stack,
    config: Config,
    *,
    workload: Workload,
    load: Load,
    slos: tuple[Slo, ...],
    price_per_h: float | None = None,
    hang_s: float,
    warmup_s: float,
    folder: Path,
    calibration: bool,
    race: Race | None = None,
    report_progress: Callable[[Progress, Meter], None],
    notify: Callable[[str], None],
) -> Measurement:
    """Serve a checked config on a free port, run the benchmark into `folder`, stop the server.

    Args:
        stack: what is served.
        config: which stack.check() has let pass.
        workload: what is asked.
        load: how it is asked; the last level decides.
        slos: the thresholds that the run's summary judges.
        price_per_h: of the server; None: it is not known.
        hang_s: a server that sends nothing for this long is given up.
        warmup_s: load that does not count, before the benchmark; 0: none.
        folder: of the run; it is made.
        calibration: whether this client is measured first.
        race: ends the benchmark once it is lost; None: it goes on to its end.
        report_progress: is told of the benchmark's progress.
        notify: is told in a line what is waited for.

    Raises:
        InterruptError: the user stopped the benchmark.
        StorageError: results cannot be written.
    """
    costs = _Costs()
    try:
        artifact = stack.build(config, notify=notify)
        costs.enter("start")
        with start(stack, config, artifact, folder, notify) as server:
            costs.enter("measure")
            launch = server.launch
            watch = _Watch(server, hang_s, report_progress, race)
            asked = Bench(
                url=launch.url,
                endpoint=launch.endpoint,
                metrics_url=launch.metrics_url,
                model=launch.model,
                workload=workload,
                load=load,
                slos=slos,
                price_per_h=price_per_h,
                calibration=calibration,
            )
            outcome = _put_under_load(server, asked, warmup_s, folder, watch)
            failure = server.failure()
            lost = watch.lost if outcome.stopped is not None else None
            cut = outcome.stopped if lost is None else None
            hangs = not (failure or outcome.interrupted or server.answers(hang_s))
            if hangs or cut is not None:
                failure = _death(server)
    except ServerError as error:
        return costs.failed(error.kind, str(error))
    except (UsageError, TargetError) as error:
        return costs.failed("died" if isinstance(error, TargetError) else "bad-config", str(error))
    if outcome.interrupted:
        raise InterruptError("interrupted; what was measured before is kept.")
    if failure is not None:
        came = costs.failed(failure.kind, str(failure))
    elif hangs or cut is not None:  # if towards the end, the benchmark did not see it
        came = costs.failed("hung", cut or _wedged(hang_s))
    else:
        came = _worked(costs, outcome.summary, lost)
    return msgspec.structs.replace(came, stood_s=watch.stood_in(load))


def unstopped(
    once: Callable[[], Measurement], name: str, say: Callable[[str], None]
) -> Measurement:
    """Return a measurement during which this process was not stopped; the third counts anyhow.

    The third keeps its `stood_s`, which is a doubt about it.

    Args:
        once: measures.
        name: of what is measured.
        say: is told that it is done again, or counts.
    """
    came, dropped_s = once(), 0.0
    for _ in range(STANDS_MAX):
        if not came.stood_s:
            break
        say(f"! dyno was stopped for {came.stood_s:.0f} s in {name}; it is made again.")
        dropped_s += came.build_s + came.start_s + came.measure_s
        came = once()
    if came.stood_s:
        say(f"! {counts_anyhow(name, came.stood_s)}")
    return msgspec.structs.replace(came, dropped_s=dropped_s)


def counts_anyhow(name: str, stood_s: float) -> str:
    """Say of a run in which this process was stopped too often that it counts all the same."""
    return f"dyno was stopped for {stood_s:.0f} s in {name}, too; it counts, with a doubt."


def _death(server: supervise.Server) -> ServerError | None:
    """Return how a server that does not answer has died; None if it lives.

    A server whose engine has died takes a moment to say so and to end. Until then it looks as if it
    hung.
    """
    server.wait(_DYING_S)
    return server.failure()


def _wedged(hang_s: float) -> str:
    return f"the server lives but made no token within {hang_s:g} s after the benchmark"


def start(
    stack: Stack,
    config: Config,
    artifact: Artifact | None,
    folder: Path,
    notify: Callable[[str], None],
) -> supervise.Server:
    """Start a server on a free port; on another one if somebody takes it before the server does.

    Engines import for many seconds before they listen. Another program that takes the port in the
    meantime is no fault of the config.
    """
    for tries_left in reversed(range(_PORT_TRIES)):
        launch = stack.launch(
            config,
            artifact=artifact,
            folder=folder / SERVER_FILES,
            host=HOST,
            port=ports.free_port(HOST),
            notify=notify,
        )
        try:
            return supervise.start(launch, log=folder / SERVER_LOG, progress=notify)
        except ServerError as error:
            if error.kind != "port-in-use" or not tries_left:
                raise
            notify("a port was taken before the server had it; once more on another one")
    raise AssertionError


def _put_under_load(
    server: supervise.Server, asked: Bench, warmup_s: float, folder: Path, watch: "_Watch"
) -> run.Outcome:
    """Warm the server up and measure it.

    Raises:
        ServerError: it has died, so that the benchmark found nobody there.
        TargetError: the benchmark found nobody there, but the server lives.
    """
    try:
        if not warmup_s:
            return run.run(asked, folder, watcher=watch.raced(), rehearsed=False)
        settler = Settler(target_of(asked, ()))
        early = _warm_up(asked, warmup_s, folder / WARMUP, watch.watcher(), settler)
        watch.stood_s = 0.0
        settler.is_due = True  # the warm-up has no grace
        return early or run.run(
            asked, folder, watcher=watch.raced(), rehearsed=False, settler=settler
        )
    except TargetError:
        if failure := _death(server):
            raise failure from None
        raise


def _warm_up(
    asked: Bench, warmup_s: float, folder: Path, watcher: run.Watcher, settler: Settler
) -> run.Outcome | None:
    """Load a fresh server for `warmup_s` before anything counts; return an early end, if any.

    Engines compile kernels, capture graphs and fill caches in the first requests of a config.
    """
    load = msgspec.structs.replace(
        asked.load.alone(asked.load.highest),
        ramp_s=None,
        duration_s=warmup_s,
        requests=_warmup_requests(asked.load, warmup_s),
        grace_s=0.0,
    )
    workload = msgspec.structs.replace(asked.workload, seed=asked.workload.seed + 1)
    warm = msgspec.structs.replace(
        asked, load=load, workload=workload, slos=(), calibration=False, scrape=False
    )
    outcome = run.run(warm, folder, watcher=watcher, rehearsed=False, settler=settler)
    return outcome if outcome.interrupted or outcome.stopped else None


def _warmup_requests(load: Load, warmup_s: float) -> int | None:
    """Return how many requests of a trace warm a server up; None: other loads end by the clock."""
    if load.arrival != "trace" or load.requests is None:
        return None
    return max(1, round(load.requests * min(1.0, warmup_s / load.duration_s)))


def _worked(costs: "_Costs", summary: Mapping[str, Any], lost: Lost | None) -> Measurement:
    """Return what a server that did not fail came to, which may be nothing."""
    if why := _nothing_to_show(summary):
        return costs.failed("requests-failed", why)
    return costs.of(Measurement(summary=dict(summary), lost=lost))


def _nothing_to_show(summary: Mapping[str, Any]) -> str | None:
    """Say why a run gives no number at its last level, if it gives none."""
    level = summary["levels"][-1]
    requests = level["requests"]
    if requests["failed"] > requests["completed"]:
        found = requests["errors"]
        errors = ", ".join(f"{name} x{count}" for name, count in found.items())
        said = (
            f"{requests['failed']} of"
            f" {counted(requests['failed'] + requests['completed'], 'request')} failed"
            f" at {level_name(level)} ({errors})"
        )
        # What the server itself says of the most frequent one names the setting that is wrong.
        words = " ".join(level["faults"][max(found, key=found.__getitem__)]["example"].split())
        return f"{said}: {words}" if words else said
    if not level["tokens"]["output"]:
        return f"not one token at {level_name(level)}"
    return None


class _Costs:
    """What a measurement takes, phase by phase."""

    def __init__(self) -> None:
        self._phase = "build"
        self._since_s = monotonic()
        self._spent_s = {"build": 0.0, "start": 0.0, "measure": 0.0}

    def enter(self, phase: str) -> None:
        """Begin the next phase."""
        now_s = monotonic()
        self._spent_s[self._phase] = now_s - self._since_s
        self._phase, self._since_s = phase, now_s

    def of(self, measurement: Measurement) -> Measurement:
        """Return a measurement that ends now, with its costs."""
        self.enter(self._phase)
        return msgspec.structs.replace(
            measurement,
            build_s=self._spent_s["build"],
            start_s=self._spent_s["start"],
            measure_s=self._spent_s["measure"],
        )

    def failed(self, kind: str, why: str) -> Measurement:
        """Return a measurement that has failed now."""
        return self.of(Measurement(failure_class=kind, failure_why=why))


class _Watch:
    """Ends a benchmark whose server has died, or has sent nothing for too long."""

    def __init__(
        self,
        server: supervise.Server,
        hang_s: float,
        report_progress: Callable[[Progress, Meter], None],
        race: Race | None,
    ) -> None:
        self._race = race
        self._server = server
        self._hang_s = hang_s
        self._report_progress = report_progress
        self._reads = -1
        self._since_s = self._asked_s = monotonic()
        self._looked_s: float | None = None  # at the level that runs
        self.stood_s = 0.0  # so long nobody looked, in all levels

    def look(self, progress: Progress, meter: Meter) -> None:
        """Notice whether anything came since the last look, and whether that was long ago."""
        now_s = monotonic()
        if self._looked_s is not None and now_s - self._looked_s > _STOOD_STILL_S:
            self.stood_s += now_s - self._looked_s
        self._looked_s = None if progress.phase == "done" else now_s
        if meter.reads != self._reads or not progress.in_flight:
            self._reads = meter.reads
            self._since_s = monotonic()
        self._report_progress(progress, meter)

    def why(self) -> str | None:
        """Say why the benchmark should end, if it should."""
        failure = self._server.failure()
        if failure is not None:
            return str(failure)
        now_s = monotonic()
        if now_s - self._asked_s > _STOOD_STILL_S:  # this process did: it cannot tell of the server
            self._since_s = max(self._since_s, now_s)
        self._asked_s = now_s
        silent_s = now_s - self._since_s
        if silent_s > self._hang_s:
            return f"the server lives but sent nothing for {silent_s:.0f} s"
        return None

    def stood_in(self, load: Load) -> float:
        """Return how long this process was stopped, in s; 0: too short to tell in this load."""
        return self.stood_s if self.stood_s > _STOOD_SHARE * (load.duration_s or 0.0) else 0.0

    @property
    def lost(self) -> Lost | None:
        """Why the race is lost; None: it is not, or there is none."""
        return None if self._race is None else self._race.lost

    def watcher(self) -> run.Watcher:
        """Return what a benchmark asks and tells."""
        return run.Watcher(report_progress=self.look, stop_because=self.why)

    def raced(self) -> run.Watcher:
        """Return the same for a benchmark that also ends once its race is lost."""
        race = self._race
        if race is None:
            return self.watcher()

        def look(progress: Progress, meter: Meter) -> None:
            self.look(progress, meter)
            race.look(progress, meter)

        def why() -> str | None:
            return self.why() or (race.lost.why if race.lost is not None else None)

        return run.Watcher(report_progress=look, stop_because=why)
