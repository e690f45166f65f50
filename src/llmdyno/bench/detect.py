"""`--endpoint auto`: asks a server which protocol it speaks and which model it serves.

questions.py calls this before anything is measured. No token is generated where a server describes
itself:

    GET /v2            "triton" → triton-generate, with a model of text_input and text_output
    GET /v1/models     then one token by POST → openai-chat, openai-completions
    GET /info          a model_id and max_total_tokens → tgi
    GET /schema.json   a BentoML service with a streaming route /generate → bentoml
    grpc://            triton-grpc, with a model as above; the calls are RepositoryIndex and
                       ModelMetadata

OpenAI's protocol is tried before TGI's and BentoML's own, because it counts tokens.
"""

from collections.abc import Callable
from typing import Any, TypeVar
from urllib.parse import quote

import msgspec

from llmdyno import plugins
from llmdyno.bench.prober import Prober
from llmdyno.endpoints import Ask, Endpoint
from llmdyno.errors import TargetError
from llmdyno.wire import kserve
from llmdyno.wire.exchange import Response

# Preferred among Triton's models that take text: the whole pipelines of TensorRT-LLM.
_TRITON_FIRST = ("ensemble", "tensorrt_llm_bls")
# These serve one model, and their requests name none.
_WITHOUT_MODEL = frozenset({"tgi", "bentoml"})
_RPC = "triton-grpc"  # our only endpoint over gRPC
_OPENAI = ("openai-chat", "openai-completions")

Tensors = tuple[tuple[kserve.Tensor, ...], tuple[kserve.Tensor, ...]]  # inputs, outputs
Given = TypeVar("Given")
Read = TypeVar("Read")


async def detect(prober: Prober, endpoint: str, model: str) -> tuple[str, str]:
    """Return the names of the endpoint and the model; it asks the server for those not given.

    Args:
        prober: connected to the server, or not yet.
        endpoint: its name, or "auto".
        model: its name, or "" to ask for it.

    Raises:
        TargetError: nobody answers, no model is certain, or no protocol is known; the message says
            what was tried.
    """
    if prober.target.rpc:
        await prober.reach()
        return _RPC, model or await _triton_model(prober)
    if endpoint == "auto":
        return await _endpoint_and_model(prober, model)
    if model or endpoint in _WITHOUT_MODEL:
        await prober.reach()
        return endpoint, model
    if endpoint.startswith("triton-"):
        return endpoint, await _triton_model(prober)
    return endpoint, await _listed_model(prober)


async def _endpoint_and_model(prober: Prober, model: str) -> tuple[str, str]:
    await prober.reach()
    server = _document(await prober.look("/v2"))
    if server.get("name") == "triton":
        return "triton-generate", model or await _triton_model(prober)
    listed = await prober.look("/v1/models")
    tried = [] if model or _first_id(listed) else [f"/v1/models: status {listed.status}"]
    if not tried:
        model = model or _first_id(listed)
        for name in _OPENAI:
            if refusal := await _refuses(prober, name, model):
                tried.append(f"{name}: {refusal}")
            else:
                return name, model
    facts = _document(await prober.look("/info"))
    if "model_id" in facts and "max_total_tokens" in facts:
        return "tgi", model or str(facts["model_id"])
    if _is_text_service(_document(await prober.look("/schema.json"))):
        return "bentoml", model
    said = prober.target.redact("; ".join(tried))
    raise TargetError(
        f"{prober.target.authority} speaks no endpoint that we know ({said}):"
        " name one with --endpoint, and its model with --model."
    )


async def _refuses(prober: Prober, name: str, model: str) -> str:
    """Ask for one token; return why none came, or an empty text if one did."""
    endpoint: Endpoint = plugins.load("endpoints", name)
    body = endpoint.body(Ask(prompt="Hello", model=model, max_tokens=1))
    response = await prober.ask("POST", endpoint.path(model), body)
    if response.status == 200:
        return ""
    return f"status {response.status} {endpoint.error_of(response.body())}".strip()


async def _listed_model(prober: Prober) -> str:
    response = await prober.ask("GET", "/v1/models")
    if not (model := _first_id(response)):
        raise TargetError(
            f"{prober.target.authority} does not list its models"
            f" (GET {prober.target.prefix}/v1/models: status {response.status}):"
            " name one with --model."
        )
    return model


def _first_id(response: Response) -> str:
    """Return the first model of OpenAI's list; an empty text if the answer is no such list."""
    match _document(response).get("data"):
        case [{"id": str() as model}, *_]:
            return model
    return ""


async def _triton_model(prober: Prober) -> str:
    """Return the ready model that takes text and gives text.

    Raises:
        TargetError: no model does, or several do and none is preferred.
    """
    names = await _ready_models(prober)
    for name in _TRITON_FIRST:
        if name in names:
            return name
    text_models = [name for name in names if await _takes_text(prober, name)]
    if len(text_models) == 1:
        return text_models[0]
    found = ", ".join(text_models) or "none"
    raise TargetError(
        f"{prober.target.authority}: one of Triton's models must take text_input and give"
        f" text_output, but there are these that do: {found}. Name one with --model."
    )


async def _ready_models(prober: Prober) -> list[str]:
    if prober.target.rpc:
        answer = await _call(prober, "RepositoryIndex", b"")
        return _understood(prober, kserve.read_index, answer)
    index = _decoded(await prober.ask("POST", "/v2/repository/index", b"{}"))
    return [
        str(model["name"])
        for model in (index if isinstance(index, list) else [])
        if isinstance(model, dict) and "name" in model and model.get("state") == "READY"
    ]


async def tensors(prober: Prober, model: str) -> Tensors:
    """Ask a gRPC server for a model's inputs and outputs, and return both.

    Raises:
        TargetError: the server does not know the model, or does not answer as Triton does.
    """
    answer = await _call(prober, "ModelMetadata", kserve.metadata_request(model))
    return _understood(prober, kserve.read_metadata, answer)


async def _call(prober: Prober, method: str, message: bytes) -> bytes:
    """Call a method and return the message of its response."""
    path = f"{kserve.SERVICE}{method}"
    response = await prober.ask("POST", path, kserve.framed(message))
    if response.status != 200:
        raise TargetError(f"{prober.target.authority}{path}: status {response.status}.")
    answers = _understood(prober, lambda pieces: list(kserve.messages(pieces)), response.pieces)
    return answers[0][1] if answers else b""


def _understood(prober: Prober, read: Callable[[Given], Read], given: Given) -> Read:
    try:
        return read(given)
    except kserve.MessageError as error:
        raise TargetError(
            f"{prober.target.authority} does not answer as Triton does: {error}."
        ) from error


async def _takes_text(prober: Prober, model: str) -> bool:
    if prober.target.rpc:
        inputs, outputs = await tensors(prober, model)
        return "text_input" in {tensor.name for tensor in inputs} and "text_output" in {
            tensor.name for tensor in outputs
        }
    described = _document(await prober.ask("GET", f"/v2/models/{quote(model, safe='')}"))
    return "text_input" in _names(described, "inputs") and "text_output" in _names(
        described, "outputs"
    )


def _names(described: dict[str, Any], field: str) -> set[str]:
    tensors = described.get(field)
    if not isinstance(tensors, list):
        return set()
    return {str(tensor.get("name")) for tensor in tensors if isinstance(tensor, dict)}


def _is_text_service(schema: dict[str, Any]) -> bool:
    """Return whether this is a BentoML service's schema with a streaming route /generate."""
    routes = schema.get("routes")
    if schema.get("type") != "service" or not isinstance(routes, list):
        return False
    return any(
        isinstance(route, dict)
        and route.get("route") == "/generate"
        and isinstance(route.get("output"), dict)
        and bool(route["output"].get("is_stream"))
        for route in routes
    )


def _document(response: Response) -> dict[str, Any]:
    """Return the JSON object in a response; an empty one if the body is none."""
    decoded = _decoded(response)
    return decoded if isinstance(decoded, dict) else {}


def _decoded(response: Response) -> Any:
    if response.status != 200:
        return None
    try:
        return msgspec.json.decode(response.body())
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None
