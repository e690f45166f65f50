"""A client's connection: the queue of its requests, and the reply under way.

server.py reads bytes into it and takes complete requests from it; it knows no time and no socket
calls, so the timing loop stays in one file.
"""

import socket
from collections import deque
from typing import Any

import httptools


class Request:
    """One request, filled in while its bytes arrive."""

    def __init__(self) -> None:
        self.method = ""
        self.path = ""
        self.body = bytearray()
        self.keep_alive = True
        self.arrived_ns = 0  # when the kernel received its last byte, monotonic


class Reply:
    """The writes of one response, and when each is due, in monotonic ns."""

    def __init__(self, connection: "Connection", first_due_ns: int) -> None:
        self.connection = connection
        self.first_due_ns = first_due_ns
        self.step_ns = 0  # from one write to the next
        self.writes: list[bytes] = []
        self.tokens: list[int] = []  # in each write
        self.sent = 0


class Connection:
    """One client: its queued requests and its unsent bytes; httptools calls the on_… methods."""

    def __init__(self, client: socket.socket) -> None:
        self.client = client
        self.parser: Any = httptools.HttpRequestParser(self)
        self.request = Request()
        self.waiting: deque[Request] = deque()  # complete requests, queued behind the reply
        self.reply: Reply | None = None
        self.unsent = bytearray()
        self.free_ns = 0  # when the previous reply was due to end
        self.closing = False
        self.open = True

    def on_url(self, url: bytes) -> None:
        """Append a part of the path to the request under way."""
        self.request.path += url.decode("latin-1")

    def on_header(self, name: bytes, value: bytes) -> None:
        """Answer a client that waits for "100 Continue" before it sends its body."""
        if name.lower() == b"expect" and value.lower() == b"100-continue":
            self.client.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")

    def on_body(self, body: bytes) -> None:
        """Append a part of the body to the request under way."""
        self.request.body += body

    def on_message_complete(self) -> None:
        """Queue the request under way, which is complete, and start a new one."""
        self.request.method = self.parser.get_method().decode()
        self.request.keep_alive = self.parser.should_keep_alive()
        self.waiting.append(self.request)
        self.request = Request()
