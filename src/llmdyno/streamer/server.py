"""A server whose timing is known exactly: what `dyno selftest`, tests and benchmarks measure.

    python -m llmdyno.streamer --port 0 --ttft 100ms --itl 20ms

prints {"port": …} and serves the OpenAI endpoints until SIGTERM. Token k of a request is due at the
request's arrival + ttft + k * itl, whatever happened to the tokens before it, so nothing drifts.
Arrival is the kernel's own stamp of the request's last byte: had the server looked at the clock
when it came round to reading, its delay would pass for the client's. How late it then was with
every write is in GET /truth, so that nobody blames a client for an error of ours.

One thread, one epoll, one heap of deadlines, one write a chunk; all bytes are made beforehand. The
timing loop is why it is written by hand: event loops sleep in milliseconds and queue behind others.
"""

import argparse
import errno
import functools
import gc
import heapq
import itertools
import json
import resource
import select
import signal
import socket
import struct
import sys
import time
from collections import deque
from http import HTTPStatus
from typing import Annotated, Any

import httptools
import msgspec

from llmdyno import units
from llmdyno.errors import UsageError

_SO_TIMESTAMPNS = 35  # asm-generic/socket.h; Python's socket module does not name it
_TIMESTAMP = struct.Struct("@qq")
_SPIN_NS = 300_000  # a sleep ends this much early; the rest is spent looking at the clock
_BURST = 32  # so many writes, then a look at what has arrived
_BUCKET_NS = 10_000
_BUCKETS = 100_000  # lateness up to one second, in steps of ten microseconds
_WORD = " word"  # the text of every token


class Timing(msgspec.Struct, frozen=True, kw_only=True):
    """When which tokens are sent."""

    ttft_s: float = 0.1
    ttft_per_user_s: float = 0.0  # more, for every other stream in flight when a request arrives
    itl_s: float = 0.02
    tokens_per_chunk: int = 1
    role_chunk: bool = False  # a chunk with the role and no text, sent at once


class _StreamOptions(msgspec.Struct):
    include_usage: bool = False


class _Ask(msgspec.Struct):
    """What we read of a request's body."""

    model: str = "streamer"
    stream: bool = False
    max_tokens: Annotated[int, msgspec.Meta(ge=1)] | None = None
    max_completion_tokens: Annotated[int, msgspec.Meta(ge=1)] | None = None
    stream_options: _StreamOptions | None = None
    messages: list[dict[str, Any]] | None = None
    prompt: str | list[Any] | None = None


class _Request:
    """One request as it arrives; httptools calls the on_… methods."""

    def __init__(self) -> None:
        self.method = ""
        self.path = ""
        self.body = bytearray()
        self.keep_alive = True
        self.arrived_ns = 0


class _Reply:
    """The writes still to come for a request, and when each is due."""

    def __init__(self, connection: "_Connection", first_due_ns: int) -> None:
        self.connection = connection
        self.first_due_ns = first_due_ns
        self.step_ns = 0
        self.writes: list[bytes] = []
        self.tokens: list[int] = []  # in each write
        self.sent = 0


class _Connection:
    """A client's connection: what it still wants, and what it has not yet taken."""

    def __init__(self, client: socket.socket) -> None:
        self.client = client
        self.parser: Any = httptools.HttpRequestParser(self)
        self.request = _Request()
        self.waiting: deque[_Request] = deque()  # complete, behind the reply under way
        self.reply: _Reply | None = None
        self.unsent = bytearray()
        self.free_ns = 0  # when the reply before was due to end
        self.closing = False
        self.open = True

    def on_url(self, url: bytes) -> None:
        self.request.path += url.decode("latin-1")

    def on_header(self, name: bytes, value: bytes) -> None:
        if name.lower() == b"expect" and value.lower() == b"100-continue":
            self.client.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")

    def on_body(self, body: bytes) -> None:
        self.request.body += body

    def on_message_complete(self) -> None:
        self.request.method = self.parser.get_method().decode()
        self.request.keep_alive = self.parser.should_keep_alive()
        self.waiting.append(self.request)
        self.request = _Request()


class Streamer:
    """The server; `run` serves until `stop` has been set (by a signal)."""

    def __init__(self, listener: socket.socket, timing: Timing) -> None:
        self.stop = False
        self._timing = timing
        self._listener = listener
        listener.setblocking(False)
        self._epoll = select.epoll()
        self._epoll.register(listener, select.EPOLLIN)
        self._connections: dict[int, _Connection] = {}
        self._due: list[tuple[int, int, _Reply]] = []
        self._order = itertools.count()
        self._lifeline = -1
        self._late = [0] * _BUCKETS
        self._late_max_ns = 0
        self._counts = dict.fromkeys(
            ("requests", "completed", "aborted", "refused", "tokens", "blocked_writes"), 0
        )

    def run(self) -> None:
        """Send what is due, read what has arrived, sleep until the next deadline."""
        while not self.stop:
            self._send_due()
            self._sleep()
            for number, event in self._epoll.poll(0):
                if number == self._listener.fileno():
                    self._accept()
                elif connection := self._connections.get(number):
                    self._attend(connection, event)
                elif number == self._lifeline:
                    self.stop = True

    def wake_on(self, source: socket.socket) -> None:
        """Wake up when this socket can be read (signals arrive there)."""
        self._epoll.register(source, select.EPOLLIN)

    def stop_with(self, lifeline: int) -> None:
        """Stop when the other end of this pipe is closed: when who started us has gone."""
        self._lifeline = lifeline
        self._epoll.register(lifeline, select.EPOLLIN)

    def truth(self) -> dict[str, Any]:
        """Return what was sent and how late, over all chunks with tokens so far."""
        return {
            **self._counts,
            "in_flight": sum(c.reply is not None for c in self._connections.values()),
            "chunks": sum(self._late),
            "late_ms": {
                "p50": self._late_ms(0.5),
                "p99": self._late_ms(0.99),
                "max": self._late_max_ns / 1e6,
            },
        }

    def _late_ms(self, share: float) -> float | None:
        total = sum(self._late)
        for bucket, below in enumerate(itertools.accumulate(self._late)):
            if total and below >= share * total:
                return (bucket + 1) * _BUCKET_NS / 1e6
        return None

    def _sleep(self) -> None:
        if not self._due:
            select.select([self._epoll], [], [])
            return
        wait_ns = self._due[0][0] - time.monotonic_ns()
        # epoll rounds up to milliseconds; select does not, yet allows itself 0.1 % of a long sleep.
        wait_ns -= wait_ns // 512 + _SPIN_NS
        if wait_ns > 0:
            select.select([self._epoll], [], [], wait_ns / 1e9)

    def _send_due(self) -> None:
        for _ in range(_BURST):
            if not self._due or self._due[0][0] > time.monotonic_ns():
                return
            due_ns, order, reply = self._due[0]
            connection = reply.connection
            if connection.open:
                self._write(connection, reply.writes[reply.sent])
            if not connection.open:  # since long, or the write has shown it
                heapq.heappop(self._due)
                continue
            late_ns = time.monotonic_ns() - due_ns
            self._late[min(late_ns // _BUCKET_NS, _BUCKETS - 1)] += 1
            self._late_max_ns = max(self._late_max_ns, late_ns)
            self._counts["tokens"] += reply.tokens[reply.sent]
            reply.sent += 1
            if reply.sent < len(reply.writes):
                next_ns = reply.first_due_ns + reply.sent * reply.step_ns
                heapq.heapreplace(self._due, (next_ns, order, reply))
            else:
                heapq.heappop(self._due)
                self._counts["completed"] += 1
                connection.reply = None
                connection.free_ns = due_ns
                self._begin_next(connection)

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno not in {errno.EMFILE, errno.ENFILE}:
                    continue  # the client has gone again
                most, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
                sys.exit(
                    f"streamer: {len(self._connections):,} connections are open, and the system"
                    f" allows a process {most:,} files (ulimit -Hn)."
                )
            client.setblocking(False)
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            client.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPNS, 1)
            self._connections[client.fileno()] = _Connection(client)
            self._epoll.register(client, select.EPOLLIN)

    def _attend(self, connection: _Connection, event: int) -> None:
        if event & select.EPOLLOUT:
            self._flush(connection)
        if connection.open and event & (select.EPOLLIN | select.EPOLLHUP | select.EPOLLERR):
            self._read(connection)

    def _read(self, connection: _Connection) -> None:
        try:
            data, ancillary, _, _ = connection.client.recvmsg(65536, 64)
        except BlockingIOError:
            return
        except OSError:
            data, ancillary = b"", []
        if not data:
            self._close(connection)
            return
        known = len(connection.waiting)
        try:
            connection.parser.feed_data(data)
        except (httptools.HttpParserError, OSError):
            if connection.reply is None:
                connection.closing = True
                self._refuse(connection, 400, "This is not HTTP.")
                self._close_if_done(connection)
            else:
                self._close(connection)
            return
        arrived_ns = _arrival_ns(ancillary)
        for request in itertools.islice(connection.waiting, known, None):
            request.arrived_ns = arrived_ns
        self._begin_next(connection)

    def _begin_next(self, connection: _Connection) -> None:
        self._close_if_done(connection)
        while connection.open and connection.reply is None and connection.waiting:
            self._begin(connection, connection.waiting.popleft())
            self._close_if_done(connection)

    def _begin(self, connection: _Connection, request: _Request) -> None:
        path = request.path.partition("?")[0]
        connection.closing = not request.keep_alive
        if path in {"/v1/chat/completions", "/v1/completions"}:
            if request.method == "POST":
                self._complete(connection, request, chat=path.startswith("/v1/chat"))
            else:
                self._refuse(connection, 405, f"{path} takes POST.")
        elif request.method != "GET":
            self._refuse(connection, 404, f"No {request.method} {path} here.")
        elif path == "/health":
            self._write(connection, _json_reply({"status": "ok"}))
        elif path == "/v1/models":
            models = {"object": "list", "data": [{"id": "streamer", "object": "model"}]}
            self._write(connection, _json_reply(models))
        elif path == "/truth":
            self._write(connection, _json_reply(self.truth()))
        elif path == "/metrics":
            self._write(connection, _http(200, "text/plain; version=0.0.4", self._prometheus()))
        else:
            self._refuse(connection, 404, f"No {path} here.")

    def _complete(self, connection: _Connection, request: _Request, *, chat: bool) -> None:
        try:
            ask = msgspec.json.decode(request.body, type=_Ask)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            self._refuse(connection, 400, str(error))
            return
        if (ask.messages if chat else ask.prompt) is None:
            missing = "messages" if chat else "prompt"
            self._refuse(connection, 400, f"`{missing}` is missing.")
            return
        timing = self._timing
        itl_ns = round(timing.itl_s * 1e9)
        # A request sent ahead of the reply before it begins when that one has ended.
        begin_ns = max(request.arrived_ns, connection.free_ns)
        ttft_s = timing.ttft_s + timing.ttft_per_user_s * len(self._due)
        reply = _Reply(connection, begin_ns + round(ttft_s * 1e9))
        count = ask.max_completion_tokens or ask.max_tokens or 16
        if ask.stream:
            reply.step_ns = itl_ns * timing.tokens_per_chunk
            reply.writes, reply.tokens = _stream(ask, count, timing.tokens_per_chunk, chat=chat)
            if not timing.role_chunk:
                reply.writes[0] = _STREAM_HEAD + reply.writes[0]
            else:
                self._write(connection, _STREAM_HEAD + _chunk(ask.model, chat=chat))
        else:
            reply.first_due_ns += (count - 1) * itl_ns
            reply.writes, reply.tokens = [_whole(ask, count, chat=chat)], [count]
        self._counts["requests"] += 1
        connection.reply = reply
        heapq.heappush(self._due, (reply.first_due_ns, next(self._order), reply))

    def _refuse(self, connection: _Connection, status: int, why: str) -> None:
        self._counts["refused"] += 1
        self._write(connection, _json_reply({"error": {"message": why, "code": status}}, status))

    def _write(self, connection: _Connection, data: bytes) -> None:
        """Write at once what the client takes, and the rest when it takes more."""
        if not connection.unsent:
            try:
                taken = connection.client.send(data)
            except BlockingIOError:
                taken = 0
            except OSError:
                self._close(connection)
                return
            data = data[taken:]
        if data:
            self._counts["blocked_writes"] += 1
            connection.unsent += data
            self._epoll.modify(connection.client, select.EPOLLIN | select.EPOLLOUT)

    def _flush(self, connection: _Connection) -> None:
        try:
            del connection.unsent[: connection.client.send(connection.unsent)]
        except BlockingIOError:
            return
        except OSError:
            self._close(connection)
            return
        if not connection.unsent:
            self._epoll.modify(connection.client, select.EPOLLIN)
            self._close_if_done(connection)

    def _close_if_done(self, connection: _Connection) -> None:
        if connection.closing and connection.reply is None and not connection.unsent:
            self._close(connection)

    def _close(self, connection: _Connection) -> None:
        if not connection.open:
            return
        connection.open = False
        connection.parser = None  # it holds the connection, and nobody collects cycles here
        self._counts["aborted"] += connection.reply is not None
        connection.reply = None
        del self._connections[connection.client.fileno()]
        self._epoll.unregister(connection.client)
        connection.client.close()

    def _prometheus(self) -> bytes:
        lines = [f"llmdyno_streamer_{name}_total {count}" for name, count in self._counts.items()]
        return "\n".join([*lines, ""]).encode()


def _arrival_ns(ancillary: list[tuple[int, int, bytes]]) -> int:
    """Turn the kernel's stamp (wall clock) of the last byte read into monotonic time."""
    now_ns = time.monotonic_ns()
    for level, kind, data in ancillary:
        if (level, kind) == (socket.SOL_SOCKET, _SO_TIMESTAMPNS):
            seconds, nanoseconds = _TIMESTAMP.unpack(data)
            ago_ns = time.time_ns() - (seconds * 10**9 + nanoseconds)
            # A wall clock that is being set would say nonsense.
            return now_ns - ago_ns if 0 <= ago_ns < 10**9 else now_ns
    return now_ns


def _http(status: int, kind: str, body: bytes) -> bytes:
    return (
        f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\nContent-Type: {kind}\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    ).encode() + body


def _json_reply(document: object, status: int = 200) -> bytes:
    return _http(status, "application/json", json.dumps(document).encode())


_STREAM_HEAD = (
    b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream; charset=utf-8\r\n"
    b"Cache-Control: no-cache\r\nTransfer-Encoding: chunked\r\n\r\n"
)


def _stream(ask: _Ask, count: int, each: int, *, chat: bool) -> tuple[list[bytes], list[int]]:
    """Return the chunks of a stream and the tokens in each; equal chunks are one object."""
    more, last = divmod(count - 1, each)
    last += 1
    end = _chunk(ask.model, last, finish="length", chat=chat)
    if ask.stream_options is not None and ask.stream_options.include_usage:
        end += _event({**_base(ask.model, "chunk", chat=chat), "choices": [],
                       "usage": _usage(ask, count)})  # fmt: skip
    end += _frame(b"data: [DONE]\n\n") + b"0\r\n\r\n"
    return [_chunk(ask.model, each, chat=chat)] * more + [end], [each] * more + [last]


@functools.lru_cache(maxsize=256)
def _chunk(model: str, tokens: int = 0, *, finish: str | None = None, chat: bool) -> bytes:
    """Return one chunk of a stream; without tokens, the one that only names the role."""
    text = _WORD * tokens
    choice: dict[str, Any] = {"index": 0, "finish_reason": finish}
    if chat:
        choice["delta"] = {"content": text} if tokens else {"role": "assistant", "content": ""}
    else:
        choice["text"] = text
    return _event({**_base(model, "chunk", chat=chat), "choices": [choice]})


def _whole(ask: _Ask, count: int, *, chat: bool) -> bytes:
    choice: dict[str, Any] = {"index": 0, "finish_reason": "length"}
    if chat:
        choice["message"] = {"role": "assistant", "content": _WORD * count}
    else:
        choice["text"] = _WORD * count
    base = _base(ask.model, "", chat=chat)
    return _json_reply({**base, "choices": [choice], "usage": _usage(ask, count)})


def _base(model: str, part: str, *, chat: bool) -> dict[str, Any]:
    kind = "chat.completion" + (f".{part}" if part else "") if chat else "text_completion"
    return {"id": "streamer", "object": kind, "created": 0, "model": model}


def _usage(ask: _Ask, count: int) -> dict[str, int]:
    """Return the usage; a word of the prompt counts as a token."""
    texts = [ask.prompt] if ask.messages is None else [m.get("content") for m in ask.messages]
    words = sum(len(text.split()) for text in texts if isinstance(text, str))
    return {"prompt_tokens": words, "completion_tokens": count, "total_tokens": words + count}


def _event(document: object) -> bytes:
    return _frame(b"data: " + json.dumps(document).encode() + b"\n\n")


def _frame(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data)


def _arguments() -> tuple[argparse.Namespace, Timing]:
    parser = argparse.ArgumentParser(
        prog="python -m llmdyno.streamer", description="Serve tokens at exactly known times."
    )
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=0, help="0: any free one; it is printed")
    parser.add_argument("--ttft", default="100ms", help="from a request's arrival to its token")
    parser.add_argument("--ttft-per-user", default="0s", help="more, for each other in flight")
    parser.add_argument("--itl", default="20ms", help="from a token to the next")
    parser.add_argument("--tokens-per-chunk", type=int, default=1)
    parser.add_argument("--role-chunk", action="store_true", help="send one without text at once")
    parser.add_argument("--until-eof", action="store_true", help="end when stdin is closed")
    given = parser.parse_args()
    if given.tokens_per_chunk < 1:
        parser.error(f"--tokens-per-chunk {given.tokens_per_chunk}: must be at least 1.")
    try:
        timing = Timing(
            ttft_s=units.seconds(given.ttft, "--ttft"),
            ttft_per_user_s=units.seconds(given.ttft_per_user, "--ttft-per-user"),
            itl_s=units.seconds(given.itl, "--itl"),
            tokens_per_chunk=given.tokens_per_chunk,
            role_chunk=given.role_chunk,
        )
    except UsageError as error:
        parser.error(str(error))
    return given, timing


def main() -> None:
    """Serve until SIGTERM or SIGINT."""
    given, timing = _arguments()
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    with socket.create_server((given.host, given.port), backlog=4096) as listener:
        streamer = Streamer(listener, timing)
        if given.until_eof:
            streamer.stop_with(sys.stdin.fileno())
        wake, woken = socket.socketpair()
        wake.setblocking(False)
        signal.set_wakeup_fd(wake.fileno())
        streamer.wake_on(woken)

        def stop(*_: object) -> None:
            streamer.stop = True

        signal.signal(signal.SIGTERM, stop)
        signal.signal(signal.SIGINT, stop)
        gc.disable()  # a collection in the middle would be late by milliseconds
        sys.stdout.write(json.dumps({"port": listener.getsockname()[1]}) + "\n")
        sys.stdout.flush()
        streamer.run()


if __name__ == "__main__":
    main()
