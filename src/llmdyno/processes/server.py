"""Start a server, wait until it makes a token, see at once when it dies, leave nothing behind.

One supervisor for all engines and fronts: they say what to start (a Launch), this module does the
starting. `dyno serve` runs it in the foreground, the tuner once for each trial; serve/artifacts.py
has it run the steps of builds. A failure has a class, found in the log, because a tuner must tell
a config that needs too much memory from a machine whose port is taken. Every process runs behind a
leash (leash.py), so that neither a crash of dyno nor a kill -9 leaves one that holds the GPU.
"""

import contextlib
import errno
import http.client
import os
import random
import re
import secrets
import select
import shlex
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit

import msgspec

from llmdyno import store
from llmdyno.errors import ServerError, StorageError, UsageError
from llmdyno.machine import hardware
from llmdyno.processes import spawn
from llmdyno.processes.launch import Launch, Step

FAILURES: Mapping[str, str] = {
    "bad-config": "the engine refused a setting",
    "out-of-memory": "there was not enough memory, of the GPU or of the machine",
    "missing-library": "a program, package or shared library that it needs is not installed",
    "port-in-use": "another program listens on its port",
    "model-not-found": "the model is not there",
    "auth": "the model's source refused the credentials",
    "disk-full": "there is no space left on the disk",
    "start-timeout": "it was not ready in time",
    "died": "it ended without a reason that we know",
    "hung": "it runs but does not answer",
}

# What engines, Python and the kernel say; tried after the engine's own symptoms, first match wins.
_SYMPTOMS: Sequence[tuple[str, str]] = (
    (r"(?i)CUDA out of memory|OutOfMemoryError|\bout of memory\b", "out-of-memory"),
    (r"\bbad_alloc\b|^MemoryError|Cannot allocate memory", "out-of-memory"),
    (r"cudaErrorMemoryAllocation|No available memory for the cache", "out-of-memory"),
    (r"No space left on device|ENOSPC|Disk quota exceeded", "disk-full"),
    (
        r"(?i)\b(address|socket|port)\b.* already in use|EADDRINUSE|port \d+ is already",
        "port-in-use",
    ),
    (r"ModuleNotFoundError|ImportError|cannot open shared object file", "missing-library"),
    # Not where Triton warns of it: it does so at every start without a GPU.
    (r"^(?![WE]\d{4} ).*(no NVIDIA driver|CUDA driver version is insuff)", "missing-library"),
    (r"undefined symbol", "missing-library"),
    (r"command not found|^cannot start .*: No such file", "missing-library"),
    (r"GatedRepoError|gated repo|\b401 (Client Error|Unauthorized)|\b403 Forbidden", "auth"),
    (r"(?i)accept the (model's )?licen[cs]e|licen[cs]e agreement|invalid credentials", "auth"),
    (r"RepositoryNotFound|is not a local folder and is not a valid model", "model-not-found"),
    (r"(?i)model\S* .*(not found|does not exist)", "model-not-found"),
    (r"No such file .*(model|\.gguf|config\.json)", "model-not-found"),
    (r"unrecognized arguments|invalid choice|error: argument", "bad-config"),
    (r"(?i)no such option|unexpected argument|unknown (option|flag|argument)", "bad-config"),
    (r"the following arguments are required|ValidationError|\bValueError\b", "bad-config"),
    (r"(?i)invalid (value|option|argument)", "bad-config"),
)
_SECRET_NAME = re.compile(r"TOKEN|KEY|SECRET|PASSW|CREDENTIAL|AUTH", re.IGNORECASE)
_TERMINAL_CODES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
_TAIL_BYTES = 64 * 1024
_HEALTH_TIMEOUT_S = 5.0
_PORTS = range(20_000, 32_000, 4)  # below what Linux gives to clients, from 32768 on
_REFUSALS = 5  # so many refused probes in a row are an answer, not a start in progress
_STOP_GRACE_S = 10.0
_MARK = "LLMDYNO_SERVER"  # a variable that all that stems from a server inherits
_ROUNDS = 40  # of killing what a killed leash has left
_PROGRESS_S = 10.0  # between words on a build, which may take an hour
_KILL_S = (
    30.0  # what the leash takes at most once the grace is over, a container's removal included
)


class _Leashed:
    """A process and the leash that it runs on; leaving the context stops it."""

    called = "The command"

    def __init__(self, command: Launch | Step, output: int, tail: Callable[[], bytes]) -> None:
        self.pid = 0
        self._command = command
        self._tail = tail
        self._said = b""
        self._begin_s = time.monotonic()
        self._oom_kills = _oom_kills()
        self._failure: ServerError | None = None
        self._stopped = False
        argv, self._removal = _by_name(command)
        token = secrets.token_hex(8)
        self._mark = f"{_MARK}={token}"
        self._leash, self._line = spawn.start(
            argv,
            environment={**_gpus(command), **command.environment, _MARK: token},
            stdout=output,
            afterwards=self._removal,
        )
        self._hear(_HEALTH_TIMEOUT_S)  # the pid comes first

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    def failure(self) -> ServerError | None:
        """Return how it failed, or None while it is alive or when we have stopped it."""
        if self._failure is None and not self._stopped and self._hear(0.0):
            self._failure = self._why_it_ended()
        return self._failure

    def ended(self) -> bool:
        """Return whether it has ended by itself."""
        return self._hear(0.0)

    def succeeded(self) -> bool:
        """Return whether it ended with exit status 0."""
        return self._said.endswith(b"\nexit 0\n")

    def wait(self, timeout_s: float) -> None:
        """Return after so long, or as soon as it ends."""
        if self._failure is None and not self._stopped:
            select.select([self._line], [], [], timeout_s)

    def stop(self, *, grace_s: float = _STOP_GRACE_S) -> None:
        """End the process and all that stems from it: SIGTERM, and SIGKILL after the grace.

        Raises:
            ServerError: a process cannot even be killed; it hangs in the kernel.
        """
        if self._stopped:
            return
        self.failure()  # what died before we asked has failed
        self._stopped = True
        with contextlib.suppress(OSError):  # the leash is gone, and so is the server
            self._line.sendall(f"{grace_s}\n".encode())
        try:
            self._leash.wait(timeout=grace_s + _KILL_S)
        except subprocess.TimeoutExpired:
            raise ServerError("hung", f"Process {self.pid} could not be killed.") from None
        finally:
            self._line.close()
            if self._leash.returncode not in {0, 1}:
                self._end_without_leash()

    def _end_without_leash(self) -> None:
        """Do what the leash would have done, had it not been killed: nothing holds them together.

        The kernel has killed the server, not what that had started; those bear our mark, or are of
        its session if they have written over their environment.
        """
        for _ in range(_ROUNDS):
            found = [pid for pid in _pids() if self._is_ours(pid)]
            for pid in found:
                with contextlib.suppress(OSError):  # gone by itself
                    os.kill(pid, signal.SIGKILL)
            if not found:
                break
            time.sleep(0.05)
        removal, self._removal = self._removal, ()
        if removal:
            with contextlib.suppress(OSError, subprocess.TimeoutExpired):
                subprocess.run(removal, capture_output=True, check=False, timeout=_KILL_S)

    def _is_ours(self, pid: int) -> bool:
        try:
            state, _, _, session = (
                Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[:4]
            )
            if state == "Z":  # dead; whoever its parent is now has not looked yet
                return False
            if self.pid and int(session) == self.pid:
                return True
            return self._mark.encode() in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
        except OSError:  # gone, or another user's
            return False

    def last_lines(self) -> list[str]:
        """Return what it wrote last, secrets blotted out."""
        return _redact(_lines(self._tail()), self._command)

    def _hear(self, timeout_s: float) -> bool:
        """Read what the leash has to say; return whether that is the end."""
        ending = re.compile(rb"^(exit|signal|lost)\b.*\n", re.MULTILINE)
        if not ending.search(self._said) and select.select([self._line], [], [], timeout_s)[0]:
            said = self._line.recv(256)
            self._said += said or b"lost\n"  # end of file: the leash was killed
        pid = re.match(rb"pid (\d+)\n", self._said)
        if pid:
            self.pid = int(pid[1])
        return ending.search(self._said) is not None

    def _why_it_ended(self) -> ServerError:
        lived_s = time.monotonic() - self._begin_s
        ending = self._said.decode().splitlines()[-1]
        how, _, number = ending.partition(" ")
        if how == "signal":
            words = f"was killed by {signal.Signals(int(number)).name}"
        elif how == "exit":
            words = f"ended with exit status {number}"
        else:
            words = "lost its leash"
            self._leash.wait()
            self._end_without_leash()  # at once, so that its output ends
        kind, quoted = _diagnose(self.last_lines(), self._command)
        # The kernel leaves no word in the log; where it does not count, SIGKILL is its signature.
        counted = _oom_kills()
        if counted is None:
            killed_by_kernel = ending in {"signal 9", "exit 137"}
        else:
            killed_by_kernel = counted > (self._oom_kills or 0)
        if kind == "died" and killed_by_kernel:
            kind = "out-of-memory"
        return ServerError(
            kind, f"{self.called} {words} after {lived_s:.1f} s: {FAILURES[kind]} ({kind}).{quoted}"
        )


class Server(_Leashed):
    """A running server."""

    called = "The server"

    def __init__(self, launch: Launch, output: int, tail: Callable[[], bytes]) -> None:
        """Start it.

        Raises:
            ServerError: the port is taken. Somebody else's server would pass for ours.
            StorageError: a file that it reads cannot be written.
        """
        address = urlsplit(launch.url)
        with contextlib.suppress(OSError):
            socket.create_connection((address.hostname, address.port), timeout=1.0).close()
            raise ServerError(
                "port-in-use", f"{launch.url}: {FAILURES['port-in-use']} already (port-in-use)."
            )
        for path, text in launch.files.items():
            store.make_folder(Path(path).parent)
            store.write_atomically(Path(path), text.encode())
        self.launch = launch
        self.ready_s = 0.0
        super().__init__(launch, output, tail)

    def answers(self, timeout_s: float) -> bool:
        """Return whether it makes a token within so long."""
        return (
            _ask(self.launch, "GET", self.launch.health_path, None, timeout_s) == 200
            and _probe(self.launch, timeout_s) == 200
        )


def free_port(host: str = "127.0.0.1") -> int:
    """Return a port that nobody listens on now, nor its two neighbours above.

    None of those from which the kernel serves clients: one of theirs may be taken before our server
    has started, which a busy load generator beside it makes likely.

    Raises:
        ServerError: there is none.
    """
    for port in random.sample(_PORTS, len(_PORTS)):
        with contextlib.suppress(OSError), contextlib.ExitStack() as held:
            for neighbour in (port, port + 1, port + 2):
                held.enter_context(socket.create_server((host, neighbour)))
            return port
    raise ServerError("port-in-use", f"no free port from {_PORTS[0]} to {_PORTS[-1]} on {host}.")


def require_free(host: str, port: int) -> None:
    """Refuse an address that a server could not listen on, before anything is built for it.

    Raises:
        UsageError: the port is taken or kept for root, or the host is not this machine.
    """
    if not host:
        raise UsageError("--host: is empty; give 127.0.0.1, or 0.0.0.0 for all addresses.")
    try:
        # Like servers do: a port whose last connections have just ended is free.
        socket.create_server((host, port)).close()
    except OSError as error:
        where = f"--host {host} --port {port}"
        if error.errno == errno.EADDRINUSE:
            raise UsageError(
                f"{where}: another program listens there; name another port."
            ) from error
        if error.errno == errno.EACCES:
            raise UsageError(f"{where}: ports below 1024 are root's; name a higher one.") from error
        raise UsageError(
            f"{where}: that is no IPv4 address of this machine; give 127.0.0.1, or 0.0.0.0 for all"
            " of them."
        ) from error


def start(launch: Launch, *, log: Path, progress: Callable[[str], None] | None = None) -> Server:
    """Start a server, its output going to the log file, and return it once it has made a token.

    Args:
        launch: what to start, and how to see that it is ready.
        log: a new file for what the server writes.
        progress: told, about once a second, how long it has been and what the log says.

    Raises:
        ServerError: it did not get ready; nothing of it is left.
        StorageError: the log cannot be written.
    """
    try:
        log.parent.mkdir(parents=True, exist_ok=True)
        output = log.open("wb")
    except OSError as error:
        raise StorageError(f"{log}: cannot write the server's log: {error.strerror}.") from error
    with output:
        server = Server(launch, output.fileno(), lambda: _end_of(log))
    try:
        _wait_until_ready(server, progress)
    except ServerError as error:
        server.stop()
        raise ServerError(error.kind, f"{error} Log: {log}") from None
    except BaseException:
        server.stop()
        raise
    return server


def foreground(launch: Launch, *, announce: Callable[[str], None]) -> int:
    """Run a server until it is stopped by a signal; return dyno's exit status.

    What the server writes goes to stderr. `announce` is told when it is ready, with a request to
    try, and when it dies, with the reason. To be called from the main thread: it takes SIGINT,
    SIGTERM and SIGHUP for itself.
    """
    recent = bytearray()
    read, write = os.pipe()
    copier = threading.Thread(target=_copy_to_stderr, args=(read, recent), daemon=True)

    def tail() -> bytes:
        copier.join(timeout=1.0)  # asked for once the server is dead: let the pipe run dry
        return bytes(recent)

    # A closed terminal stops it, too, unless nohup has said otherwise.
    hangs_up = signal.getsignal(signal.SIGHUP) == signal.SIG_DFL
    numbers = (signal.SIGINT, signal.SIGTERM, *((signal.SIGHUP,) if hangs_up else ()))
    before = [signal.signal(number, signal.default_int_handler) for number in numbers]
    try:
        copier.start()
        with os.fdopen(write, "wb") as output:
            server = Server(launch, output.fileno(), tail)
        with server:
            _wait_until_ready(server, None)
            announce(f"ready after {server.ready_s:.1f} s at {launch.url}{_example(launch)}")
            while (failure := server.failure()) is None:
                server.wait(60.0)
        raise failure
    except KeyboardInterrupt:
        return 0
    except ServerError as error:
        announce(str(error))
        return error.exit_status
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)


def is_secret(name: str) -> bool:
    """Return whether a variable of that name holds a secret."""
    return _SECRET_NAME.search(name) is not None


def run_step(step: Step, *, log: Path, progress: Callable[[str], None]) -> None:
    """Run a command of a build to its end, its output going to the end of the log file.

    Raises:
        ServerError: it failed; nothing of it is left.
        StorageError: the log cannot be written.
    """
    begin_s = time.monotonic()
    try:
        output = log.open("ab")
    except OSError as error:
        raise StorageError(f"{log}: cannot write the build's log: {error.strerror}.") from error
    with output:
        before = output.tell()
        command = _Leashed(step, output.fileno(), lambda: _end_of(log, before))
    with command:
        command.wait(_PROGRESS_S)
        while not command.ended():
            last = "".join(command.last_lines()[-1:])
            progress(f"{step.what}, {time.monotonic() - begin_s:.0f} s: {last}")
            command.wait(_PROGRESS_S)
        failure = None if command.succeeded() else command.failure()
    if failure is not None:
        raise ServerError(failure.kind, f"{step.what}: {failure} Log: {log}")


def _by_name(command: Launch | Step) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Give a container a name; return the command with it, and the one that removes it.

    The name is not the launch's: a launch may be started again, and a script may hold a step.
    """
    if not command.runtime:
        return command.argv, ()
    name = f"llmdyno-{os.getpid()}-{secrets.token_hex(4)}"
    program, run, *rest = command.argv
    # docker kills at once; podman asks first, and the server has been asked already.
    at_once = ("--time", "0") if command.runtime == "podman" else ()
    return (program, run, "--name", name, *rest), (program, "rm", "--force", *at_once, name)


def _pids() -> list[int]:
    return [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()]


def _gpus(command: Launch | Step) -> dict[str, str]:
    """Return what lets a server see the GPUs that others use least; nothing if the user chose."""
    wanted = command.gpus if isinstance(command, Launch) else 0
    if not wanted or "CUDA_VISIBLE_DEVICES" in os.environ:
        return {}
    indices = hardware.least_used_gpus(wanted)
    if not indices:
        return {}
    # Indices, as not every engine reads UUIDs; CUDA's own order of them is another one.
    return {
        "CUDA_DEVICE_ORDER": "PCI_BUS_ID",
        "CUDA_VISIBLE_DEVICES": ",".join(map(str, indices)),
    }


def _wait_until_ready(server: Server, progress: Callable[[str], None] | None) -> None:
    launch = server.launch
    begin_s = time.monotonic()
    deadline_s = begin_s + launch.start_timeout_s
    told_s, refusals, healthy, status = begin_s, 0, False, None
    while True:
        now_s = time.monotonic()
        if failure := server.failure():
            raise failure
        if now_s > deadline_s:
            raise _too_late(server, healthy=healthy, status=status)
        healthy = healthy or _ask(launch, "GET", launch.health_path, None, _HEALTH_TIMEOUT_S) == 200
        if healthy:
            status = _probe(launch, deadline_s - now_s)
            if status == 200 and server.failure() is None:
                server.ready_s = time.monotonic() - begin_s
                return
            refusals = refusals + 1 if status is not None and 400 <= status < 500 else 0
            if refusals == _REFUSALS and status is not None:
                raise _refused(server, status)
        if progress and now_s - told_s >= 1.0:
            told_s = now_s
            progress(f"{now_s - begin_s:.0f} s: {''.join(server.last_lines()[-1:])}")
        # Often at first, for what starts at once; seldom later, not to disturb a slow start.
        server.wait(min(0.5, 0.02 + (now_s - begin_s) / 10))


def _probe(launch: Launch, timeout_s: float) -> int | None:
    if launch.probe is None:
        return 200
    path, body = launch.probe
    return _ask(launch, "POST", path, msgspec.json.encode(body), timeout_s)


def _ask(
    launch: Launch, method: str, path: str, body: bytes | None, timeout_s: float
) -> int | None:
    """Return the status of the reply, or None without a complete reply."""
    address = urlsplit(launch.url)
    assert address.hostname is not None
    # Not urllib: a proxy in the environment has no business between us and our own server.
    connection = http.client.HTTPConnection(
        address.hostname, address.port, timeout=max(0.1, timeout_s)
    )
    headers = {"Content-Type": "application/json"} if body is not None else {}
    try:
        connection.request(method, address.path.rstrip("/") + path, body, headers)
        reply = connection.getresponse()
        empty = not reply.read() and body is not None
        return None if empty else reply.status
    except (OSError, http.client.HTTPException):
        return None
    finally:
        connection.close()


def _too_late(server: Server, *, healthy: bool, status: int | None) -> ServerError:
    launch = server.launch
    limit = f"{launch.start_timeout_s:g} s"
    if not healthy:
        return _start_failure(
            server,
            "start-timeout",
            f"The server did not answer 200 on {launch.url}{launch.health_path} within {limit}",
        )
    reply = "did not answer" if status is None else f"answered {status}"
    return _start_failure(
        server, "hung", f"The server is up but {reply} when asked for one token, within {limit}"
    )


def _refused(server: Server, status: int) -> ServerError:
    kind = {401: "auth", 403: "auth", 404: "model-not-found"}.get(status, "bad-config")
    path = server.launch.probe[0] if server.launch.probe else ""
    return _start_failure(
        server,
        kind,
        f"The server is up but answers {status} on {path} when asked for one token of model"
        f" '{server.launch.model}'",
    )


def _start_failure(server: Server, kind: str, sentence: str) -> ServerError:
    _, quoted = _diagnose(server.last_lines(), server.launch)
    return ServerError(kind, f"{sentence} ({kind}).{quoted}")


def _diagnose(lines: Sequence[str], command: Launch | Step) -> tuple[str, str]:
    """Return the class of a failure and the lines that decide it, ready to be printed."""
    for pattern, kind in (*command.symptoms, *_SYMPTOMS):
        # The last line that matches: engines write what they survived before what killed them.
        for line in reversed(lines):
            if re.search(pattern, line):
                return kind, _quote([line])
    return "died", _quote(lines[-3:])


def _quote(lines: Sequence[str]) -> str:
    if not lines:
        return " It wrote nothing."
    return "".join(f"\n    {line[:500]}" for line in lines) + "\n"


def _lines(raw: bytes) -> list[str]:
    """Return the lines without terminal colours; each state of a progress bar is a line."""
    text = _TERMINAL_CODES.sub("", raw.decode(errors="replace"))
    return [line.rstrip() for line in re.split(r"[\r\n]+", text) if line.strip()]


def _redact(lines: Sequence[str], command: Launch | Step) -> list[str]:
    """Blot out what the environment may hold of secrets; a path that is no secret stays."""
    hidden = [value for name, value in os.environ.items() if is_secret(name)]
    hidden += [
        value
        for name, value in command.environment.items()
        if is_secret(name) or not value.startswith("/")
    ]
    # Nothing shorter than six characters is a secret, and "1" would blot out every number.
    hidden = sorted({secret for secret in hidden if len(secret) >= 6}, key=len, reverse=True)
    if not hidden:
        return list(lines)
    pattern = re.compile("|".join(re.escape(secret) for secret in hidden))
    return [pattern.sub("•••", line) for line in lines]


def _oom_kills() -> int | None:
    """Return how often the kernel has killed for want of memory; None where it does not say."""
    try:
        found = re.search(r"^oom_kill (\d+)", Path("/proc/vmstat").read_text("utf-8"), re.MULTILINE)
    except OSError:
        return None
    return int(found[1]) if found else None


def _end_of(log: Path, begin: int = 0) -> bytes:
    with log.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(begin, size - _TAIL_BYTES))
        return file.read()


def _copy_to_stderr(source: int, recent: bytearray) -> None:
    with os.fdopen(source, "rb", buffering=0) as pipe:
        while chunk := pipe.read(_TAIL_BYTES):
            recent += chunk
            del recent[:-_TAIL_BYTES]
            # A closed terminal must not stop the server, which would block on a full pipe.
            with contextlib.suppress(OSError):
                sys.stderr.buffer.write(chunk)
                sys.stderr.buffer.flush()


def _example(launch: Launch) -> str:
    if launch.probe is None:
        return ""
    path, body = launch.probe
    request = shlex.quote(msgspec.json.encode(body).decode())
    return f"\n  curl {launch.url}{path} -H 'Content-Type: application/json' -d {request}"
