"""Workers on the machines of a Ray cluster, behind the interface of those on this one (workers.py).

On a node an actor (Post) starts the very process that a local worker is, and hands over what that
process wrote, through Ray, while it writes: so the files here grow as a local worker's do, and
display, limits and a kill -9 are no matter of where the workers are.

Each machine has a clock of its own. Before a level each node is asked for its perf_counter_ns a
few times; of the quickest answer half its time is how far we may be off (Cristian's method). A
worker is then told our zero and our beginning in its own time, so that its records are in ours,
give or take that. At the level's end the clocks are asked again, and their drift is kept.
"""

import asyncio
import contextlib
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from time import monotonic, perf_counter_ns
from typing import Any, NamedTuple

import msgspec

from llmdyno.errors import StorageError, TargetError, UsageError
from llmdyno.load.plan import Point
from llmdyno.load.worker import READY, Assignment, environment
from llmdyno.load.workers import START_S, Site, Worker
from llmdyno.workload.share import Share

_CLOCK_QUESTIONS = 20
_FETCH_S = 0.5
_CALL_S = 20.0  # for a node to answer anything


class Post:
    """What a node does for us; an actor of Ray's, its methods called from afar."""

    def __init__(self) -> None:
        # Made by start(); nobody else has a folder of that name.
        self._folder = Path(tempfile.gettempdir(), f"dyno-worker-{secrets.token_hex(16)}")
        self._journal = self._folder / "journal.jsonl"
        self._said = self._folder / "said.txt"
        self._process: subprocess.Popen[bytes] | None = None

    def host(self) -> str:
        """Return the machine's name, and which of Ray's nodes it is."""
        import ray

        return f"{socket.gethostname()}, node {ray.get_runtime_context().get_node_id()[:8]}"

    def clock_ns(self) -> int:
        """Return this machine's time."""
        return perf_counter_ns()

    def start(self, line: bytes, api_key: str | None) -> None:
        """Start the worker with this assignment, but for the file."""
        assignment = msgspec.json.decode(line, type=Assignment)
        own = msgspec.structs.replace(assignment, journal=str(self._journal))
        self._folder.mkdir(mode=0o700)
        with self._said.open("wb") as said:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "llmdyno.load.worker"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=said,
                start_new_session=True,
                env=environment(api_key),
            )
        self._write(msgspec.json.encode(own) + b"\n")

    def wait_until_ready(self) -> bool:
        """Return whether it is ready; if not, it has ended."""
        assert self._process is not None
        assert self._process.stdout is not None
        return self._process.stdout.readline() == READY

    def begin(self, start_ns: int) -> None:
        """Tell it when to begin, in this machine's time."""
        self._write(b"%d\n" % start_ns)

    def stop(self) -> None:
        """Let it end."""
        if self._process is not None and self._process.stdin is not None:
            with contextlib.suppress(BrokenPipeError):
                self._process.stdin.close()

    def fetch(self, offset: int) -> tuple[bytes, int | None, str]:
        """Return what it wrote from there on, its exit status if it has one, and its last word."""
        assert self._process is not None
        status = self._process.poll()  # before its file is read, so that nothing comes after
        added = b""
        if self._journal.exists():
            with self._journal.open("rb") as file:
                file.seek(offset)
                added = file.read()
        lines = self._said.read_text("utf-8", "replace").strip().splitlines()
        return added, status, lines[-1] if lines else ""

    def leave(self) -> None:
        """Leave nothing behind."""
        if self._process is not None:
            self._process.kill()
            with self._process:  # closes its pipes and waits for it
                pass
        shutil.rmtree(self._folder, ignore_errors=True)

    def _write(self, line: bytes) -> None:
        assert self._process is not None
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # it is dead; its status says so
            self._process.stdin.write(line)
            self._process.stdin.flush()


class Clock(NamedTuple):
    """How a node's clock stands to ours."""

    offset_ns: int  # its time less ours
    uncertainty_ns: int


class RayWorker:
    """A worker on a node."""

    def __init__(self, post: Any, host: str, clock: Clock, journal: Path) -> None:
        self.ended: str | None = None
        self.host = host
        self.clock_uncertainty_ns = clock.uncertainty_ns
        self._post = post
        self._clock = clock
        self._journal = journal
        self._offset = 0
        self._fetched_s = 0.0
        self._calls: set[Any] = set()

    async def ready(self) -> None:
        """Wait for its word."""
        await self._ask(self._post.wait_until_ready.remote(), START_S)

    def begin(self, start_ns: int) -> None:
        """Send the moment, in its own time."""
        self._calls.add(self._post.begin.remote(start_ns + self._clock.offset_ns))

    async def fetch(self) -> None:
        """Append what it wrote to its file here.

        Raises:
            StorageError: that cannot be written.
        """
        if self.ended is not None or monotonic() - self._fetched_s < _FETCH_S:
            return
        self._fetched_s = monotonic()
        answer = await self._ask(self._post.fetch.remote(self._offset), _CALL_S)
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
        """Send word to end."""
        self._calls.add(self._post.stop.remote())

    async def clock_drift_ns(self) -> int | None:
        """Return how much further its clock stands from ours now than before; None: it is gone."""
        clock = await self._ask(clock_of(self._post), _CALL_S)
        return None if clock is None else clock.offset_ns - self._clock.offset_ns

    async def dismiss(self) -> None:
        """Kill it, and let the actor go."""
        import ray

        await self._ask(self._post.leave.remote(), _CALL_S)
        ray.kill(self._post)

    async def _ask(self, answer: Any, limit_s: float) -> Any:
        """Wait for an answer; without one the worker has ended."""
        from ray.exceptions import RayError

        try:
            return await asyncio.wait_for(answer, limit_s)
        except RayError as error:
            why = str(error).strip().splitlines()[0]
            self.ended = self.ended or f"on {self.host} is gone: {why}"
        except TimeoutError:
            self.ended = self.ended or f"on {self.host} did not answer within {limit_s:g} s"
        return None


async def clock_of(post: Any) -> Clock:
    """Ask a node for its time; the quickest answer tells it best."""
    clocks = []
    for _ in range(_CLOCK_QUESTIONS):
        asked_ns = perf_counter_ns()
        told_ns = await post.clock_ns.remote()
        answered_ns = perf_counter_ns()
        half_ns = (answered_ns - asked_ns) // 2
        clocks.append(Clock(told_ns - asked_ns - half_ns, half_ns))
    return min(clocks, key=lambda clock: clock.uncertainty_ns)


class Cluster:
    """The machines of a Ray cluster."""

    def __init__(self, actor: Any, cores: int, api_key: str | None) -> None:
        self.cores = cores
        self._actor = actor
        self._api_key = api_key

    async def hire(self, point: Point, share: Share, zero_ns: int, journal: Path) -> Worker:
        """Start a worker on a node, those of a level on as many nodes as there are."""
        from ray.exceptions import RayError

        post = self._actor.remote()
        try:
            host = await asyncio.wait_for(post.host.remote(), START_S)
            clock = await asyncio.wait_for(clock_of(post), START_S)
        except (RayError, TimeoutError) as error:
            why = str(error).strip().splitlines()[:1] or [f"no answer within {START_S:g} s"]
            raise TargetError(f"--ray: worker {share.index} does not start: {why[0]}") from error
        line = msgspec.json.encode(
            Assignment(point=point, share=share, zero_ns=zero_ns + clock.offset_ns, journal="")
        )
        # Small arguments go from process to process, and into no file.
        await post.start.remote(line, self._api_key)
        return RayWorker(post, host, clock, journal)


def _require_listener(address: str) -> None:
    """Knock first: where nobody listens, Ray tries again for minutes.

    Raises:
        OSError: nobody does.
    """
    host, _, port = address.rpartition(":")
    if host and port.isdecimal() and "/" not in host:
        socket.create_connection((host, int(port)), timeout=_CALL_S).close()


@contextlib.contextmanager
def joined(address: str, workers: int | str, api_key: str | None) -> Iterator[Site]:
    """Join a Ray cluster from a machine that is part of it.

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
        actor = ray.remote(num_cpus=1, scheduling_strategy="SPREAD", max_concurrency=4)(Post)
        yield Cluster(actor, cores, api_key)
    finally:
        ray.shutdown()
