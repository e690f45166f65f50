"""`--endpoint auto`: what a server speaks, and the model it serves, by asking it.

run.py asks before anything is measured. Nothing is generated where a server describes itself:

    GET /v2            "triton" → triton-generate, with a model of text_input and text_output
    GET /v1/models     then one token by POST → openai-chat, openai-completions
    GET /info          a model_id and max_total_tokens → tgi
    GET /schema.json   a BentoML service with a streaming route /generate → bentoml
    grpc://            triton-grpc, with a model as above; the calls are RepositoryIndex and
                       ModelMetadata

OpenAI's protocol goes before TGI's and BentoML's own, because it counts tokens.
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

# Of Triton's models that take text: TensorRT-LLM's whole pipeline first.
_TRITON_FIRST = ("ensemble", "tensorrt_llm_bls")
# They serve one model, and name it nowhere in a request.
_WITHOUT_MODEL = frozenset({"tgi", "bentoml"})
_RPC = "triton-grpc"  # the one that we speak over gRPC
_OPENAI = ("openai-chat", "openai-completions")

Tensors = tuple[tuple[kserve.Tensor, ...], tuple[kserve.Tensor, ...]]  # inputs, outputs
Given = TypeVar("Given")
Read = TypeVar("Read")


async def detect(prober: Prober, endpoint: str, model: str) -> tuple[str, str]:
    """Return the endpoint and the model; what is given stays as it is ("auto" and "" are not).

    Raises:
        TargetError: nobody answers, or it speaks nothing that we know; says what was tried.
    """
    if prober.target.rpc:
        await prober.reach()
        return _RPC, model or await _triton_model(prober)
    if endpoint == "auto":
        return await _endpoint_and_model(prober, model)
    if model or endpoint in _WITHOUT_MODEL:
        await prober.reach()  # is anybody there?
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
    """Ask for one token; return why there is none, or nothing."""
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
    """Return the first model of OpenAI's list; an empty text if it is none."""
    match _document(response).get("data"):
        case [{"id": str() as model}, *_]:
            return model
    return ""


async def _triton_model(prober: Prober) -> str:
    """Choose among the ready models those that take text and give text.

    Raises:
        TargetError: there is none, or it is not clear which.
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
    """Ask a gRPC server for a model's inputs and outputs.

    Raises:
        TargetError: it does not know the model.
    """
    answer = await _call(prober, "ModelMetadata", kserve.metadata_request(model))
    return _understood(prober, kserve.read_metadata, answer)


async def _call(prober: Prober, method: str, message: bytes) -> bytes:
    """Call a method and return the message that it answers with."""
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
    """Whether it is a BentoML service's schema with a /generate that streams."""
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
    """Return the JSON object in an answer; an empty one if there is none."""
    decoded = _decoded(response)
    return decoded if isinstance(decoded, dict) else {}


def _decoded(response: Response) -> Any:
    if response.status != 200:
        return None
    try:
        return msgspec.json.decode(response.body())
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None
