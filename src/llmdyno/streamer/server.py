"""A server whose timing is known exactly: `dyno selftest`, tests and benchmarks measure it.

    python -m llmdyno.streamer --port 0 --ttft 100ms --itl 20ms

prints {"port": …} and serves the OpenAI endpoints until SIGTERM. Token k of a request is due at the
request's arrival + ttft + k * itl, independent of the tokens before it, so no error adds up.
Arrival is the kernel's stamp of the request's last byte. If the server took the time when it reads
the request, its own delay would look like the client's. GET /truth reports how late the server's
writes were, so that its errors do not count as the client's.

There is one thread, one epoll, one heap of deadlines and one write per chunk; all bytes are made
beforehand (responses.py). The timing loop is our own because event loops sleep in whole
milliseconds and run other callbacks first.
"""

import errno
import heapq
import itertools
import resource
import select
import socket
import struct
import sys
import time
from typing import Any

import httptools
import msgspec

from llmdyno.streamer.connection import Connection, Reply, Request
from llmdyno.streamer.lateness import Lateness
from llmdyno.streamer.responses import (
    STREAM_HEAD,
    CompletionRequest,
    chunk,
    http,
    json_response,
    stream,
    whole,
)
from llmdyno.wire import wall_clock

_SO_TIMESTAMPNS = 35  # asm-generic/socket.h; Python's socket module does not name it
_TIMESTAMP = struct.Struct("@qq")
_SPIN_NS = 300_000  # a sleep ends this much early; a busy wait covers the rest
_BURST = 32  # after so many writes the sockets are polled


class Timing(msgspec.Struct, frozen=True, kw_only=True):
    """The times at which tokens are due, and how many go into one chunk."""

    ttft_s: float = 0.1
    ttft_per_user_s: float = 0.0  # more, for every other stream in flight when a request arrives
    itl_s: float = 0.02
    tokens_per_chunk: int = 1
    role_chunk: bool = False  # first send a chunk with the role and no text, at once


class Streamer:
    """The server; `run` serves until `stop` is set, by a signal or a closed pipe.

    Args:
        listener: a listening socket.
        timing: when tokens are due.
    """

    def __init__(self, listener: socket.socket, timing: Timing) -> None:
        self.stop = False
        self._timing = timing
        self._listener = listener
        listener.setblocking(False)
        self._epoll = select.epoll()
        self._epoll.register(listener, select.EPOLLIN)
        self._connections: dict[int, Connection] = {}
        self._due: list[tuple[int, int, Reply]] = []
        self._order = itertools.count()
        self._lifeline = -1
        self._lateness = Lateness()
        self._counts = dict.fromkeys(
            "requests completed aborted aborted_tokens refused tokens blocked_writes".split(), 0
        )

    def run(self) -> None:
        """Serve until `stop` is set: send the due writes, read requests, sleep, and so on."""
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
        """Let data on this socket end the sleep; signals arrive there."""
        self._epoll.register(source, select.EPOLLIN)

    def stop_with(self, lifeline: int) -> None:
        """Stop when the other end of this pipe is closed, because its owner has ended."""
        self._lifeline = lifeline
        self._epoll.register(lifeline, select.EPOLLIN)

    def truth(self) -> dict[str, Any]:
        """Return the counts and the lateness in ms of all chunks with tokens so far."""
        return {
            **self._counts,
            "in_flight": sum(c.reply is not None for c in self._connections.values()),
            "chunks": self._lateness.writes,
            "late_ms": self._lateness.in_ms(),
        }

    def _sleep(self) -> None:
        if not self._due:
            select.select([self._epoll], [], [])
            return
        wait_ns = self._due[0][0] - time.monotonic_ns()
        # epoll rounds up to milliseconds; select does not, but may be 0.1 % late in a long sleep.
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
            if not connection.open:  # closed before, or by the write that failed
                heapq.heappop(self._due)
                continue
            self._lateness.add(time.monotonic_ns() - due_ns)
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
                    continue  # this client has already left
                most, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
                sys.exit(
                    f"streamer: {len(self._connections):,} connections are open, and the system"
                    f" allows a process {most:,} files (ulimit -Hn)."
                )
            client.setblocking(False)
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            client.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPNS, 1)
            self._connections[client.fileno()] = Connection(client)
            self._epoll.register(client, select.EPOLLIN)

    def _attend(self, connection: Connection, event: int) -> None:
        if event & select.EPOLLOUT:
            self._flush(connection)
        if connection.open and event & (select.EPOLLIN | select.EPOLLHUP | select.EPOLLERR):
            self._read(connection)

    def _read(self, connection: Connection) -> None:
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

    def _begin_next(self, connection: Connection) -> None:
        self._close_if_done(connection)
        while connection.open and connection.reply is None and connection.waiting:
            self._begin(connection, connection.waiting.popleft())
            self._close_if_done(connection)

    def _begin(self, connection: Connection, request: Request) -> None:
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
            self._write(connection, json_response({"status": "ok"}))
        elif path == "/v1/models":
            models = {"object": "list", "data": [{"id": "streamer", "object": "model"}]}
            self._write(connection, json_response(models))
        elif path == "/truth":
            self._write(connection, json_response(self.truth()))
        elif path == "/metrics":
            self._write(connection, http(200, "text/plain; version=0.0.4", self._prometheus()))
        else:
            self._refuse(connection, 404, f"No {path} here.")

    def _complete(self, connection: Connection, request: Request, *, chat: bool) -> None:
        try:
            asked = msgspec.json.decode(request.body, type=CompletionRequest)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            self._refuse(connection, 400, str(error))
            return
        if (asked.messages if chat else asked.prompt) is None:
            missing = "messages" if chat else "prompt"
            self._refuse(connection, 400, f"`{missing}` is missing.")
            return
        timing = self._timing
        itl_ns = round(timing.itl_s * 1e9)
        # A pipelined request begins when the reply before it has ended.
        begin_ns = max(request.arrived_ns, connection.free_ns)
        ttft_s = timing.ttft_s + timing.ttft_per_user_s * len(self._due)
        reply = Reply(connection, begin_ns + round(ttft_s * 1e9))
        count = asked.max_completion_tokens or asked.max_tokens or 16
        if asked.stream:
            reply.step_ns = itl_ns * timing.tokens_per_chunk
            reply.writes, reply.tokens = stream(asked, count, timing.tokens_per_chunk, chat=chat)
            if not timing.role_chunk:
                reply.writes[0] = STREAM_HEAD + reply.writes[0]
            else:
                self._write(connection, STREAM_HEAD + chunk(asked.model, chat=chat))
        else:
            reply.first_due_ns += (count - 1) * itl_ns
            reply.writes, reply.tokens = [whole(asked, count, chat=chat)], [count]
        self._counts["requests"] += 1
        connection.reply = reply
        heapq.heappush(self._due, (reply.first_due_ns, next(self._order), reply))

    def _refuse(self, connection: Connection, status: int, why: str) -> None:
        self._counts["refused"] += 1
        self._write(connection, json_response({"error": {"message": why, "code": status}}, status))

    def _write(self, connection: Connection, data: bytes) -> None:
        """Write the bytes that the socket accepts now, and the rest when it accepts more."""
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

    def _flush(self, connection: Connection) -> None:
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

    def _close_if_done(self, connection: Connection) -> None:
        if connection.closing and connection.reply is None and not connection.unsent:
            self._close(connection)

    def _close(self, connection: Connection) -> None:
        if not connection.open:
            return
        connection.open = False
        connection.parser = None  # breaks a reference cycle; garbage collection is off
        if connection.reply is not None:
            self._counts["aborted"] += 1
            self._counts["aborted_tokens"] += sum(connection.reply.tokens[: connection.reply.sent])
        connection.reply = None
        del self._connections[connection.client.fileno()]
        self._epoll.unregister(connection.client)
        connection.client.close()

    def _prometheus(self) -> bytes:
        lines = [f"llmdyno_streamer_{name}_total {count}" for name, count in self._counts.items()]
        return "\n".join([*lines, ""]).encode()


def _arrival_ns(ancillary: list[tuple[int, int, bytes]]) -> int:
    """Turn the kernel's stamp (wall clock) of the last byte read into monotonic time."""
    now_ns, ahead_ns = wall_clock.read()  # on Linux perf_counter is the monotonic clock
    for level, kind, data in ancillary:
        if (level, kind) == (socket.SOL_SOCKET, _SO_TIMESTAMPNS):
            seconds, nanoseconds = _TIMESTAMP.unpack(data)
            ago_ns = now_ns + ahead_ns - (seconds * 10**9 + nanoseconds)
            # While the wall clock is being set, the difference is meaningless.
            return now_ns - ago_ns if 0 <= ago_ns < 10**9 else now_ns
    return now_ns
