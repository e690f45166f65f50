"""The BentoML service: OpenAI's routes and the 2024 /generate, over an engine of its own.

    GET  /v1/…, POST /v1/…      the engine's own answers, byte by byte; so is /tokenize
    POST /generate              {prompt, system_prompt, max_tokens, …} → the text as it comes
    GET  /readyz                200 once the engine has made a token, and while it is well
    GET  /health, /ping         the same, as other servers have it; /version is the engine's
    GET  /livez                 503 when the engine keeps dying; the service then ends
    GET  /metrics               BentoML's page, and the engine's below it; /engine/metrics alone

`bentoml serve llmdyno_front.service:Front` runs it; spec.json beside this file says which engine.
"""

import functools
import os
from collections.abc import AsyncIterator
from typing import Annotated, Any

import bentoml
from annotated_types import Ge
from bentoml._internal import utils
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from . import engine_process
from .leash import die_with_parent
from .relay import Passage, Relay, TextStream

_METHODS = ["GET", "POST"]

_spec = engine_process.read_spec()
_relay = Relay(_spec)
_traffic: dict[str, Any] = {"timeout": _spec.request_timeout_s}
if _spec.max_concurrency is not None:
    _traffic["max_concurrency"] = _spec.max_concurrency


async def _health(request: Request) -> Response:
    del request
    well = await _relay.answers()
    state = "ready" if well else engine_process.state()
    return JSONResponse({"status": state}, 200 if well else 503)


_routes = Starlette(
    routes=[
        Route("/v1/{rest:path}", Passage(_relay), methods=_METHODS),
        Route("/tokenize", Passage(_relay), methods=_METHODS),
        Route("/version", Passage(_relay), methods=["GET"]),
        Route("/health", _health, methods=["GET"]),
        Route("/ping", _health, methods=_METHODS),
        Route("/engine/metrics", Passage(_relay, b"/metrics"), methods=["GET"]),
    ]
)


@bentoml.asgi_app(_routes)
@bentoml.service(
    name="llmdyno_front",
    workers=_spec.service_workers,
    traffic=_traffic,
    logging={"access": {"enabled": _spec.access_log}},
    # Otherwise every token costs two spans, with no exporter to send them to. It must be said here:
    # a service's settings, defaults included, override BENTOML_CONFIG_OPTIONS.
    tracing={"excluded_urls": ".*"},
)
class Front:
    """Serves the engine of spec.json."""

    def __init__(self) -> None:
        """Let this worker end with BentoML's process, even where that is killed."""
        die_with_parent()
        if engine_process.state() == "dead" and os.getppid() == 1:
            os._exit(1)  # BentoML's process ended while this worker started

    @bentoml.on_deployment
    @staticmethod
    def start_engine() -> None:
        """Start the engine: once, before the workers."""
        # BentoML lets go of two free ports and takes them again; of those that the kernel gives to
        # clients, one may be gone by then. These are from 20000 to 30000.
        utils.reserve_free_port = functools.partial(utils.reserve_free_port, prefix="2")
        engine_process.keep(_spec)

    @bentoml.api
    async def generate(
        self,
        prompt: str,
        system_prompt: str = "",
        max_tokens: Annotated[int, Ge(1)] = 512,
        temperature: float | None = None,
        top_p: float | None = None,
        seed: int | None = None,
        stop: list[str] | None = None,
        ignore_eos: bool | None = None,
    ) -> AsyncIterator[str]:
        """Answer a prompt, as text while it is made."""
        messages = [{"role": "user", "content": prompt}]
        if system_prompt:
            messages.insert(0, {"role": "system", "content": system_prompt})
        optional = {
            "temperature": temperature,
            "top_p": top_p,
            "seed": seed,
            "stop": stop,
            "ignore_eos": ignore_eos,
        }
        chat = {
            "model": _spec.model,
            "messages": messages,
            "max_tokens": max_tokens,
            "stream": True,
            **{name: value for name, value in optional.items() if value is not None},
        }
        answer: Any = TextStream(_relay, chat)
        return answer  # type: ignore[no-any-return]

    # BentoML would put any error under status 200, so `generate` answers for itself; in the
    # service's description, which clients read, it is the stream that it is.
    generate.is_stream = True
    generate.output_spec.media_type = "text/event-stream"

    async def __is_ready__(self) -> bool:
        """Whether the engine has made a token and says that it is well."""
        return await _relay.answers()

    async def __is_alive__(self) -> bool:
        """Whether there is hope for the engine."""
        return engine_process.state() != "failed"

    async def __metrics__(self, own: str) -> str:
        """Show the engine's page below BentoML's."""
        return own + await _relay.page("/metrics")
