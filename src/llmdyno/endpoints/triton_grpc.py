"""ModelStreamInfer: Triton Inference Server's stream over gRPC (KServe v2 with its extension).

As over HTTP, what a model declares is an input and the rest a request parameter; here the client
must know which, so the model is asked before the run (`Ask.tensors`). A call carries one request.
Triton marks the last response of it, an empty one if need be; the call itself ends after that.
"""

from collections.abc import Iterable

from llmdyno.endpoints import Ask, Endpoint
from llmdyno.endpoints._json_events import DETAIL_CHARACTERS_MAX
from llmdyno.endpoints._triton import Tally, inputs
from llmdyno.wire import kserve
from llmdyno.wire.inbox import Piece
from llmdyno.wire.reply import Reply


class TritonGrpc:
    """The system prompt, if any, is put before the prompt with a blank line between."""

    name = "triton-grpc"
    ends_with_body = False
    rpc = True

    def path(self, model: str) -> str:  # noqa: ARG002  # it is in the message
        """Return the method."""
        return f"{kserve.SERVICE}ModelStreamInfer"

    def body(self, ask: Ask) -> bytes:
        """Return the request's one message."""
        wanted = {**inputs(ask), **ask.extra}
        return kserve.framed(kserve.infer_request(ask.model, wanted, ask.tensors))

    def read(self, pieces: Iterable[Piece]) -> Reply:
        """Read the stream."""
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


ENDPOINT: Endpoint = TritonGrpc()
