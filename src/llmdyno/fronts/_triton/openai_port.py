"""OpenAI's protocol on a port of its own, in front of a tritonserver with the embedded engine.

    python -m llmdyno.fronts._triton.openai_port SETTINGS    # JSON: see Settings

Tritonserver speaks KServe's protocol alone; most clients speak OpenAI's alone. NVIDIA's own answer
is a frontend of that kind inside its container. Ours is the embedded server (embedded/server.py)
with Triton where that has its worker: prompts are tokenised here and the engine model is called
with ids, so that a chat's template, token ids and stop strings mean what they mean there. The
models preprocessing, postprocessing and the ensemble have no part in it.

launcher.py holds the port and starts this with the first client, so that nobody pays for it who
does not use it. It ends with the launcher.
"""

import asyncio
import contextlib
import itertools
import logging
import signal
import socket
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import openvino_genai
import uvloop

from llmdyno.embedded import server
from llmdyno.embedded.encoding import Encoder, PromptError
from llmdyno.embedded.engine import EngineDiedError, Generation, RefusedError
from llmdyno.embedded.messages import Accepted, Generate, Piece, Prompt, Refused
from llmdyno.embedded.metrics import Metrics
from llmdyno.embedded.model import Model
from llmdyno.embedded.openai_request import ApiError
from llmdyno.embedded.pieces import (
    Detokenizer,
    TableDetokenizer,
    WindowDetokenizer,
    token_bytes,
    token_table,
)
from llmdyno.embedded.worker import Generation as Shown
from llmdyno.fronts._bentoml.upstream import Answer, EngineError, ask
from llmdyno.processes import leash

_LOOK_S = 0.5  # between two looks whether Triton is ready
_TOO_LONG = "context_length_exceeded"
_JSON = [(b"content-type", b"application/json")]


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """What the front's launch tells this process; the launcher adds the socket."""

    socket: int = -1  # the descriptor of the listening socket
    host: str  # Triton's
    port: int
    engine: str  # the engine's model in Triton
    model: str  # as clients name it
    place: str  # where the model's files are: the tokenizer is read from there
    context_length: int


class _Event(msgspec.Struct, frozen=True):
    """One response of the engine model."""

    output_ids: int | list[int] = []
    sequence_length: int = 0
    context_length: int = 0
    error: str = ""

    def new_ids(self) -> list[int]:
        """Return the ids after the context, which has been sent before."""
        ids = [self.output_ids] if isinstance(self.output_ids, int) else self.output_ids
        return ids[self.context_length : self.sequence_length]


_decode = msgspec.json.Decoder(_Event).decode


class Handle:
    """Stands for a generation in Triton, which ends when its connection is closed."""

    def cancel(self) -> None:
        """Do nothing: whoever reads the last piece hangs up."""


class TritonEngine:
    """The engine model in a tritonserver, as embedded/server.py knows an engine."""

    def __init__(self, settings: Settings) -> None:
        self.model = Model(
            name=settings.model,
            path=Path(settings.place),
            context_length=settings.context_length,
        )
        self.max_tokens = settings.context_length
        self.state = "loading"
        self.metrics = Metrics()
        self._address = settings.host, settings.port
        self._path = f"/v2/models/{settings.engine}/generate_stream".encode()
        self._numbers = itertools.count(1)
        tokenizer = openvino_genai.Tokenizer(settings.place)
        every, table = token_bytes(tokenizer), token_table(tokenizer)
        self._end_id = int(tokenizer.get_eos_token_id())
        self._encoder = Encoder(tokenizer, len(every))
        self._detokenizer: Detokenizer = (
            TableDetokenizer(table, every) if table else WindowDetokenizer(tokenizer)
        )

    async def run(self) -> str:
        """Look whether Triton is ready, again and again; the launcher ends this process."""
        while True:
            await self.look()
            await asyncio.sleep(_LOOK_S)

    async def look(self) -> None:
        """Ask Triton whether it is ready."""
        try:
            async with asyncio.timeout(5), ask(*self._address, "GET", b"/v2/health/ready") as seen:
                self.state = "ready" if seen.status == 200 else "loading"
        except (EngineError, TimeoutError):
            self.state = "loading" if self.state == "loading" else "dead"

    async def tokenize(self, prompt: Prompt, *, special: bool) -> list[int]:
        """Return the tokens of a prompt.

        Raises:
            RefusedError: the model's template refuses it.
        """
        try:
            ids: list[int] = self._encoder.ids(prompt, special=special)[0].tolist()
        except PromptError as error:
            raise RefusedError(Refused(0, str(error), error.param, None)) from error
        return ids

    @contextlib.asynccontextmanager
    async def generate(self, **asked: Any) -> AsyncIterator[Generation]:
        """Run a generation for as long as the block lasts; Triton is hung up on after it.

        Raises:
            RefusedError: it does not fit, or the model's template refuses it.
            EngineDiedError: Triton does not answer.
            ApiError: Triton cannot do it, or not now.
        """
        wanted = Generate(id=next(self._numbers), **asked)
        if wanted.logprobs:
            said = "'logprobs': is not supported behind Triton; leave it out."
            raise ApiError(400, said, param="logprobs")
        mailbox: asyncio.Queue[Any] = asyncio.Queue()
        generation = Generation(mailbox, self.metrics)
        reading = asyncio.create_task(self._deliver(wanted, mailbox))
        try:
            await generation.accepted()
            yield generation
        finally:
            reading.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await reading
            self._detokenizer.forget(wanted.id)
            self.metrics.ended(generation.outcome)

    async def _deliver(self, wanted: Generate, mailbox: asyncio.Queue[Any]) -> None:
        """Put what comes of a generation into its mailbox, or what went wrong."""
        try:
            ids: list[int] = self._encoder.ids(wanted.prompt, special=wanted.special)[0].tolist()
            room = max(1, self.max_tokens - len(ids))
            body = _body(wanted, ids, room if wanted.max_tokens is None else wanted.max_tokens)
            asked = ask(*self._address, "POST", self._path, _JSON, msgspec.json.encode(body))
            async with asked as answer:
                if answer.status != 200:
                    raise _refusal(answer.status, await answer.rest(), len(ids), self.max_tokens)
                text = self._encoder.text(wanted.prompt) if wanted.echo else ""
                mailbox.put_nowait(Accepted(wanted.id, len(ids), text))
                async for piece in self._pieces(wanted, answer, body["request_output_len"]):
                    mailbox.put_nowait(piece)
        except EngineError:
            mailbox.put_nowait(EngineDiedError())
        except PromptError as error:
            mailbox.put_nowait(Refused(wanted.id, str(error), error.param, None))
        except (RefusedError, ApiError) as error:
            mailbox.put_nowait(error)

    async def _pieces(
        self, wanted: Generate, answer: Answer, max_tokens: int
    ) -> AsyncIterator[Piece]:
        shown, made = Shown(wanted, Handle()), 0
        if wanted.show_special:
            self._detokenizer.show_special(wanted.id)
        finish: str | None = None
        async for event in _events(answer):
            if event.error:
                raise _refusal(400, event.error.encode(), 0, 1)
            tokens, finish = self._ended(wanted, made, event.new_ids(), max_tokens)
            made += len(tokens)
            self.metrics.generation_tokens.inc(len(tokens))
            text = self._detokenizer.feed({wanted.id: shown.shown(tokens, finish)})[wanted.id]
            piece = shown.piece(text, len(tokens), finish)
            yield piece
            if piece.finish:
                return
        yield shown.piece("", 0, "stop")

    def _ended(
        self, wanted: Generate, made: int, ids: list[int], max_tokens: int
    ) -> tuple[list[int], str | None]:
        """Return the ids up to the end of the answer, and why it ends, if it does."""
        sampling = wanted.sampling
        ends = set(sampling.stop_ids) if wanted.ignore_eos else {self._end_id, *sampling.stop_ids}
        for at, number in enumerate(ids):
            if number in ends and made + at >= sampling.min_tokens:
                return ids[: at + 1], "stop"
        return ids, "length" if made + len(ids) >= max_tokens else None


def _body(wanted: Generate, ids: list[int], max_tokens: int) -> dict[str, Any]:
    """Return the inputs of the engine model."""
    sampling = wanted.sampling
    if sampling.min_p:
        words = f"'min_p': {sampling.min_p:g} cannot be asked of Triton; leave it out."
        raise ApiError(400, words, param="min_p")
    return {
        "input_ids": ids,
        "input_lengths": len(ids),
        "request_output_len": max_tokens,
        "streaming": True,
        "temperature": float(sampling.temperature),
        "runtime_top_p": float(sampling.top_p),
        "min_tokens": min(sampling.min_tokens, max_tokens),
        "seed": sampling.seed,
        "repetition_penalty": float(sampling.repetition_penalty),
        "presence_penalty": float(sampling.presence_penalty),
        "frequency_penalty": float(sampling.frequency_penalty),
        **({"runtime_top_k": sampling.top_k} if sampling.top_k else {}),
        **({"end_id": -1} if wanted.ignore_eos else {}),
    }


async def _events(answer: Answer) -> AsyncIterator[_Event]:
    rest = b""
    while piece := await answer.read():
        *lines, rest = (rest + piece).split(b"\n")
        for line in lines:
            if line.startswith(b"data:"):
                yield _decode(line[5:])


def _refusal(status: int, body: bytes, prompt_tokens: int, context_length: int) -> Exception:
    """Return Triton's refusal in OpenAI's terms."""
    text = body.decode("utf-8", "replace").removeprefix("data:").strip()
    try:
        document = msgspec.json.decode(text)
        words = str(document["error"]) if isinstance(document, dict) else text
    except (msgspec.DecodeError, KeyError):
        words = text
    if "maximum is" in words or "exceed max_num_batched_tokens" in words:
        at_fault = "max_tokens" if prompt_tokens < context_length else "prompt"
        return RefusedError(Refused(0, words, at_fault, _TOO_LONG))
    return ApiError(status, words)


def main() -> int:
    """Serve on the launcher's socket until the launcher ends."""
    leash.die_with_parent()
    settings = msgspec.json.decode(sys.argv[1], type=Settings)
    logging.basicConfig(format="%(name)s: %(message)s", level=logging.WARNING, stream=sys.stderr)
    # uvicorn raises the signal again after its shutdown, when it no longer matters.
    signal.signal(signal.SIGTERM, lambda *_: None)
    signal.signal(signal.SIGINT, lambda *_: None)
    listener = socket.socket(fileno=settings.socket)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        engine = TritonEngine(settings)
        runner.run(engine.look())  # the client that it was started for is waiting
        return runner.run(server.serve(engine, listener))


if __name__ == "__main__":
    sys.exit(main())
