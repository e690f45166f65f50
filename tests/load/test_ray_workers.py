"""Workers on a real Ray cluster of two nodes on this machine; skipped without the extra `ray`."""

import asyncio
import errno
import importlib.util
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from conftest import DYNO, last_json
from llmdyno.errors import TargetError
from llmdyno.load.plan import Point
from llmdyno.load.ray_workers import Cluster, NodeAgent
from llmdyno.spec import Bench
from llmdyno.workload.share import Share
from load.test_workers import TO_STREAMER, records, tokens_sent, truth
from waiting import until

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("ray") is None, reason="the extra `ray` is not installed"
)

Streamer = Callable[..., str]
Dyno = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def cluster() -> Iterator[tuple[str, int]]:
    """Start a cluster; yield its address and the process that it belongs to."""
    process = subprocess.Popen(
        [sys.executable, str(Path(__file__).parent.parent / "ray_cluster.py")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert process.stdout is not None
    address = process.stdout.readline().strip()
    assert address
    yield address, process.pid
    process.communicate(timeout=60)


def workers_under(ancestor: int) -> list[int]:
    """Return the pids of the workers that stem from a process."""
    parents: dict[int, int] = {}
    workers = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            stat = (folder / "stat").read_text()
            command = (folder / "cmdline").read_bytes()
        except OSError:
            continue  # it has just ended
        parents[int(folder.name)] = int(stat.rpartition(")")[2].split()[1])
        if b"llmdyno.load.worker" in command:
            workers.append(int(folder.name))

    def stems(pid: int) -> bool:
        while pid in parents and pid != ancestor:
            pid = parents[pid]
        return pid == ancestor

    return [pid for pid in workers if stems(pid)]


class Here:
    """The method of an actor, called here: what is remote of it is that one waits for it."""

    def __init__(self, method: Callable[..., object]) -> None:
        self._method = method

    async def remote(self, *given: object) -> object:
        return self._method(*given)


def test_a_worker_that_its_node_does_not_start_is_told_with_the_reason(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def full(*_: object, **__: object) -> None:
        raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))

    pytest.importorskip("ray.exceptions")  # it has a subclass of Popen
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    agent = NodeAgent()
    ours = SimpleNamespace(
        host=Here(lambda: "node7"), clock_ns=Here(agent.clock_ns), start=Here(agent.start)
    )
    cluster = Cluster(SimpleNamespace(remote=lambda: ours), 1, ())
    monkeypatch.setattr("subprocess.Popen", full)
    point = Point(spec=Bench(url="http://127.0.0.1:9"), level=1, repeat=1, load=1)

    with pytest.raises(
        TargetError, match=r"^--ray: worker 0 does not start on node7: Resource temporarily un"
    ):
        asyncio.run(cluster.hire(point, Share(), 0, tmp_path / "journal.jsonl"))

    assert not list(tmp_path.iterdir())


def test_workers_on_two_nodes_do_what_one_process_does(
    cluster: tuple[str, int], streamer: Streamer, dyno: Dyno, tmp_path: Path
) -> None:
    url = streamer("--ttft", "50ms", "--itl", "5ms")
    load = ("-c", "20", "--ramp", "100ms", "--requests", "61", "--osl", "8-24", "--json")

    done = dyno(
        *("bench", "--url", url, *TO_STREAMER, *load, "--workers", "2", "--ray", cluster[0]),
        *("--out", "spread"),
        LLMDYNO_API_KEY="sk-very-secret-4711",
    )
    assert done.returncode == 0, done.stderr
    (level,) = last_json(done.stdout)["levels"]
    sent = tokens_sent(url)
    alone = dyno("bench", "--url", url, *TO_STREAMER, *load, "--out", "alone")
    assert alone.returncode == 0, alone.stderr

    assert level["requests"] == {"completed": 61, "failed": 0, "cut": 0, "errors": {}}
    # The rehearsal asks for as many tokens as the first request.
    rehearsed = next(one.output_tokens for one in records(tmp_path / "spread") if not one.request)
    assert level["tokens"]["output"] + rehearsed == sent
    first, second = level["machines"]
    assert first["host"] != second["host"]
    for machine in (first, second):
        # Both nodes have this machine's clock, so that what was found is all error.
        assert 0 < machine["clock_uncertainty_ms"] < 100
        assert abs(machine["clock_drift_ms"]) <= machine["clock_drift_uncertainty_ms"] < 100
    assert level["ttft_ms"]["p50"] == pytest.approx(50, abs=10)
    asked = [
        sorted((one.request, one.prompt, one.output_tokens) for one in records(tmp_path / name))
        for name in ("spread", "alone")
    ]
    assert asked[0] == asked[1]
    written = [path for path in (tmp_path / "spread").iterdir() if path.is_file()]
    assert not any(b"very-secret" in path.read_bytes() for path in written)


@pytest.mark.parametrize("what", ["ctrl-c", "a dead worker"])
def test_the_end_is_the_same_as_with_workers_here(
    cluster: tuple[str, int], streamer: Streamer, tmp_path: Path, what: str
) -> None:
    url = streamer("--ttft", "20ms", "--itl", "5ms")
    address, owner = cluster
    process = subprocess.Popen(
        [
            *(*DYNO, "bench", "--url", url, *TO_STREAMER, "-c", "6", "--ramp", "0s"),
            *("--duration", "60s", "--osl", "8", "--workers", "2", "--ray", address, "--json"),
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=tmp_path,
    )

    def is_under_way() -> bool:
        assert process.poll() is None, process.communicate()[1]
        return bool(truth(url)["completed"] >= 50)

    until(is_under_way, "fifty requests", within_s=60.0)
    workers = workers_under(owner)
    assert len(workers) == 2
    if what == "ctrl-c":
        process.send_signal(signal.SIGINT)
    else:
        os.kill(workers[0], signal.SIGKILL)
    output, errors = process.communicate(timeout=40)

    assert process.returncode == (130 if what == "ctrl-c" else 3), errors
    assert "Traceback" not in errors
    (level,) = last_json(output)["levels"]
    if what == "ctrl-c":
        assert level["requests"]["completed"] == truth(url)["completed"] - 1  # the rehearsal
        assert level["stopped"] == ""
    else:
        assert level["requests"]["completed"] >= 40
        assert re.match(r"worker \d on .*, node \w+ ended with status -9", level["stopped"])
    assert not workers_under(owner)


def test_a_cluster_that_is_too_small_or_not_there_is_wrong_usage(
    cluster: tuple[str, int], streamer: Streamer, dyno: Dyno, tmp_path: Path
) -> None:
    url = streamer()
    small = dyno(
        *("bench", "--url", url, *TO_STREAMER, "-c", "9", "--workers", "3", "--ray", cluster[0])
    )
    nowhere = dyno("bench", "--url", url, *TO_STREAMER, "-c", "9", "--ray", "127.0.0.1:9")

    assert small.returncode == 2, small.stderr
    assert "--workers 3: the cluster has 2 CPUs, one for each." in small.stderr
    assert nowhere.returncode == 2, nowhere.stderr
    assert "--ray 127.0.0.1:9: cannot be joined: " in nowhere.stderr
    assert not list(tmp_path.iterdir())
