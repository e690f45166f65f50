"""The server's end of the worker: starts it, sends it work, gives each generation its pieces.

server.py calls `generate` and reads the generation it gets; worker.py is at the other end of the
socket pair. A worker that dies is not started again, so that the starter of the server sees the
failure; all generations under way fail at once.
"""

import asyncio
import collections
import contextlib
import itertools
import logging
import os
import signal
import socket
import sys
import time
from collections.abc import AsyncIterator, Mapping
from typing import Any

import msgspec

from llmdyno.embedded.messages import (
    Accepted,
    Cancel,
    Chosen,
    Command,
    Frames,
    Generate,
    Piece,
    Prompt,
    Ready,
    Refused,
    Step,
    Tokenize,
    Tokens,
    decode_report,
    frame,
)
from llmdyno.embedded.metrics import Metrics
from llmdyno.embedded.model import Model
from llmdyno.knobs import Value

LAST_WORDS = 20  # lines of the worker's stderr that are kept to say why it died

_log = logging.getLogger("llmdyno.embedded")


class EngineDiedError(Exception):
    """The worker has died, so no more tokens come."""


class RefusedError(Exception):
    """The engine refuses a request; `param` and `code` are as in OpenAI's errors."""

    def __init__(self, refused: Refused) -> None:
        super().__init__(refused.message)
        self.param = refused.param
        self.code = refused.code


class HungUpError(Exception):
    """The client has hung up, so the rest of the generation is not needed."""


Mail = Accepted | Piece | Refused | Tokens | EngineDiedError | HungUpError
Mailbox = asyncio.Queue[Mail]  # what has come for one request, for the task that serves it


async def _next(mailbox: Mailbox) -> Accepted | Piece | Tokens:
    """Return the next thing that has come, or raise it."""
    mail = await mailbox.get()
    if isinstance(mail, Refused):
        raise RefusedError(mail)
    if isinstance(mail, Exception):
        raise mail
    return mail


class Generation:
    """One generation under way, as its request sees it."""

    def __init__(self, mailbox: Mailbox, metrics: Metrics) -> None:
        self.prompt_tokens = 0
        self.prompt_text = ""  # if it is to be said
        self.output_tokens = 0
        self.chosen: list[Chosen] = []  # the tokens, if the request asks for them
        self.finish: str | None = None
        self.outcome = "cancelled"  # unless another end is seen
        self._mailbox = mailbox
        self._metrics = metrics
        self._started_s = self._last_s = time.monotonic()

    async def accepted(self) -> None:
        """Wait until the engine has accepted the request.

        Raises:
            RefusedError: the engine refuses it.
            EngineDiedError: the worker has died.
        """
        accepted = await self._receive("refused")
        assert isinstance(accepted, Accepted)
        self.prompt_tokens = accepted.prompt_tokens
        self.prompt_text = accepted.prompt_text
        self._metrics.prompt_tokens.inc(accepted.prompt_tokens)

    def hang_up(self) -> None:
        """Note that the client has hung up; the next read raises HungUpError."""
        self._mailbox.put_nowait(HungUpError())

    async def next(self) -> Piece:
        """Wait for the next piece and return it; the one with a finish reason is the last.

        Raises:
            RefusedError: the engine has dropped the generation.
            EngineDiedError: the worker has died.
            HungUpError: the client has hung up.
        """
        piece = await self._receive("failed")
        assert isinstance(piece, Piece)
        now_s = time.monotonic()
        if self.output_tokens:
            self._metrics.inter_token_latency.observe(now_s - self._last_s)
        else:
            self._metrics.time_to_first_token.observe(now_s - self._started_s)
        self._last_s = now_s
        self.output_tokens += piece.tokens
        self.chosen += piece.chosen
        if piece.finish:
            self.finish = self.outcome = piece.finish
            self._metrics.request_latency.observe(now_s - self._started_s)
        return piece

    async def _receive(self, if_refused: str) -> Accepted | Piece | Tokens:
        try:
            return await _next(self._mailbox)
        except RefusedError:
            self.outcome = if_refused
            raise
        except EngineDiedError:
            self.outcome = "failed"
            raise


def _ending(status: int) -> str:
    """Say how a process ended; a crash inside the library has no words but its signal."""
    with contextlib.suppress(ValueError):
        return f"ended with status {status} ({signal.Signals(-status).name})"
    return f"ended with status {status}"


class Engine:
    """The worker process and what is under way in it."""

    def __init__(self, model: Model, config: Mapping[str, Value], metrics: Metrics) -> None:
        self.model = model
        self.metrics = metrics
        self.max_tokens = model.context_length
        self.state = "loading"  # then "ready", then "dead"
        self._config = dict(config)
        self._last_words: collections.deque[str] = collections.deque(maxlen=LAST_WORDS)
        self._mailboxes: dict[int, Mailbox] = {}
        self._numbers = itertools.count(1)
        self._writer: asyncio.StreamWriter | None = None

    async def run(self) -> str:
        """Run the worker until it dies, and return why it died."""
        ours, theirs = socket.socketpair()
        setup = {
            "socket": theirs.fileno(),
            "parent": os.getpid(),
            "model": str(self.model.path),
            "context_length": self.model.context_length,
            "config": self._config,
        }
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "llmdyno.embedded.worker",
            msgspec.json.encode(setup).decode(),
            pass_fds=[theirs.fileno()],
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
        )
        theirs.close()
        assert process.stderr is not None
        words = asyncio.create_task(self._listen(process.stderr))
        try:
            reader, self._writer = await asyncio.open_connection(sock=ours)
            with contextlib.suppress(ConnectionError):
                await self._read(reader)
            self._bury()
            status = await process.wait()
            await words
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        said = "\n".join(self._last_words) or "(nothing)"
        return f"the engine's process {_ending(status)}; its last words:\n{said}"

    @contextlib.asynccontextmanager
    async def generate(self, **asked: Any) -> AsyncIterator[Generation]:
        """Run a generation for as long as the block lasts; what is unfinished then is cancelled.

        The arguments are the fields of messages.Generate but its id.

        Raises:
            RefusedError: it does not fit, or the model's template refuses it.
            EngineDiedError: there is no worker.
        """
        number, mailbox = self._open()
        generation = Generation(mailbox, self.metrics)
        try:
            self._send(Generate(id=number, **asked))
            await generation.accepted()
            yield generation
        finally:
            del self._mailboxes[number]
            if generation.outcome == "cancelled":
                self._send(Cancel(id=number))
            self.metrics.ended(generation.outcome)

    async def tokenize(self, prompt: Prompt, *, special: bool) -> list[int]:
        """Return the tokens of a prompt, a chat with the model's template around it.

        Raises:
            RefusedError: the model's template refuses it.
            EngineDiedError: there is no worker.
        """
        number, mailbox = self._open()
        try:
            self._send(Tokenize(id=number, prompt=prompt, special=special))
            answer = await _next(mailbox)
        finally:
            del self._mailboxes[number]
        assert isinstance(answer, Tokens)
        return answer.tokens

    def _open(self) -> tuple[int, Mailbox]:
        number, mailbox = next(self._numbers), Mailbox()
        self._mailboxes[number] = mailbox
        if self.state == "dead":
            mailbox.put_nowait(EngineDiedError())
        return number, mailbox

    def _send(self, command: Command) -> None:
        if self._writer is not None and self.state != "dead":
            self._writer.write(frame(command))

    async def _read(self, reader: asyncio.StreamReader) -> None:
        """Pass the worker's messages to their generations until it dies."""
        frames = Frames()
        while data := await reader.read(1 << 16):
            for body in frames.feed(data):
                report = decode_report(body)
                if isinstance(report, Ready):
                    self.max_tokens = report.max_tokens
                    self.state = "ready"
                else:
                    self._deliver(report)

    def _deliver(self, step: Step) -> None:
        mails: list[Accepted | Refused | Tokens | Piece] = [
            *step.accepted,
            *step.refused,
            *step.tokens,
            *step.pieces,
        ]
        for mail in mails:
            if mailbox := self._mailboxes.get(mail.id):  # none if its client has disconnected
                mailbox.put_nowait(mail)
        if step.pieces:
            self.metrics.generation_tokens.inc(sum(piece.tokens for piece in step.pieces))
        if step.load is not None:
            self.metrics.loaded(step.load)

    def _bury(self) -> None:
        self.state = "dead"
        for mailbox in self._mailboxes.values():
            mailbox.put_nowait(EngineDiedError())

    async def _listen(self, stderr: asyncio.StreamReader) -> None:
        """Pass the worker's stderr on, and remember its last lines."""
        async for line in stderr:
            text = line.decode(errors="replace").rstrip()
            self._last_words.append(text)
            _log.warning("%s", text)
