"""Tensors of a Triton request to values and back, for the models of this folder."""

import importlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

# What a client may send → the input of preprocessing.
PREPROCESSING: Mapping[str, str] = {
    "text_input": "QUERY",
    "max_tokens": "REQUEST_OUTPUT_LEN",
    "bad_words": "BAD_WORDS_DICT",
    "stop_words": "STOP_WORDS_DICT",
    "end_id": "END_ID",
    "pad_id": "PAD_ID",
}
# An output of preprocessing → the input of the engine model.
PREPROCESSED: Mapping[str, str] = {
    "INPUT_ID": "input_ids",
    "REQUEST_INPUT_LEN": "input_lengths",
    "REQUEST_OUTPUT_LEN": "request_output_len",
    "BAD_WORDS_IDS": "bad_words_list",
    "STOP_WORDS_IDS": "stop_words_list",
    "OUT_END_ID": "end_id",
    "OUT_PAD_ID": "pad_id",
}
# An output of the engine model → the input of postprocessing.
POSTPROCESSING: Mapping[str, str] = {
    "output_ids": "TOKENS_BATCH",
    "sequence_length": "SEQUENCE_LENGTH",
    "context_length": "CONTEXT_LENGTH",
    "generation": "GENERATION",
}
# From preprocessing to our engine model in an ensemble, where it is not told of hang-ups.
RELAYED = ("RELAYED", "relayed")
COUNTS = ("num_input_tokens", "num_output_tokens")


def triton() -> Any:
    """Return triton_python_backend_utils, which only a model's process has."""
    return importlib.import_module("triton_python_backend_utils")


def parameters(model_config: Mapping[str, Any]) -> dict[str, str]:
    """Return the parameters of a model's config."""
    return {name: value["string_value"] for name, value in model_config["parameters"].items()}


def scalar(backend: Any, request: Any, name: str) -> Any:
    """Return the only value of an input, None if the request does not have it.

    Raises:
        ValueError: it has several; a request is one prompt.
    """
    tensor = backend.get_input_tensor_by_name(request, name)
    if tensor is None:
        return None
    values = tensor.as_numpy()
    if values.size != 1:
        raise ValueError(f"{name}: one value a request, not {values.size}.")
    return values.item()


def values(backend: Any, request: Any, name: str) -> list[Any]:
    """Return all values of an input, none if the request does not have it."""
    tensor = backend.get_input_tensor_by_name(request, name)
    return [] if tensor is None else tensor.as_numpy().ravel().tolist()


def numbers(backend: Any, name: str, content: Sequence[Any]) -> Any:
    """Return whole numbers, nested as deep as the tensor has dimensions, as an output."""
    return backend.Tensor(name, np.array(content, dtype=np.int32))


def texts(backend: Any, name: str, content: Sequence[bytes]) -> Any:
    """Return texts as an output tensor of bytes, one element a text."""
    return backend.Tensor(name, np.array([content], dtype=np.object_))


def refusal(backend: Any, error: Exception) -> Any:
    """Return the response to a request that cannot be served as it is."""
    wrong = backend.TritonError(str(error), backend.TritonError.INVALID_ARG)
    return backend.InferenceResponse(error=wrong)
