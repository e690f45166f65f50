"""The embedded engine's HTTP server: `python -m llmdyno.embedded.server --model tiny --port 8000`.

Where it stands: the command that engines/openvino.py launches. Requests come in OpenAI's format
(openai_api.py) and go to the worker (engine.py); the pieces that come back are written straight to
the connection, one event a piece, because client, server and engine share the machine and every
microsecond spent on a token here is one that the engine does not have. A request with several
choices (`n`, a list of prompts) is as many generations; their pieces are written as they come.

Ways it ends: SIGTERM or SIGINT (running generations get DRAIN_S to finish; status 0), the worker's
death (status 1, with the worker's last words), a model, config or port it cannot use (status 2).
"""

import argparse
import asyncio
import contextlib
import logging
import signal
import socket
import sys
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any, Protocol

import msgspec
import uvicorn
import uvloop
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from llmdyno import __version__
from llmdyno.embedded import messages, metrics, openai_api, openai_request
from llmdyno.embedded.engine import Engine, EngineDiedError, Generation, HungUpError, RefusedError
from llmdyno.embedded.messages import Piece, Prompt
from llmdyno.embedded.model import Model, resolve
from llmdyno.embedded.openai_request import ApiError
from llmdyno.errors import UsageError
from llmdyno.knobs import Value

DRAIN_S = 10  # how long running generations may take to finish after SIGTERM
DEATH_NOTICE_S = 0.5  # how long /health says 503 after the worker's death, before we go too

_STREAM_HEADERS = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-cache"),
]

_log = logging.getLogger("llmdyno.embedded")


class Backend(Protocol):
    """What makes the tokens: engine.py's worker, or Triton behind its front's OpenAI port."""

    model: Model
    max_tokens: int  # prompt and output together
    state: str  # "loading", then "ready", then "dead"
    metrics: metrics.Metrics

    async def run(self) -> str:
        """Run until it dies, and return why it died."""

    def generate(self, **asked: Any) -> AbstractAsyncContextManager[Generation]:
        """Run a generation, asked for in the fields of messages.Generate, while the block lasts."""

    async def tokenize(self, prompt: Prompt, *, special: bool) -> list[int]:
        """Return the tokens of a prompt."""


class Completions:
    """POST /v1/chat/completions and /v1/completions, by dialect."""

    def __init__(self, engine: Backend, dialect: openai_api.Dialect) -> None:
        self._engine = engine
        self._dialect = dialect

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, in one piece or as a stream."""
        asked, ignored = openai_request.read(
            await Request(scope, receive).body(), self._dialect.request
        )
        _check_ready(self._engine, asked.model)
        headers = openai_request.warning(ignored)
        answer = openai_api.Answer(self._dialect, asked)
        with contextlib.suppress(HungUpError):
            async with (
                _generations(self._engine, asked.asked()) as generations,
                _watched(generations, receive),
            ):
                if asked.stream:
                    await _stream(answer, generations, headers, send)
                else:
                    body = answer.whole(await _texts(generations), generations)
                    await _json(body, headers=headers)(scope, receive, send)


@contextlib.asynccontextmanager
async def _generations(
    engine: Backend, asked: Sequence[Mapping[str, Any]]
) -> AsyncIterator[list[Generation]]:
    """Run the generations of one request, all accepted at once; if one is refused, none runs."""
    async with contextlib.AsyncExitStack() as running:
        found = await asyncio.gather(
            *(running.enter_async_context(engine.generate(**each)) for each in asked),
            return_exceptions=True,
        )
        begun: list[Generation] = []
        for one in found:
            if isinstance(one, BaseException):
                raise one
            begun.append(one)
        yield begun


async def _pieces(generations: Sequence[Generation]) -> AsyncGenerator[tuple[int, Piece]]:
    """Yield the pieces of all generations as they come, each with the number of its own."""
    if len(generations) == 1:
        (only,) = generations
        while only.finish is None:
            yield 0, await only.next()
        return
    waiting = {asyncio.create_task(one.next()): at for at, one in enumerate(generations)}
    try:
        while waiting:
            done, _ = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            for task in sorted(done, key=waiting.__getitem__):
                at = waiting.pop(task)
                yield at, task.result()
                if generations[at].finish is None:
                    waiting[asyncio.create_task(generations[at].next())] = at
    finally:
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)


async def _texts(generations: Sequence[Generation]) -> list[str]:
    texts = [[one.prompt_text] for one in generations]
    async with contextlib.aclosing(_pieces(generations)) as pieces:
        async for at, piece in pieces:
            texts[at].append(piece.text)
    return ["".join(parts) for parts in texts]


async def _stream(
    answer: openai_api.Answer,
    generations: Sequence[Generation],
    headers: Mapping[str, str],
    send: Send,
) -> None:
    """Write each piece as it comes; an error after the start can only be an event."""

    async def write(body: bytes, *, more: bool = True) -> None:
        await send({"type": "http.response.body", "body": body, "more_body": more})

    more = [(name.lower().encode(), value.encode()) for name, value in headers.items()]
    await send({"type": "http.response.start", "status": 200, "headers": [*_STREAM_HEADERS, *more]})
    for at, one in enumerate(generations):
        opening = answer.opening(at, one)
        if one.prompt_text:
            opening += answer.text(at, one.prompt_text, one)
        if opening:
            await write(opening)
    running = len(generations)
    try:
        async with contextlib.aclosing(_pieces(generations)) as pieces:
            async for at, piece in pieces:
                events = answer.text(at, piece.text, generations[at]) if piece.text else b""
                if piece.finish:
                    running -= 1
                    events += answer.finish(at, generations[at])
                    if not running:
                        events += answer.closing(generations)
                if events:
                    await write(events, more=running > 0)
    except (EngineDiedError, RefusedError) as error:
        await write(openai_api.sse(openai_api.error_body(_as_api_error(error))), more=False)


@contextlib.asynccontextmanager
async def _watched(generations: Sequence[Generation], receive: Receive) -> AsyncIterator[None]:
    """Tell the generations when their client hangs up."""

    async def watch() -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        for generation in generations:
            generation.hang_up()

    watcher = asyncio.create_task(watch())
    try:
        yield
    finally:
        watcher.cancel()


def _json(body: bytes, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    return Response(body, status, headers, media_type="application/json")


def _check_model(engine: Backend, model: str | None) -> None:
    if model is not None and model != engine.model.name:
        raise ApiError(
            404,
            f"The model '{model}' does not exist here; this server has '{engine.model.name}'.",
            param="model",
            code="model_not_found",
        )


def _check_ready(engine: Backend, model: str | None) -> None:
    _check_model(engine, model)
    if engine.state == "loading":
        raise ApiError(503, "The model is still being loaded.", code="loading")


def _as_api_error(error: Exception) -> ApiError:
    """Return any error in OpenAI's terms."""
    match error:
        case ApiError():
            return error
        case RefusedError(code=messages.FAILED):
            return ApiError(500, str(error), code=error.code)
        case RefusedError():
            return ApiError(400, str(error), param=error.param, code=error.code)
        case EngineDiedError():
            return ApiError(500, "The engine has died; the server ends now.", code="engine_died")
        case HTTPException(status_code=404):
            return ApiError(404, "There is nothing at this path.", code="unknown_url")
        case HTTPException(status_code=405):
            return ApiError(405, "This path does not take this method.", code="method_not_allowed")
    return ApiError(500, f"The server has a fault: {type(error).__name__}.")


async def _on_error(request: Request, error: Exception) -> Response:
    del request
    answer = _as_api_error(error)
    headers = error.headers if isinstance(error, HTTPException) else None
    return Response(
        msgspec.json.encode(openai_api.error_body(answer)),
        answer.status,
        headers,
        "application/json",
    )


def make_app(engine: Backend) -> ASGIApp:
    """Return the ASGI application in front of an engine."""

    def card() -> dict[str, object]:
        return {
            "id": engine.model.name,
            "object": "model",
            "created": 0,
            "owned_by": "llmdyno",
            "max_model_len": engine.max_tokens,
        }

    async def models(request: Request) -> Response:
        del request
        return _json(msgspec.json.encode({"object": "list", "data": [card()]}))

    async def model(request: Request) -> Response:
        _check_model(engine, request.path_params["name"])
        return _json(msgspec.json.encode(card()))

    async def tokenize(request: Request) -> Response:
        asked, ignored = openai_request.read(await request.body(), openai_request.TokenizeRequest)
        _check_ready(engine, asked.model)
        tokens = await engine.tokenize(asked.asked(), special=asked.add_special_tokens)
        found = {"count": len(tokens), "max_model_len": engine.max_tokens, "tokens": tokens}
        return _json(msgspec.json.encode(found), headers=openai_request.warning(ignored))

    async def health(request: Request) -> Response:
        del request
        return _json(
            msgspec.json.encode({"status": engine.state}), 200 if engine.state == "ready" else 503
        )

    async def version(request: Request) -> Response:
        del request
        return _json(msgspec.json.encode({"version": __version__}))

    async def scrape(request: Request) -> Response:
        del request
        return Response(engine.metrics.text(), media_type=metrics.CONTENT_TYPE)

    chat = Completions(engine, openai_api.CHAT)
    completions = Completions(engine, openai_api.COMPLETION)
    return Starlette(
        routes=[
            Route("/v1/models", models),
            Route("/v1/models/{name:path}", model),
            Route("/v1/chat/completions", chat, methods=["POST"]),
            Route("/v1/completions", completions, methods=["POST"]),
            Route("/tokenize", tokenize, methods=["POST"]),
            Route("/health", health),
            Route("/ping", health, methods=["GET", "POST"]),  # as SageMaker asks
            Route("/version", version),
            Route("/metrics", scrape),
        ],
        exception_handlers=dict.fromkeys(
            (ApiError, RefusedError, EngineDiedError, HTTPException, Exception), _on_error
        ),
    )


async def serve(engine: Backend, listener: socket.socket) -> int:
    """Serve until a signal or the worker's death, and return the exit status."""
    server = uvicorn.Server(
        uvicorn.Config(
            make_app(engine),
            http="httptools",
            ws="none",
            lifespan="off",
            access_log=False,
            log_config=None,
            server_header=False,
            timeout_graceful_shutdown=DRAIN_S,
            timeout_keep_alive=60,
        )
    )
    worker = asyncio.create_task(engine.run())
    serving = asyncio.create_task(server.serve(sockets=[listener]))
    await asyncio.wait({worker, serving}, return_when=asyncio.FIRST_COMPLETED)
    if serving.done():
        worker.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await worker
        return 0
    await asyncio.sleep(DEATH_NOTICE_S)
    server.config.timeout_graceful_shutdown = 1
    server.should_exit = True
    await serving
    _log.error("%s", worker.result())
    return 1


def main() -> int:
    """Read the command line, serve until a signal or the worker's death, return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m llmdyno.embedded.server")
    parser.add_argument("--model", required=True)
    parser.add_argument("--artifact", type=Path, help="the IR that a build has made of the model")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8000)
    parser.add_argument("--config", default="{}", help="knobs and their values, as JSON")
    arguments = parser.parse_args()
    logging.basicConfig(format="%(name)s: %(message)s", level=logging.INFO, stream=sys.stderr)
    for chatty in ("gguf", "httpx", "uvicorn"):
        logging.getLogger(chatty).setLevel(logging.WARNING)
    try:
        config: Mapping[str, Value] = msgspec.json.decode(arguments.config, type=dict[str, Value])
        model = resolve(arguments.model, arguments.artifact)
        listener = socket.create_server((arguments.host, arguments.port), backlog=2048)
    except msgspec.DecodeError as error:
        _log.error("--config: %s", error)
        return 2
    except UsageError as error:
        _log.error("%s", error)
        return 2
    except OSError as error:
        _log.error("cannot listen on %s:%d: %s", arguments.host, arguments.port, error)
        return 2
    # uvicorn raises the signal again after its shutdown, when it no longer matters.
    signal.signal(signal.SIGTERM, lambda *_: None)
    signal.signal(signal.SIGINT, lambda *_: None)
    _log.info("%s on http://%s:%d", model.name, *listener.getsockname()[:2])
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(serve(Engine(model, config, metrics.Metrics()), listener))


if __name__ == "__main__":
    sys.exit(main())
