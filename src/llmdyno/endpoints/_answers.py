"""What a server answers when it is asked what it is: its JSON, and the models that it lists."""

from collections.abc import Callable
from typing import Any

import msgspec

from llmdyno.endpoints._interface import Ask, Detection, Endpoint, ServerProbe
from llmdyno.errors import TargetError
from llmdyno.wire.exchange import Response

MODELS_PATH = "/v1/models"  # OpenAI's; nearly every server has it


def decoded(response: Response) -> Any:
    """Return the JSON of a 200 response; None if there is none."""
    if response.status != 200:
        return None
    try:
        return msgspec.json.decode(response.body())
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None


def document(response: Response) -> dict[str, Any]:
    """Return the JSON object of a 200 response; an empty one if there is none."""
    found = decoded(response)
    return found if isinstance(found, dict) else {}


def model_names(response: Response) -> list[str]:
    """Return the models of OpenAI's list; none if the response is no such list."""
    listed = document(response).get("data")
    models = listed if isinstance(listed, list) else []
    names = [model.get("id") for model in models if isinstance(model, dict)]
    return [name for name in names if isinstance(name, str)]


def first_model(response: Response) -> str:
    """Return the first model of OpenAI's list; an empty text if the response is no such list."""
    return next(iter(model_names(response)), "")


async def listed_model(server: ServerProbe) -> str:
    """Return the first model that a server lists as OpenAI's does.

    Raises:
        TargetError: it does not answer, or lists none.
    """
    response = await server.ask("GET", MODELS_PATH)
    if not (model := first_model(response)):
        raise TargetError(
            f"{server.target.authority} does not list its models"
            f" (GET {server.target.resource(MODELS_PATH)}: status {response.status}):"
            " name one with --model."
        )
    return model


async def asked_for_tokens(
    endpoint: Endpoint,
    server: ServerProbe,
    model: str,
    *,
    tokens: int = 1,
    speaks_anyway: Callable[[Response, str], bool] = lambda _response, _words: False,
) -> Detection:
    """Ask for tokens: that a server lists a model does not say which protocol it speaks.

    Args:
        endpoint: the protocol.
        server: that is asked.
        model: that is asked; empty: the first that the server lists.
        tokens: how many.
        speaks_anyway: tells of a refusal and its words whether it is about something else.
    """
    if not model:
        listed = await server.look(MODELS_PATH)
        model = first_model(listed)
        if not model:
            return Detection(speaks=False, why_not=f"{MODELS_PATH}: status {listed.status}")
    body = endpoint.body(Ask(prompt="Hello", model=model, max_tokens=tokens))
    response = await server.ask("POST", endpoint.path(model), body)
    if response.status == 200:
        return Detection(speaks=True, model=model)
    words = endpoint.error_of(response.body())
    if speaks_anyway(response, words):
        return Detection(speaks=True, model=model)
    refusal = f"status {response.status} {words}"
    return Detection(speaks=False, why_not=f"{endpoint.name}: {refusal}".strip())
