"""POST /v2/models/MODEL/generate_stream: Triton Inference Server's generate extension over HTTP.

Triton makes an input of each field of the body that the model declares, and a request parameter of
each that it does not, which the TensorRT-LLM backend ignores. The vLLM backend takes parameters for
sampling parameters and refuses those that it does not know; so nothing is sent without need, and
the model is asked before the run what it declares. (The ensemble of TensorRT-LLM 0.5, of 2023,
wanted empty `bad_words` and `stop_words`.)

Each event holds the text that is new. Nothing marks the last one: the stream ends with the body.
"""

from collections.abc import Iterable
from typing import Any
from urllib.parse import quote

import msgspec

from llmdyno.endpoints import Ask, Detection, Endpoint, ServerProbe
from llmdyno.endpoints._answers import decoded, document
from llmdyno.endpoints._errors import error_of
from llmdyno.endpoints._json_events import Count, Event, count_of, merge, read_events
from llmdyno.endpoints._triton import TEXT_INPUT, TEXT_OUTPUT, Tally, choose_model, inputs
from llmdyno.wire.inbox import Piece
from llmdyno.wire.kserve import Tensor
from llmdyno.wire.reply import Reply


class Output(Event):
    """One response of the model; the counts come from backends that know `return_num_…`."""

    text_output: str | list[str] | None = None  # a list of one, where the model has a batch
    num_input_tokens: Count = None
    num_output_tokens: Count = None  # in this event alone

    @property
    def text(self) -> str:
        """The text that is new."""
        text = self.text_output
        return "".join(text) if isinstance(text, list) else text or ""

    @property
    def answers(self) -> bool:
        """Whether it has a text, be it an empty one, or counts."""
        return self.text_output is not None or self.num_output_tokens is not None


_decode = msgspec.json.Decoder(Output).decode


class TritonGenerate:
    """Triton's generate extension over HTTP.

    A system prompt is put before the prompt, with a blank line between.
    """

    name = "triton-generate"
    ends_with_body = True
    rpc = False
    detect_order = 10  # first: Triton tells its name, and nothing has to be generated
    metrics_port_offset = 2  # of Triton's three ports in a row: HTTP, gRPC, metrics

    async def detect(self, server: ServerProbe, model: str) -> Detection:
        """Ask GET /v2, which tells the server's name, whether it is Triton."""
        if document(await server.look("/v2")).get("name") != "triton":
            return Detection(speaks=False)
        return Detection(speaks=True, model=model or await self.choose_model(server))

    async def choose_model(self, server: ServerProbe) -> str:
        """Return the one model that is ready, takes text and gives text.

        Raises:
            TargetError: there is none, or it is not clear which.
        """

        async def generates_text(name: str) -> bool:
            described = document(await server.ask("GET", _model_path(name)))
            takes, gives = _tensor_names(described, "inputs"), _tensor_names(described, "outputs")
            return TEXT_INPUT in takes and TEXT_OUTPUT in gives

        return await choose_model(server, await self.models(server), generates_text)

    async def models(self, server: ServerProbe) -> list[str]:
        """Return the models that are ready."""
        index = decoded(await server.ask("POST", "/v2/repository/index", b"{}"))
        return [
            str(model["name"])
            for model in (index if isinstance(index, list) else [])
            if isinstance(model, dict) and "name" in model and model.get("state") == "READY"
        ]

    async def tensors(self, server: ServerProbe, model: str) -> tuple[Tensor, ...]:
        """Return the model's inputs; none where the server does not describe it."""
        described = document(await server.look(_model_path(model)))
        return tuple(
            Tensor(name=name, datatype="", shape=())
            for name in sorted(_tensor_names(described, "inputs"))
        )

    def path(self, model: str) -> str:
        """Return the path, which names the model."""
        return f"{_model_path(model)}/generate_stream"

    def body(self, ask: Ask) -> bytes:
        """Return the request's JSON body."""
        return merge(inputs(ask), ask.extra)

    def read(self, pieces: Iterable[Piece]) -> Reply:
        """Return the reply that a stream amounts to, whole or cut short; never raises."""
        reply = Reply()
        tally = Tally(reply)
        for stamp_ns, output in read_events(pieces, _decode, reply):
            tally.add(
                stamp_ns,
                output.text,
                count_of(output.num_input_tokens),
                count_of(output.num_output_tokens),
            )
        tally.end()
        return reply

    def error_of(self, body: bytes) -> str:
        """Return the server's own words in the body of a response other than 200."""
        return error_of(body)


def _model_path(model: str) -> str:
    return f"/v2/models/{quote(model, safe='')}"


def _tensor_names(described: dict[str, Any], field: str) -> set[str]:
    tensors = described.get(field)
    if not isinstance(tensors, list):
        return set()
    return {
        str(tensor["name"]) for tensor in tensors if isinstance(tensor, dict) and "name" in tensor
    }


ENDPOINT: Endpoint = TritonGenerate()
