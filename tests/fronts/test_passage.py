"""Triton that passes requests on: a real tritonserver of an unpacked folder, a server behind it.

The folder is the environment that test_triton.py uses: nvidia-pytriton's wheel, unpacked.
"""

import contextlib
import errno
import http.client
import itertools
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from endpoint_streams import rpc_response
from llmdyno import plugins
from llmdyno.engines import Engine, Launch
from llmdyno.errors import ServerError, UsageError
from llmdyno.fronts import bentoml, triton
from llmdyno.fronts._triton import home, install, passage
from llmdyno.fronts._triton.backends import _passage, openvino
from llmdyno.knobs import Config, Knob, Value, default
from llmdyno.processes import environments, ports
from llmdyno.processes import server as supervise
from llmdyno.wire.reply import count_tokens
from llmdyno.wire.target import parse_url
from waiting import until

PATIENCE_S = 30.0
TOKENS = 12
FRONT: dict[str, Value] = {
    knob.name: value for knob in triton.KNOBS if (value := default(knob, None)) is not None
}


class Streamed(Engine):
    """A server of known timing, which speaks OpenAI's protocol."""

    name = "streamed"
    knobs: tuple[Knob, ...] = ()
    install = "it is there"
    image = ""
    endpoint = "openai-completions"

    def version(self) -> str | None:
        return "1"

    def check(self, model: str, config: Config) -> None:
        pass

    def launch(
        self, model: str, config: Config, *, artifact: Path | None, host: str, port: int
    ) -> Launch:
        del config, artifact
        words = ("--host", host, "--port", str(port), "--ttft", "30ms", "--itl", "10ms")
        return Launch(
            argv=(sys.executable, "-m", "llmdyno.streamer", *words),
            url=f"http://{host}:{port}",
            endpoint=self.endpoint,
            model=model,
            symptoms=(("no such thing", "bad-config"),),
        )


def launched(folder: Path, config: Config, engine: Engine | None = None) -> Launch:
    return triton.FRONT.launch(
        engine or Streamed(),
        "words",
        config,
        artifact=None,
        folder=folder,
        host="127.0.0.1",
        port=ports.free_port(),
        says=lambda _: None,
    )


def wheel() -> Path:
    """Return the folder with nvidia-pytriton's packages."""
    bin_folder = environments.ensure(
        "triton", install.wheel_requirements(openvino.BACKEND), lambda _: None
    )
    (found,) = bin_folder.parent.glob("lib/python3.*/site-packages")
    return found


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[supervise.Server]:
    folder = tmp_path_factory.mktemp("passage")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(home.VARIABLE, str(wheel()))
        launch = launched(folder, {"postprocessing_instance_count": 2})
    with supervise.start(launch, log=folder / "log") as running:
        yield running


@contextlib.contextmanager
def asking(launch: Launch, path: str, **asked: Any) -> Iterator[http.client.HTTPResponse]:
    target = parse_url(launch.url)
    connection = http.client.HTTPConnection(target.host, target.port, timeout=PATIENCE_S)
    body = {"text_input": "a b c", "max_tokens": TOKENS, **asked}
    with contextlib.closing(connection):
        connection.request("POST", f"/v2/models/{launch.model}/{path}", json.dumps(body))
        yield connection.getresponse()


def engine_port(launch: Launch) -> int:
    (flag,) = (word for word in launch.argv if word.startswith("--engine="))
    port = parse_url(json.loads(flag.removeprefix("--engine="))["health"]).port
    assert port is not None
    return port


class Apart(Streamed):
    """A server in an environment of its own, whose programs come first on its path."""

    def launch(
        self, model: str, config: Config, *, artifact: Path | None, host: str, port: int
    ) -> Launch:
        inner = super().launch(model, config, artifact=artifact, host=host, port=port)
        return msgspec.structs.replace(inner, environment={"PATH": "/opt/own/bin:/usr/bin"})


def test_the_path_of_an_engines_environment_is_the_engines_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "tritonserver").touch(0o755)
    monkeypatch.delenv(home.VARIABLE, raising=False)
    ours = f"{tmp_path}:{os.environ['PATH']}"
    monkeypatch.setenv("PATH", ours)

    launch = launched(tmp_path / "served", {}, Apart())

    assert launch.environment["PATH"] == "/opt/own/bin:/usr/bin"  # the launcher's, and the engine's
    command = launch.argv[launch.argv.index("env") :]
    assert f"PATH={ours}" in command
    plain = launched(tmp_path / "plain", {})
    assert not any(word.startswith("PATH=") for word in plain.argv)


# A real server.


COUNTED = {"return_num_input_tokens": True, "return_num_output_tokens": True}


def test_a_stream_comes_piece_by_piece_and_counts_its_tokens(server: supervise.Server) -> None:
    with asking(server.launch, "generate_stream", stream=True, **COUNTED) as response:
        events = [json.loads(line[6:]) for line in response if line.startswith(b"data: ")]

    assert "".join(event["text_output"] for event in events) == " word" * TOKENS
    assert sum(event.get("num_output_tokens", 0) for event in events) == TOKENS
    assert [event["num_input_tokens"] for event in events if "num_input_tokens" in event] == [3]
    assert len(events) > 1


def test_a_whole_answer_is_one_response(server: supervise.Server) -> None:
    with asking(server.launch, "generate", **COUNTED) as response:
        answer = json.loads(response.read())

    assert (response.status, answer["text_output"]) == (200, " word" * TOKENS)
    assert (answer["num_input_tokens"], answer["num_output_tokens"]) == (3, TOKENS)


def test_a_client_that_hangs_up_is_hung_up_on_at_the_engine(server: supervise.Server) -> None:
    port = engine_port(server.launch)
    until(lambda: connections(port) == 0, "the engine is idle", within_s=PATIENCE_S)
    with asking(server.launch, "generate_stream", stream=True, max_tokens=9000) as response:
        assert response.readline().startswith(b"data: ")  # 90 s before the engine has made them all
        assert connections(port) == 1

    until(lambda: connections(port) == 0, "the engine's stream ends", within_s=PATIENCE_S)


def connections(port: int) -> int:
    """Return how many connections a port on loopback has."""
    wanted = f"0100007F:{port:04X}"
    rows = [line.split() for line in Path("/proc/net/tcp").read_text("utf-8").splitlines()[1:]]
    return sum(1 for row in rows if row[1] == wanted and row[3] == "01")


def test_a_refusal_of_the_engine_is_an_error_in_its_words(server: supervise.Server) -> None:
    with asking(server.launch, "generate", max_tokens=-1) as response:
        words = json.loads(response.read())["error"]
    with asking(server.launch, "generate", text_input="") as response:
        empty = json.loads(response.read())["error"]

    assert re.search(r"the engine answers with status 4\d\d: \S", words), words
    assert "text_input: must be one text" in empty


def test_when_the_engine_dies_so_does_triton(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setenv(home.VARIABLE, str(wheel()))
    launch = launched(tmp_path, {})
    with supervise.start(launch, log=tmp_path / "log") as running:
        port = engine_port(launch)
        (victim,) = (
            pid
            for pid in (int(path.name) for path in Path("/proc").glob("[0-9]*"))
            if f"\0--port\0{port}\0".encode() in command_of(pid)
        )
        os.kill(victim, signal.SIGKILL)
        running.wait(PATIENCE_S)
        failure = running.failure()

    assert failure is not None
    assert "the engine has ended with status -9" in (tmp_path / "log").read_text()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", parse_url(launch.url).port or 0))


def command_of(pid: int) -> bytes:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    return b""


# What is written, and for whom.


def test_the_config_is_what_tritons_schema_reads() -> None:
    inner = Streamed().launch('a "ü" b', {}, artifact=None, host="127.0.0.1", port=7)
    (text,) = (
        text
        for name, text in _passage.repository(inner, FRONT).files.items()
        if name.endswith(".pbtxt")
    )
    text_format = pytest.importorskip("google.protobuf.text_format")
    schema = pytest.importorskip("tritonclient.grpc.model_config_pb2")
    config = text_format.Parse(text, schema.ModelConfig())

    assert config.model_transaction_policy.decoupled
    assert config.parameters["model"].string_value == 'a "ü" b'
    assert config.parameters["url"].string_value == "http://127.0.0.1:7"
    assert config.instance_group[0].count == 1
    optional = {tensor.name for tensor in config.input if tensor.optional}
    assert {tensor.name for tensor in config.input} - optional == {"text_input"}
    read = {*passage.FIELDS, "stop_words", "stream", *(f"return_{one}" for one in passage.COUNTS)}
    assert read == optional


def test_an_engine_with_another_protocol_is_refused() -> None:
    other = Streamed()
    other.endpoint = "tgi"

    with pytest.raises(UsageError, match="--engine streamed speaks tgi: use --front native"):
        triton.FRONT.check(other, "m", {})
    with pytest.raises(UsageError, match="max_queue_size: cannot be set where"):
        triton.FRONT.check(Streamed(), "m", {"max_queue_size": 4})
    triton.FRONT.check(plugins.load("engines", "sglang"), "org/model", {})


def test_vllm_is_passed_on_to_where_triton_has_no_backend_for_it(
    tmp_path: Path, monkeypatch: Any
) -> None:
    server = tmp_path / "opt"
    (server / "bin").mkdir(parents=True)
    (server / "bin" / "tritonserver").touch(0o755)
    monkeypatch.setenv(home.VARIABLE, str(server))

    assert not install.has_backend("vllm")
    (server / "backends" / "vllm").mkdir(parents=True)
    assert install.has_backend("vllm")
    monkeypatch.delenv(home.VARIABLE)
    monkeypatch.setenv("PATH", str(server / "bin"))
    assert install.has_backend("vllm")


def test_a_bundle_starts_the_engine_beside_triton(tmp_path: Path) -> None:
    portable = triton.FRONT.bundle(
        Streamed(),
        "words",
        {},
        artifact=None,
        folder=tmp_path,
        host="127.0.0.1",
        port=8000,
        says=lambda _: None,
    )

    argv = portable.launch.argv
    assert argv[:4] == ("python3", "-I", "-S", "triton/launcher.py")
    assert engine_port(portable.launch) == 8003
    assert "--model-repository=triton/models" in argv
    assert (tmp_path / "triton" / "launcher.py").is_file()
    assert (tmp_path / "triton/models/passage/1/model.py").is_file()


# An unpacked folder that is not whole.


def unpacked(folder: Path) -> Path:
    """Make a folder with the files that are looked for, all empty."""
    server = folder / "pytriton" / "tritonserver"
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    for name in (
        "bin/tritonserver",
        "backends/python/libtriton_python.so",
        f"python_backend_stubs/{version}/triton_python_backend_stub",
    ):
        (server / name).parent.mkdir(parents=True, exist_ok=True)
        (server / name).touch()
    (folder / "lib").mkdir()
    (folder / "lib" / f"libpython{version}.so.1.0").touch()
    return folder


@pytest.mark.parametrize(
    ("missing", "words"),
    [
        ("pytriton/tritonserver/bin", "has neither pytriton/tritonserver/bin/tritonserver"),
        ("pytriton/tritonserver/backends", "has no pytriton/.*/libtriton_python.so"),
        ("pytriton/tritonserver/python_backend_stubs", "has no triton_python_backend_stub in"),
    ],
)
def test_what_is_missing_in_the_folder_is_named(tmp_path: Path, missing: str, words: str) -> None:
    folder = unpacked(tmp_path / "home")
    shutil.rmtree(folder / missing)

    with pytest.raises(ServerError, match=words) as caught:
        home.assemble(folder, tmp_path / "server")
    assert caught.value.kind == "missing-library"


def test_a_stub_for_a_python_that_is_not_here_is_named(tmp_path: Path, monkeypatch: Any) -> None:
    folder = unpacked(tmp_path / "home")
    stubs = folder / "pytriton/tritonserver/python_backend_stubs"
    next(stubs.iterdir()).rename(stubs / "3.4")
    monkeypatch.setenv("PATH", "")

    with pytest.raises(ServerError, match=r"is for Python 3\.4; this is 3\.\d+, and no python3\.4"):
        home.assemble(folder, tmp_path / "server")


def with_pythons(home_folder: Path, bin_folder: Path, pythons: dict[str, str]) -> None:
    """Make programs by their versions of Python, and a stub for each of these alone."""
    stubs = home_folder / "pytriton/tritonserver/python_backend_stubs"
    (ours,) = stubs.iterdir()
    bin_folder.mkdir()
    for version, program in pythons.items():
        shutil.copytree(ours, stubs / version)
        (home_folder / "lib" / f"libpython{version}.so.1.0").touch()
        python = bin_folder / f"python{version}"
        python.write_text(program)
        python.chmod(0o755)
    shutil.rmtree(ours)


@pytest.mark.parametrize(
    "broken",
    [
        pytest.param("#!/no/such/python\n", id="its interpreter was removed"),
        pytest.param("of another machine", id="no program"),
        pytest.param("#!/bin/sh\nexit 127\n", id="a shim without its version"),
        pytest.param("#!/bin/sh\necho welcome\n", id="says something else"),
    ],
)
def test_a_python_that_is_broken_is_passed_over(
    tmp_path: Path, monkeypatch: Any, broken: str
) -> None:
    says = json.dumps({"version": "3.5", "executable": sys.executable, "libraries": []})
    works = f"#!/bin/sh\necho '{says}'\n"
    folder, on_path = unpacked(tmp_path / "home"), tmp_path / "bin"
    with_pythons(folder, on_path, {"3.4": broken, "3.5": works})
    monkeypatch.setenv("PATH", str(on_path))

    home.assemble(folder, tmp_path / "server")
    assert (tmp_path / "server/python/lib/python3.5").is_dir()

    (on_path / "python3.5").write_text(broken)
    with pytest.raises(ServerError, match=r"no python3\.4 that works is on the PATH") as caught:
        home.assemble(folder, tmp_path / "server")
    assert caught.value.kind == "missing-library"


@pytest.mark.parametrize("number", [errno.EAGAIN, errno.EMFILE, errno.ENFILE, errno.ENOMEM])
def test_where_no_process_starts_no_python_is_blamed(
    tmp_path: Path, monkeypatch: Any, number: int
) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise OSError(number, os.strerror(number))

    folder = unpacked(tmp_path / "home")
    monkeypatch.setattr(subprocess, "run", refuse)

    with pytest.raises(ServerError, match=re.escape(os.strerror(number))) as caught:
        home.assemble(folder, tmp_path / "server")
    assert caught.value.kind == "system-limit"


def test_numpy_is_found_where_it_was_unpacked(tmp_path: Path) -> None:
    folder = unpacked(tmp_path / "home")
    (folder / "np" / "numpy").mkdir(parents=True)

    found = home.assemble(folder, tmp_path / "server")

    first = found.environment["PATH"].partition(":")[0]
    assert first == str(tmp_path / "server" / "python" / "bin")
    (link,) = (tmp_path / "server" / "python").rglob("*.pth")
    assert link.read_text().strip() == str(folder / "np")
    assert str(folder / "lib") in found.environment["LD_LIBRARY_PATH"].split(":")


@pytest.mark.parametrize(
    ("compiled", "words"),
    [("", "has no bentoml/"), ("_pydantic_core.cpython-34-x.so", "are for another Python")],
)
def test_a_folder_without_bentoml_is_refused(
    tmp_path: Path, monkeypatch: Any, compiled: str, words: str
) -> None:
    if compiled:
        for name in ("bentoml/__main__.py", f"pydantic_core/{compiled}"):
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).touch()
    monkeypatch.setenv(bentoml.HOME, str(tmp_path))

    with pytest.raises(ServerError, match=words):
        bentoml._program(tmp_path / "server", lambda _: None)


# Requests and streams, without a server.


def test_inputs_and_parameters_become_a_completion() -> None:
    inputs = {
        "text_input": np.array([b"caf\xc3\xa9"], dtype=np.object_),
        "max_tokens": np.array([7], dtype=np.int32),
        "min_length": np.array([7], dtype=np.int32),
        "temperature": np.array([0.7], dtype=np.float32),
        "stop_words": np.array([b"", b"end"], dtype=np.object_),
        "stream": np.array([True]),
        "return_num_output_tokens": np.array([True]),
        "return_num_input_tokens": np.array([False]),
    }

    parameters = {"min_p": 0.1, "triton_enable_empty_final_response": True}
    fields, wanted = passage.completion(inputs, json.dumps(parameters), "org/m")

    assert fields == {
        "model": "org/m",
        "prompt": "café",
        "max_tokens": 7,
        "min_tokens": 7,
        "ignore_eos": True,
        "temperature": 0.7,
        "stop": ["end"],
        "min_p": 0.1,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    assert wanted == {"stream", "return_num_output_tokens"}


class Listener:
    """Stands for the model: keeps what a stream has it send."""

    def __init__(self) -> None:
        self.sent: list[tuple[str, dict[str, int]]] = []
        self.ends: list[str] = []

    def respond(self, stream: Any, text: str, counts: dict[str, int]) -> None:
        del stream
        self.sent.append((text, counts))

    def end(self, stream: Any, error: str = "") -> None:
        del stream
        self.ends.append(error)


def heard(reads: list[bytes], *wanted: str) -> Listener:
    listener = Listener()
    asked = {f"return_{name}" for name in passage.COUNTS} | set(wanted)
    stream = passage.Stream(listener, SimpleNamespace(), whole="stream" not in wanted, wanted=asked)
    for read in reads:
        if not listener.ends:
            stream.data_received(read)
    if not listener.ends:
        stream.connection_lost(None)
    return listener


def event(text: str = "", finish: str | None = None, **more: Any) -> bytes:
    document = {"choices": [{"text": text, "finish_reason": finish}], **more}
    return b"data: " + json.dumps(document).encode() + b"\n\n"


HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
USAGE = b'data: {"choices":[],"usage":{"prompt_tokens":4,"completion_tokens":5}}\n\n'
EVENTS = event("é") + event() + event("😀") + event("c", "length") + USAGE + b"data: [DONE]\n\n"


def chunked(body: bytes, sizes: list[int]) -> bytes:
    chunks, at = b"", 0
    for size in [*sizes, len(body)]:
        piece = body[at : at + size]
        chunks += b"%x\r\n%s\r\n" % (len(piece), piece) if piece else b""
        at += len(piece)
    return chunks + b"0\r\n\r\n"


@given(
    st.lists(st.integers(1, 60), max_size=8),
    st.lists(st.integers(0, 400), max_size=12),
    st.booleans(),
)
def test_however_an_answer_is_cut_it_is_the_same_text_and_tokens(
    chunks: list[int], cuts: list[int], streams: bool
) -> None:
    answer = HEAD + chunked(EVENTS, chunks)
    places = sorted({0, len(answer), *(min(cut, len(answer)) for cut in cuts)})
    reads = [answer[one:other] for one, other in itertools.pairwise(places)]

    listener = heard(reads, *(["stream"] if streams else []))

    assert listener.ends == [""]
    assert "".join(text for text, _ in listener.sent) == "é😀c"
    assert sum(counts.get("num_output_tokens", 0) for _, counts in listener.sent) == 5
    told = [
        counts["num_input_tokens"] for _, counts in listener.sent if "num_input_tokens" in counts
    ]
    assert told == [4]
    assert streams or len(listener.sent) == 1


PIECES = [" several words at once", " and", " é漢字, of", " unlike lengths in each"] * 8


def usage(tokens: int) -> dict[str, Any]:
    return {"usage": {"prompt_tokens": 4, "completion_tokens": tokens}}


def usage_at_the_end(total: int) -> bytes:
    return b"data: " + json.dumps({"choices": [], **usage(total)}).encode() + b"\n\n"


SEVERAL_EACH = {
    "no usage": [event(text) for text in PIECES],
    "usage at the end": [*map(event, PIECES), usage_at_the_end(128)],
    "tokens without text at the end": [*map(event, PIECES), event(), usage_at_the_end(131)],
    "a few too many": [*map(event, PIECES), usage_at_the_end(len(PIECES) + 3)],
    "fewer than events": [*map(event, PIECES), usage_at_the_end(len(PIECES) - 9)],
    "more than the text holds": [*map(event, PIECES), usage_at_the_end(9000)],
    "usage with the finish": [
        *map(event, PIECES[:-1]),
        event(PIECES[-1], "length", **usage(128)),
    ],
    "running usage": [
        *(event(text, **usage(4 * place)) for place, text in enumerate(PIECES, 1)),
        usage_at_the_end(128),
    ],
    "usage of 0 until the end": [
        *(event(text, **usage(0)) for text in PIECES),
        usage_at_the_end(128),
    ],
}


SENT: dict[str, Callable[[str, dict[str, int]], bytes]] = {
    "triton-generate": lambda text, counts: (
        b"data: " + json.dumps({"text_output": text, **counts}).encode() + b"\n\n"
    ),
    "triton-grpc": lambda text, counts: rpc_response(text, final=False, **counts),
}


@pytest.mark.parametrize("endpoint", SENT)
@pytest.mark.parametrize("said", SEVERAL_EACH)
def test_events_of_several_tokens_count_as_they_do_without_triton(said: str, endpoint: str) -> None:
    events = [*SEVERAL_EACH[said], b"data: [DONE]\n\n"]
    chunks = [b"%x\r\n%s\r\n" % (len(one), one) for one in events]
    listener = heard([HEAD, *chunks], "stream")

    native = plugins.load("endpoints", "openai-completions").read(list(enumerate(events)))
    front = plugins.load("endpoints", endpoint).read(
        [
            (stamp_ns, SENT[endpoint](text, counts))
            for stamp_ns, (text, counts) in enumerate(listener.sent)
        ]
    )

    assert listener.ends == [""]
    assert front.texts == native.texts == PIECES
    assert front.output_tokens == native.output_tokens
    assert count_tokens(front) == count_tokens(native)


def test_a_running_usage_is_told_as_it_comes_and_no_other_count_is() -> None:
    reads = [event("a b c", **usage(3)), event("d"), event("e f", **usage(7)), usage_at_the_end(8)]
    chunks = [b"%x\r\n%s\r\n" % (len(one), one) for one in [*reads, b"data: [DONE]\n\n"]]

    sent = heard([HEAD, *chunks], "stream").sent

    told = [(text, counts.get("num_output_tokens")) for text, counts in sent]
    assert told == [("a b c", 3), ("d", None), ("e f", 4), ("", 1)]


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (HEAD + chunked(event("a"), []), "the engine's stream has no end"),
        (HEAD + b"5\r\ndata:", "the engine hung up before the end of its answer"),
        (b"", "the engine hung up before the end of its answer"),
        (b"SSH-2.0-OpenSSH\r\n\r\n", "does not speak HTTP/1.1"),
        (HEAD + chunked(b'data: {"error":{"message":"no room"}}\n\n', []), "no room"),
        (
            b'HTTP/1.1 429 Slow\r\ncontent-length: 20\r\n\r\n{"detail":"too many"}'[:-1],
            "the engine answers with status 429",
        ),
        (b'HTTP/1.0 500 Oh\r\n\r\n{"message":"burnt"}', "status 500: burnt"),
    ],
)
def test_what_is_no_whole_answer_ends_in_words(answer: bytes, words: str) -> None:
    (end,) = heard([answer], "stream").ends

    assert words in end
