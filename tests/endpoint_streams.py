"""What servers really send, endpoint by endpoint: each proves itself with its stream.

The shapes of Triton's and BentoML's streams were taken from Triton 2.51 and BentoML 1.4.39, those
of Text Generation Inference from its source. Messages over gRPC are made and read by Triton's own
client library, so that ours is held against its schema.
"""

import json
import struct
from collections.abc import Mapping
from typing import Any

from tritonclient.grpc import service_pb2

from llmdyno.testing.endpoints import Stream

_JOINED = 'Be brief.\n\nA "quoted" é\n'


def _event(document: Any) -> bytes:
    return b"data: %s\n\n" % json.dumps(document, ensure_ascii=False).encode()


_DONE = b"data: [DONE]\n\n"
_OPENAI_ERROR = _event({"error": {"message": "out of memory", "type": "server_error"}})
_OPENAI_FIELDS = {
    "model": "m",
    "max_tokens": 7,
    "stream": True,
    "stream_options": {"include_usage": True},
    "ignore_eos": True,
    "temperature": 0.5,
}


def _openai_usage(prompt: int, completion: int) -> dict[str, int]:
    return {"prompt_tokens": prompt, "completion_tokens": completion}


def _openai_end(tokens: int, choice: Mapping[str, Any]) -> bytes:
    usage = _event({"choices": [], "usage": _openai_usage(9, tokens)})
    return _event({"choices": [choice]}) + usage + _DONE


def _call(body: bytes) -> dict[str, Any]:
    """Return the inputs of a ModelInferRequest, each a batch of one."""
    compressed, length = struct.unpack(">?I", body[:5])
    request = service_pb2.ModelInferRequest.FromString(body[5:])
    assert not compressed
    assert length == len(body) - 5
    assert request.parameters["triton_enable_empty_final_response"].bool_param
    assert len(request.inputs) == len(request.raw_input_contents)
    kinds = {"BOOL": "<?", "INT32": "<i", "FP32": "<f"}
    found = {}
    for tensor, raw in zip(request.inputs, request.raw_input_contents, strict=True):
        assert list(tensor.shape) == [1, 1]
        if tensor.datatype == "BYTES":
            assert struct.unpack("<I", raw[:4]) == (len(raw) - 4,)
            found[tensor.name] = raw[4:].decode()
        else:
            (found[tensor.name],) = struct.unpack(kinds[tensor.datatype], raw)
    return found


def _message(message: Any) -> bytes:
    data = message.SerializeToString()
    return struct.pack(">?I", False, len(data)) + bytes(data)


def rpc_response(text: str | bytes = "", *, final: bool = False, **counts: int) -> bytes:
    """Return a response of Triton's, framed as gRPC does."""
    response = service_pb2.ModelInferResponse(model_name="m", model_version="1")
    response.parameters["sequence_id"].int64_param = 0
    response.parameters["triton_final_response"].bool_param = final
    data = text.encode() if isinstance(text, str) else text
    values = {"text_output": ("BYTES", struct.pack("<I", len(data)) + data)}
    values |= {name: ("INT32", struct.pack("<i", count)) for name, count in counts.items()}
    for name, (datatype, raw) in values.items():
        response.outputs.add(name=name, datatype=datatype, shape=[1, 1])
        response.raw_output_contents.append(raw)
    return _message(service_pb2.ModelStreamInferResponse(infer_response=response))


def rpc_end() -> bytes:
    """Return the empty response that ends a stream."""
    response = service_pb2.ModelInferResponse(model_name="m", model_version="1")
    response.parameters["triton_final_response"].bool_param = True
    return _message(service_pb2.ModelStreamInferResponse(infer_response=response))


def rpc_failure(words: str) -> bytes:
    """Return an error in the stream."""
    return _message(service_pb2.ModelStreamInferResponse(error_message=words))


def _chat(content: str | None, finish: str | None = None) -> dict[str, Any]:
    delta = {"role": "assistant"} if content is None else {"content": content}
    return {"index": 0, "delta": delta, "finish_reason": finish}


def _completion(text: str, finish: str | None = None) -> dict[str, Any]:
    return {"index": 0, "text": text, "finish_reason": finish}


def _tgi(text: str, *, special: bool = False, **end: Any) -> bytes:
    token = {"id": 5, "text": text, "logprob": -0.3, "special": special}
    return _event({"index": 1, "token": token, "generated_text": None, "details": None, **end})


def _tgi_end(tokens: int) -> bytes:
    # The last event brings the end-of-sequence token, which is counted but no text.
    details = {"finish_reason": "eos_token", "generated_tokens": tokens + 1, "input_length": 9}
    return _tgi("</s>", special=True, generated_text="all of it", details=details)


def _triton(text: str, **more: Any) -> bytes:
    return _event({"model_name": "m", "model_version": "1", "text_output": text, **more})


def _named(document: dict[str, Any]) -> bytes:
    return b"event: %s\n%s" % (document["type"].encode(), _event(document))


def _responses_end(tokens: int) -> bytes:
    usage = {"input_tokens": 9, "output_tokens": tokens, "total_tokens": 9 + tokens}
    response = {"status": "completed", "usage": usage, "error": None, "incomplete_details": None}
    return _named({"type": "response.output_text.done", "text": "all of it"}) + _named(
        {"type": "response.completed", "response": response}
    )


def _messages_end(tokens: int) -> bytes:
    delta = {"stop_reason": "end_turn", "stop_sequence": None}
    usage = {"input_tokens": 9, "output_tokens": tokens}
    return (
        _named({"type": "content_block_stop", "index": 0})
        + _named({"type": "message_delta", "delta": delta, "usage": usage})
        + _named({"type": "message_stop"})
    )


STREAMS: dict[str, Stream] = {
    "openai-chat": Stream(
        fields=_OPENAI_FIELDS
        | {
            "messages": [
                {"role": "system", "content": "Be brief."},
                {"role": "user", "content": 'A "quoted" é\n'},
            ]
        },
        text=lambda text: _event({"choices": [_chat(text)]}),
        silent=_event({"choices": [_chat(None)]}),
        failure=_OPENAI_ERROR,
        end=lambda tokens: _openai_end(tokens, _chat("", "stop")),
        counted=lambda text, _, total: _event(
            {"choices": [_chat(text)], "usage": _openai_usage(9, total)}
        ),
    ),
    "openai-completions": Stream(
        fields=_OPENAI_FIELDS | {"prompt": _JOINED},
        text=lambda text: _event({"choices": [_completion(text)]}),
        silent=_event({"choices": [_completion("")]}),
        failure=_OPENAI_ERROR,
        end=lambda tokens: _openai_end(tokens, _completion("", "stop")),
        counted=lambda text, _, total: _event(
            {"choices": [_completion(text)], "usage": _openai_usage(9, total)}
        ),
    ),
    "openai-responses": Stream(
        fields={
            "model": "m",
            "input": [{"role": "user", "content": 'A "quoted" é\n'}],
            "instructions": "Be brief.",
            "max_output_tokens": 7,
            "stream": True,
            "store": False,
            "ignore_eos": True,
            "temperature": 0.5,
        },
        text=lambda text: _named({"type": "response.output_text.delta", "delta": text}),
        silent=_named({"type": "response.in_progress", "response": {"status": "in_progress"}}),
        failure=_named({"type": "error", "code": "server_error", "message": "out of memory"}),
        end=_responses_end,
    ),
    "anthropic-messages": Stream(
        fields={
            "model": "m",
            "max_tokens": 7,
            "messages": [{"role": "user", "content": 'A "quoted" é\n'}],
            "system": "Be brief.",
            "stream": True,
            "ignore_eos": True,
            "temperature": 0.5,
        },
        text=lambda text: _named(
            {
                "type": "content_block_delta",
                "index": 0,
                "delta": {"type": "text_delta", "text": text},
            }
        ),
        silent=_named(
            {
                "type": "message_start",
                "message": {"content": [], "usage": {"input_tokens": 9, "output_tokens": 1}},
            }
        ),
        failure=_named(
            {"type": "error", "error": {"type": "api_error", "message": "out of memory"}}
        ),
        end=_messages_end,
        wants_length=True,
    ),
    "triton-generate": Stream(
        fields={
            "text_input": _JOINED,
            "max_tokens": 7,
            "min_length": 7,
            "min_tokens": 7,
            "stream": True,
            "temperature": 0.5,
        },
        text=_triton,
        silent=_triton(""),
        failure=_event({"error": "out of memory"}),
        end=lambda _: b"",
        counted=lambda text, tokens, _: _triton(text, num_input_tokens=9, num_output_tokens=tokens),
    ),
    "triton-grpc": Stream(
        fields={
            "text_input": _JOINED,
            "max_tokens": 7,
            "min_length": 7,
            "min_tokens": 7,
            "stream": True,
            "temperature": 0.5,
        },
        text=rpc_response,
        silent=rpc_response(""),
        failure=rpc_failure("out of memory"),
        end=lambda _: rpc_end(),
        counted=lambda text, tokens, _: rpc_response(
            text, num_input_tokens=9, num_output_tokens=tokens
        ),
        asked=_call,
        garbage=b"\0\0\0\0\x04\xff\xff\xff\xff",
        garbage_fault="bad-message",
    ),
    "tgi": Stream(
        fields={
            "inputs": _JOINED,
            "parameters": {
                "max_new_tokens": 7,
                "temperature": 0.5,
                "details": True,
                "ignore_eos_token": True,
            },
        },
        text=_tgi,
        silent=_tgi(""),
        failure=_event({"error": "out of memory", "error_type": "generation"}),
        end=_tgi_end,
        silent_tokens=1,
        # A text of three tokens is one of which two did not complete a character.
        counted=lambda text, tokens, _: _tgi("") * (tokens - 1) + _tgi(text),
    ),
    "bentoml": Stream(
        fields={
            "prompt": 'A "quoted" é\n',
            "system_prompt": "Be brief.",
            "max_tokens": 7,
            "temperature": 0.5,
        },
        text=str.encode,
        silent=b"",
        failure=b'{"status": "error", "message": "out of memory"}',
        end=lambda _: b"",
        framed=False,
    ),
}
