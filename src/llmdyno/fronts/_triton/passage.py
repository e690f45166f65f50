"""Triton model: a request → the engine's own OpenAI server, its stream → responses, as they come.

For engines that this tritonserver has no backend for. The file is copied into the repository
alone: it needs nothing of llmdyno, and of other packages numpy only, which Triton's Python backend
needs itself.

A few threads have an event loop each, and share the streams: to send a response is to wait for
Triton's process, and meanwhile another thread sends. A read of the engine's socket is parsed where
it comes in, and what text it brought is one response, sent before the stream's next read: nothing
polls, and under a load that cannot be kept up with, more pieces come in a read. Whether clients
have hung up is asked now and then, because asking takes a round trip for each request.
"""

import asyncio
import importlib
import itertools
import json
import threading
from collections.abc import Iterator, Sequence
from typing import Any
from urllib.parse import urlsplit

import numpy as np

WAYS = 4
CANCELLATION_CHECK_S = 0.5
CONNECT_TIMEOUT_S = 5.0
MAX_TOKENS = 16  # of a request that does not say, as OpenAI's completions have it
DETAIL_CHARACTERS_MAX = 500

# Inputs of the model → fields of a completion; the older names of two are understood, too.
FIELDS = {
    "max_tokens": "max_tokens",
    "min_length": "min_tokens",
    "min_tokens": "min_tokens",
    "temperature": "temperature",
    "top_p": "top_p",
    "top_k": "top_k",
    "random_seed": "seed",
    "seed": "seed",
    "presence_penalty": "presence_penalty",
    "frequency_penalty": "frequency_penalty",
    "repetition_penalty": "repetition_penalty",
    "ignore_eos": "ignore_eos",
}
COUNTS = ("num_input_tokens", "num_output_tokens")
# Parameters of a request that Triton and its clients know; any other is a field of a completion.
TRITONS_PARAMETERS = frozenset(
    {"sequence_id", "sequence_start", "sequence_end", "timeout", "priority"}
    | {"triton_enable_empty_final_response", "binary_data_output"}
)


class StreamError(Exception):
    """The engine's answer is an error, or is not whole."""


class TritonPythonModel:
    """The model; its methods are Triton's."""

    def initialize(self, args: dict[str, str]) -> None:
        """Learn where the engine is, and start the event loops."""
        triton = importlib.import_module("triton_python_backend_utils")
        parameters = json.loads(args["model_config"])["parameters"]
        url = parameters["url"]["string_value"]
        self._model = parameters["model"]["string_value"]
        self._ways = [Way(triton, url) for _ in range(WAYS)]
        self._turns = itertools.cycle(self._ways)

    def execute(self, requests: Sequence[Any]) -> None:
        """Pass requests on; they are answered from the event loops."""
        for request in requests:
            sender = request.get_response_sender()
            way = next(self._turns)
            try:
                inputs = {tensor.name(): tensor.as_numpy().ravel() for tensor in request.inputs()}
                fields, wanted = completion(inputs, request.parameters(), self._model)
            except (ValueError, TypeError) as error:
                way.refuse(sender, str(error))
            else:
                way.begin(sender, fields, wanted)

    def finalize(self) -> None:
        """Hang up on the engine: nobody waits for its answers any more."""
        for way in self._ways:
            way.stop()


class Way:
    """A thread with an event loop, and the streams that are its own."""

    def __init__(self, triton: Any, url: str) -> None:
        self._triton = triton
        address = urlsplit(url)
        self._address = str(address.hostname), int(address.port or 80)
        self._path = f"{address.path.rstrip('/')}/v1/completions"
        self._streams: set[Stream] = set()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self._loop.call_soon_threadsafe(self._look_for_hang_ups)

    def stop(self) -> None:
        """End the loop, from another thread."""
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()

    def begin(self, sender: Any, fields: dict[str, Any], wanted: set[str]) -> None:
        """Begin a stream, from another thread."""
        self._loop.call_soon_threadsafe(self._begin, sender, fields, wanted)

    def _begin(self, sender: Any, fields: dict[str, Any], wanted: set[str]) -> None:
        stream = Stream(self, sender, whole="stream" not in wanted, wanted=wanted)
        body = json.dumps(fields).encode()
        host, port = self._address
        head = (
            f"POST {self._path} HTTP/1.1\r\nhost: {host}:{port}\r\nconnection: close\r\n"
            f"content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
        )
        self._streams.add(stream)
        stream.task = self._loop.create_task(self._connect(stream, head.encode() + body))

    async def _connect(self, stream: "Stream", request: bytes) -> None:
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT_S):
                transport, _ = await self._loop.create_connection(lambda: stream, *self._address)
        except (OSError, TimeoutError) as error:
            words = getattr(error, "strerror", None) or f"no connection in {CONNECT_TIMEOUT_S:g} s"
            self.end(stream, f"the engine's server does not answer: {words}")
        else:
            transport.write(request)

    def respond(self, stream: "Stream", text: str, counts: dict[str, int]) -> None:
        """Send one response: a text, and the counts that are known."""
        encoded = text.encode("utf-8", "replace")
        tensors = [self._triton.Tensor("text_output", np.array([encoded], dtype=np.object_))]
        for name in COUNTS:
            if name in counts:
                value = np.array([counts[name]], dtype=np.int32)
                tensors.append(self._triton.Tensor(name, value))
        stream.sender.send(self._triton.InferenceResponse(tensors))

    def end(self, stream: "Stream", error: str = "") -> None:
        """End a stream, once: whatever the engine may still say is not read."""
        if stream not in self._streams:
            return
        self._streams.remove(stream)
        stream.hang_up()
        if error:
            self.refuse(stream.sender, error)
        else:
            stream.sender.send(flags=self._triton.TRITONSERVER_RESPONSE_COMPLETE_FINAL)

    def refuse(self, sender: Any, words: str) -> None:
        """Answer a request with an error, from any thread."""
        wrong = self._triton.TritonError(words, self._triton.TritonError.INVALID_ARG)
        final = self._triton.TRITONSERVER_RESPONSE_COMPLETE_FINAL
        sender.send(self._triton.InferenceResponse(error=wrong), flags=final)

    def _look_for_hang_ups(self) -> None:
        """End the streams whose clients have gone; the engine is hung up on, so it stops, too."""
        for stream in list(self._streams):
            if stream.sender.is_cancelled():
                self.end(stream)
        self._loop.call_later(CANCELLATION_CHECK_S, self._look_for_hang_ups)


class Stream(asyncio.Protocol):
    """One request at the engine: its HTTP, its events, and what was told of them."""

    def __init__(self, way: Any, sender: Any, *, whole: bool, wanted: set[str]) -> None:
        self.sender = sender
        self.task: Any = None  # the connecting one: the loop itself does not keep it alive
        self._way = way
        self._whole = whole  # one response at the end, not one a read
        self._wanted = wanted
        self._transport: asyncio.Transport | None = None
        self._body = Body()
        self._line = b""  # the beginning of a line whose end is still to come
        self._texts: list[str] = []
        self._told = 0  # tokens told so far
        self._told_input = False
        self._usage: tuple[int, int] | None = None  # of prompt and answer, once the engine says it
        self._usage_is_new = False  # no text has come since the event that it was in

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport, to hang up."""
        self._transport = transport  # type: ignore[assignment]

    def hang_up(self) -> None:
        """Close the connection, which is how engines are told to stop."""
        if self._transport is not None:
            self._transport.abort()
        elif self.task is not None:
            self.task.cancel()

    def data_received(self, data: bytes) -> None:
        """Parse what a read has brought, and send its text on."""
        try:
            ended = self._read(self._body.feed(data))
        except (StreamError, ValueError) as error:
            self._way.end(self, str(error))
            return
        self._tell(ended=ended)
        if ended:
            self._way.end(self)

    def connection_lost(self, error: Exception | None) -> None:
        """Fail what was not whole; a refusal is, once its connection is closed."""
        del error
        if self._body.status not in {0, 200}:
            self._way.end(self, refusal(self._body.status, self._line))
        else:
            self._way.end(self, "the engine hung up before the end of its answer")

    def _read(self, content: bytes) -> bool:
        """Take in a piece of the body; return whether the answer is whole."""
        if self._body.status != 200:
            self._line += content
            if self._body.ended:
                raise StreamError(refusal(self._body.status, self._line))
            return False
        *lines, self._line = (self._line + content).split(b"\n")
        for line in lines:
            data = line[5:].strip() if line.startswith(b"data:") else b""
            if data == b"[DONE]":
                return True
            if data:
                self._event(json.loads(data))
        if self._body.ended:
            raise StreamError("the engine's stream has no end")
        return False

    def _event(self, event: dict[str, Any]) -> None:
        if event.get("error"):
            raise StreamError(words_of(event))
        for choice in event.get("choices") or ():
            if text := choice.get("text"):
                self._texts.append(text)
                self._usage_is_new = False
        usage = event.get("usage")
        if isinstance(usage, dict):
            self._usage = int(usage["prompt_tokens"]), int(usage["completion_tokens"])
            # Some engines send a usage of 0 until the end: it counts nothing.
            self._usage_is_new = self._usage[1] > 0

    def _tell(self, *, ended: bool) -> None:
        """Send what is new, if it is anything.

        Tokens are told only as the engine counts them: an event may hold several. An engine that
        counts them at the end alone has no count in the responses before.
        """
        if self._whole and not ended:
            return
        text = "".join(self._texts)
        self._texts.clear()
        counts: dict[str, int] = {}
        made = self._told
        if self._usage is not None and (self._usage_is_new or ended):
            made = max(made, self._usage[1])
            counts["num_output_tokens"] = made - self._told
        if self._usage is not None and not self._told_input:
            counts["num_input_tokens"] = self._usage[0]
        told = {name: count for name, count in counts.items() if f"return_{name}" in self._wanted}
        if text or (ended and (self._whole or any(told.values()))):
            self._told, self._told_input = made, "num_input_tokens" in counts or self._told_input
            self._way.respond(self, text, told)


class Body:
    """The body of an HTTP/1.1 answer, freed of head and chunks as it comes."""

    def __init__(self) -> None:
        self.status = 0  # until the head is whole
        self.ended = False  # as far as the head or the chunks say; else with the connection
        self._rest = b""
        self._left: int | None = None  # of a chunk or of the body; None: nobody says how much
        self._chunked = False

    def feed(self, data: bytes) -> bytes:
        """Take in what a read has brought; return what of it is body.

        Raises:
            StreamError: it is not HTTP.
        """
        self._rest += data
        if not self.status and not self._head():
            return b""
        return b"".join(self._content())

    def _head(self) -> bool:
        head, mark, rest = self._rest.partition(b"\r\n\r\n")
        if not mark:
            return False
        first, *lines = head.split(b"\r\n")
        words = first.split(b" ", 2)
        if len(words) < 2 or not words[0].startswith(b"HTTP/1.") or not words[1].isdigit():
            raise StreamError("the engine's server does not speak HTTP/1.1")
        headers = {
            name.strip().lower(): value.strip().lower()
            for name, _, value in (line.partition(b":") for line in lines)
        }
        self._rest = rest
        self.status = int(words[1])
        self._chunked = b"chunked" in headers.get(b"transfer-encoding", b"")
        if not self._chunked and b"content-length" in headers:
            self._left = int(headers[b"content-length"])
            self.ended = not self._left
        return True

    def _content(self) -> Iterator[bytes]:
        if not self._chunked:
            yield self._rest
            if self._left is not None:
                self._left -= len(self._rest)
                self.ended = self._left <= 0
            self._rest = b""
            return
        while not self.ended:
            if self._left is None:
                size, mark, rest = self._rest.partition(b"\r\n")
                if not mark:
                    return
                self._left, self._rest = int(size.partition(b";")[0], 16), rest
                self.ended = not self._left  # no trailers are waited for
                continue
            if len(self._rest) < self._left + 2:
                return
            yield self._rest[: self._left]
            self._rest, self._left = self._rest[self._left + 2 :], None


def completion(
    inputs: dict[str, Any], parameters: str, model: str
) -> tuple[dict[str, Any], set[str]]:
    """Return the body of a completion, and what the client wants of the answer.

    Args:
        inputs: the inputs of a request that are there, each with its values in a row.
        parameters: the request's parameters, as JSON: further fields of a completion.
        model: as the engine names it.

    Raises:
        ValueError: it is no request for a text.
    """
    if len(inputs["text_input"]) != 1 or not (prompt := inputs["text_input"][0].decode()):
        raise ValueError("text_input: must be one text, and not an empty one.")
    fields: dict[str, Any] = {
        "model": model,
        "prompt": prompt,
        "max_tokens": MAX_TOKENS,
        # Always streamed: only so is an engine told at once when a client has gone.
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    more = json.loads(parameters) if parameters else {}
    fields |= {name: more[name] for name in more if name not in TRITONS_PARAMETERS}
    for name, field in FIELDS.items():
        if name in inputs:
            value = inputs[name][0].item()
            fields[field] = float(f"{value:.7g}") if isinstance(value, float) else value
    if words := [word.decode() for word in inputs.get("stop_words", ()) if word]:
        fields["stop"] = words
    if fields.get("min_tokens") == fields["max_tokens"]:
        fields["ignore_eos"] = True  # not every engine knows min_tokens
    flags = ("stream", *(f"return_{name}" for name in COUNTS))
    return fields, {name for name in flags if name in inputs and inputs[name][0]}


def refusal(status: int, body: bytes) -> str:
    """Return the engine's refusal in words."""
    try:
        words = words_of(json.loads(body))
    except ValueError:
        words = body.decode("utf-8", "replace")
    return f"the engine answers with status {status}: {words.strip()[:DETAIL_CHARACTERS_MAX]}"


def words_of(document: Any) -> str:
    """Return the words of an error, wherever in the document servers put them."""
    while isinstance(document, dict):
        found = (document.get(name) for name in ("error", "message", "detail"))
        inner = next((value for value in found if value), None)
        if inner is None:
            return json.dumps(document)
        document = inner
    return str(document)
