"""Workers on the machines of a Ray cluster, behind the interface of those on this one (workers.py).

On each node an actor (NodeAgent) starts the same process as a local worker. While that process
writes, the actor passes its output on through Ray. So the files on this machine grow as those of
local workers do, and the display, the limits and a kill -9 work the same for both.

Each machine has its own clock. Before a level each node is asked several times for its
perf_counter_ns. The answer with the shortest round trip counts; half that round trip is the
uncertainty (Cristian's method). A worker then gets our zero and our start in its own time, so its
records are in our time within that uncertainty. At the end of the level the clocks are compared
again, and their drift is recorded.
"""

import asyncio
import contextlib
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from time import monotonic, perf_counter_ns
from typing import Any

import msgspec

from llmdyno.errors import StorageError, TargetError, UsageError, reason
from llmdyno.load.clocks import Clock, Drift
from llmdyno.load.plan import Point
from llmdyno.load.worker import READY, Assignment, environment
from llmdyno.load.workers import START_S, Site, Worker
from llmdyno.wire.headers import Header
from llmdyno.workload.share import Share

_CLOCK_QUESTIONS = 20
_FETCH_S = 0.5
_CALL_S = 20.0  # the time limit for an answer from a node


class NodeAgent:
    """Starts and feeds one worker on its node: a Ray actor whose methods are called remotely."""

    def __init__(self) -> None:
        # start() makes it; the random name makes it ours alone.
        self._folder = Path(tempfile.gettempdir(), f"dyno-worker-{secrets.token_hex(16)}")
        self._journal = self._folder / "journal.jsonl"
        self._said = self._folder / "said.txt"
        self._process: subprocess.Popen[bytes] | None = None

    def host(self) -> str:
        """Return the machine's name and the beginning of its Ray node id."""
        import ray

        return f"{socket.gethostname()}, node {ray.get_runtime_context().get_node_id()[:8]}"

    def clock_ns(self) -> int:
        """Return this machine's perf_counter_ns."""
        return perf_counter_ns()

    def start(self, line: bytes, secrets: Sequence[Header]) -> str:
        """Start the worker; returns before it is ready.

        Args:
            line: its Assignment as JSON; the journal named there is replaced by a file here.
            secrets: for the worker's environment; they are never written to a file.

        Returns:
            Why the system does not start it; empty: it is started.
        """
        assignment = msgspec.json.decode(line, type=Assignment)
        own = msgspec.structs.replace(assignment, journal=str(self._journal))
        try:
            self._folder.mkdir(mode=0o700)
            with self._said.open("wb") as said:
                self._process = subprocess.Popen(
                    [sys.executable, "-m", "llmdyno.load.worker"],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=said,
                    start_new_session=True,
                    env=environment(secrets),
                )
        except OSError as error:  # of the node: no limit of this machine
            shutil.rmtree(self._folder, ignore_errors=True)
            return reason(error)
        self._write(msgspec.json.encode(own) + b"\n")
        return ""

    def wait_until_ready(self) -> bool:
        """Wait until the worker reports ready (True) or has ended (False)."""
        assert self._process is not None
        assert self._process.stdout is not None
        return self._process.stdout.readline() == READY

    def begin(self, start_ns: int) -> None:
        """Tell the worker when to begin, in perf_counter_ns of this machine; returns at once."""
        self._write(b"%d\n" % start_ns)

    def stop(self) -> None:
        """Ask the worker to cut what is in flight and exit; returns at once."""
        if self._process is not None and self._process.stdin is not None:
            with contextlib.suppress(BrokenPipeError):
                self._process.stdin.close()

    def fetch(self, offset: int) -> tuple[bytes, int | None, str]:
        """Return the part of the worker's journal that is new.

        Args:
            offset: how many bytes of the journal the caller has already.

        Returns:
            The bytes from there on, the worker's exit status (None: it runs), and its last line on
            standard error.
        """
        assert self._process is not None
        status = self._process.poll()  # before reading: an ended worker adds nothing more
        added = b""
        if self._journal.exists():
            with self._journal.open("rb") as file:
                file.seek(offset)
                added = file.read()
        lines = self._said.read_text("utf-8", "replace").strip().splitlines()
        return added, status, lines[-1] if lines else ""

    def leave(self) -> None:
        """Kill the worker if it still runs, wait for its end, and delete its files."""
        if self._process is not None:
            self._process.kill()
            with self._process:  # closes its pipes and waits for it
                pass
        shutil.rmtree(self._folder, ignore_errors=True)

    def _write(self, line: bytes) -> None:
        assert self._process is not None
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # it is dead, and fetch() reports its status
            self._process.stdin.write(line)
            self._process.stdin.flush()


class RayWorker:
    """A worker on a node, behind the interface of workers.Worker."""

    def __init__(self, agent: Any, host: str, clock: Clock, journal: Path) -> None:
        self.ended: str | None = None
        self.host = host
        self.clock_uncertainty_ns = clock.uncertainty_ns
        self._agent = agent
        self._clock = clock
        self._journal = journal
        self._offset = 0
        self._fetched_s = 0.0
        self._calls: set[Any] = set()

    async def ready(self) -> None:
        """Wait until it reports ready or has ended; `ended` says which."""
        await self._ask(self._agent.wait_until_ready.remote(), START_S)

    def begin(self, start_ns: int) -> None:
        """Send the moment, converted to the node's clock; returns at once."""
        self._calls.add(self._agent.begin.remote(start_ns + self._clock.offset_ns))

    async def fetch(self) -> None:
        """Append the new part of its journal to the file on this machine, at most twice a second.

        Raises:
            StorageError: the file cannot be written.
        """
        if self.ended is not None or monotonic() - self._fetched_s < _FETCH_S:
            return
        self._fetched_s = monotonic()
        answer = await self._ask(self._agent.fetch.remote(self._offset), _CALL_S)
        if answer is None:
            return
        added, status, word = answer
        try:
            with self._journal.open("ab") as file:
                file.write(added)
        except OSError as error:
            raise StorageError(
                f"cannot write {self._journal}: {error.strerror}. What was measured before is kept."
            ) from error
        self._offset += len(added)
        if status is not None:
            how = f"on {self.host} ended with status {status}"
            self.ended = "" if not status else f"{how}: {word}" if word else how

    def stop(self) -> None:
        """Ask it to cut what is in flight and exit; returns at once."""
        self._calls.add(self._agent.stop.remote())

    async def clock_drift(self) -> Drift | None:
        """Return the change of its clock's offset since the start; None: the node is gone."""
        clock = await self._ask(clock_of(self._agent), _CALL_S)
        if clock is None:
            return None
        return Drift(
            clock.offset_ns - self._clock.offset_ns,
            clock.uncertainty_ns + self._clock.uncertainty_ns,
        )

    async def dismiss(self) -> None:
        """Kill the worker, delete its files on the node, and end its actor."""
        import ray

        await self._ask(self._agent.leave.remote(), _CALL_S)
        ray.kill(self._agent)

    async def _ask(self, answer: Any, limit_s: float) -> Any:
        """Return the answer of the actor; None: it came too late, and the worker counts as lost."""
        from ray.exceptions import RayError

        try:
            return await asyncio.wait_for(answer, limit_s)
        except RayError as error:
            why = str(error).strip().splitlines()[0].rstrip(".")
            self.ended = self.ended or f"on {self.host} is gone: {why}"
        except TimeoutError:
            self.ended = self.ended or f"on {self.host} did not answer within {limit_s:g} s"
        return None


async def clock_of(agent: Any) -> Clock:
    """Compare a node's clock with ours by the answer with the shortest round trip."""
    clocks = []
    for _ in range(_CLOCK_QUESTIONS):
        asked_ns = perf_counter_ns()
        told_ns = await agent.clock_ns.remote()
        answered_ns = perf_counter_ns()
        half_ns = (answered_ns - asked_ns) // 2
        clocks.append(Clock(told_ns - asked_ns - half_ns, half_ns))
    return min(clocks, key=lambda clock: clock.uncertainty_ns)


class Cluster:
    """The machines of a Ray cluster, behind the interface of workers.Site."""

    def __init__(self, actor: Any, cores: int, secrets: Sequence[Header]) -> None:
        self.cores = cores
        self._actor = actor
        self._secrets = secrets

    async def hire(self, point: Point, share: Share, zero_ns: int, journal: Path) -> Worker:
        """Start a worker on a node and return it before it is ready.

        Ray spreads the workers of a level over the nodes.

        Raises:
            TargetError: the worker does not start.
        """
        from ray.exceptions import RayError

        agent = self._actor.remote()
        try:
            host = await asyncio.wait_for(agent.host.remote(), START_S)
            clock = await asyncio.wait_for(clock_of(agent), START_S)
        except (RayError, TimeoutError) as error:
            why = str(error).strip().splitlines()[:1] or [f"no answer within {START_S:g} s"]
            raise TargetError(f"--ray: worker {share.index} does not start: {why[0]}") from error
        line = msgspec.json.encode(
            Assignment(point=point, share=share, zero_ns=zero_ns + clock.offset_ns, journal="")
        )
        # Ray passes small arguments in memory, so the secrets are never written to a file.
        if why_not := await agent.start.remote(line, self._secrets):
            raise TargetError(f"--ray: worker {share.index} does not start on {host}: {why_not}.")
        return RayWorker(agent, host, clock, journal)


def _require_listener(address: str) -> None:
    """Connect once before Ray does, because Ray retries for minutes where nobody listens.

    Raises:
        OSError: nobody listens there.
    """
    host, _, port = address.rpartition(":")
    if host and port.isdecimal() and "/" not in host:
        socket.create_connection((host, int(port)), timeout=_CALL_S).close()


@contextlib.contextmanager
def joined(address: str, workers: int | str, secrets: Sequence[Header]) -> Iterator[Site]:
    """Join a Ray cluster during the `with`, from a machine that is part of it.

    Raises:
        UsageError: ray is not installed, there is no cluster, or it is too small.
    """
    try:
        import ray
    except ImportError as error:
        raise UsageError(f"--ray {address}: needs Ray: pip install 'llmdyno[ray]'.") from error
    try:
        _require_listener(address)
        ray.init(address=address, log_to_driver=False, logging_level="error")
    except (OSError, ValueError, RuntimeError) as error:
        why = str(error).strip().splitlines()[0]
        raise UsageError(f"--ray {address}: cannot be joined: {why}") from error
    try:
        cores = int(ray.cluster_resources().get("CPU", 0))
        if isinstance(workers, int) and workers > cores:
            raise UsageError(f"--workers {workers}: the cluster has {cores} CPUs, one for each.")
        actor = ray.remote(num_cpus=1, scheduling_strategy="SPREAD", max_concurrency=4)(NodeAgent)
        yield Cluster(actor, cores, secrets)
    finally:
        ray.shutdown()
