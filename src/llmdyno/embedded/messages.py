"""The messages between the server and its worker, and their framing.

The server sends `Generate`, `Tokenize` and `Cancel`. The worker sends one `Ready`, then at most one
`Step` for each step of the engine. A frame is a length of four bytes and MessagePack. One message
per step keeps both processes cheap at a thousand tokens a second.
"""

import select
import socket
from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

FAILED = "generation_failed"  # the code of a Refused for which the engine is to blame

Messages = list[dict[str, Any]]  # a chat: role and content of each

_LENGTH_BYTES = 4


class Ids(msgspec.Struct, frozen=True):
    """A prompt that its client has tokenised."""

    ids: list[int]


Prompt = str | Messages | Ids


class Sampling(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """How each token is chosen, and which may end the answer."""

    temperature: float = 0.0  # 0 is greedy; then top_p, top_k, min_p and the seed say nothing
    top_p: float = 1.0
    top_k: int | None = None  # None: all tokens
    min_p: float = 0.0  # of the likeliest token's probability
    seed: int = 0
    min_tokens: int = 0  # before that many nothing ends the answer
    repetition_penalty: float = 1.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    stop_ids: tuple[int, ...] = ()  # these end the answer, too


class Generate(msgspec.Struct, frozen=True, kw_only=True, tag="generate"):
    """Make tokens for this prompt; a chat gets the model's template first."""

    id: int
    prompt: Prompt
    max_tokens: int | None = None  # None: as many as there is room for
    sampling: Sampling = Sampling()
    stop: tuple[str, ...] = ()
    ignore_eos: bool = False
    special: bool = True  # a text gets the tokens that the tokenizer puts around it
    show_special: bool = False  # in what is made
    echo: bool = False  # say the prompt's text
    logprobs: bool = False  # say each token with its log-probability


class Tokenize(msgspec.Struct, frozen=True, kw_only=True, tag="tokenize"):
    """Return the token ids of this prompt."""

    id: int
    prompt: Prompt
    special: bool  # with those that the tokenizer puts around a text


class Cancel(msgspec.Struct, frozen=True, kw_only=True, tag="cancel"):
    """Stop this generation: nobody waits for it any more."""

    id: int


Command = Generate | Tokenize | Cancel


class Chosen(msgspec.Struct, frozen=True, array_like=True):
    """A token that was made, for a client that asks for log-probabilities."""

    token: bytes
    logprob: float


class Piece(msgspec.Struct, frozen=True, array_like=True):
    """The output of one step for one generation; its text may be empty, e.g. half a character."""

    id: int
    text: str
    tokens: int
    finish: str | None  # "stop" or "length" with the last piece
    chosen: list[Chosen] = []  # the tokens, if they are to be said


class Tokens(msgspec.Struct, frozen=True, array_like=True):
    """The answer to a Tokenize."""

    id: int
    tokens: list[int]


class Accepted(msgspec.Struct, frozen=True, array_like=True):
    """The engine has taken a generation on."""

    id: int
    prompt_tokens: int
    prompt_text: str = ""  # if it is to be said


class Refused(msgspec.Struct, frozen=True, array_like=True):
    """The engine refuses a request; the message tells the client why."""

    id: int
    message: str
    param: str | None
    code: str | None


class Load(msgspec.Struct, frozen=True, array_like=True):
    """How busy the engine is."""

    running: int
    waiting: int
    kv_use: float  # of the KV cache, from 0 to 1


# A field of Load → the gauge that shows it on a page of metrics, and what it says of itself.
LOAD_GAUGES: Mapping[str, tuple[str, str]] = {
    "running": ("requests_running", "Generations in the last step."),
    "waiting": ("requests_waiting", "Generations that wait for their turn."),
    "kv_use": ("kv_cache_usage_ratio", "Share of the KV cache in use."),
}


def show_load(load: Load, gauges: Mapping[str, Any]) -> None:
    """Set the gauges of LOAD_GAUGES to this load; any library's gauges with a `set` will do."""
    for field, gauge in gauges.items():
        gauge.set(getattr(load, field))


class Ready(msgspec.Struct, frozen=True, kw_only=True, tag="ready"):
    """The model is loaded and has made a token."""

    max_tokens: int  # prompt and output together: the context, or the KV cache if that is smaller


class Step(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag="step"):
    """All messages of one step of the engine."""

    accepted: list[Accepted] = []
    refused: list[Refused] = []
    tokens: list[Tokens] = []
    pieces: list[Piece] = []
    load: Load | None = None


Report = Ready | Step

_encoder = msgspec.msgpack.Encoder()
_commands: msgspec.msgpack.Decoder[Command] = msgspec.msgpack.Decoder(Command)
_reports: msgspec.msgpack.Decoder[Report] = msgspec.msgpack.Decoder(Report)


def frame(message: Command | Report) -> bytes:
    """Return a message as one frame: its length, then its encoding."""
    buffer = bytearray(_LENGTH_BYTES)
    _encoder.encode_into(message, buffer, _LENGTH_BYTES)
    buffer[:_LENGTH_BYTES] = (len(buffer) - _LENGTH_BYTES).to_bytes(_LENGTH_BYTES, "big")
    return bytes(buffer)


class Frames:
    """Cuts the bytes of a stream into the bodies of its frames."""

    def __init__(self) -> None:
        self._rest = bytearray()

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Yield the frames that are complete with this data."""
        self._rest += data
        while len(self._rest) >= _LENGTH_BYTES:
            end = _LENGTH_BYTES + int.from_bytes(self._rest[:_LENGTH_BYTES], "big")
            if len(self._rest) < end:
                return
            yield bytes(self._rest[_LENGTH_BYTES:end])
            del self._rest[:end]


class CommandReader:
    """The worker's end: reads commands between two steps, waiting only when there is no work."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._frames = Frames()

    def read(self, *, wait: bool) -> list[Command]:
        """Return the commands that have arrived.

        Raises:
            EOFError: the server has gone.
        """
        commands: list[Command] = []
        while select.select([self._connection], [], [], None if wait and not commands else 0)[0]:
            data = self._connection.recv(1 << 16)
            if not data:
                raise EOFError
            commands += map(_commands.decode, self._frames.feed(data))
        return commands


def decode_report(body: bytes) -> Report:
    """Return what the worker has sent, from a frame without its length."""
    return _reports.decode(body)
