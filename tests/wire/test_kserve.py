"""KServe's messages, held against Triton's own schema."""

import itertools
import struct
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tritonclient.grpc import service_pb2

from endpoint_streams import rpc_end, rpc_failure, rpc_response
from llmdyno.wire import kserve
from llmdyno.wire.kserve import MessageError, Output, Responses, Tensor

DECLARED = (
    Tensor(name="text_input", datatype="BYTES", shape=(-1, 1)),
    Tensor(name="stop_words", datatype="BYTES", shape=(-1, -1)),
    Tensor(name="seed", datatype="UINT64", shape=(-1, 1)),
    Tensor(name="max_tokens", datatype="INT32", shape=(1,)),
    Tensor(name="top_p", datatype="FP32", shape=(-1, 1)),
    Tensor(name="stream", datatype="BOOL", shape=(1,)),
)


def test_what_a_model_declares_is_an_input_of_its_type_and_the_rest_a_parameter() -> None:
    asked: dict[str, Any] = {
        "text_input": "é" * 100,
        "stop_words": ["a", "bcd"],
        "seed": 2**63,
        "max_tokens": -5,
        "top_p": 0.5,
        "stream": True,
        "number": -7,
        "share": 0.25,
        "name": "x",
        "truth": False,
        "list": [1, 2],
    }

    request = service_pb2.ModelInferRequest.FromString(
        kserve.infer_request("a model", asked, DECLARED)
    )
    inputs = {
        tensor.name: (tensor.datatype, list(tensor.shape), raw)
        for tensor, raw in zip(request.inputs, request.raw_input_contents, strict=True)
    }
    stated = dict(request.parameters.items())

    assert request.model_name == "a model"
    assert inputs == {
        "text_input": ("BYTES", [1, 1], struct.pack("<I", 200) + "é".encode() * 100),
        "stop_words": ("BYTES", [1, 2], b"\1\0\0\0a\3\0\0\0bcd"),
        "seed": ("UINT64", [1, 1], struct.pack("<Q", 2**63)),
        "max_tokens": ("INT32", [1], struct.pack("<i", -5)),
        "top_p": ("FP32", [1, 1], struct.pack("<f", 0.5)),
        "stream": ("BOOL", [1], b"\1"),
    }
    assert stated["number"].int64_param == -7
    assert stated["share"].double_param == 0.25
    assert stated["name"].string_param == "x"
    assert stated["truth"].WhichOneof("parameter_choice") == "bool_param"
    assert stated["list"].string_param == "[1, 2]"
    assert stated["triton_enable_empty_final_response"].bool_param


def test_what_a_server_says_of_a_model_is_read() -> None:
    answer = service_pb2.ModelMetadataResponse(name="m", versions=["1"], platform="ensemble")
    answer.inputs.add(name="text_input", datatype="BYTES", shape=[-1, 1])
    answer.outputs.add(name="text_output", datatype="BYTES", shape=[-1, 300])

    inputs, outputs = kserve.read_metadata(answer.SerializeToString())

    assert inputs == (Tensor(name="text_input", datatype="BYTES", shape=(-1, 1)),)
    assert outputs == (Tensor(name="text_output", datatype="BYTES", shape=(-1, 300)),)
    request = service_pb2.ModelMetadataRequest.FromString(kserve.metadata_request("m"))
    assert request.name == "m"


def test_models_that_are_not_ready_are_left_out() -> None:
    answer = service_pb2.RepositoryIndexResponse()
    answer.models.add(name="a", version="1", state="READY")
    answer.models.add(name="b", version="1", state="UNAVAILABLE", reason="no")

    assert kserve.read_index(answer.SerializeToString()) == ["a"]


def bare(message: bytes) -> bytes:
    return message[5:]


MESSAGES = st.one_of(
    st.builds(
        lambda text, final, count: bare(rpc_response(text, final=final, num_output_tokens=count)),
        st.text(max_size=200),
        st.booleans(),
        st.integers(0, 9),
    ),
    st.text(max_size=9).map(lambda text: bare(rpc_response(text))),
    st.sampled_from([bare(rpc_end()), bare(rpc_failure("oom")), b"", b"\x12", b"\x12\xff\xff"]),
    st.binary(max_size=30),
)


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    """Draw a message in which a byte or two may be wrong, too many or missing."""
    message = bytearray(draw(MESSAGES))
    for _ in range(draw(st.integers(0, 2))):
        if message:
            place = draw(st.integers(0, len(message) - 1))
            kind = draw(st.sampled_from("rid"))
            byte = draw(st.integers(0, 255))
            message[place : place + (kind != "i")] = b"" if kind == "d" else bytes([byte])
    return bytes(message)


def outcome(responses: Responses, message: bytes) -> Output | str:
    try:
        return responses.read(message)
    except MessageError as error:
        return str(error)


@settings(deadline=None, max_examples=300)
@given(st.lists(damaged(), min_size=1, max_size=8))
def test_what_came_before_changes_nothing_in_what_is_read(stream: list[bytes]) -> None:
    together = Responses()

    for message in stream:
        assert outcome(together, message) == outcome(Responses(), message)


@settings(deadline=None)
@given(st.lists(st.binary(max_size=40), max_size=5), st.lists(st.integers(0, 200), max_size=8))
def test_messages_may_be_cut_and_joined_anywhere(whole: list[bytes], cuts: list[int]) -> None:
    body = b"".join(map(kserve.framed, whole))
    edges = sorted({0, len(body), *(cut for cut in cuts if cut < len(body))})
    pieces = [(low, body[low:high]) for low, high in itertools.pairwise(edges)]

    found = list(kserve.messages(pieces))

    assert [message for _, message in found] == whole
    at = 0
    for stamp, message in found:
        at += 5 + len(message)
        assert stamp == max(low for low in edges if low < at)


def test_a_compressed_message_is_refused() -> None:
    with pytest.raises(MessageError, match="compressed"):
        list(kserve.messages([(0, b"\1\0\0\0\0")]))
