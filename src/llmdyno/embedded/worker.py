"""The engine in a process of its own: texts and messages around pipeline.py.

Where it stands: the server starts it with one end of a socket pair and talks to it in the messages
of messages.py. It tokenises prompts, runs the engine step by step, and sends the new text of all
generations once a step.

Why a process: a step of the engine holds Python's global lock, so a server in the same process
would stand still for as long as each step takes.
"""

import logging
import os
import signal
import socket
import sys
import time
from typing import Any

import msgspec
import openvino

from llmdyno.embedded import sampling
from llmdyno.embedded.encoding import Encoder, PromptError
from llmdyno.embedded.messages import (
    Accepted,
    Cancel,
    Command,
    CommandReader,
    Generate,
    Load,
    Piece,
    Ready,
    Refused,
    Step,
    Tokenize,
    Tokens,
    frame,
)
from llmdyno.embedded.pieces import (
    Detokenizer,
    StopFilter,
    TableDetokenizer,
    WindowDetokenizer,
    token_bytes,
    token_table,
)
from llmdyno.embedded.pipeline import DROPPED, Pipeline, TooLongError, dropped, read, reason
from llmdyno.knobs import Value
from llmdyno.processes import leash

LOAD_INTERVAL_S = 0.25
_TOO_LONG = "context_length_exceeded"  # as OpenAI calls it

_log = logging.getLogger("llmdyno.embedded.worker")


class Setup(msgspec.Struct, frozen=True, kw_only=True):
    """What a worker needs to know; it comes as JSON on its command line."""

    socket: int  # the file descriptor of its end of the pair
    parent: int  # the server's process id
    model: str
    context_length: int
    config: dict[str, Value]


class Generation:
    """One generation in the pipeline, and the text that it may show so far."""

    __slots__ = ("handle", "id", "stop_ids", "stops", "unstoppable")

    def __init__(self, asked: Generate, handle: Any) -> None:
        self.id = asked.id
        self.handle = handle
        self.stops = StopFilter(asked.stop) if asked.stop else None
        self.stop_ids = asked.sampling.stop_ids
        self.unstoppable = asked.sampling.min_tokens  # so many tokens may still not be the last

    def shown(self, tokens: list[int], finish: str | None) -> list[int]:
        """Return the tokens whose text may be shown: not the one that the client stops at."""
        ends = finish == "stop" and tokens and tokens[-1] in self.stop_ids
        return tokens[:-1] if ends else tokens

    def piece(self, text: str, tokens: int, finish: str | None) -> Piece:
        """Return what the step made, as far as it may be shown."""
        self.unstoppable -= tokens
        if self.stops is not None and self.unstoppable < 0:
            text, stopped = self.stops.feed(text)
            if stopped:
                self.handle.cancel()
                finish = "stop"
            elif finish:
                text += self.stops.rest()
        return Piece(self.id, text, tokens, finish)


class Engine:
    """The pipeline and the generations in it."""

    def __init__(self, setup: Setup) -> None:
        self._pipeline = Pipeline(setup.model, setup.context_length, setup.config)
        self._tokenizer = self._pipeline.tokenizer
        table = token_table(self._tokenizer)
        every = token_bytes(self._tokenizer)
        self._encoder = Encoder(self._tokenizer, len(every))
        self._detokenizer: Detokenizer = (
            TableDetokenizer(table, every) if table else WindowDetokenizer(self._tokenizer)
        )
        self._generations: dict[int, Generation] = {}
        self._load_due_s = 0.0
        self.max_tokens = self._pipeline.max_tokens

    def busy(self) -> bool:
        """Say whether another step would do something."""
        return self._pipeline.busy()

    def step(self, commands: list[Command]) -> Step:
        """Obey the commands, run one step of the engine, and say what came of both."""
        accepted: list[Accepted] = []
        refused: list[Refused] = []
        tokens: list[Tokens] = []
        for command in commands:
            try:
                match command:
                    case Generate():
                        accepted.append(self._add(command))
                    case Tokenize(id=number, prompt=prompt, special=special):
                        ids = self._encoder.ids(prompt, special=special)
                        tokens.append(Tokens(number, ids[0].tolist()))
                    case Cancel(id=number):
                        if number in self._generations:  # else it has just finished
                            self._forget(number).cancel()
            except PromptError as error:
                refused.append(Refused(command.id, str(error), error.param, None))
            except TooLongError as error:
                refused.append(Refused(command.id, str(error), error.param, _TOO_LONG))
        if self.busy():
            self._pipeline.step()
        pieces = self._pieces(refused)
        return Step(
            accepted=accepted, refused=refused, tokens=tokens, pieces=pieces, load=self._load()
        )

    def _pieces(self, refused: list[Refused]) -> list[Piece]:
        """Return what the step made; what the engine has dropped is refused."""
        new: dict[int, list[int]] = {}
        made: dict[int, tuple[int, str | None]] = {}  # the number of tokens, the finish reason
        for generation in list(self._generations.values()):
            tokens, finish = read(generation.handle)
            if tokens or finish:
                new[generation.id] = generation.shown(tokens, finish)
                made[generation.id] = len(tokens), finish
            elif dropped(generation.handle):
                self._forget(generation.id)
                refused.append(Refused(generation.id, DROPPED, None, _TOO_LONG))
        texts = self._detokenizer.feed(new)
        pieces = [self._generations[number].piece(texts[number], *made[number]) for number in new]
        for piece in pieces:
            if piece.finish:
                self._forget(piece.id)
        return pieces

    def _forget(self, number: int) -> Any:
        """Drop a generation, and return its handle."""
        self._detokenizer.forget(number)
        return self._generations.pop(number).handle

    def _add(self, asked: Generate) -> Accepted:
        ids = self._encoder.ids(asked.prompt, special=asked.special)
        prompt_tokens = ids.shape[1]
        max_tokens = self._pipeline.room(prompt_tokens, asked.max_tokens)
        config = self._pipeline.config(max_tokens=max_tokens, ignore_eos=asked.ignore_eos)
        sampling.apply(asked.sampling, config)
        try:
            handle = self._pipeline.add(asked.id, openvino.Tensor(ids), config)
        except RuntimeError as error:  # the library does not like these settings together
            raise PromptError(reason(error), None) from error
        self._generations[asked.id] = Generation(asked, handle)
        if asked.show_special:
            self._detokenizer.show_special(asked.id)
        text = self._encoder.text(asked.prompt) if asked.echo else ""
        return Accepted(asked.id, prompt_tokens, text)

    def _load(self) -> Load | None:
        """Return how busy the engine is, a few times a second and whenever it falls idle."""
        now_s = time.monotonic()
        if self._generations and now_s < self._load_due_s:
            return None
        self._load_due_s = now_s + LOAD_INTERVAL_S
        return self._pipeline.load(len(self._generations))


def _die_with(parent: int) -> None:
    """Have the kernel kill us when the server dies, however it dies."""
    leash.die_with_parent()
    if os.getppid() != parent:  # it died before we asked
        sys.exit(1)


def main() -> None:
    """Serve one server until it goes."""
    setup = msgspec.json.decode(sys.argv[1], type=Setup)
    _die_with(setup.parent)
    # Only the server acts on a signal to the whole group; this process ends when it does.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    logging.basicConfig(format="%(name)s: %(message)s", stream=sys.stderr)
    connection = socket.socket(fileno=setup.socket)
    try:
        engine = Engine(setup)
        connection.sendall(frame(Ready(max_tokens=engine.max_tokens)))
        reader = CommandReader(connection)
        idle = Step()
        while True:
            report = engine.step(reader.read(wait=not engine.busy()))
            if report != idle:
                connection.sendall(frame(report))
    except (EOFError, BrokenPipeError, ConnectionResetError):
        return  # the server has gone
    except (RuntimeError, ValueError, MemoryError) as error:  # what the library raises
        _log.error("the engine failed: %s", reason(error))
        sys.exit(1)


if __name__ == "__main__":
    main()
