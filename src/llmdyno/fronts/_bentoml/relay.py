"""What comes in goes to the engine, what the engine says goes out: bytes, as they are.

A worker of BentoML has one Relay (service.py makes it). A client that hangs up is noticed at once
and its connection to the engine is closed. Once the status is sent, an error can no longer be one:
an event stream gets an error event, any other body is cut off, so that the client's HTTP says that
it is not whole.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Coroutine
from contextlib import AbstractAsyncContextManager
from typing import Any
from urllib.parse import urlsplit

from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.types import Receive, Scope, Send

from . import engine_process, upstream
from .upstream import Answer, EngineError, Header

# Hop-by-hop headers, and those that are written anew for the next hop.
_HOP = frozenset(
    b"connection content-length date expect host keep-alive proxy-authenticate proxy-authorization"
    b" server te trailer transfer-encoding upgrade".split()
)
_JSON = (b"content-type", b"application/json")
_HEALTH_TIMEOUT_S = 2.0
# Nobody hears it, but BentoML's timeout would wait for an answer, and its metrics count this one.
_GONE = Response(status_code=499)
_STATES = {
    "starting": "The engine is starting.",
    "dead": "The engine has died and is being restarted.",
    "failed": "The engine keeps dying.",
}


class CutError(Exception):
    """The engine's stream ended before its end, or said that it failed."""


class Relay:
    """The way to the engine."""

    def __init__(self, spec: engine_process.Spec) -> None:
        self._spec = spec
        address = urlsplit(spec.url)
        assert address.hostname is not None
        assert address.port is not None
        self._address = address.hostname, address.port

    def ask(
        self, method: str, path: bytes, headers: list[Header], body: bytes = b""
    ) -> AbstractAsyncContextManager[Answer]:
        """Send a request to the engine; to be used with `async with`."""
        return upstream.ask(*self._address, method, path, headers, body)

    async def answers(self) -> bool:
        """Return whether the engine has made a token and says that it is well."""
        if engine_process.state() != "ready":
            return False
        status, _ = await self._get(self._spec.health_path)
        return status == 200

    async def page(self, path: str) -> str:
        """Return the text of a page of the engine's; nothing if there is none."""
        status, body = await self._get(path)
        return body.decode("utf-8", "replace") if status == 200 else ""

    async def _get(self, path: str) -> tuple[int, bytes]:
        try:
            async with (
                asyncio.timeout(_HEALTH_TIMEOUT_S),
                self.ask("GET", path.encode(), []) as answer,
            ):
                return answer.status, await answer.rest()
        except (EngineError, TimeoutError):
            return 0, b""


class Passage:
    """An ASGI application: the engine's own route, every byte of it."""

    def __init__(self, relay: Relay, path: bytes = b"") -> None:
        self._relay = relay
        self._path = path  # at the engine; empty: the same as here

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass one request on, and the answer back."""
        try:
            body = await Request(scope, receive).body()
        except ClientDisconnect:
            await _GONE(scope, receive, send)
            return
        headers = [header for header in scope["headers"] if header[0] not in _HOP]
        path = self._path or scope["raw_path"]
        if scope["query_string"]:
            path += b"?" + scope["query_string"]
        asked = self._relay.ask(scope["method"], path, headers, body)
        try:
            if not await done_before_hang_up(_pass_back(asked, send), receive):
                await _GONE(scope, receive, send)
        except EngineError:
            await unavailable()(scope, receive, send)


async def _pass_back(asked: AbstractAsyncContextManager[Answer], send: Send) -> None:
    """Send the engine's answer on.

    Raises:
        EngineError: there is none; nothing has been sent.
    """
    async with asked as answer:
        headers = [
            header
            for header in answer.headers
            if header[0] == b"content-length" or header[0] not in _HOP
        ]
        await send({"type": "http.response.start", "status": answer.status, "headers": headers})
        try:
            while piece := await answer.read():
                await send({"type": "http.response.body", "body": piece, "more_body": True})
        except EngineError as error:
            if answer.header(b"content-type").startswith(b"text/event-stream"):
                event = b"data: " + json.dumps(_error(str(error))).encode() + b"\n\n"
                await send({"type": "http.response.body", "body": event})
            return  # a body without its end mark is cut off, which the client's HTTP reports
        await send({"type": "http.response.body", "body": b""})


class TextStream(Response):
    """An answer of /generate: the text that the engine's chat streams, and nothing else."""

    def __init__(self, relay: Relay, chat: dict[str, Any]) -> None:
        super().__init__(media_type="text/event-stream")  # so BentoML names any stream
        self._relay = relay
        self._chat = json.dumps(chat).encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Ask the engine and send the text on."""
        headers = [_JSON, *(header for header in scope["headers"] if header[0] == b"authorization")]
        asked = self._relay.ask("POST", b"/v1/chat/completions", headers, self._chat)
        try:
            work = self._answer(asked, scope, receive, send)
            if not await done_before_hang_up(work, receive):
                await _GONE(scope, receive, send)
        except EngineError:
            await unavailable()(scope, receive, send)
        finally:
            if self.background is not None:
                await self.background()

    async def _answer(
        self,
        asked: AbstractAsyncContextManager[Answer],
        scope: Scope,
        receive: Receive,
        send: Send,
    ) -> None:
        headers = [item for item in self.raw_headers if item[0] != b"content-length"]
        started = False
        async with asked as answer:
            if answer.status != 200:
                kind = answer.header(b"content-type").decode("latin-1")
                refusal = Response(await answer.rest(), answer.status, media_type=kind)
                await refusal(scope, receive, send)
                return
            try:
                # The status waits for the first text: until then an error can still be one.
                async for text in _texts(answer):
                    if not started:
                        started = True
                        await send(_start(headers))
                    await send({"type": "http.response.body", "body": text, "more_body": True})
            except (CutError, EngineError) as error:
                if not started:
                    await JSONResponse(_error(str(error)), 502)(scope, receive, send)
                return  # a body without its end mark is cut off
        if not started:
            await send(_start(headers))
        await send({"type": "http.response.body", "body": b""})


def _start(headers: list[tuple[bytes, bytes]]) -> dict[str, Any]:
    return {"type": "http.response.start", "status": 200, "headers": headers}


async def _texts(answer: Answer) -> AsyncIterator[bytes]:
    """Yield the text of each piece of an event stream: JSON never ends within a character."""
    rest = b""
    while piece := await answer.read():
        *lines, rest = (rest + piece).split(b"\n")
        texts: list[str] = []
        done = False
        for line in lines:
            data = line[5:].strip() if line.startswith(b"data:") else b""
            done = done or data == b"[DONE]"
            if data and not done:
                texts.append(_text(json.loads(data)))
        if text := "".join(texts):
            yield text.encode("utf-8", "replace")
        if done:
            return
    raise CutError("The engine's stream has no end.")


def _text(event: dict[str, Any]) -> str:
    match event:
        case {"error": {"message": str() as words}}:
            raise CutError(words)
        case {"error": words}:
            raise CutError(str(words))
        case {"choices": [{"delta": {"content": str() as text}}, *_]}:
            return text
    return ""


async def done_before_hang_up(work: Coroutine[Any, Any, None], receive: Receive) -> bool:
    """Do the work, or give it up when the client hangs up; return whether it is done."""
    task = asyncio.ensure_future(work)
    hung_up = False

    async def watch() -> None:
        nonlocal hung_up
        while (await receive())["type"] != "http.disconnect":
            pass
        hung_up = True
        task.cancel()

    watcher = asyncio.ensure_future(watch())
    try:
        await task
    except asyncio.CancelledError:
        if not hung_up:  # BentoML's timeout has cancelled us
            raise
        return False
    finally:
        watcher.cancel()
    return True  # uvicorn reports a completed answer as a disconnect as well


def unavailable() -> Response:
    """Return the answer while there is no engine."""
    words = _STATES.get(engine_process.state(), "The engine does not answer.")
    return JSONResponse(_error(words), 503, {"Retry-After": "1"})


def _error(words: str) -> dict[str, Any]:
    return {"error": {"message": words, "type": "engine_unavailable", "code": None, "param": None}}
