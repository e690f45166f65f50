"""Triton model: text → text through the other three, called one after the other from here.

The alternative to the ensemble that TensorRT-LLM calls `tensorrt_llm_bls` (business logic
scripting). It knows each request's tokens, which an ensemble does not: so it can send
postprocessing the context even of an engine model that does not, such as TensorRT-LLM's own, and
with accumulate_tokens each response holds the whole text so far.

Each request has a thread, because to wait for the next response of another model blocks: NVIDIA's
own serves one request at a time and needs as many processes as users. That a client has hung up is
not passed on by Triton; the engine model is told as TensorRT-LLM's is, by a request of the same id
with `stop`.
"""

import json
import uuid
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from llmdyno.fronts._triton import wire
from llmdyno.fronts._triton.postprocessing import CONTEXT_TOKENS


class Bls:
    """The model; its methods are Triton's."""

    def initialize(self, args: dict[str, str]) -> None:
        """Learn which engine model to call, and with what."""
        self._triton = wire.triton()
        config = json.loads(args["model_config"])
        parameters = wire.parameters(config)
        self._engine = parameters["tensorrt_llm_model_name"]
        self._engine_inputs = json.loads(parameters["engine_inputs"])
        self._engine_outputs = json.loads(parameters["engine_outputs"])
        self._accumulates = parameters["accumulate_tokens"] == "true"
        self._decoupled = config["model_transaction_policy"]["decoupled"]
        self._threads = ThreadPoolExecutor(max_workers=max(1, config["max_batch_size"]))

    def execute(self, requests: Sequence[Any]) -> None:
        """Serve the requests side by side."""
        for request in requests:
            self._threads.submit(self._serve, request)

    def finalize(self) -> None:
        """Let the requests under way come to their end."""
        self._threads.shutdown()

    def _serve(self, request: Any) -> None:
        sender = request.get_response_sender()
        final = self._triton.TRITONSERVER_RESPONSE_COMPLETE_FINAL
        try:
            self._answer(request, sender)
        except Exception as error:  # noqa: BLE001 - a request without an answer waits for ever
            sender.send(wire.refusal(self._triton, error), flags=final)
        else:
            sender.send(flags=final)

    def _answer(self, request: Any, sender: Any) -> None:
        prompt = self._call(
            "preprocessing",
            list(wire.PREPROCESSED),
            self._renamed(request, wire.PREPROCESSING),
        )
        name = uuid.uuid4().hex
        inputs = [
            *self._renamed(request, self._engine_inputs),
            *(
                self._triton.Tensor(engine, prompt[ours].as_numpy())
                for ours, engine in wire.PREPROCESSED.items()
            ),
        ]
        asked = self._triton.InferenceRequest(
            model_name=self._engine,
            request_id=name,
            requested_output_names=self._engine_outputs,
            inputs=inputs,
        )
        ids: list[int] = []  # all of them if the text is to be whole each time, else the last few
        for response in self._responses(asked):
            if sender.is_cancelled():
                self._stop(name)
                return
            tensors = _tensors(self._triton, response)
            if not tensors:  # the engine model says only that it has come to its end
                continue
            context = 0 if self._accumulates else len(ids)
            ids += _new_ids(tensors)
            text = self._text(ids, context)
            counts = [tensors[name] for name in wire.COUNTS if name in tensors]
            sender.send(self._triton.InferenceResponse([text, *counts]))
            if not self._accumulates:
                ids = ids[-CONTEXT_TOKENS:]

    def _responses(self, asked: Any) -> Iterator[Any]:
        if not self._decoupled:
            yield asked.exec()
            return
        yield from asked.exec(decoupled=True)

    def _text(self, ids: Sequence[int], context: int) -> Any:
        """Return the text of the ids after the context, as our own output."""
        tensors = self._call(
            "postprocessing",
            ["OUTPUT"],
            [
                wire.numbers(self._triton, "TOKENS_BATCH", [[ids]]),
                wire.numbers(self._triton, "SEQUENCE_LENGTH", [[len(ids)]]),
                wire.numbers(self._triton, "CONTEXT_LENGTH", [[context]]),
            ],
        )
        return self._triton.Tensor("text_output", tensors["OUTPUT"].as_numpy())

    def _stop(self, name: str) -> None:
        """Tell the engine model that nobody waits for that request any more."""
        inputs = [
            wire.numbers(self._triton, "input_ids", [[0]]),
            wire.numbers(self._triton, "input_lengths", [[1]]),
            wire.numbers(self._triton, "request_output_len", [[1]]),
            self._triton.Tensor("stop", np.array([[True]])),
        ]
        asked = self._triton.InferenceRequest(
            model_name=self._engine,
            request_id=name,
            requested_output_names=["output_ids"],
            inputs=inputs,
        )
        for _ in self._responses(asked):
            pass

    def _call(self, model: str, outputs: Sequence[str], inputs: Sequence[Any]) -> Any:
        asked = self._triton.InferenceRequest(
            model_name=model, requested_output_names=list(outputs), inputs=list(inputs)
        )
        return _tensors(self._triton, asked.exec())

    def _renamed(self, request: Any, names: Mapping[str, str]) -> list[Any]:
        """Return the inputs that the request has, under another model's names."""
        found = {
            theirs: self._triton.get_input_tensor_by_name(request, ours)
            for ours, theirs in names.items()
        }
        return [
            self._triton.Tensor(name, tensor.as_numpy())
            for name, tensor in found.items()
            if tensor is not None
        ]


def _tensors(triton: Any, response: Any) -> dict[str, Any]:
    if response.has_error():
        raise triton.TritonModelException(response.error().message())
    return {tensor.name(): tensor for tensor in response.output_tensors()}


def _new_ids(tensors: Mapping[str, Any]) -> list[int]:
    """Return what an engine model's response adds; ours sends some context before it."""
    length = int(tensors["sequence_length"].as_numpy().item())
    ids = tensors["output_ids"].as_numpy().ravel()[:length]
    if context := tensors.get("context_length"):
        ids = ids[int(context.as_numpy().item()) :]
    return [int(number) for number in ids]
