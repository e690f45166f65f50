"""The interface of an endpoint, and what goes through it. Plug-ins import it from the package."""

from collections.abc import Iterable, Mapping
from typing import Any, Protocol

import msgspec

from llmdyno.wire.exchange import Response
from llmdyno.wire.inbox import Piece
from llmdyno.wire.kserve import Tensor
from llmdyno.wire.reply import Reply
from llmdyno.wire.target import Target


class Ask(msgspec.Struct, frozen=True, kw_only=True):
    """One generation request, before an endpoint has put it into its protocol's words."""

    prompt: str
    system_prompt: str = ""
    history: tuple[tuple[str, str], ...] = ()  # questions and answers of the turns before
    model: str = ""
    max_tokens: int | None = None
    exact_length: bool = False  # go on to max_tokens whatever the model says (ignore_eos)
    temperature: float | None = None
    extra: Mapping[str, Any] = {}  # merged into the body, as the user gave it
    # Names of our fields that this server has another name for, with that; empty: it has none.
    renamed: Mapping[str, str] = {}
    tensors: tuple[Tensor, ...] = ()  # what the model takes, for a protocol that must know


class Endpoint(Protocol):
    """The interface of an endpoint: these members are required.

    Nine more are optional; `llmdyno.endpoints` has a function that reads each, with its default.

    `detect_order: int` and `async detect(server: ServerProbe, model: str) -> Detection`
        `--endpoint auto` asks the endpoints of this package in ascending order whether the server
        speaks them. `model` is the user's, or empty. Without them `auto` never picks the endpoint;
        nor does it pick one of another package, which is named.
    `async choose_model(server: ServerProbe) -> str`
        The model that requests name when the user names none; empty if they name none at all. It
        raises TargetError if there is none. The default is the first that GET /v1/models lists.
    `async tensors(server: ServerProbe, model: str) -> tuple[Tensor, ...]`
        The model's inputs, for a protocol whose `body` must know them (`Ask.tensors`). It raises
        TargetError if the server does not know the model. The default is none.
    `async models(server: ServerProbe) -> list[str]`
        The models that the server has, for the sentence that a wrong one gets. The default is what
        GET /v1/models lists.
    `adapted(refusal: str, renamed: Mapping[str, str]) -> Mapping[str, str]`
        `Ask.renamed` for a server that refused a request with these words although it was sent with
        `renamed`; the same mapping if nothing helps, which is the default.
    `metrics_port_offset: int`
        How far above the endpoint's port the server has its Prometheus page. The default is 0: the
        page is on the same port.
    `logprobs: tuple[Mapping[str, Any], ...]`
        The fields of a request that ask for log-probabilities, from the most to the least: a server
        that refuses the first may take the next. The default is none.
    `names_finish: bool`
        Whether each answer ends with the reason why it ended (`Reply.finish`). Then one without it
        that is shorter than asked was broken off. The default is False.
    """

    name: str
    # A stream without an end mark of its own is whole when the HTTP body came to its regular end;
    # `read` then never says that it ended.
    ends_with_body: bool
    rpc: bool  # over gRPC (wire/grpc.py): bodies are gRPC's framed messages, paths its methods

    def path(self, model: str) -> str:
        """Return the path of a request to this model; it is appended to the base URL."""

    def body(self, ask: Ask) -> bytes:
        """Return the request's body, JSON over HTTP, asking for a stream."""

    def read(self, pieces: Iterable[Piece]) -> Reply:
        """Return what a streamed 200 response amounts to, complete or not; never raises."""

    def error_of(self, body: bytes) -> str:
        """Return the server's own words in the body of a response other than 200."""


class ServerProbe(Protocol):
    """A server that can be asked what it is, before anything is measured."""

    @property
    def target(self) -> Target:
        """The server's address: scheme, host, port and base path."""

    async def look(self, path: str) -> Response:
        """GET a path that need not exist; a server that hangs up has just not answered.

        Raises:
            TargetError: it is not there any more, or it does not answer in time.
        """

    async def ask(self, method: str, path: str, body: bytes = b"") -> Response:
        """Send one request and wait for the whole response, whatever its status.

        Raises:
            TargetError: it does not answer, or redirects.
        """


class Detection(msgspec.Struct, frozen=True, kw_only=True):
    """Whether a server speaks a protocol."""

    speaks: bool
    model: str = ""  # that requests are to name
    why_not: str = ""  # the answer that spoke against it, for the sentence that the user reads
