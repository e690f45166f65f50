"""A study whose workers are Ray's jobs, on a real cluster and PostgreSQL, as docs/tune.md says.

Skipped without Ray's job server, `pip install 'ray[default]'`; the extra `ray` alone has none.
"""

import importlib.util
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

import postgresql
from conftest import DYNO
from studies import MARK, environment
from tune.test_worker import Team
from waiting import until

pytestmark = pytest.mark.skipif(
    any(importlib.util.find_spec(name) is None for name in ("ray", "aiohttp_cors")),
    reason="Ray's job server is missing: pip install 'ray[default]'",
)
STARTS_S = 90.0


@pytest.fixture
def team(tmp_path: Path) -> Iterator[Team]:
    with postgresql.started() as server, ExitStack() as stack:
        yield Team(tmp_path, server, stack)


@pytest.fixture
def jobs(tmp_path: Path) -> Iterator[str]:
    """Start a cluster of two nodes with a server for jobs; yield that server's URL."""
    process = subprocess.Popen(
        [sys.executable, str(Path(__file__).parent.parent / "ray_cluster.py"), "--jobs"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env={**environment(), MARK: str(tmp_path)},
        cwd=tmp_path,
    )
    assert process.stdout is not None
    assert process.stdout.readline()
    yield process.stdout.readline().strip()
    process.communicate(timeout=60)


def submit(jobs: str, name: str, store: str) -> None:
    """Do what docs/tune.md says, once the cluster takes jobs."""
    command = [
        *(str(Path(sys.executable).with_name("ray")), "job", "submit", "--no-wait"),
        *("--address", jobs, "--submission-id", name, "--entrypoint-num-cpus", "1", "--"),
        *(*DYNO, "worker", "--store", store, "--name", name),
    ]

    def is_taken() -> bool:
        done = subprocess.run(command, check=False, capture_output=True, text=True)
        said = done.stdout + done.stderr
        assert done.returncode == 0 or "No available agent" in said, said
        return done.returncode == 0

    until(is_taken, "the job is taken", within_s=STARTS_S)


def worker(name: str) -> int | None:
    """Return the process of the worker of that name; None: there is none."""
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            words = (folder / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue  # it has just ended
        if b"worker" in words and name.encode() in words and b"-c" not in words:
            return int(folder.name)
    return None


def test_a_rays_job_that_is_killed_gives_its_trial_back(team: Team, jobs: str) -> None:
    lead = team.lead("--trials", "4", "--trial-duration", "4s", "--sampler", "random")
    names = [f"job-{letter}-{os.getpid()}" for letter in "ab"]
    for name in names:
        submit(jobs, name, team.server.url)
    ledger = team.study / "ledger.jsonl"

    def measures_a_trial() -> int:
        assert lead.poll() is None, team.said("lead")
        if not ledger.exists() or '"type":"out","phase":"trial"' not in ledger.read_text():
            return 0
        found = worker(names[0]) or 0
        return found if found and Path(f"/proc/{found}/task/{found}/children").read_text() else 0

    os.kill(until(measures_a_trial, "a trial of the first", within_s=STARTS_S), signal.SIGKILL)
    assert lead.wait(timeout=240) == 0, team.said("lead")

    assert "its worker was lost; another one has it" in team.said("lead")
    document = team.document()
    assert [trial["state"] for trial in document["trials"]].count("failed") == 0
    assert len(document["trials"]) == 4
    assert document["confirmation"]["verdict"] in {"better", "no difference"}
    until(lambda: worker(names[1]) is None, "the other worker ends by itself", within_s=30.0)
