"""Endpoints: wire protocols over HTTP or gRPC. One file a protocol; `ENDPOINT` is its last line.

An endpoint writes a request's body and reads a response's body; it knows nothing of sockets, users
or clocks. Its contract tests (tests/endpoints/test_contract.py) pick it up because it exists.
"""

from collections.abc import Iterable, Mapping
from typing import Any, Protocol

import msgspec

from llmdyno.wire.inbox import Piece
from llmdyno.wire.kserve import Tensor
from llmdyno.wire.reply import Reply


class Ask(msgspec.Struct, frozen=True, kw_only=True):
    """What one request asks for."""

    prompt: str
    system_prompt: str = ""
    history: tuple[tuple[str, str], ...] = ()  # questions and answers of the turns before
    model: str = ""
    max_tokens: int | None = None
    exact_length: bool = False  # go on to max_tokens whatever the model says (ignore_eos)
    temperature: float | None = None
    extra: Mapping[str, Any] = {}  # merged into the body, as the user gave it
    tensors: tuple[Tensor, ...] = ()  # what the model takes, for a protocol that must know


class Endpoint(Protocol):
    """The interface of an endpoint."""

    name: str
    # A stream without an end mark of its own is whole when the HTTP body came to its regular end;
    # `read` then never says that it ended.
    ends_with_body: bool
    rpc: bool  # over gRPC (wire/grpc.py): bodies are gRPC's framed messages, paths its methods

    def path(self, model: str) -> str:
        """Return what is appended to the base URL."""

    def body(self, ask: Ask) -> bytes:
        """Return the request's body, JSON over HTTP, asking for a stream."""

    def read(self, pieces: Iterable[Piece]) -> Reply:
        """Return what a streamed 200 response amounts to, complete or not."""

    def error_of(self, body: bytes) -> str:
        """Return the server's own words in the body of a response other than 200."""
