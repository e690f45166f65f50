"""What one endpoint does and the others do not; what all do is in test_endpoint_contract.py."""

import asyncio
import json
from typing import Any

import pytest

from endpoint_streams import STREAMS
from llmdyno import endpoints
from llmdyno.endpoints import Ask
from llmdyno.endpoints._triton import inputs
from llmdyno.endpoints.bentoml import ENDPOINT as BENTOML
from llmdyno.endpoints.tgi import ENDPOINT as TGI
from llmdyno.endpoints.triton_generate import ENDPOINT as TRITON
from llmdyno.wire.exchange import Response
from llmdyno.wire.kserve import Tensor
from llmdyno.wire.reply import count_tokens


def test_triton_is_asked_at_the_models_own_path() -> None:
    assert TRITON.path("ensemble") == "/v2/models/ensemble/generate_stream"
    assert TRITON.path("a/b c") == "/v2/models/a%2Fb%20c/generate_stream"


def test_triton_gets_a_least_length_only_when_the_length_is_to_be_exact() -> None:
    free = json.loads(TRITON.body(Ask(prompt="p", max_tokens=5)))
    exact = json.loads(TRITON.body(Ask(prompt="p", max_tokens=5, exact_length=True)))

    assert exact.items() - free.items() == {("min_length", 5), ("min_tokens", 5)}


# What NVIDIA's llmapi model, our ensemble of it, its C++ pipeline and vLLM's backend declare.
_LLMAPI = (
    *("text_input", "streaming", "sampling_param_max_tokens", "sampling_param_temperature"),
    "sampling_param_exclude_input_from_output",
)
_ENSEMBLE = (
    *("text_input", "stream", "max_tokens", "temperature"),
    "sampling_param_exclude_input_from_output",
)
_PIPELINE = ("text_input", "stream", "max_tokens", "temperature", "min_tokens")
_VLLM = ("text_input", "stream", "exclude_input_in_output", "return_num_input_tokens")


@pytest.mark.parametrize(
    ("declared", "there", "absent"),
    [
        (
            _LLMAPI,
            {
                "sampling_param_max_tokens": 5,
                "streaming": True,
                "sampling_param_temperature": 0.5,
                "sampling_param_exclude_input_from_output": True,
            },
            {"max_tokens", "stream", "temperature"},
        ),
        (
            _ENSEMBLE,
            {"max_tokens": 5, "stream": True, "sampling_param_exclude_input_from_output": True},
            {"streaming", "sampling_param_max_tokens"},
        ),
        (
            _PIPELINE,
            {"max_tokens": 5, "stream": True, "temperature": 0.5},
            {"streaming", *(name for name in _LLMAPI if name.startswith("sampling"))},
        ),
        (
            _VLLM,
            {"stream": True, "max_tokens": 5, "exclude_input_in_output": True},
            {"streaming", "sampling_param_exclude_input_from_output"},
        ),
        ((), {"stream": True, "max_tokens": 5}, {"exclude_input_in_output", "streaming"}),
    ],
    ids=["llmapi", "ensemble", "pipeline", "vllm", "not known"],
)
@pytest.mark.parametrize("over", ["HTTP", "gRPC"])
def test_a_triton_model_is_asked_by_the_names_that_it_declares(
    declared: tuple[str, ...], there: dict[str, object], absent: set[str], over: str
) -> None:
    tensors = tuple(Tensor(name=name, datatype="BYTES", shape=(1, 1)) for name in declared)
    ask = Ask(prompt="p", max_tokens=5, temperature=0.5, tensors=tensors)

    named = json.loads(TRITON.body(ask)) if over == "HTTP" else inputs(ask)

    assert there.items() <= named.items()
    assert not absent & named.keys()


@pytest.mark.parametrize(
    ("status", "answer", "names"),
    [
        (200, {"inputs": [{"name": "text_input"}, {"name": "streaming"}, {}]}, {*_LLMAPI[:2]}),
        (200, {"name": "no model"}, set()),
        (400, {"error": "Request for unknown model"}, set()),
    ],
)
def test_triton_is_asked_what_a_model_declares_over_http(
    status: int, answer: dict[str, object], names: set[str]
) -> None:
    class Server:
        async def look(self, path: str) -> Response:
            assert path == "/v2/models/a%2Fb"
            return Response(sent_ns=0, status=status, pieces=[(1, json.dumps(answer).encode())])

    server: Any = Server()
    found = asyncio.run(endpoints.tensors(TRITON, server, "a/b"))

    assert {tensor.name for tensor in found} == names


def test_tritons_last_event_brings_the_end_of_sequence_token() -> None:
    counted = STREAMS["triton-generate"].counted
    assert counted is not None

    reply = TRITON.read([(1, counted("a", 1, 1)), (2, counted("b", 1, 2)), (3, counted("", 1, 3))])

    assert count_tokens(reply) == ([1, 2], "usage")


def test_a_model_of_triton_with_a_batch_sends_lists_of_one_text() -> None:
    reply = TRITON.read(
        [(1, b'data: {"text_output":["a"]}\n\n'), (2, b'data: {"text_output":["b"]}')]
    )

    assert (reply.texts, reply.stamps_ns) == (["a", "b"], [1, 2])


def test_tgi_refuses_a_temperature_of_nought_and_is_greedy_without() -> None:
    assert b"temperature" not in TGI.body(Ask(prompt="p", temperature=0.0))


def test_tgi_joins_the_users_parameters_and_ours() -> None:
    ask = Ask(prompt="p", max_tokens=5, extra={"parameters": {"top_p": 0.9}})

    assert json.loads(TGI.body(ask))["parameters"] == {
        "details": True,
        "max_new_tokens": 5,
        "top_p": 0.9,
    }


def test_tgi_has_sent_at_least_what_has_arrived() -> None:
    stream = STREAMS["tgi"]
    end = stream.end(3).replace(b'"generated_tokens": 4', b'"generated_tokens": 1')

    reply = TGI.read([(1, stream.text("a") * 3 + end)])

    assert sum(count_tokens(reply)[0]) == 4
    assert reply.finish == "eos_token"


def test_tgi_has_an_end_without_details() -> None:
    reply = TGI.read([(1, b'data:{"token":{"text":"a"},"generated_text":"a","details":null}\n\n')])

    assert reply.ended
    assert count_tokens(reply) == ([1], "chunks")


def test_bentoml_is_told_that_there_is_no_system_prompt() -> None:
    assert json.loads(BENTOML.body(Ask(prompt="p")))["system_prompt"] == ""


def test_bentoml_text_that_looks_like_an_error_is_text() -> None:
    for text in (b'{"status": "error"} is what you get', b'{"status": "fine"}', b'{"status": "err'):
        reply = BENTOML.read([(1, text)])

        assert reply.error == ""
        assert reply.stamps_ns == [1]


def test_bentoml_half_a_character_is_no_chunk() -> None:
    assert BENTOML.read([(1, b"\xc3"), (2, b"\xa9")]).stamps_ns == [2]
