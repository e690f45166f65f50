"""A client's connection: the requests that it sent, and the reply under way."""

import socket
from collections import deque
from typing import Any

import httptools


class Request:
    """One request as it arrives."""

    def __init__(self) -> None:
        self.method = ""
        self.path = ""
        self.body = bytearray()
        self.keep_alive = True
        self.arrived_ns = 0  # monotonic; when the kernel got its last byte


class Reply:
    """The writes still to come for a request, and when each is due."""

    def __init__(self, connection: "Connection", first_due_ns: int) -> None:
        self.connection = connection
        self.first_due_ns = first_due_ns
        self.step_ns = 0  # from each write to the next
        self.writes: list[bytes] = []
        self.tokens: list[int] = []  # in each write
        self.sent = 0


class Connection:
    """What a client still wants and has not yet taken; httptools calls the on_… methods."""

    def __init__(self, client: socket.socket) -> None:
        self.client = client
        self.parser: Any = httptools.HttpRequestParser(self)
        self.request = Request()
        self.waiting: deque[Request] = deque()  # complete, behind the reply under way
        self.reply: Reply | None = None
        self.unsent = bytearray()
        self.free_ns = 0  # when the reply before was due to end
        self.closing = False
        self.open = True

    def on_url(self, url: bytes) -> None:
        """Keep a part of the path."""
        self.request.path += url.decode("latin-1")

    def on_header(self, name: bytes, value: bytes) -> None:
        """Answer a client that waits for "100 Continue" before it sends its body."""
        if name.lower() == b"expect" and value.lower() == b"100-continue":
            self.client.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")

    def on_body(self, body: bytes) -> None:
        """Keep a part of the body."""
        self.request.body += body

    def on_message_complete(self) -> None:
        """Queue a request that is complete."""
        self.request.method = self.parser.get_method().decode()
        self.request.keep_alive = self.parser.should_keep_alive()
        self.waiting.append(self.request)
        self.request = Request()
