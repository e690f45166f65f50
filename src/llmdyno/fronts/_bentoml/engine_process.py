"""The engine behind the service: started with BentoML, kept alive, never left behind.

`keep` runs once, in BentoML's own process before it starts its workers (service.py calls it). One
engine serves all workers, so a worker may die and come back without a model being loaded again. The
engine runs behind llmdyno's leash: copies of spawn.py and leash.py lie beside this file. When
BentoML dies, however it dies, the engine and all that stems from it end. The workers read the
engine's state from a piece of memory that BentoML's process holds.

Nothing here needs llmdyno: this folder is a Bento by itself.
"""

import contextlib
import dataclasses
import http.client
import json
import os
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

from .spawn import OnLeash

State = Literal["starting", "ready", "dead", "failed"]

_STATE = "LLMDYNO_ENGINE_STATE"  # where the workers find the state
_STATE_BYTES = 16
_ASK_TIMEOUT_S = 5.0
_LOOK_S = 0.1  # how often a starting engine is polled
_STOP_GRACE_S = 5.0
_STEADY_S = 60.0  # an engine that has run so long gets its full number of restarts back
_NOTICE_S = 0.5  # how long /livez answers 503 before the service ends
_WORKERS_LOOK_S = 0.5


@dataclasses.dataclass(frozen=True, kw_only=True)
class Spec:
    """What spec.json says: the engine to start, and how to serve it."""

    argv: list[str]
    url: str
    model: str
    health_path: str
    probe: list[Any] | None  # a POST that makes one token: path and body
    start_timeout_s: float
    engine_restarts: int
    engine_backoff_s: float
    service_workers: int
    max_concurrency: int | None
    request_timeout_s: float
    access_log: bool


def read_spec() -> Spec:
    """Read spec.json, which stands beside this file."""
    return Spec(**json.loads(Path(__file__).with_name("spec.json").read_text("utf-8")))


def keep(spec: Spec) -> None:
    """Start the engine and keep it alive, in the background of BentoML's process."""
    memory = os.memfd_create("engine-state")
    os.environ[_STATE] = f"/proc/{os.getpid()}/fd/{memory}"  # the workers get a copy
    _set_state(memory, "starting")
    threading.Thread(target=_keep, args=(spec, memory), daemon=True).start()
    threading.Thread(target=_watch_workers, daemon=True).start()


def state() -> State:
    """Return the engine's state, in a worker."""
    try:
        word: Any = Path(os.environ[_STATE]).read_text("utf-8").strip()
    except OSError:  # BentoML's process is gone, and so is the engine
        return "dead"
    return word  # type: ignore[no-any-return]


def _set_state(memory: int, word: State) -> None:
    os.pwrite(memory, word.ljust(_STATE_BYTES).encode(), 0)


def _keep(spec: Spec, memory: int) -> None:
    restarts, was_ready = 0, False
    while True:
        _set_state(memory, "starting")
        begin_s = time.monotonic()
        engine = _start(spec.argv)
        ready = _becomes_ready(spec, engine)
        if ready:
            was_ready = True
            _set_state(memory, "ready")
            _say(f"the engine is ready after {time.monotonic() - begin_s:.1f} s")
            engine.ended(None)
        _set_state(memory, "dead")
        lived_s = time.monotonic() - begin_s
        how = f"the engine {_end(engine)} after {lived_s:.1f} s"
        restarts = 0 if ready and lived_s > _STEADY_S else restarts
        # An engine that has never become ready will not do so the next time either.
        if not was_ready or restarts == spec.engine_restarts:
            _set_state(memory, "failed")
            _say(f"{how}; {f'{restarts} restarts were all' if was_ready else 'it never was ready'}")
            time.sleep(_NOTICE_S)
            os._exit(1)  # the engine has ended; the workers end with this process
        pause_s = spec.engine_backoff_s * 2**restarts
        restarts += 1
        _say(f"{how}; restart {restarts} of {spec.engine_restarts} in {pause_s:g} s")
        time.sleep(pause_s)


def _start(argv: list[str]) -> OnLeash:
    """Start the engine on its leash."""
    program, *arguments = argv
    # In a Bento the program is called "python": which one, is known here.
    command = [sys.executable if program == "python" else program, *arguments]
    # prometheus_client would take BentoML's folder for its own.
    hidden = {"PROMETHEUS_MULTIPROC_DIR", _STATE}
    environment = {name: text for name, text in os.environ.items() if name not in hidden}
    return OnLeash(command, environment=environment, output=None)


def _end(engine: OnLeash) -> str:
    """Leave nothing of the engine running, and return in words how it ended."""
    alive = not engine.ended()
    engine.stop(grace_s=_STOP_GRACE_S)
    return "was not ready in time (start-timeout)" if alive else str(engine.ending_in_words)


def _becomes_ready(spec: Spec, engine: OnLeash) -> bool:
    """Wait until the engine has made a token; return whether it has."""
    deadline_s = time.monotonic() + spec.start_timeout_s
    while time.monotonic() < deadline_s:
        if _ask(spec, "GET", spec.health_path, None, _ASK_TIMEOUT_S) == 200:
            if spec.probe is None:
                return True
            path, body = spec.probe
            if _ask(spec, "POST", path, json.dumps(body), deadline_s - time.monotonic()) == 200:
                return True
        if engine.ended(_LOOK_S):
            return False
    return False


def _ask(spec: Spec, method: str, path: str, body: str | None, timeout_s: float) -> int:
    """Return the status of the engine's answer; 0 without one."""
    address = urlsplit(spec.url)
    assert address.hostname is not None
    connection = http.client.HTTPConnection(
        address.hostname, address.port, timeout=max(0.1, timeout_s)
    )
    try:
        connection.request(method, path, body, {"Content-Type": "application/json"} if body else {})
        response = connection.getresponse()
        response.read()
        return response.status
    except (OSError, http.client.HTTPException):
        return 0
    finally:
        connection.close()


def _watch_workers() -> None:
    """Have BentoML replace a worker as soon as it is dead; by itself it looks every ten seconds."""
    while True:
        try:
            # Wait without reaping: BentoML does that. The thread blocks here.
            os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOWAIT)
            # BentoML's process manager can only be reached through its signal handler.
            controller = getattr(signal.getsignal(signal.SIGTERM), "__self__").controller  # noqa: B009
            controller.loop.add_callback(_look_after_workers, controller.arbiter)
        except (ChildProcessError, AttributeError):
            pass  # no worker has started yet
        time.sleep(_WORKERS_LOOK_S)


def _look_after_workers(arbiter: Any) -> None:
    from circus.exc import ConflictError

    with contextlib.suppress(ConflictError):  # it is already doing so, or shuts down
        arbiter.manage_watchers()


def _say(text: str) -> None:
    sys.stderr.write(f"llmdyno.bentoml: {text}\n")
    sys.stderr.flush()
