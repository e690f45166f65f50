"""POST /v2/models/MODEL/generate_stream: Triton Inference Server's generate extension over HTTP.

Triton makes an input of each field of the body that the model declares, and a request parameter of
each that it does not, which the TensorRT-LLM backend ignores. The vLLM backend takes parameters for
sampling parameters and refuses those that it does not know; so nothing is sent without need. (The
ensemble of TensorRT-LLM 0.5, of 2023, wanted empty `bad_words` and `stop_words`.)

Each event holds the text that is new. Nothing marks the last one: the stream ends with the body.
"""

from collections.abc import Iterable
from urllib.parse import quote

import msgspec

from llmdyno.endpoints import Ask, Endpoint
from llmdyno.endpoints._json_events import Count, Event, error_of, merge, read_events
from llmdyno.endpoints._triton import Tally, inputs
from llmdyno.wire.inbox import Piece
from llmdyno.wire.reply import Reply


class Output(Event):
    """One response of the model; the counts come from backends that know `return_num_…`."""

    text_output: str = ""
    num_input_tokens: Count | None = None
    num_output_tokens: Count | None = None  # in this event alone


_decode = msgspec.json.Decoder(Output).decode


class TritonGenerate:
    """The system prompt, if any, is put before the prompt with a blank line between."""

    name = "triton-generate"
    ends_with_body = True
    rpc = False

    def path(self, model: str) -> str:
        """Return the path, which names the model."""
        return f"/v2/models/{quote(model, safe='')}/generate_stream"

    def body(self, ask: Ask) -> bytes:
        """Return the request's JSON body."""
        return merge(inputs(ask), ask.extra)

    def read(self, pieces: Iterable[Piece]) -> Reply:
        """Read the stream."""
        reply = Reply()
        tally = Tally(reply)
        for stamp_ns, output in read_events(pieces, _decode, reply):
            tally.add(
                stamp_ns, output.text_output, output.num_input_tokens, output.num_output_tokens
            )
        tally.end()
        return reply

    def error_of(self, body: bytes) -> str:
        """Return the server's words."""
        return error_of(body)


ENDPOINT: Endpoint = TritonGenerate()
