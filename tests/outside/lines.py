"""An endpoint of another package: `--endpoint outside.lines` speaks Ollama's lines of JSON.

It has only what the interface requires, as endpoints had before there were optional members.
"""

from collections.abc import Iterable, Iterator
from typing import Any

import msgspec

from llmdyno.endpoints import Ask, Endpoint, Piece, Reply


class Line(msgspec.Struct):
    response: str = ""
    done: bool = False
    error: str = ""
    prompt_eval_count: int | None = None
    eval_count: int | None = None


_decode = msgspec.json.Decoder(Line).decode


class Lines:
    name = "outside.lines"
    ends_with_body = False
    rpc = False

    def path(self, _model: str) -> str:
        return "/api/generate"

    def body(self, ask: Ask) -> bytes:
        turns = [text for turn in ask.history for text in turn]
        fields: dict[str, Any] = {"model": ask.model, "prompt": "\n\n".join([*turns, ask.prompt])}
        if ask.system_prompt:
            fields["system"] = ask.system_prompt
        options = {"num_predict": ask.max_tokens, "temperature": ask.temperature}
        if given := {name: value for name, value in options.items() if value is not None}:
            fields["options"] = given
        return msgspec.json.encode({**fields, "stream": True, **ask.extra})

    def read(self, pieces: Iterable[Piece]) -> Reply:
        reply = Reply()
        for stamp_ns, data in _lines(pieces):
            try:
                line = _decode(data.decode(errors="replace"))
            except (msgspec.MsgspecError, RecursionError) as error:
                reply.error, reply.detail = "bad-json", f"{error}: {data[:80]!r}"
                break
            if line.error:
                reply.error, reply.detail = "stream-error", line.error
                break
            if line.response:
                reply.stamps_ns.append(stamp_ns)
                reply.texts.append(line.response)
            if line.done:
                reply.ended = True
                reply.input_tokens = line.prompt_eval_count or -1
                reply.output_tokens = line.eval_count or -1
        return reply

    def error_of(self, body: bytes) -> str:
        try:
            words = _decode(body).error
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            words = ""
        return (words or body.decode(errors="replace"))[:300].strip()


def _lines(pieces: Iterable[Piece]) -> Iterator[Piece]:
    rest = b""
    for stamp_ns, body in pieces:
        *whole, rest = (rest + body).split(b"\n")
        yield from ((stamp_ns, line) for line in whole if line.strip())


ENDPOINT: Endpoint = Lines()
