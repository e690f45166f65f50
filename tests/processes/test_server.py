import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import msgspec
import pytest

from llmdyno.engines import Launch
from llmdyno.errors import ServerError, StorageError
from llmdyno.processes import ports
from llmdyno.processes import server as supervise
from waiting import until

# Answers /health with 200 once AFTER_S have passed, and any POST with STATUS.
SERVER = """
import http.server, sys, time
begin_s = time.monotonic()

class Answers(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.answer(200 if time.monotonic() - begin_s >= AFTER_S else 503, b"")

    def do_POST(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        self.answer(STATUS, b'{"text": "a"}')

    def answer(self, status, body):
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args):
        pass

print("loading the weights", flush=True)
http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Answers).serve_forever()
"""


@pytest.fixture
def launch_of(tmp_path: Path) -> Callable[..., Launch]:
    """Return a function that makes a Launch of Python source."""

    def launch_of(
        source: str, *, after_s: float = 0.0, status: int = 200, **more: object
    ) -> Launch:
        script = tmp_path / "server.py"
        script.write_text(source.replace("AFTER_S", str(after_s)).replace("STATUS", str(status)))
        port = ports.free_port()
        fields = {
            "argv": (sys.executable, "-u", str(script), str(port)),
            "url": f"http://127.0.0.1:{port}",
            "endpoint": "openai-chat",
            "model": "m",
            "probe": ("/v1/chat/completions", {"max_tokens": 1}),
            "start_timeout_s": 20.0,
        }
        return Launch(**{**fields, **more})  # type: ignore[arg-type]

    return launch_of


def alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text("utf-8").rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


def wait_for(true: Callable[[], bool], within_s: float = 15.0) -> bool:
    return bool(until(true, "what is waited for", within_s=within_s))


def test_a_ready_server_has_made_a_token_and_stops(
    launch_of: Callable[..., Launch], tmp_path: Path
) -> None:
    """It becomes ready once its line was told, so that it is told before that."""
    goes_on = tmp_path / "goes_on"
    is_due = f"__import__('os').path.exists({str(goes_on)!r})"
    launch = launch_of(SERVER.replace("time.monotonic() - begin_s >= AFTER_S", is_due))
    told: list[str] = []

    def tell(line: str) -> None:
        told.append(line)
        if line.endswith("loading the weights"):
            goes_on.touch()

    with supervise.start(launch, log=tmp_path / "logs" / "a.log", progress=tell) as server:
        assert server.launch == launch
        assert server.failure() is None
        assert alive(server.pid)
        assert server.ready_s >= 1.0

    assert not alive(server.pid)
    assert server.failure() is None
    server.stop()
    assert told[-1].endswith("s: loading the weights")
    assert (tmp_path / "logs" / "a.log").read_text("utf-8") == "loading the weights\n"


def test_the_pid_is_the_servers_own(launch_of: Callable[..., Launch], tmp_path: Path) -> None:
    with supervise.start(launch_of(SERVER), log=tmp_path / "log") as server:
        command = Path(f"/proc/{server.pid}/cmdline").read_text("utf-8")
        session = os.getsid(server.pid)

    assert "server.py" in command
    assert "leash" not in command
    assert session == server.pid


def test_the_files_of_a_launch_are_there_when_it_starts(
    launch_of: Callable[..., Launch], tmp_path: Path
) -> None:
    settings = tmp_path / "new" / "settings.yaml"
    reads = f"print(open({str(settings)!r}).read(), flush=True)\n"
    launch = launch_of(reads + SERVER, files={str(settings): "max_batch_size: 64"})

    with supervise.start(launch, log=tmp_path / "server.log"):
        assert "max_batch_size: 64" in (tmp_path / "server.log").read_text()


def time_is_up_once(
    happened: Callable[[], bool], monkeypatch: pytest.MonkeyPatch, *, at_once_s: float = 6.0
) -> None:
    """Let time fly for dyno as soon as something has happened, and no moment earlier.

    Args:
        happened: tells.
        monkeypatch: sets the clock.
        at_once_s: passes with each look at the clock, up to an hour; a round of looks may last so
            long.
    """
    monotonic = time.monotonic
    ahead_s = 0.0

    def later() -> float:
        nonlocal ahead_s
        if ahead_s < 3600.0 and happened():
            ahead_s += at_once_s
        return monotonic() + ahead_s

    monkeypatch.setattr("llmdyno.processes.server.time", SimpleNamespace(monotonic=later))


def test_never_healthy_is_a_start_timeout(
    launch_of: Callable[..., Launch], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    launch = launch_of(SERVER, after_s=1e9, start_timeout_s=60.0)
    log = tmp_path / "log"
    time_is_up_once(lambda: log.exists() and bool(log.read_text()), monkeypatch)

    with pytest.raises(ServerError, match=r"within 60 s \(start-timeout\)") as failed:
        supervise.start(launch, log=tmp_path / "log")

    assert failed.value.kind == "start-timeout"
    assert "loading the weights" in str(failed.value)


def test_a_server_that_became_ready_while_we_were_suspended_is_ready(
    launch_of: Callable[..., Launch], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An hour passes for dyno between two looks; the server is there when it looks again."""
    launch = launch_of(SERVER, start_timeout_s=30)
    port = int(launch.url.rpartition(":")[2])

    def listens() -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", port)) == 0

    time_is_up_once(listens, monkeypatch, at_once_s=3600.0)
    with supervise.start(launch, log=tmp_path / "log") as server:
        assert server.failure() is None


def test_the_time_for_which_we_were_stopped_is_none_of_a_starting_servers(
    launch_of: Callable[..., Launch], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The machine sleeps for an hour while the server loads its weights, which goes on then."""
    goes_on = tmp_path / "goes_on"
    is_due = f"__import__('os').path.exists({str(goes_on)!r})"
    source = SERVER.replace("time.monotonic() - begin_s >= AFTER_S", is_due)
    launch = launch_of(source, start_timeout_s=60.0)
    log = tmp_path / "log"
    time_is_up_once(lambda: log.exists() and bool(log.read_text()), monkeypatch, at_once_s=3600.0)

    def tell(line: str) -> None:
        if line.startswith("36"):
            goes_on.touch()

    with supervise.start(launch, log=log, progress=tell) as server:
        assert server.failure() is None


def test_healthy_without_a_token_hangs(
    launch_of: Callable[..., Launch], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = tmp_path / "asked"
    tells = f"def do_POST(self):\n        open({str(asked)!r}, 'w').close()"
    source = SERVER.replace("def do_POST(self):", tells)
    launch = launch_of(source, status=503, start_timeout_s=60.0)
    time_is_up_once(asked.exists, monkeypatch)

    with pytest.raises(ServerError, match="answered 503 when asked for one token") as failed:
        supervise.start(launch, log=tmp_path / "log")

    assert failed.value.kind == "hung"


@pytest.mark.parametrize(
    ("status", "kind"), [(401, "auth"), (404, "model-not-found"), (422, "bad-config")]
)
def test_a_refused_probe_is_not_waited_for(
    status: int, kind: str, launch_of: Callable[..., Launch], tmp_path: Path
) -> None:
    with pytest.raises(ServerError, match=f"answers {status}") as failed:
        supervise.start(launch_of(SERVER, status=status), log=tmp_path / "log")

    assert failed.value.kind == kind


@pytest.mark.parametrize(
    ("source", "kind", "said"),
    [
        ("raise MemoryError", "out-of-memory", "MemoryError"),
        ("import no_such_module", "missing-library", "No module named 'no_such_module'"),
        ("raise SystemExit('OSError: [Errno 98] Address already in use')", "port-in-use", "98"),
        ("raise SystemExit('x is not a local folder and is not a valid model')",
         "model-not-found", "local folder"),
        ("raise SystemExit('GatedRepoError: ask for access')", "auth", "GatedRepo"),
        ("raise SystemExit('Socket 127.0.0.1:8000 already in use')", "port-in-use", "Socket"),
        ("raise SystemExit('x.so: undefined symbol: f')", "missing-library", "undefined"),
        ("raise SystemExit('error: unexpected argument --max-seqs')", "bad-config", "--max-seqs"),
        ("raise SystemExit('you must accept the license of x')", "auth", "license"),
        ("raise ValueError('max_num_seqs must be positive')", "bad-config", "max_num_seqs"),
        ("print('\\x1b[31mred\\x1b[0m'); raise SystemExit(7)", "died", "exit status 7"),
        ("import os; os.kill(os.getpid(), 11)", "died", "SIGSEGV"),
        ("raise SystemExit('the lamp is dark')", "bad-config", "lamp"),
    ],
)  # fmt: skip
def test_death_at_the_start_is_classified(
    source: str, kind: str, said: str, launch_of: Callable[..., Launch], tmp_path: Path
) -> None:
    launch = launch_of(source, symptoms=((r"lamp is \w+", "bad-config"),), start_timeout_s=60.0)
    begin_s = time.monotonic()

    with pytest.raises(ServerError) as failed:
        supervise.start(launch, log=tmp_path / "log")

    assert failed.value.kind == kind
    assert said in str(failed.value)
    assert str(tmp_path / "log") in str(failed.value)
    assert "\x1b" not in str(failed.value)
    assert time.monotonic() - begin_s < 30.0


def test_a_missing_program(launch_of: Callable[..., Launch], tmp_path: Path) -> None:
    launch = launch_of("", argv=("/no/such/program",))

    with pytest.raises(ServerError, match="cannot start /no/such/program") as failed:
        supervise.start(launch, log=tmp_path / "log")

    assert failed.value.kind == "missing-library"


def test_a_taken_port_is_noticed_before_the_start(
    launch_of: Callable[..., Launch], tmp_path: Path
) -> None:
    launch = launch_of(SERVER)
    with (
        supervise.start(launch, log=tmp_path / "first.log"),
        pytest.raises(ServerError, match="another program listens") as failed,
    ):
        supervise.start(launch, log=tmp_path / "second.log")

    assert failed.value.kind == "port-in-use"


def test_death_later_is_noticed_at_once(launch_of: Callable[..., Launch], tmp_path: Path) -> None:
    with supervise.start(launch_of(SERVER), log=tmp_path / "log") as server:
        os.kill(server.pid, signal.SIGTERM)
        server.wait(30.0)
        failure = server.failure()

    assert failure is not None
    assert failure.kind == "died"
    assert "SIGTERM" in str(failure)
    assert server.failure() is failure


def test_a_server_that_ignores_sigterm_is_killed(
    launch_of: Callable[..., Launch], tmp_path: Path
) -> None:
    source = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN)" + SERVER
    server = supervise.start(launch_of(source), log=tmp_path / "log")

    server.stop(grace_s=0.2)

    assert not alive(server.pid)


STUBBORN_GRANDCHILD = """
import pathlib, subprocess, sys
child = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(1, flush=True)"
grandchild = subprocess.Popen(
    [sys.executable, "-c", child + "; time.sleep(600)"], start_new_session=True,
    stdout=subprocess.PIPE,
)
grandchild.stdout.readline()
pathlib.Path(__file__).with_name("grandchild").write_text(str(grandchild.pid))
"""


def test_a_stubborn_grandchild_in_a_session_of_its_own_is_killed(
    launch_of: Callable[..., Launch], tmp_path: Path
) -> None:
    launch = launch_of(STUBBORN_GRANDCHILD + SERVER)
    server = supervise.start(launch, log=tmp_path / "log")
    grandchild = int((tmp_path / "grandchild").read_text("utf-8"))
    assert alive(grandchild)

    server.stop(grace_s=0.5)

    assert not alive(grandchild)
    assert not alive(server.pid)


def test_what_a_dead_server_leaves_is_killed(
    launch_of: Callable[..., Launch], tmp_path: Path
) -> None:
    launch = launch_of(STUBBORN_GRANDCHILD + "raise SystemExit(3)")

    with pytest.raises(ServerError, match="exit status 3"):
        supervise.start(launch, log=tmp_path / "log")

    assert not alive(int((tmp_path / "grandchild").read_text("utf-8")))


DYNO = """
import pathlib, sys, time, msgspec
from llmdyno.processes import server as supervise
from llmdyno.engines import Launch
launch = msgspec.json.decode(pathlib.Path(sys.argv[1]).read_bytes(), type=Launch)
server = supervise.start(launch, log=pathlib.Path(sys.argv[1] + ".log"))
print(server.pid, server.leash_pid, flush=True)
time.sleep(600)
"""


@pytest.mark.parametrize("victim", ["dyno", "leash"])
def test_kill_9_leaves_nothing(
    victim: str, launch_of: Callable[..., Launch], tmp_path: Path
) -> None:
    source = SERVER if victim == "leash" else STUBBORN_GRANDCHILD + SERVER
    (tmp_path / "launch.json").write_bytes(msgspec.json.encode(launch_of(source)))
    with subprocess.Popen(
        [sys.executable, "-c", DYNO, str(tmp_path / "launch.json")], stdout=subprocess.PIPE
    ) as dyno:
        assert dyno.stdout is not None
        server, leash = map(int, dyno.stdout.readline().split())
        assert alive(server)

        os.kill(dyno.pid if victim == "dyno" else leash, signal.SIGKILL)

        assert wait_for(lambda: not alive(server))
        assert wait_for(lambda: not alive(leash))
        dyno.kill()
    if victim == "dyno":
        grandchild = int((tmp_path / "grandchild").read_text("utf-8"))
        assert wait_for(lambda: not alive(grandchild))


def test_secrets_stay_out_of_messages(
    launch_of: Callable[..., Launch], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MY_API_KEY", "/secret-of-ours")
    source = "import os; raise ValueError(os.environ['A'], os.environ['MY_API_KEY'], 'tail')"

    with pytest.raises(ServerError) as failed:
        supervise.start(launch_of(source, environment={"A": "hf_abcdef"}), log=tmp_path / "log")

    assert "'tail'" in str(failed.value)
    assert "hf_abcdef" not in str(failed.value)
    assert "/secret-of-ours" not in str(failed.value)


NVIDIA_SMI = """#!/bin/sh
case "$1" in *index,memory.used,utilization.gpu,mig*) printf '%s\\n' "LINES" ;; esac
"""
SHOWS_GPUS = "import os; print(os.environ.get('CUDA_VISIBLE_DEVICES'), flush=True)"


@pytest.mark.parametrize(
    ("gpus", "lines", "chosen", "seen"),
    [
        (1, ("0, 70000, 99, Disabled", "1, 4, 0, Disabled", "2, 4, 7, Disabled"), None, "1"),
        (2, ("0, 70000, 99, Disabled", "1, 4, 0, Disabled", "2, 4, 7, Disabled"), None, "1,2"),
        (1, ("0, 4, 0, Disabled", "1, 0, 0, [N/A]"), "0", "0"),
        (2, ("0, 4, 0, Disabled",), None, "None"),
        (1, ("0, 4, 0, Enabled", "1, 4, 0, Enabled"), None, "None"),
        (0, ("0, 4, 0, Disabled",), None, "None"),
    ],
)
def test_the_least_used_gpus_are_picked_unless_the_user_has(
    gpus: int,
    lines: tuple[str, ...],
    chosen: str | None,
    seen: str,
    launch_of: Callable[..., Launch],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    program = tmp_path / "nvidia-smi"
    program.write_text(NVIDIA_SMI.replace("LINES", "\n".join(lines)))
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if chosen is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", chosen)

    with supervise.start(launch_of(SHOWS_GPUS + SERVER, gpus=gpus), log=tmp_path / "log"):
        pass

    assert (tmp_path / "log").read_text("utf-8").splitlines()[0] == seen


def test_an_unwritable_log(launch_of: Callable[..., Launch], tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")

    with pytest.raises(StorageError, match="cannot write the server's log"):
        supervise.start(launch_of(SERVER), log=tmp_path / "file" / "log")


FOREGROUND = """
import pathlib, signal, sys, msgspec
signal.signal(signal.SIGHUP, signal.SIG_DFL)  # whoever runs the tests may ignore it
from llmdyno.processes import server as supervise
from llmdyno.engines import Launch
launch = msgspec.json.decode(pathlib.Path(sys.argv[1]).read_bytes(), type=Launch)
sys.exit(supervise.foreground(launch, announce=lambda text: print(text, flush=True)))
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_foreground_stops_cleanly(
    number: signal.Signals, launch_of: Callable[..., Launch], tmp_path: Path
) -> None:
    launch = launch_of(SERVER)
    (tmp_path / "launch.json").write_bytes(msgspec.json.encode(launch))
    with subprocess.Popen(
        [sys.executable, "-c", FOREGROUND, str(tmp_path / "launch.json")],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    ) as dyno:  # fmt: skip
        assert dyno.stdout is not None
        ready = dyno.stdout.readline()
        example = dyno.stdout.readline()
        dyno.send_signal(number)
        rest, logged = dyno.communicate(timeout=30)

    assert (dyno.returncode, rest, logged) == (0, "", "loading the weights\n")
    assert ready.startswith("ready after ")
    assert ready.rstrip().endswith(f" at {launch.url}")
    asked = subprocess.run(["bash", "-n", "-c", example], check=False)
    assert asked.returncode == 0
    assert "/v1/chat/completions" in example


def test_foreground_tells_why_the_server_died(
    launch_of: Callable[..., Launch], capfd: pytest.CaptureFixture[str]
) -> None:
    told: list[str] = []

    status = supervise.foreground(launch_of("raise MemoryError('no room')"), announce=told.append)

    assert status == 3
    assert "(out-of-memory)" in told[0]
    assert "MemoryError: no room" in told[0]
    assert "MemoryError: no room" in capfd.readouterr().err
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
