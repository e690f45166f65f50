"""What the proxy hands to its scribe: one request that has passed, with its answer."""

import msgspec

from llmdyno.wire.inbox import Piece


class Passed(msgspec.Struct, kw_only=True, array_like=True):
    """One request and its response as they passed; all times are perf_counter_ns readings."""

    path: str
    headers: dict[str, str]  # of the request, names in lower case; they may hold a key
    body: bytes = b""
    asked_ns: int = 0  # when the request was whole
    end_ns: int = 0
    status: int = 0
    answer_headers: dict[str, str] = {}
    pieces: list[Piece] = []  # the body of the answer, as it came
    error: str = ""  # "cut" by the client, or a class of faults.py; empty: the answer is whole


class Settings(msgspec.Struct, kw_only=True, frozen=True):
    """How the scribe writes."""

    out: str  # the file of the trace
    started_ns: int  # its zero, by perf_counter_ns
    key: bytes  # of the hashes
    block_characters: int
    keep_text: bool = False
    tokenizer: str = ""
    adapters: dict[str, str] = {}  # names of LoRA adapters → the model that each belongs to


class Written(msgspec.Struct, kw_only=True):
    """What the scribe has done, said at its end."""

    requests: int = 0
    failed: int = 0  # of those, the ones that failed
    lost: int = 0  # could not be written
    why_lost: str = ""
