"""`python -m llmdyno.dashboard.server`: the process that serves the live page on 127.0.0.1.

Its standard input is a socket to the process that measures. The first line is the settings as JSON;
it answers with a line: the port, or what is wrong. Then come lines `NAME JSON`, a part of the page
as it is now, and `+NAME JSON`, one more entry of a list. It sends `stop` or `enough` back when a
person presses a button. When the other end closes, it tells the browsers and ends.

Whoever asks must have the token, and must have asked for 127.0.0.1 or localhost by that name: a
page from elsewhere whose host's name was pointed here (DNS rebinding) is refused.
"""

import asyncio
import contextlib
import hmac
import json
import os
import secrets
import signal
import socket
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import NamedTuple
from urllib.parse import parse_qs, urlsplit

HOST = "127.0.0.1"
COMMAND = (sys.executable, "-m", "llmdyno.dashboard.server")
_NAMES = frozenset({"127.0.0.1", "localhost"})
PAGE = Path(__file__).with_name("page.html")
_NICENESS = 10  # what measures comes first
_HEAD_BYTES = 16 * 1024
_HEAD_S = 5.0
_CLIENTS_MAX = 64
_SLOW_S = 20.0  # a browser that takes nothing for so long is let go
_ALIVE_S = 15.0  # between two signs of life to a browser
_ENTRIES_MAX = 20_000  # of a list; beyond, the older half goes
_LAST_WORD_S = 1.0  # that browsers have to take the last event
_LINE_BYTES = 8 * 1024 * 1024


class Settings(NamedTuple):
    """What the process is told first."""

    port: int  # 0: any free one
    token: str
    actions: list[str]  # the buttons that the page has


class Request(NamedTuple):
    """The head of a request, as far as it matters here."""

    method: str
    path: str
    token: str
    host: str
    origin: str


class State:
    """The parts of the page as they are now; wakes those who send them to browsers."""

    def __init__(self) -> None:
        self.parts: dict[str, bytes] = {}
        self.versions: dict[str, int] = {}
        self.lists: dict[str, list[bytes]] = {}
        self.dropped: dict[str, int] = {}  # entries of a list that are gone
        self.over = False
        self._changed = asyncio.Event()

    def take(self, line: bytes) -> None:
        """Take a line of the process that measures."""
        name, _, data = line.strip().partition(b" ")
        if not name or not data:
            return
        key = name.decode()
        if key.startswith("+"):
            entries = self.lists.setdefault(key[1:], [])
            entries.append(data)
            if len(entries) > _ENTRIES_MAX:
                self.dropped[key[1:]] = self.dropped.get(key[1:], 0) + _ENTRIES_MAX // 2
                del entries[: _ENTRIES_MAX // 2]
        else:
            self.parts[key] = data
            self.versions[key] = self.versions.get(key, 0) + 1
        self._wake()

    def end(self) -> None:
        """Tell all that nothing more will come."""
        self.over = True
        self._wake()

    def _wake(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()

    async def events(self) -> AsyncIterator[bytes]:
        """Yield what there is, then what comes, as server-sent events; empty: a sign of life.

        A reader that is slow misses what a part was in between, never what it is.
        """
        seen: dict[str, int] = {}
        sent: dict[str, int] = {}
        while True:
            changed = self._changed
            found = [*self._new_parts(seen), *self._new_entries(sent)]
            if found:
                yield b"".join(found)
            if self.over:
                yield b"event: over\ndata: {}\n\n"
                return
            if not changed.is_set():
                try:
                    await asyncio.wait_for(changed.wait(), _ALIVE_S)
                except TimeoutError:
                    yield b": alive\n\n"

    def _new_parts(self, seen: dict[str, int]) -> list[bytes]:
        found = []
        for name, version in self.versions.items():
            if seen.get(name) != version:
                seen[name] = version
                found.append(_event(name, self.parts[name]))
        return found

    def _new_entries(self, sent: dict[str, int]) -> list[bytes]:
        found = []
        for name, entries in self.lists.items():
            gone = self.dropped.get(name, 0)
            new = entries[max(0, sent.get(name, 0) - gone) :]
            if new:
                sent[name] = gone + len(entries)
                found.append(_event(f"{name}+", b"[" + b",".join(new) + b"]"))
        return found


def _event(name: str, data: bytes) -> bytes:
    return f"event: {name}\ndata: ".encode() + data + b"\n\n"


class Dashboard:
    """Answers browsers.

    Args:
        state: of the page.
        settings: of the process.
        line: to the process that measures; it is told which button was pressed.
    """

    def __init__(self, state: State, settings: Settings, line: socket.socket) -> None:
        self._state = state
        self._settings = settings
        self._line = line
        self._clients = 0

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer the one request of a connection."""
        self._clients += 1
        try:
            with contextlib.suppress(
                OSError, TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError
            ):
                head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), _HEAD_S)
                await self._reply(read_head(head), writer)
        finally:
            self._clients -= 1
            writer.close()

    async def _reply(self, request: Request, writer: asyncio.StreamWriter) -> None:
        action = request.path.removeprefix("/")
        if not self.allows(request):
            await _send(writer, "403 Forbidden", b"forbidden\n")
        elif request.path == "/" and request.method in {"GET", "HEAD"}:
            await self._send_page(request, writer)
        elif request.path == "/events" and request.method == "GET":
            await self._send_events(writer)
        elif action in self._settings.actions:
            await self._act(action, request.method, writer)
        else:
            await _send(writer, "404 Not Found", b"not found\n")

    def allows(self, request: Request) -> bool:
        """Tell whether a request has the token, and comes to us by our own name."""
        named = _host_name(request.host) in _NAMES
        own = not request.origin or _host_name(urlsplit(request.origin).netloc) in _NAMES
        token = hmac.compare_digest(request.token.encode(), self._settings.token.encode())
        return named and own and token

    async def _act(self, action: str, method: str, writer: asyncio.StreamWriter) -> None:
        if method != "POST":
            await _send(writer, "405 Method Not Allowed", b"POST\n", "Allow: POST\r\n")
        elif self._state.over:
            await _send(writer, "409 Conflict", b"it is over\n")
        else:
            with contextlib.suppress(OSError):
                self._line.send(f"{action}\n".encode())
            await _send(writer, "202 Accepted", b"told\n")

    async def _send_page(self, request: Request, writer: asyncio.StreamWriter) -> None:
        nonce = secrets.token_urlsafe(16)
        page = PAGE.read_text("utf-8").replace("NONCE", nonce)
        policy = (
            f"Content-Security-Policy: default-src 'none'; script-src 'nonce-{nonce}';"
            f" style-src 'nonce-{nonce}'; connect-src 'self'; img-src data:; base-uri 'none';"
            " form-action 'none'; frame-ancestors 'none'\r\n"
        )
        body = page.encode() if request.method == "GET" else b""
        await _send(writer, "200 OK", body, policy, kind="text/html; charset=utf-8")

    async def _send_events(self, writer: asyncio.StreamWriter) -> None:
        if self._clients > _CLIENTS_MAX:
            await _send(writer, "503 Service Unavailable", b"too many browsers\n")
            return
        writer.write(_head("200 OK", "text/event-stream", ""))
        async for event in self._state.events():
            writer.write(event)
            await asyncio.wait_for(writer.drain(), _SLOW_S)


def read_head(head: bytes) -> Request:
    """Read the head of a request; what is not there is empty, a header that comes twice too."""
    first, *lines = head.decode("latin-1").split("\r\n")
    method, _, rest = first.partition(" ")
    target = urlsplit(rest.rpartition(" ")[0])
    fields: dict[str, str] = {}
    for line in lines:
        name, colon, value = line.partition(":")
        if colon:
            key = name.strip().lower()
            fields[key] = "" if key in fields else value.strip()
    token = parse_qs(target.query).get("token", [""])[0]
    scheme, _, given = fields.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer":
        token = given.strip()
    return Request(method, target.path, token, fields.get("host", ""), fields.get("origin", ""))


def _host_name(host: str) -> str:
    """Return the name in host:port; a tunnel (ssh -L) may have given it another port."""
    return host.rpartition(":")[0].lower() if ":" in host else host.lower()


def _head(status: str, kind: str, more: str) -> bytes:
    return (
        f"HTTP/1.1 {status}\r\nContent-Type: {kind}\r\n{more}Cache-Control: no-store\r\n"
        "X-Content-Type-Options: nosniff\r\nReferrer-Policy: no-referrer\r\n"
        "Cross-Origin-Resource-Policy: same-origin\r\nConnection: close\r\n\r\n"
    ).encode()


async def _send(
    writer: asyncio.StreamWriter,
    status: str,
    body: bytes,
    more: str = "",
    kind: str = "text/plain; charset=utf-8",
) -> None:
    writer.write(_head(status, kind, f"{more}Content-Length: {len(body)}\r\n") + body)
    await asyncio.wait_for(writer.drain(), _SLOW_S)


async def serve(line: socket.socket) -> None:
    """Serve the page until the other end of the line closes."""
    reader, _ = await asyncio.open_connection(sock=line.dup(), limit=_LINE_BYTES)
    settings = Settings(**json.loads(await reader.readline()))
    state = State()
    dashboard = Dashboard(state, settings, line)
    try:
        server = await asyncio.start_server(
            dashboard.answer, HOST, settings.port, limit=_HEAD_BYTES
        )
    except OSError as error:
        line.send(f"{os.strerror(error.errno or 0)}\n".encode())
        return
    line.send(f"{server.sockets[0].getsockname()[1]}\n".encode())
    with contextlib.suppress(OSError, ValueError):  # it was killed, or a line is no line of ours
        while data := await reader.readline():
            state.take(data)
    state.end()
    server.close()
    left = asyncio.all_tasks() - {asyncio.current_task()}
    if left:
        await asyncio.wait(left, timeout=_LAST_WORD_S)


def main() -> None:
    """Serve until standard input ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # what measures says when it is over
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    os.nice(_NICENESS)
    with socket.socket(fileno=os.dup(0)) as line:
        asyncio.run(serve(line))


if __name__ == "__main__":
    main()
