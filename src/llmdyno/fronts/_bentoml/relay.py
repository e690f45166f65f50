"""What comes in goes to the engine, what the engine says goes out: bytes, as they are.

A worker of BentoML has one Relay (service.py makes it). A client that hangs up is noticed at once
and its connection to the engine is closed, which is how engines are told to stop; a connection is
never used twice, for one that the engine is about to close would fail a request for nothing.

Once the status is sent, an error can no longer be one: an event stream gets an error event, any
other body is cut off, so that the client's HTTP says that it is not whole.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Coroutine
from typing import Any

import aiohttp
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.types import Receive, Scope, Send

from . import engine_process

# Of one connection only, or written anew for the next.
_HOP = frozenset(
    "connection content-length date expect host keep-alive proxy-authenticate proxy-authorization"
    " server te trailer transfer-encoding upgrade".split()
)
_HEALTH_TIMEOUT_S = 2.0
_CUT = "The engine has died; the answer is not whole."
# Nobody hears it, but BentoML's timeout would wait for an answer, and its metrics count this one.
_GONE = Response(status_code=499)
_STATUSES = {
    "starting": "The engine is starting.",
    "dead": "The engine has died and is being restarted.",
    "failed": "The engine keeps dying.",
}


class CutError(Exception):
    """The engine's answer ended before its end, or said that it failed."""


class Relay:
    """The way to the engine."""

    def __init__(self, spec: engine_process.Spec) -> None:
        self.spec = spec
        self._session: aiohttp.ClientSession | None = None

    async def answers(self) -> bool:
        """Return whether the engine has made a token and says that it is well."""
        if engine_process.state() != "ready":
            return False
        try:
            async with asyncio.timeout(_HEALTH_TIMEOUT_S):
                async with self.ask("GET", self.spec.health_path) as response:
                    return bool(response.status == 200)
        except (aiohttp.ClientError, TimeoutError):
            return False

    async def page(self, path: str) -> str:
        """Return the text of a page of the engine's; nothing if there is none."""
        try:
            async with asyncio.timeout(_HEALTH_TIMEOUT_S), self.ask("GET", path) as response:
                return await response.text() if response.status == 200 else ""
        except (aiohttp.ClientError, TimeoutError):
            return ""

    def ask(
        self,
        method: str,
        path: str,
        *,
        headers: list[tuple[str, str]] | None = None,
        body: bytes | None = None,
    ) -> Any:
        """Send a request to the engine; to be used with `async with`."""
        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=0, force_close=True),
                timeout=aiohttp.ClientTimeout(total=None, sock_connect=_HEALTH_TIMEOUT_S),
                auto_decompress=False,
                skip_auto_headers=("Accept-Encoding", "User-Agent", "Content-Type"),
            )
        return self._session.request(
            method, self.spec.url + path, headers=headers, data=body, allow_redirects=False
        )

    async def close(self) -> None:
        """Close all connections."""
        if self._session is not None:
            await self._session.close()


class Passage:
    """An ASGI application: the engine's own route, every byte of it."""

    def __init__(self, relay: Relay, path: str = "") -> None:
        self._relay = relay
        self._path = path  # at the engine; empty: the same as here

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass one request on, and the answer back."""
        request = Request(scope, receive)
        try:
            body = await request.body()
        except ClientDisconnect:
            await _GONE(scope, receive, send)
            return
        headers = [(name, text) for name, text in request.headers.items() if name not in _HOP]
        path = self._path or request.url.path
        path += f"?{request.url.query}" if request.url.query else ""
        try:
            asked = self._relay.ask(request.method, path, headers=headers, body=body or None)
            if not await done_before_hang_up(_pass_back(asked, send), receive):
                await _GONE(scope, receive, send)
        except aiohttp.ClientError:
            await unavailable()(scope, receive, send)


async def _pass_back(asked: Any, send: Send) -> None:
    async with asked as response:
        headers = [
            (name.lower(), value)
            for name, value in response.raw_headers
            if name.lower() == b"content-length" or name.lower().decode() not in _HOP
        ]
        await send({"type": "http.response.start", "status": response.status, "headers": headers})
        try:
            async for piece in response.content.iter_any():
                await send({"type": "http.response.body", "body": piece, "more_body": True})
        except aiohttp.ClientError:
            if response.content_type == "text/event-stream":
                event = b"data: " + json.dumps(_error(_CUT)).encode() + b"\n\n"
                await send({"type": "http.response.body", "body": event})
            return  # without its end, any other body is cut off
        await send({"type": "http.response.body", "body": b""})


class TextStream(Response):
    """An answer of /generate: the text that the engine's chat streams, and nothing else."""

    def __init__(self, relay: Relay, chat: dict[str, Any]) -> None:
        super().__init__(media_type="text/event-stream")  # so BentoML names any stream
        self._relay = relay
        self._chat = json.dumps(chat).encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Ask the engine and send the text on."""
        asked = self._relay.ask(
            "POST",
            "/v1/chat/completions",
            headers=[("Content-Type", "application/json"), *_authorization(scope)],
            body=self._chat,
        )
        try:
            answer = self._answer(asked, scope, receive, send)
            if not await done_before_hang_up(answer, receive):
                await _GONE(scope, receive, send)
        except aiohttp.ClientError:
            await unavailable()(scope, receive, send)
        finally:
            if self.background is not None:
                await self.background()

    async def _answer(self, asked: Any, scope: Scope, receive: Receive, send: Send) -> None:
        headers = [item for item in self.raw_headers if item[0] != b"content-length"]
        started = False
        async with asked as response:
            if response.status != 200:
                await Response(
                    await response.read(), response.status, media_type=response.content_type
                )(scope, receive, send)
                return
            try:
                # The status waits for the first text: until then an error can still be one.
                async for text in _texts(response.content.iter_any()):
                    if not started:
                        started = True
                        await send(_start(headers))
                    await send({"type": "http.response.body", "body": text, "more_body": True})
            except (CutError, aiohttp.ClientError) as error:
                if not started:
                    words = str(error) if isinstance(error, CutError) else _CUT
                    await JSONResponse(_error(words), 502)(scope, receive, send)
                return  # without its end, the body is cut off
        if not started:
            await send(_start(headers))
        await send({"type": "http.response.body", "body": b""})


def _start(headers: list[tuple[bytes, bytes]]) -> dict[str, Any]:
    return {"type": "http.response.start", "status": 200, "headers": headers}


def _authorization(scope: Scope) -> list[tuple[str, str]]:
    found = Request(scope).headers.get("authorization")
    return [("Authorization", found)] if found else []


async def _texts(pieces: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """Yield the text of each piece of an event stream: JSON never ends within a character."""
    rest = b""
    async for piece in pieces:
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
    raise CutError(_CUT)


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
        if not hung_up:  # it is us who are given up, by BentoML's timeout
            raise
    finally:
        watcher.cancel()
    return not hung_up


def unavailable() -> Response:
    """Return the answer while there is no engine."""
    words = _STATUSES.get(engine_process.state(), "The engine does not answer.")
    return JSONResponse(_error(words), 503, {"Retry-After": "1"})


def _error(words: str) -> dict[str, Any]:
    return {"error": {"message": words, "type": "engine_unavailable", "code": None, "param": None}}
