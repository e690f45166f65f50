"""ModelStreamInfer: Triton Inference Server's stream over gRPC (KServe v2 with its extension).

As over HTTP, what a model declares is an input and the rest a request parameter; here the client
must know which, so the model is asked before the run (`Ask.tensors`). A call carries one request.
Triton marks the last response of it, an empty one if need be; the call itself ends after that.
"""

from collections.abc import Callable, Iterable
from typing import TypeVar

from llmdyno.endpoints import Ask, Detection, Endpoint, ServerProbe
from llmdyno.endpoints._errors import DETAIL_CHARACTERS_MAX
from llmdyno.endpoints._triton import TEXT_INPUT, TEXT_OUTPUT, Tally, choose_model, inputs
from llmdyno.errors import TargetError
from llmdyno.wire import kserve
from llmdyno.wire.inbox import Piece
from llmdyno.wire.reply import Reply

Tensors = tuple[kserve.Tensor, ...]
Given = TypeVar("Given")
Read = TypeVar("Read")


class TritonGrpc:
    """Triton's streamed inference over gRPC.

    A system prompt is put before the prompt, with a blank line between.
    """

    name = "triton-grpc"
    ends_with_body = False
    rpc = True
    detect_order = 10
    metrics_port_offset = 1  # of Triton's three ports in a row: HTTP, gRPC, metrics

    async def detect(self, server: ServerProbe, model: str) -> Detection:
        """Take it for granted at a gRPC URL: no other endpoint of ours is spoken there."""
        return Detection(speaks=True, model=model or await self.choose_model(server))

    async def choose_model(self, server: ServerProbe) -> str:
        """Return the one model that is ready, takes text and gives text.

        Raises:
            TargetError: there is none, or it is not clear which.
        """

        async def generates_text(name: str) -> bool:
            takes, gives = await _tensors(server, name)
            return TEXT_INPUT in {tensor.name for tensor in takes} and TEXT_OUTPUT in {
                tensor.name for tensor in gives
            }

        return await choose_model(server, await self.models(server), generates_text)

    async def models(self, server: ServerProbe) -> list[str]:
        """Return the models that are ready."""
        index = await _call(server, "RepositoryIndex", b"")
        return list(_understood(server, kserve.read_index, index))

    async def tensors(self, server: ServerProbe, model: str) -> tuple[kserve.Tensor, ...]:
        """Return the model's inputs.

        Raises:
            TargetError: the server does not know the model.
        """
        return (await _tensors(server, model))[0]

    def path(self, model: str) -> str:  # noqa: ARG002  # it is in the message
        """Return the method, the same for all models."""
        return f"{kserve.SERVICE}ModelStreamInfer"

    def body(self, ask: Ask) -> bytes:
        """Return the request's one message."""
        wanted = {**inputs(ask), **ask.extra}
        return kserve.framed(kserve.infer_request(ask.model, wanted, ask.tensors))

    def read(self, pieces: Iterable[Piece]) -> Reply:
        """Return the reply that a stream amounts to, whole or cut short; never raises."""
        reply = Reply()
        tally = Tally(reply)
        responses = kserve.Responses()
        try:
            for stamp_ns, message in kserve.messages(pieces):
                output = responses.read(message)
                if output.error:
                    reply.error = "stream-error"
                    reply.detail = output.error[:DETAIL_CHARACTERS_MAX]
                    break
                text = b"".join(output.texts).decode(errors="replace")
                tally.add(stamp_ns, text, output.num_input_tokens, output.num_output_tokens)
                reply.ended = reply.ended or output.final
        except kserve.MessageError as error:
            reply.error, reply.detail = "bad-message", str(error)
        tally.end()
        return reply

    def error_of(self, body: bytes) -> str:
        """Return the words of a body that is no gRPC, such as a proxy's page."""
        return body[:DETAIL_CHARACTERS_MAX].decode(errors="replace").strip()


async def _tensors(server: ServerProbe, model: str) -> tuple[Tensors, Tensors]:
    """Ask for a model's inputs and outputs."""
    answer = await _call(server, "ModelMetadata", kserve.metadata_request(model))
    return _understood(server, kserve.read_metadata, answer)


async def _call(server: ServerProbe, method: str, message: bytes) -> bytes:
    """Call a method and return the message that it answers with."""
    path = f"{kserve.SERVICE}{method}"
    response = await server.ask("POST", path, kserve.framed(message))
    if response.status != 200:
        raise TargetError(f"{server.target.authority}{path}: status {response.status}.")
    answers = _understood(server, lambda pieces: list(kserve.messages(pieces)), response.pieces)
    return answers[0][1] if answers else b""


def _understood(server: ServerProbe, read: Callable[[Given], Read], given: Given) -> Read:
    try:
        return read(given)
    except kserve.MessageError as error:
        raise TargetError(
            f"{server.target.authority} does not answer as Triton does: {error}."
        ) from error


ENDPOINT: Endpoint = TritonGrpc()
