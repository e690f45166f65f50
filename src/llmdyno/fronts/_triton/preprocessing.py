"""Triton model: a prompt → its token ids, for any engine.

The names and shapes are those of TensorRT-LLM's own preprocessing. A prompt gets the special tokens
that its tokenizer puts around a text, and no chat template: what a completion is.
"""

import importlib
import json
from collections.abc import Callable, Sequence
from typing import Any

from llmdyno.fronts._triton import wire

MAX_TOKENS = 16  # of a request that does not say, as OpenAI's completions have it

Encode = Callable[[str, bool], list[int]]


def encoder(kind: str, path: str) -> tuple[Encode, int]:
    """Return (text, with special tokens) → ids of a model's tokenizer, and the id that ends."""
    if kind == "openvino":
        tokenizer = importlib.import_module("openvino_genai").Tokenizer(path)

        def encode(text: str, special: bool) -> list[int]:
            ids = tokenizer.encode(text, add_special_tokens=special).input_ids
            return [int(number) for number in ids.data[0]]

        return encode, int(tokenizer.get_eos_token_id())
    auto = importlib.import_module("transformers").AutoTokenizer.from_pretrained(path)
    return lambda text, special: list(auto.encode(text, add_special_tokens=special)), (
        -1 if auto.eos_token_id is None else int(auto.eos_token_id)
    )


def word_list(words: Sequence[Sequence[int]]) -> list[list[int]]:
    """Return words, each some ids, as TensorRT-LLM takes them: all ids, and where each word ends.

    The second row is filled up with -1, and there is always at least one column.
    """
    ids = [number for word in words for number in word]
    ends: list[int] = []
    for word in words:
        ends.append((ends[-1] if ends else 0) + len(word))
    width = max(1, len(ids))
    return [ids + [0] * (width - len(ids)), ends + [-1] * (width - len(ends))]


class Preprocessing:
    """The model; its methods are Triton's."""

    def initialize(self, args: dict[str, str]) -> None:
        """Load the tokenizer; Triton calls this once, at the model's start."""
        self._triton = wire.triton()
        parameters = wire.parameters(json.loads(args["model_config"]))
        self._encode, self._end_id = encoder(
            parameters["tokenizer_kind"], parameters["tokenizer_dir"]
        )
        self._special = parameters["add_special_tokens"] == "true"

    def execute(self, requests: Sequence[Any]) -> list[Any]:
        """Answer each request; one that cannot be read does not spoil the others."""
        responses = []
        for request in requests:
            try:
                responses.append(self._triton.InferenceResponse(self._tensors(request)))
            except (ValueError, RuntimeError) as error:  # the latter from the tokenizer
                responses.append(wire.refusal(self._triton, error))
        return responses

    def _tensors(self, request: Any) -> list[Any]:
        text = wire.scalar(self._triton, request, "QUERY")
        ids = self._encode(text.decode(errors="replace"), self._special)
        if not ids:
            raise ValueError("text_input: it is empty; one token at least is needed.")
        end_id = self._scalar(request, "END_ID", self._end_id)
        length = self._scalar(request, "REQUEST_OUTPUT_LEN", MAX_TOKENS)
        if length < 1:
            raise ValueError(f"max_tokens: {length}; must be at least 1.")

        def numbers(name: str, content: Any) -> Any:
            return wire.numbers(self._triton, name, [content])

        return [
            numbers("INPUT_ID", ids),
            numbers("REQUEST_INPUT_LEN", [len(ids)]),
            numbers("REQUEST_OUTPUT_LEN", [length]),
            numbers("BAD_WORDS_IDS", self._words(request, "BAD_WORDS_DICT")),
            numbers("STOP_WORDS_IDS", self._words(request, "STOP_WORDS_DICT")),
            numbers("OUT_END_ID", [end_id]),
            numbers(wire.RELAYED[0], [1]),
            numbers("OUT_PAD_ID", [self._scalar(request, "PAD_ID", end_id)]),
        ]

    def _scalar(self, request: Any, name: str, otherwise: int) -> int:
        value = wire.scalar(self._triton, request, name)
        return otherwise if value is None else int(value)

    def _words(self, request: Any, name: str) -> list[list[int]]:
        words = [word.decode(errors="replace") for word in wire.values(self._triton, request, name)]
        return word_list([self._encode(word, False) for word in words if word])
