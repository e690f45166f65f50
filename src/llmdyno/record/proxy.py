"""`dyno record`: listens, passes traffic to the server, and hands what has passed to the scribe."""

import asyncio
import contextlib
import gc
import os
import secrets
import signal
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from time import perf_counter_ns

import msgspec

from llmdyno.bench.prober import Prober
from llmdyno.errors import ServerError, StorageError, TargetError, UsageError, reason
from llmdyno.machine.turns import come_first
from llmdyno.processes.starting import starting
from llmdyno.processes.stops import handled
from llmdyno.record.afterwards import Afterwards
from llmdyno.record.entries import Passed, Settings, Written
from llmdyno.record.relay import Relay
from llmdyno.record.scribe import COMMAND, frame
from llmdyno.wire.target import Target

BLOCK_CHARACTERS = 64  # about 16 tokens of English, the block of most prefix caches
GRACE_S = 30.0
_KEY_BYTES = 32
_HASH_KEY_BYTES_MAX = 64
_BACKLOG = 4096
_LOOK_S = 5.0
_SCRIBE_END_S = 60.0
_PATHS_MAX = 8  # of requests that are not recorded, by name


class Recording(msgspec.Struct, frozen=True, kw_only=True):
    """What the user asks of a recording."""

    host: str
    port: int
    target: Target
    out: Path
    keep_text: bool = False
    hash_key: str = ""  # empty: a random one, of this file alone
    tokenizer: str = ""


def listen_address(listen: str) -> tuple[str, int]:
    """Return host and port of `--listen`.

    Raises:
        UsageError: it is not HOST:PORT.
    """
    host, colon, port = listen.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not colon or not port.isdecimal() or int(port) > 65535:
        raise UsageError(f"--listen {listen}: write HOST:PORT, e.g. 127.0.0.1:9000.")
    return host or "127.0.0.1", int(port)


def check_out(path: Path) -> None:
    """Make the file, for its owner alone; refuse one that holds something, or cannot be written.

    Raises:
        UsageError: names the file.
    """
    try:
        file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        size = os.fstat(file).st_size
        os.close(file)
    except OSError as error:
        raise UsageError(f"--out {path}: cannot be written: {error.strerror}.") from error
    if size:
        raise UsageError(
            f"--out {path}: holds something; name another file, as each recording has its own"
            " zero of time and its own hashes."
        )


def check_hash_key(key: str) -> None:
    """Refuse a key that the hash cannot take.

    Raises:
        UsageError: it is too long.
    """
    if len(key.encode()) > _HASH_KEY_BYTES_MAX:
        raise UsageError(
            f"--hash-key: has {len(key.encode())} bytes; must have {_HASH_KEY_BYTES_MAX} at most."
        )


async def record(asked: Recording, notify: Callable[[str], None]) -> Written:
    """Pass and record traffic until SIGINT, SIGTERM or SIGHUP; return what was recorded.

    At the first signal no new request is taken, and those under way may end; a second one that is
    no hang-up, or half a minute, cuts them.

    Args:
        asked: what to listen on, what to pass it to, where to write.
        notify: is told in a line what happens.

    Raises:
        UsageError: the address cannot be listened on.
        ServerError: the scribe does not start, or died.
        StorageError: lines could not be written.
    """
    stopping = asyncio.Event()
    with _signals(stopping.set) as again:
        scribe = await _Scribe.start(asked, await _adapters(asked.target, notify))
        try:
            await _serve(asked, scribe, stopping, again, notify)
        finally:
            written = await scribe.end()
    if scribe.lost or written.lost:
        raise StorageError(
            f"--out {asked.out}: of {scribe.lost + written.lost + written.requests} requests only"
            f" {written.requests} could be written"
            f" ({written.why_lost or 'the process that writes has died'})."
        )
    return written


async def _serve(
    asked: Recording,
    scribe: "_Scribe",
    stopping: asyncio.Event,
    again: asyncio.Event,
    notify: Callable[[str], None],
) -> None:
    relays: set[Relay] = set()
    idle = asyncio.Event()
    others: Counter[str] = Counter()

    def other(path: str) -> None:
        others[path if path in others or len(others) < _PATHS_MAX else "others"] += 1

    def gone(relay: Relay) -> None:
        relays.discard(relay)
        if not relays:
            idle.set()

    def made() -> Relay:
        relay = Relay(asked.target, scribe.take, gone, afterwards.call, other)
        relays.add(relay)
        idle.clear()
        return relay

    loop = asyncio.get_running_loop()
    afterwards = Afterwards(loop)
    try:
        server = await loop.create_server(made, asked.host, asked.port, backlog=_BACKLOG)
    except OSError as error:
        raise UsageError(
            f"--listen {asked.host}:{asked.port}: cannot be listened on: {reason(error)}; choose"
            " another address or port."
        ) from error
    come_first()
    gc.freeze()  # a collection looks only at what passes, and that leaves no garbage
    port = server.sockets[0].getsockname()[1]
    host = f"[{asked.host}]" if ":" in asked.host else asked.host
    scheme = "https" if asked.target.tls else "http"
    notify(
        f"Recording what passes from http://{host}:{port} to"
        f" {scheme}://{asked.target.authority}{asked.target.prefix} into {asked.out}; Ctrl-C ends"
        " it."
    )
    await stopping.wait()
    server.close()
    for relay in list(relays):
        relay.end_when_idle()
    busy = sum(relay.is_busy for relay in relays)
    if busy:
        are = "request is" if busy == 1 else "requests are"
        notify(f"{busy} {are} under way and may end; Ctrl-C again cuts what is left.")
    if relays:
        waits = [asyncio.ensure_future(event.wait()) for event in (idle, again)]
        await asyncio.wait(waits, timeout=GRACE_S, return_when=asyncio.FIRST_COMPLETED)
        for wait in waits:
            wait.cancel()
    for relay in list(relays):
        relay.abort()
    if relays:  # each is told of its end in the loop's next round
        await idle.wait()
    if others:
        paths = ", ".join(f"{path} {count:,}" for path, count in others.most_common())
        notify(
            "Passed and not recorded, as it is none of chat, completions, responses and messages:"
            f" {paths}."
        )


@contextlib.contextmanager
def _signals(come: Callable[[], None]) -> Iterator[asyncio.Event]:
    """Call `come` at the first SIGINT, SIGTERM or SIGHUP, and set the event at the second.

    A hang-up never is the second: a terminal that is closed cannot see what it cuts, and systemd
    hangs up right after its SIGTERM.
    """
    loop = asyncio.get_running_loop()
    again = asyncio.Event()
    came = False

    def on_signal(number: int) -> None:
        nonlocal came
        if came and number != signal.SIGHUP:
            again.set()
        came = True
        come()

    with handled(lambda number, _frame: loop.call_soon_threadsafe(on_signal, number)):
        yield again


async def _adapters(target: Target, notify: Callable[[str], None]) -> dict[str, str]:
    """Ask the server which of its models are LoRA adapters; say so if it is not there."""
    prober = Prober(target, timeout_s=_LOOK_S)
    path = "/models" if target.prefix.endswith("/v1") else "/v1/models"
    try:
        response = await prober.look(path)
    except TargetError as error:
        notify(f"The server does not answer yet, and requests get a 502 until it does: {error}")
        return {}
    finally:
        prober.close()
    return _parents(response.body())


class _Model(msgspec.Struct):
    """A model that a server lists; vLLM's adapters name the model that they belong to."""

    id: str = ""
    parent: str | None = None


class _Models(msgspec.Struct):
    data: list[_Model] = []


def _parents(body: bytes) -> dict[str, str]:
    """Return the LoRA adapters in a list of models, each with its model."""
    try:
        models = msgspec.json.decode(body, type=_Models).data
    except (msgspec.MsgspecError, UnicodeDecodeError):  # no list of models: nothing is known
        return {}
    return {model.id: model.parent for model in models if model.parent}


class _Scribe:
    """The process that writes: what it is handed leaves this process at once."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self.lost = 0  # could not even be handed over

    @classmethod
    async def start(cls, asked: Recording, adapters: Mapping[str, str]) -> "_Scribe":
        settings = Settings(
            out=str(asked.out),
            started_ns=perf_counter_ns(),
            key=asked.hash_key.encode() or secrets.token_bytes(_KEY_BYTES),
            block_characters=BLOCK_CHARACTERS,
            keep_text=asked.keep_text,
            tokenizer=asked.tokenizer,
            adapters=dict(adapters),
        )
        with starting("The process that writes the traffic"):
            process = await asyncio.create_subprocess_exec(
                *COMMAND,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                # Ctrl-C is for us. Not a session of its own: Linux's autogroup would give that as
                # much of a core as all that we, the server and the client are, whatever its
                # niceness.
                preexec_fn=os.setpgrp,
            )
        scribe = cls(process)
        scribe._hand(msgspec.msgpack.encode(settings))
        return scribe

    def take(self, passed: Passed) -> None:
        """Hand over a request that has ended."""
        if self._process.returncode is not None:
            self.lost += 1
            return
        self._hand(msgspec.msgpack.encode(passed))

    def _hand(self, data: bytes) -> None:
        assert self._process.stdin is not None, "it is a pipe"
        self._process.stdin.write(frame(data))

    async def end(self) -> Written:
        """Let it write the rest, and return what it has written.

        Raises:
            ServerError: it has died before.
        """
        try:
            async with asyncio.timeout(_SCRIBE_END_S):
                said, _ = await self._process.communicate(b"")  # closes its input
        except TimeoutError:
            self._process.kill()
            said = b""
        if not said:
            raise ServerError("died", "the process that writes the trace has died.")
        return msgspec.json.decode(said, type=Written)
