"""Fixtures that several test files share: a streamer of known timing, and `dyno` itself."""

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from forge import Forge
from llmdyno.processes import ports

# A shell starts what it puts in the background with Ctrl-C ignored, and every child inherits that.
signal.signal(signal.SIGINT, signal.default_int_handler)

_PROCESSES_MAX = 12  # that run tests at once, each with ports of its own
DYNO = (sys.executable, "-m", "llmdyno")
# These take longest, so they begin first: no worker is left alone with one at the end.
LONGEST = (
    *("tune/test_tuner.py", "tune/test_worker.py", "tune/test_objectives.py"),
    "fronts/test_bentoml.py",
    *(
        "tune/test_word.py",
        "tune/test_combined.py",
        "cli/test_plan.py",
        "predict/test_calibrate.py",
    ),
    *("bench/test_run.py", "fronts/test_triton.py", "embedded/test_build.py"),
    *("load/test_workers.py", "deploy/test_bundle.py", "load/test_open_loop.py"),
    *("serve/test_artifacts.py", "report/test_report_browser.py", "embedded/test_server.py"),
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the files that take longest first."""
    folder = Path(__file__).parent
    rank = {folder / file: number for number, file in enumerate(LONGEST)}
    items.sort(key=lambda item: rank.get(item.path, len(rank)))


@pytest.fixture
def streamer() -> Iterator[Callable[..., str]]:
    """Start servers of known timing: `streamer("--ttft", "50ms")` returns the base URL."""
    started: list[subprocess.Popen[str]] = []

    def start(*arguments: str) -> str:
        process = subprocess.Popen(
            [sys.executable, "-m", "llmdyno.streamer", "--port", "0", *arguments],
            stdout=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        assert process.stdout is not None
        return f"http://127.0.0.1:{json.loads(process.stdout.readline())['port']}"

    yield start
    for process in started:
        process.terminate()
        process.wait(timeout=10)
        assert process.stdout is not None
        process.stdout.close()


@pytest.fixture(scope="session", autouse=True)
def _studies_do_not_meet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Hide the studies of these tests from those of other processes, which would warn of them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_RUNTIME_DIR", str(tmp_path_factory.mktemp("runtime")))
        yield


@pytest.fixture(scope="session", autouse=True)
def _ports_of_its_own() -> Iterator[None]:
    """Let no two processes that run tests find the same port free before either listens on it."""
    number = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")) % _PROCESSES_MAX
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ports, "_PORTS", ports._PORTS[number::_PROCESSES_MAX])
        yield


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate for localhost, signed by itself, with its key in the same file."""
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("needs openssl on the PATH to make a certificate")
    path = tmp_path_factory.mktemp("tls") / "localhost.pem"
    subprocess.run(
        [
            *(openssl, "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"),
            *("-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"),
            *("-keyout", path, "-out", path.with_suffix(".crt")),
        ],
        check=True,
        capture_output=True,
    )
    path.write_bytes(path.read_bytes() + path.with_suffix(".crt").read_bytes())
    return path


@pytest.fixture(scope="session")
def forge() -> Iterator[Forge]:
    """The process that `dyno` is forked from."""
    forge = Forge()
    yield forge
    forge.close()


@pytest.fixture
def dyno(
    forge: Forge,
    whole_dyno: Callable[..., subprocess.CompletedProcess[str]],
    tmp_path: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run `dyno ARGUMENTS` as `whole_dyno` does, but in haste.

    It is forked instead of started, and a benchmark spares its calibration of 2 s.
    """

    def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        spared = ("--no-calibration",) if "--url" in arguments and arguments[0] == "bench" else ()
        given = {**os.environ, **environment}
        if any(
            given.get(name) != os.environ.get(name) for name in given if name.startswith("PYTHON")
        ):
            return whole_dyno(*arguments, *spared, **environment)  # Python reads these as it starts
        files = tmp_path_factory.mktemp("dyno")
        return forge.run((*arguments, *spared), tmp_path, files, given)

    return run


@pytest.fixture
def whole_dyno(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run `dyno ARGUMENTS` in an empty folder and return what came of it."""

    def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*DYNO, *arguments],
            cwd=tmp_path,
            env={**os.environ, **environment},
            capture_output=True,
            text=True,
            timeout=240,
            check=False,
        )

    return run


def last_json(output: str) -> Any:
    """Return the JSON document on the last line of an output."""
    return json.loads(output.splitlines()[-1])
