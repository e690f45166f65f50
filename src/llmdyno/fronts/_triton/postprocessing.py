"""Triton model: token ids → text that never ends inside a character, for any engine.

It keeps nothing between two calls, so it may have any number of instances, and a request that is
given up leaves nothing behind. What a streamed text needs to know of the tokens before comes with
the call: the first CONTEXT_LENGTH of the ids were shown before. The text of the rest is what all of
them read, less what the context alone reads; a character that is not whole yet is in neither, and
comes with the call that brings its last token. Eight tokens of context are enough (a character has
four bytes at most), so a call's size does not grow with the text.

It acknowledges each piece to our engine model through a FIFO, because of hang-ups. In an ensemble
Triton drops the pieces of a request that was cancelled before they come here, and tells the engine
nothing: it would make tokens for nobody until their end. What is not acknowledged has nobody.
"""

import array
import contextlib
import importlib
import json
import os
from collections.abc import Callable, Sequence
from typing import Any

from llmdyno.embedded.pieces import token_table
from llmdyno.fronts._triton import wire

CONTEXT_TOKENS = 8  # what an engine model sends again, before the new ones

Decode = Callable[[Sequence[int]], str]


def decoder(kind: str, path: str) -> Decode:
    """Return the function ids → text of a model's tokenizer; half a character reads as nothing."""
    if kind == "openvino":
        tokenizer = importlib.import_module("openvino_genai").Tokenizer(path)
        # A look into the table takes a microsecond, a call of the library over a hundred.
        if table := token_table(tokenizer):
            return lambda ids: b"".join([table[number] for number in ids]).decode("utf-8", "ignore")
        return lambda ids: str(tokenizer.decode(list(ids))).rstrip("\ufffd")
    auto = importlib.import_module("transformers").AutoTokenizer.from_pretrained(path)
    return lambda ids: str(auto.decode(ids, skip_special_tokens=True)).rstrip("\ufffd")


def new_text(decode: Decode, ids: Sequence[int], context: int) -> str:
    """Return the text of the ids after the context."""
    before = decode(ids[:context]) if context else ""
    return decode(ids)[len(before) :]


def opened(path: str) -> int | None:
    """Open the FIFO of acknowledgements, making it if need be; None without one."""
    if not path:
        return None
    with contextlib.suppress(FileExistsError):  # the other end was first
        os.mkfifo(path)
    # For both directions: so it opens whether or not the other end is there yet.
    return os.open(path, os.O_RDWR | os.O_NONBLOCK)


class Postprocessing:
    """The model; its methods are Triton's."""

    def initialize(self, args: dict[str, str]) -> None:
        """Load the tokenizer and open the FIFO; Triton calls this once, at the model's start."""
        self._triton = wire.triton()
        parameters = wire.parameters(json.loads(args["model_config"]))
        self._acknowledged = opened(parameters["acknowledgements"])
        self._decode = decoder(parameters["tokenizer_kind"], parameters["tokenizer_dir"])

    def execute(self, requests: Sequence[Any]) -> list[Any]:
        """Return one response for each request, in order; Triton calls this for each batch."""
        responses = [self._response(request) for request in requests]
        if self._acknowledged is not None:
            found = [wire.scalar(self._triton, request, "GENERATION") for request in requests]
            numbers = [number for number in found if number is not None]
            # A full FIFO is no reason to keep a client waiting: the next piece is acknowledged too.
            with contextlib.suppress(BlockingIOError):
                os.write(self._acknowledged, array.array("i", numbers).tobytes())
        return responses

    def _response(self, request: Any) -> Any:
        length = wire.scalar(self._triton, request, "SEQUENCE_LENGTH")
        ids = wire.values(self._triton, request, "TOKENS_BATCH")[:length]
        context = wire.scalar(self._triton, request, "CONTEXT_LENGTH") or 0
        text = new_text(self._decode, ids, context)
        return self._triton.InferenceResponse([wire.texts(self._triton, "OUTPUT", [text.encode()])])
