"""The front triton: a real tritonserver with the embedded engine, and what it writes for others.

The first run installs Triton's environment, which takes a minute; one server then serves nearly all
tests, two more are killed.
"""

import asyncio
import contextlib
import http.client
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import llmdyno
from conftest import last_json
from llmdyno import endpoints, plugins
from llmdyno.bench import detect
from llmdyno.bench.prober import Prober
from llmdyno.endpoints import Ask, Endpoint
from llmdyno.engines import Launch
from llmdyno.errors import ServerError, TargetError
from llmdyno.fronts import triton
from llmdyno.fronts._triton import install, launcher, starting
from llmdyno.fronts._triton.backends import Served, _llmapi, openvino, tensorrt_llm, vllm
from llmdyno.fronts._triton.openvino import Generation, StopWords, words_of
from llmdyno.fronts._triton.postprocessing import CONTEXT_TOKENS, new_text
from llmdyno.fronts._triton.preprocessing import word_list
from llmdyno.fronts._triton.repository import Repository, write
from llmdyno.knobs import Config, Value, check, default
from llmdyno.processes import environments, ports
from llmdyno.processes import server as supervise
from llmdyno.processes.diagnosis import FAILURES
from llmdyno.wire.connect import as_sent, connect
from llmdyno.wire.exchange import Meter, Response
from llmdyno.wire.reply import Reply, count_tokens
from llmdyno.wire.target import Target, parse_url
from waiting import until

PATIENCE_S = 60.0
FRONT: dict[str, Value] = {
    knob.name: value for knob in triton.KNOBS if (value := default(knob, None)) is not None
}
# One knob of the engine and most of the front, none at its default.
CONFIG: Config = {
    "max_num_batched_tokens": 512,
    "postprocessing_instance_count": 2,
    "accumulate_tokens": True,
    "triton_max_batch_size": 128,
}


def launched(folder: Path, config: Config) -> Launch:
    engine = plugins.load("engines", "openvino")
    return triton.FRONT.launch(
        engine,
        "tiny",
        config,
        artifact=None,
        folder=folder,
        host="127.0.0.1",
        port=ports.free_port(),
        says=lambda _: None,
    )


@contextlib.contextmanager
def serving(folder: Path, config: Config) -> Iterator[supervise.Server]:
    with supervise.start(launched(folder, config), log=folder / "log") as server:
        yield server


@pytest.fixture(scope="module")
def launch(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Launch]:
    with serving(tmp_path_factory.mktemp("triton"), CONFIG) as server:
        yield server.launch


def post(launch: Launch, path: str, body: Mapping[str, Any]) -> tuple[int, bytes]:
    target = parse_url(launch.url)
    connection = http.client.HTTPConnection(target.host, target.port, timeout=PATIENCE_S)
    with contextlib.closing(connection):
        connection.request("POST", f"/v2/models/{path}", json.dumps(body))
        response = connection.getresponse()
        return response.status, response.read()


def whole(launch: Launch, model: str = "ensemble", **asked: Any) -> dict[str, Any]:
    status, body = post(launch, f"{model}/generate", {"text_input": "import os", **asked})
    document: dict[str, Any] = json.loads(body)
    assert status == 200, document
    return document


def stream(launch: Launch, model: str = "ensemble", **asked: Any) -> list[dict[str, Any]]:
    asked = {"text_input": "import os", "stream": True, **asked}
    _, body = post(launch, f"{model}/generate_stream", asked)
    return [json.loads(line[6:]) for line in body.splitlines() if line.startswith(b"data: ")]


def metric(launch: Launch, name: str) -> float:
    target = parse_url(launch.metrics_url)
    connection = http.client.HTTPConnection(target.host, target.port, timeout=PATIENCE_S)
    with contextlib.closing(connection):
        connection.request("GET", target.prefix)
        page = connection.getresponse().read().decode()
    found = re.search(rf"^{re.escape(name)}(?:\{{[^}}]*\}})? (\S+)$", page, re.MULTILINE)
    assert found, page
    return float(found[1])


def eventually(holds: Callable[[], bool]) -> None:
    until(holds, "what is waited for", within_s=PATIENCE_S)


def openai(launch: Launch, method: str, path: str, body: object = None) -> tuple[int, bytes]:
    target = parse_url(launch.also["openai-chat"])
    connection = http.client.HTTPConnection(target.host, target.port, timeout=PATIENCE_S)
    with contextlib.closing(connection):
        connection.request(method, path, None if body is None else json.dumps(body))
        response = connection.getresponse()
        return response.status, response.read()


# Tokens.


def test_a_stream_is_the_whole_answer_in_pieces_and_counts_its_tokens(launch: Launch) -> None:
    together = whole(launch, max_tokens=40, min_tokens=40)
    events = stream(launch, max_tokens=40, min_tokens=40)

    assert "".join(event["text_output"] for event in events) == together["text_output"]
    assert sum(event["num_output_tokens"] for event in events) == 40
    assert together["num_output_tokens"] == 40
    assert {event["num_input_tokens"] for event in events} == {together["num_input_tokens"]}
    assert len(events) > 20


def test_it_is_the_text_that_the_native_server_makes(launch: Launch, tmp_path: Path) -> None:
    native = plugins.load("engines", "openvino").launch(
        "tiny", {}, artifact=None, host="127.0.0.1", port=ports.free_port()
    )
    with supervise.start(native, log=tmp_path / "log"):
        target = parse_url(native.url)
        connection = http.client.HTTPConnection(target.host, target.port, timeout=PATIENCE_S)
        body = {"model": "tiny", "prompt": "import os", "max_tokens": 12, "ignore_eos": True}
        with contextlib.closing(connection):
            connection.request("POST", "/v1/completions", json.dumps(body))
            answer = json.loads(connection.getresponse().read())

    ours = whole(launch, max_tokens=12, min_tokens=12)

    assert ours["text_output"] == answer["choices"][0]["text"]
    assert ours["num_input_tokens"] == answer["usage"]["prompt_tokens"]


def test_sampling_obeys_its_seed_and_greedy_is_the_default(launch: Launch) -> None:
    greedy = whole(launch, max_tokens=8)["text_output"]
    sampled = whole(launch, max_tokens=8, temperature=1.5, seed=5)["text_output"]

    assert whole(launch, max_tokens=8, temperature=0)["text_output"] == greedy
    assert whole(launch, max_tokens=8, temperature=1.5, random_seed=5)["text_output"] == sampled
    assert whole(launch, max_tokens=8, temperature=1.5, top_k=1)["text_output"] == greedy
    assert sampled != greedy


def test_a_stop_word_ends_the_text_before_it(launch: Launch) -> None:
    events = stream(launch, max_tokens=8)
    word = events[3]["text_output"]
    before = "".join(event["text_output"] for event in events[:3])

    assert whole(launch, max_tokens=8, stop_words=word)["text_output"] == before
    assert whole(launch, max_tokens=8, stop_words=["", word])["text_output"] == before


def test_the_bls_model_shows_the_whole_text_each_time(launch: Launch) -> None:
    expected = whole(launch, max_tokens=6)["text_output"]
    events = stream(launch, "tensorrt_llm_bls", max_tokens=6)

    assert events[-1]["text_output"] == expected
    assert [len(event["text_output"]) for event in events] == sorted(
        len(event["text_output"]) for event in events
    )
    assert sum(event["num_output_tokens"] for event in events) == 6


SPLIT = "é漢字😀 ok, ŝ🇪🇺 x"


def test_no_character_is_broken_however_its_tokens_come(launch: Launch) -> None:
    """The tokens of a text of many bytes, one a call, through the real postprocessing model."""

    def infer(model: str, *inputs: dict[str, Any]) -> dict[str, Any]:
        status, body = post(launch, f"{model}/infer", {"inputs": inputs})
        assert status == 200, body
        return {output["name"]: output["data"] for output in json.loads(body)["outputs"]}

    def tensor(name: str, shape: list[int], kind: str, data: list[Any]) -> dict[str, Any]:
        return {"name": name, "shape": shape, "datatype": kind, "data": data}

    prompt = infer("preprocessing", tensor("QUERY", [1, 1], "BYTES", [SPLIT]))
    ids = prompt["INPUT_ID"]
    pieces: list[str] = []
    for at in range(len(ids)):
        context = ids[max(0, at - CONTEXT_TOKENS) : at]
        known = [*context, ids[at]]
        output = infer(
            "postprocessing",
            tensor("TOKENS_BATCH", [1, 1, len(known)], "INT32", known),
            tensor("SEQUENCE_LENGTH", [1, 1], "INT32", [len(known)]),
            tensor("CONTEXT_LENGTH", [1, 1], "INT32", [len(context)]),
        )
        pieces += output["OUTPUT"]

    assert "".join(pieces) == SPLIT
    assert "" in pieces  # what was half a character waited
    assert "\ufffd" not in "".join(pieces)


# Errors, each in the words that help.


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ({"text_input": ""}, "text_input: it is empty"),
        ({"max_tokens": 0}, "max_tokens: 0; must be at least 1"),
        ({"max_tokens": 9000}, "maximum is 8192 tokens"),
        ({"bad_words": "a"}, "bad_words: this engine cannot forbid words"),
        ({"beam_width": 4}, "beam_width: this engine has no beam search"),
        ({"temperature": 1.0, "top_p": 7.0}, "top_p"),
    ],
)
@pytest.mark.parametrize("model", ["ensemble", "tensorrt_llm_bls"])
def test_what_cannot_be_served_is_an_error_and_harms_nobody(
    launch: Launch, model: str, asked: dict[str, Any], words: str
) -> None:
    status, body = post(launch, f"{model}/generate", {"text_input": "a", **asked})
    (event,) = stream(launch, model, **asked)

    assert status >= 400
    assert words in json.loads(body)["error"]
    assert words in event["error"]
    assert whole(launch, max_tokens=1)["num_output_tokens"] == 1


# The load generator, and what the server says of itself.


WIRES = ("triton-generate", "triton-grpc")
every_wire = pytest.mark.parametrize("wire", WIRES)


def url_of(launch: Launch, wire: str) -> str:
    return launch.also.get(wire, launch.url)


def exchange(launch: Launch, wire: str, model: str = "", **asked: Any) -> tuple[Response, Reply]:
    """Find out what the server speaks and serves, and ask it for a stream."""

    async def ask() -> tuple[Response, Reply]:
        prober = Prober(parse_url(url_of(launch, wire)))
        try:
            name, found = await detect.detect(prober, "auto", model)
            assert (name, found) == (wire, model or "ensemble")
            endpoint = endpoints.load(name)
            tensors = await endpoints.tensors(endpoint, prober, found)
            given = Ask(**{"prompt": "import os", "model": found, "tensors": tensors, **asked})
            response = await prober.ask("POST", endpoint.path(found), endpoint.body(given))
            return response, endpoint.read(response.pieces)
        finally:
            prober.close()

    return asyncio.run(ask())


@every_wire
@pytest.mark.parametrize("model", ["ensemble", "tensorrt_llm_bls"])
def test_each_text_has_its_stamp_and_the_server_counts(
    launch: Launch, wire: str, model: str
) -> None:
    together = whole(launch, max_tokens=40, min_tokens=40)

    response, reply = exchange(launch, wire, model, max_tokens=40, exact_length=True)
    tokens, source = count_tokens(reply)

    if model == "ensemble":  # the other shows the whole text each time: accumulate_tokens
        assert "".join(reply.texts) == together["text_output"]
    assert (sum(tokens), source) == (40, "usage")
    assert reply.input_tokens == together["num_input_tokens"]
    assert len(reply.stamps_ns) > 20
    assert reply.stamps_ns == sorted(reply.stamps_ns)
    assert response.sent_ns < reply.stamps_ns[0]
    assert all(reply.texts)
    assert reply.ended is not plugins.load("endpoints", wire).ends_with_body
    assert reply.error == response.error == ""


@every_wire
def test_what_the_user_adds_has_the_type_that_the_model_declares(launch: Launch, wire: str) -> None:
    extra = {"seed": 5, "top_k": 20, "stop_words": ["never said", "nor this"], "unknown": 1}
    sampled = whole(launch, max_tokens=8, temperature=1.5, seed=5, top_k=20)["text_output"]

    _, reply = exchange(launch, wire, max_tokens=8, temperature=1.5, extra=extra)

    assert "".join(reply.texts) == sampled


@every_wire
def test_a_refusal_is_in_the_servers_words(launch: Launch, wire: str) -> None:
    response, reply = exchange(launch, wire, temperature=1.0, extra={"top_p": 7.0})

    said = reply.detail or plugins.load("endpoints", wire).error_of(response.body())
    assert "top_p" in said
    assert reply.stamps_ns == []


@every_wire
def test_a_model_that_is_not_there_is_named(launch: Launch, wire: str) -> None:
    if plugins.load("endpoints", wire).rpc:
        with pytest.raises(TargetError, match=r"'nobody' is not found.*\(grpc-not-found\)"):
            exchange(launch, wire, "nobody")
    else:
        response, _ = exchange(launch, wire, "nobody")
        assert response.status in {400, 404}


def test_http_asked_where_grpc_is_spoken_is_told_so(
    launch: Launch, dyno: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    place = launch.url.removeprefix("http://")
    wrong = dyno("bench", "--url", launch.url, "--endpoint", "triton-grpc", "-c", "1")
    elsewhere = dyno("bench", "--url", place, "--endpoint", "triton-grpc", "-c", "1")

    assert wrong.returncode == 2
    assert "--endpoint triton-grpc needs grpc://host:port" in wrong.stderr
    assert elsewhere.returncode == 3
    assert "gRPC has a port of its own" in elsewhere.stderr


@pytest.mark.parametrize(("wire", "workers"), [("triton-generate", 1), ("triton-grpc", 2)])
def test_a_benchmark_agrees_with_the_servers_own_count(
    launch: Launch, wire: str, workers: int, dyno: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    # What a test before it left behind would be counted, too.
    eventually(lambda: metric(launch, "llmdyno_requests_running") == 0)

    done = dyno(
        *("bench", "--url", url_of(launch, wire), "--metrics-url", launch.metrics_url),
        *("-c", "30", "--workers", str(workers)),
        *("--requests", "60", "--ramp", "1s", "--isl", "16", "--osl", "24", "--no-calibration"),
        "--json",
    )

    assert done.returncode == 0, done.stderr
    level = last_json(done.stdout)["levels"][0]
    assert level["requests"]["failed"] == 0
    assert level["requests"]["completed"] == 60
    assert level["tokens"]["source"] == "usage"
    assert level["tokens"]["output"] == 24 * level["requests"]["completed"]
    assert level["server"]["kind"] == "llmdyno"
    assert level["server"]["tokens"]["server"] == level["tokens"]["output"]
    assert level["server"]["requests"]["server"] == level["requests"]["completed"]


async def hang_up(target: Target, endpoint: Endpoint, model: str, once: Callable[[], bool]) -> None:
    """Ask for 8000 tokens, and hang up once that is so."""
    connection = await connect(target, Meter())
    ask = Ask(prompt="a", model=model, max_tokens=8000, exact_length=True)
    connection.send(as_sent(target, endpoint.path(model), endpoint.body(ask)))
    await asyncio.to_thread(eventually, once)
    connection.close()


@pytest.mark.parametrize(
    ("wire", "model"),
    [
        ("triton-generate", "ensemble"),
        ("triton-generate", "tensorrt_llm_bls"),
        ("triton-grpc", "ensemble"),
    ],
)
def test_a_client_that_hangs_up_stops_its_generation(launch: Launch, wire: str, model: str) -> None:
    before = metric(launch, "llmdyno_generation_tokens_total")

    asyncio.run(
        hang_up(
            parse_url(url_of(launch, wire)),
            plugins.load("endpoints", wire),
            model,
            lambda: (
                metric(launch, "llmdyno_requests_running") == 1
                and metric(launch, "llmdyno_generation_tokens_total") > before
            ),
        )
    )

    eventually(lambda: metric(launch, "llmdyno_requests_running") == 0)
    made = metric(launch, "llmdyno_generation_tokens_total")
    time.sleep(0.5)
    assert metric(launch, "llmdyno_generation_tokens_total") == made
    assert made - before < 8000
    assert metric(launch, "llmdyno_kv_cache_usage_ratio") == 0


# Death.


# OpenAI's protocol, on a port beside Triton's own.


def completion(launch: Launch, **asked: Any) -> dict[str, Any]:
    body = {"model": "tiny", "prompt": "import os", "max_tokens": 12, **asked}
    status, answer = openai(launch, "POST", "/v1/completions", body)
    document: dict[str, Any] = json.loads(answer)
    assert status == 200, document
    return document


def test_openais_clients_get_the_text_that_tritons_own_get(launch: Launch) -> None:
    ours = whole(launch, max_tokens=12, min_tokens=12)

    (choice,) = completion(launch, ignore_eos=True)["choices"]
    assert (choice["text"], choice["finish_reason"]) == (ours["text_output"], "length")
    usage = completion(launch, ignore_eos=True)["usage"]
    assert (usage["prompt_tokens"], usage["completion_tokens"]) == (ours["num_input_tokens"], 12)
    several = completion(launch, prompt=["import os", "def f"], n=2)["choices"]
    assert [one["index"] for one in several] == [0, 1, 2, 3]
    sampled = whole(launch, max_tokens=8, temperature=1.5, seed=5)["text_output"]
    again = completion(launch, max_tokens=8, temperature=1.5, seed=5, ignore_eos=True)
    assert again["choices"][0]["text"] == sampled


def test_an_openai_stream_ends_with_its_usage(launch: Launch) -> None:
    asked = {"model": "tiny", "messages": [{"role": "user", "content": "é"}], "max_tokens": 30}
    options = {"include_usage": True}
    streaming = {**asked, "stream": True, "stream_options": options, "unheard_of": 1}
    _, body = openai(launch, "POST", "/v1/chat/completions", streaming)
    *events, mark = body.strip().split(b"\n\n")

    decoded = [json.loads(event.removeprefix(b"data: ")) for event in events]
    text = "".join(one["choices"][0]["delta"].get("content", "") for one in decoded[:-1])
    together = json.loads(openai(launch, "POST", "/v1/chat/completions", asked)[1])
    assert mark == b"data: [DONE]"
    assert text == together["choices"][0]["message"]["content"]
    assert decoded[-1]["usage"] == together["usage"]


def test_an_openai_stop_ends_the_generation_in_triton(launch: Launch) -> None:
    text = completion(launch, max_tokens=40)["choices"][0]["text"]
    before = metric(launch, "llmdyno_generation_tokens_total")

    (choice,) = completion(launch, max_tokens=6000, ignore_eos=True, stop=text[9:12])["choices"]

    assert (choice["text"], choice["finish_reason"]) == (text[: text.index(text[9:12])], "stop")
    eventually(lambda: metric(launch, "llmdyno_requests_running") == 0)
    assert metric(launch, "llmdyno_generation_tokens_total") - before < 6000


@pytest.mark.parametrize(
    ("fields", "status", "param", "code"),
    [
        ({"max_tokens": 9000}, 400, "max_tokens", "context_length_exceeded"),
        ({"min_p": 0.5}, 400, "min_p", None),
        ({"prompt": ""}, 400, "prompt", None),
        ({"model": "nobody"}, 404, "model", "model_not_found"),
    ],
)
@pytest.mark.parametrize("streams", [False, True])
def test_openais_clients_are_refused_in_their_own_terms(
    launch: Launch,
    fields: dict[str, Any],
    status: int,
    param: str,
    code: str | None,
    streams: bool,
) -> None:
    body = {"model": "tiny", "prompt": "A", "max_tokens": 2, "stream": streams, **fields}
    got, answer = openai(launch, "POST", "/v1/completions", body)
    error = json.loads(answer)["error"]
    assert (got, error["param"], error["code"]) == (status, param, code), error


def test_the_openai_port_shows_what_clients_look_at(launch: Launch) -> None:
    for path in ("/health", "/ping", "/version", "/v1/models", "/metrics"):
        assert openai(launch, "GET", path)[0] == 200


def descendants(pid: int) -> dict[int, str]:
    """Return what stems from a process: pid → program."""
    found: dict[int, str] = {}
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        with contextlib.suppress(OSError):  # a thread, or a child, has ended
            for child in map(int, task.read_text().split()):
                program = Path(f"/proc/{child}/cmdline").read_bytes().split(b"\0")[0].decode()
                found |= {child: Path(program).name} | descendants(child)
    return found


@pytest.mark.parametrize("victim", ["leash", "launcher"])
def test_what_holds_it_together_may_die_too(tmp_path: Path, victim: str) -> None:
    with serving(tmp_path, {}) as server:
        family = descendants(server.pid)
        assert len(family) == 5
        assert openai(server.launch, "GET", "/health")[0] == 200  # its process starts with this
        family = descendants(server.pid)
        assert len(family) == 6

        os.kill(server.pid if victim == "launcher" else server.leash_pid, signal.SIGKILL)
        server.wait(PATIENCE_S)  # until it has ended, if it does
        failure = server.failure()

        assert failure is not None
    assert not [pid for pid in family if alive(pid)]
    # What it left in shared memory goes with the next start.
    launcher._sweep()
    assert not list(launcher.SHARED_MEMORY.glob(f"llmdyno_{server.pid}_*"))


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.parametrize(
    ("victim", "config"),
    [
        ("triton_python_backend_stub", {}),
        ("tritonserver", {"decoupled_mode": False, "max_queue_size": 1}),
    ],
)
def test_a_death_is_noticed_and_leaves_nothing(tmp_path: Path, victim: str, config: Config) -> None:
    with serving(tmp_path, config) as server:
        events = stream(server.launch, "tensorrt_llm_bls", max_tokens=5)
        assert len(events) == (5 if config == {} else 1)
        assert (
            "".join(event["text_output"] for event in events)
            == (whole(server.launch, max_tokens=5)["text_output"])
        )
        family = descendants(server.pid)
        assert sorted(family.values()) == ["triton_python_backend_stub"] * 4 + ["tritonserver"]

        os.kill(next(pid for pid, name in family.items() if name == victim), signal.SIGKILL)
        server.wait(PATIENCE_S)  # until it has ended, if it does
        failure = server.failure()

        assert failure is not None
        assert failure.kind == "died"
    assert not [pid for pid in family if Path(f"/proc/{pid}").exists()]
    assert not list(launcher.SHARED_MEMORY.glob(f"llmdyno_{server.pid}_*"))


def test_a_setting_that_the_engine_refuses_is_a_bad_config(tmp_path: Path) -> None:
    # A precision that does not exist: which of the real ones are refused depends on the CPU.
    config: Config = {"KV_CACHE_PRECISION": "f7"}

    with pytest.raises(ServerError) as caught, serving(tmp_path, config):
        pass

    assert caught.value.kind == "bad-config"


# What is written, read back through Triton's own schema.


WHEEL = install.wheel_requirements(openvino.BACKEND)


def read_back(folder: Path, content: Repository) -> Any:
    binaries = environments.ensure("triton", WHEEL, lambda _: None)
    write(content, folder, binaries / "python", Path(llmdyno.__file__).parent)
    script = Path(triton.__file__).with_name("_triton") / "pbtxt.py"
    done = subprocess.run(
        [str(binaries / "python"), "-I", str(script), "read", str(folder)],
        capture_output=True,
        check=True,
    )
    return json.loads(done.stdout)


def parameter(config: Any, name: str) -> str:
    return str(config["parameters"][name]["string_value"])


def test_tensorrt_llms_configs_hold_the_knobs_under_its_templates_names(tmp_path: Path) -> None:
    engine: Config = {
        "batch_scheduler_policy": "max_utilization",
        "kv_cache_free_gpu_mem_fraction": 0.95,
        "enable_chunked_context": True,
        "max_queue_delay_microseconds": 100,
        "max_batch_size": 64,  # of the build: no key of the template
    }
    front = {**FRONT, "postprocessing_instance_count": 8, "triton_max_batch_size": 64}
    content = tensorrt_llm.repository("/engine", "/tokenizer", (0, 10), engine, front)

    configs = read_back(tmp_path, content)

    model = configs["tensorrt_llm"]
    assert model["backend"] == "tensorrtllm"
    assert model["max_batch_size"] == 64
    assert model["dynamic_batching"]["max_queue_delay_microseconds"] == "100"
    assert parameter(model, "gpt_model_path") == "/engine"
    assert parameter(model, "gpt_model_type") == "inflight_fused_batching"
    assert parameter(model, "batch_scheduler_policy") == "max_utilization"
    assert parameter(model, "kv_cache_free_gpu_mem_fraction") == "0.95"
    assert parameter(model, "enable_chunked_context") == "true"
    assert "max_batch_size" not in model["parameters"]
    assert "enable_kv_cache_reuse" not in model["parameters"]  # unset: the engine decides
    assert configs["postprocessing"]["instance_group"][0]["count"] == 8
    assert parameter(configs["tensorrt_llm_bls"], "tensorrt_llm_model_name") == "tensorrt_llm"
    assert content.model == "tensorrt_llm_bls"


@pytest.mark.parametrize(("version", "seed"), [((0, 10), "random_seed"), ((1, 2), "seed")])
def test_tensorrt_llms_inputs_are_those_of_its_version(
    tmp_path: Path, version: tuple[int, ...], seed: str
) -> None:
    content = tensorrt_llm.repository("/engine", "/tokenizer", version, {}, FRONT)

    configs = read_back(tmp_path, content)

    public = {tensor["name"] for tensor in configs["ensemble"]["input"]}
    assert {"text_input", "max_tokens", "stream", "top_k", seed} <= public
    assert {"seed", "random_seed"} & public == {seed}
    assert_connected(configs)


def test_the_embedded_engines_models_fit_together(tmp_path: Path) -> None:
    content = openvino.repository("/model.gguf", 8192, "/fifo", {"cache_size": 2}, FRONT)

    configs = read_back(tmp_path, content)

    assert json.loads(parameter(configs["openvino"], "config")) == {"cache_size": 2}
    assert_connected(configs)


def assert_connected(configs: Any) -> None:
    """Each name in the ensemble's maps is a tensor of the model, or of the ensemble."""
    ensemble = configs["ensemble"]
    inner = {tensor["name"] for tensor in ensemble["input"]}
    for step in ensemble["ensemble_scheduling"]["step"]:
        model = configs[step["model_name"]]
        inputs = {tensor["name"]: tensor.get("optional") for tensor in model["input"]}
        assert set(step["input_map"]) <= set(inputs)
        assert {name for name in inputs if not inputs[name]} <= set(step["input_map"])
        assert set(step["input_map"].values()) <= inner
        assert set(step["output_map"]) <= {tensor["name"] for tensor in model["output"]}
        inner |= set(step["output_map"].values())
    assert {tensor["name"] for tensor in ensemble["output"]} <= inner


def test_llmapi_gets_a_model_yaml_and_an_ensemble_with_the_usual_names(tmp_path: Path) -> None:
    content = _llmapi.repository(
        "org/model", {"max_batch_size": 512}, FRONT, {"model.py": "# NVIDIA's\n"}
    )

    configs = read_back(tmp_path, content)

    settings_ = json.loads((tmp_path / "tensorrt_llm/1/model.yaml").read_text())
    assert settings_["model"] == "org/model"
    assert settings_["max_batch_size"] == 512
    assert settings_["triton_config"] == {"max_batch_size": 0, "decoupled": True}
    assert_connected(configs)
    # Else an answer begins with its prompt: our client sends it where it is declared.
    hidden = "sampling_param_exclude_input_from_output"
    assert hidden in {tensor["name"] for tensor in configs["ensemble"]["input"]}


def test_vllms_backend_gets_its_engine_arguments(tmp_path: Path) -> None:
    configs = read_back(tmp_path, vllm.repository("org/model", {"max_num_seqs": 64}))

    assert configs["vllm_model"]["backend"] == "vllm"
    arguments = json.loads((tmp_path / "vllm_model/1/model.json").read_text())
    assert arguments == {"model": "org/model", "max_num_seqs": 64}


# The front's own words.


def test_knobs_say_what_they_do_and_take_their_own_values() -> None:
    for knob in triton.KNOBS:
        assert knob.layer == "front"
        for words in (knob.does, knob.turn, knob.trades, knob.source):
            assert len(words) > 10, f"{knob.name}: {words!r}"
        for value in (default(knob, None), *knob.search):
            assert value is not None
            check({knob.name: value}, [knob])
    assert {kind for _, kind in starting.SYMPTOMS} <= set(FAILURES)


def test_importing_the_front_imports_nothing_heavy() -> None:
    code = (
        "import sys, llmdyno.fronts.triton;"
        "print({'openvino', 'google.protobuf', 'gguf'} & set(sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == "set()"


# Pieces, without a server.


@settings(deadline=None)
@given(text=st.text(max_size=20), cuts=st.lists(st.integers(1, 3), min_size=1, max_size=90))
def test_texts_of_any_tokens_are_whole(text: str, cuts: list[int]) -> None:
    """A token is a byte here, the worst there is; each response brings one to three of them."""
    ids = list(text.encode())
    sent: list[int] = []
    generation = Generation(None, name="", streams=True, stops=StopWords([]))

    def decode(numbers: Any) -> str:
        return bytes(numbers).decode("utf-8", "ignore")

    pieces: list[str] = []
    while len(sent) < len(ids):
        width = cuts[len(pieces) % len(cuts)]
        new = ids[len(sent) : len(sent) + width]
        sent += new
        ready = generation.feed(new, None)
        assert ready is not None
        known, context, ended = ready
        assert not ended
        assert context <= CONTEXT_TOKENS
        pieces.append(new_text(decode, known, context))

    assert "".join(pieces) == text


@given(st.lists(st.lists(st.integers(0, 99), min_size=1, max_size=4), max_size=4))
def test_word_lists_are_read_as_they_are_written(words: list[list[int]]) -> None:
    assert words_of(*word_list(words)) == words


@given(
    st.lists(st.integers(0, 3), max_size=30),
    st.lists(st.lists(st.integers(0, 3), min_size=1, max_size=3), min_size=1, max_size=2),
)
def test_a_stream_ends_before_the_first_stop_word(made: list[int], words: list[list[int]]) -> None:
    found = [
        at for at in range(len(made)) if any(made[at : at + len(word)] == word for word in words)
    ]
    generation = Generation(None, name="", streams=True, stops=StopWords(words))
    shown: list[int] = []
    ended = False
    for number, token in enumerate(made, 1):
        ready = generation.feed([token], "length" if number == len(made) else None)
        if ready is not None:
            ids, context, ended = ready
            shown += ids[context:]
        if ended:
            break

    assert ended or not made
    # A shorter word may be whole before a longer one that began earlier.
    assert shown == made[: len(shown)]
    if not found:
        assert shown == made
    elif len(words) == 1:
        assert shown == made[: found[0]]


def test_built_weights_are_what_it_serves(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"max_position_embeddings": 777}')
    written = openvino.BACKEND.repository(
        Served(
            engine=plugins.load("engines", "openvino"),
            model="tiny",
            place="/there",
            config={**CONFIG, "weight_format": "int8"},
            front=FRONT,
            artifact=tmp_path,
            acknowledgements="a",
        )
    )

    assert "/there" in repr(written)
    assert "777" in repr(written)
    assert "max_num_batched_tokens" in repr(written)
    assert "weight_format" not in repr(written)
