"""Endpoints: wire protocols over HTTP or gRPC. One file a protocol; `ENDPOINT` is its last line.

An endpoint writes a request's body, reads a response's body and knows by which answers a server
that speaks it can be told; it knows nothing of sockets, users or clocks. An endpoint of another
package imports from here what `__all__` names, and proves itself with
`llmdyno.testing.endpoints.EndpointContract`.
"""

from collections.abc import Mapping
from typing import Any, Protocol, cast

from llmdyno import plugins
from llmdyno.endpoints import _location
from llmdyno.endpoints._answers import MODELS_PATH, listed_model, model_names
from llmdyno.endpoints._errors import error_of, reported
from llmdyno.endpoints._interface import Ask, Detection, Endpoint, ServerProbe
from llmdyno.endpoints._json_events import Event, count_of, joined_prompt, merge, read_events
from llmdyno.wire.inbox import Piece
from llmdyno.wire.kserve import Tensor
from llmdyno.wire.reply import Reply

__all__ = [
    "Ask",
    "Detection",
    "Endpoint",
    "Event",
    "Piece",
    "Reply",
    "ServerProbe",
    "Tensor",
    "count_of",
    "error_of",
    "joined_prompt",
    "merge",
    "read_events",
    "reported",
]

AUTO = "auto"  # the name that stands for whichever the server speaks


class Detectable(Endpoint, Protocol):
    """An endpoint that `--endpoint auto` can pick."""

    detect_order: int

    async def detect(self, server: ServerProbe, model: str) -> Detection:
        """Ask the server whether it speaks this protocol, and for which model."""


def load(name: str) -> Endpoint:
    """Return the endpoint of this name, or of this module if the name has a dot.

    Raises:
        UsageError: there is none.
    """
    endpoint: Endpoint = plugins.load("endpoints", name)
    return endpoint


def detectable(*, rpc: bool) -> list[Detectable]:
    """Return the endpoints that `--endpoint auto` tries at a gRPC or an HTTP URL, in order."""
    known = [load(name) for name in plugins.names("endpoints")]
    tried = [cast("Detectable", one) for one in known if one.rpc == rpc and hasattr(one, "detect")]
    return sorted(tried, key=lambda one: one.detect_order)


async def choose_model(endpoint: Endpoint, server: ServerProbe) -> str:
    """Return the model that requests name when the user names none; it may be an empty text.

    Raises:
        TargetError: the server does not answer, or does not tell.
    """
    choose = getattr(endpoint, "choose_model", listed_model)
    return cast("str", await choose(server))


async def tensors(endpoint: Endpoint, server: ServerProbe, model: str) -> tuple[Tensor, ...]:
    """Return the model's inputs if the endpoint's requests must know them.

    Raises:
        TargetError: the server does not answer, or does not know the model.
    """
    if not hasattr(endpoint, "tensors"):
        return ()
    return cast("tuple[Tensor, ...]", await endpoint.tensors(server, model))


async def listed_models(server: ServerProbe) -> list[str]:
    """Return the models that a server lists as OpenAI's does; most do, whatever else they speak."""
    return model_names(await server.look(MODELS_PATH))


async def models(endpoint: Endpoint, server: ServerProbe) -> list[str]:
    """Return the names of the models that a server has; none if it does not say."""
    if hasattr(endpoint, "models"):
        return cast("list[str]", await endpoint.models(server))
    return [] if endpoint.rpc else await listed_models(server)


def adapted(endpoint: Endpoint, refusal: str, renamed: Mapping[str, str]) -> Mapping[str, str]:
    """Return `Ask.renamed` for a server that refused a request with these words.

    Args:
        endpoint: the protocol.
        refusal: the server's words.
        renamed: with what the refused request was sent; the same comes back if nothing helps.
    """
    adapt = getattr(endpoint, "adapted", lambda _refusal, same: same)
    return cast("Mapping[str, str]", adapt(refusal, renamed))


def metrics_port_offset(endpoint: Endpoint) -> int:
    """Return how far above the endpoint's port a server has its metrics page; 0: on the same."""
    return cast("int", getattr(endpoint, "metrics_port_offset", 0))


def names_finish(endpoint: Endpoint) -> bool:
    """Tell whether each answer of the protocol ends with the reason why it ended."""
    return cast("bool", getattr(endpoint, "names_finish", False))


def logprobs(endpoint: Endpoint) -> tuple[Mapping[str, Any], ...]:
    """Return the fields that ask for log-probabilities, from the most to the least; () for none."""
    return cast("tuple[Mapping[str, Any], ...]", getattr(endpoint, "logprobs", ()))


def full_url(name: str, url: str) -> str:
    """Return a URL with the scheme that an endpoint needs, if it has none and needs gRPC's.

    Raises:
        UsageError: there is no such endpoint.
    """
    if "://" in url or name == AUTO or not load(name).rpc:
        return url
    return f"grpc://{url}"


def locate(url: str, name: str) -> _location.Location:
    """Return what a URL says of the endpoint and the model, and the base URL in it.

    Args:
        url: the user's: a base URL, or that of a request.
        name: of the endpoint that the user named, or AUTO.

    Raises:
        UsageError: there is no such endpoint, or the path is another endpoint's.
    """
    return _location.locate(url, name)
