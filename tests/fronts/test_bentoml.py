"""The front `bentoml`: a real BentoML over the real embedded engine, started by `dyno serve`."""

import contextlib
import http.client
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import openai
import pytest

from conftest import DYNO, last_json
from llmdyno import plugins
from llmdyno.bench import server_metrics
from llmdyno.engines import Launch
from llmdyno.engines._wrapped import WrappedEngine
from llmdyno.engines.openvino import ENGINE
from llmdyno.errors import UsageError
from llmdyno.fronts.bentoml import ENVIRONMENT, FRONT, KNOBS, SETTINGS, write_project
from llmdyno.knobs import Config, check, default
from llmdyno.processes import environments
from llmdyno.processes.ports import free_port
from llmdyno.processes.server import start
from waiting import until

PATIENCE_S = 60.0
NOTICED_S = 8.0  # at most: before a long answer would have ended by itself
LONG = 6000  # tokens: some ten seconds of work

# What each process has in its command line.
ROLES = {
    "bentoml": "bin/bentoml serve",
    "worker": "_bentoml_impl.worker.service",
    "engine": "-m llmdyno.embedded.server",
    "model": "-m llmdyno.embedded.worker",
}


class Service(msgspec.Struct):
    """`dyno serve --front bentoml`, ready."""

    dyno: subprocess.Popen[bytes]
    port: int
    log: Path

    def request(self, method: str, path: str, body: object = None) -> tuple[int, bytes]:
        status, content, _ = self.answer(method, path, body)
        return status, content

    def answer(
        self, method: str, path: str, body: object = None
    ) -> tuple[int, bytes, http.client.HTTPMessage]:
        with contextlib.closing(self.connect()) as connection:
            data = None if body is None else json.dumps(body)
            connection.request(method, path, data, {"Content-Type": "application/json"})
            response = connection.getresponse()
            return response.status, response.read(), response.headers

    def connect(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE_S)

    @contextlib.contextmanager
    def begun(self, path: str, body: object) -> Iterator[http.client.HTTPResponse]:
        """Ask for a stream whose first byte is there; hang up in the end."""
        with contextlib.closing(self.connect()) as connection:
            connection.request("POST", path, json.dumps(body), {"Content-Type": "application/json"})
            with connection.getresponse() as response:
                assert response.status == 200
                assert response.read(1)
                yield response

    def health(self, path: str = "/readyz") -> int:
        try:
            return self.request("GET", path)[0]
        except (OSError, http.client.HTTPException):
            return 0

    def metric(self, name: str) -> float:
        page = self.request("GET", "/engine/metrics")[1].decode()
        found = re.search(rf"^llmdyno_{name} (\S+)$", page, re.MULTILINE)
        assert found, page
        return float(found[1])

    def processes(self) -> dict[str, int]:
        """Return the pids of all that stems from dyno, by role."""
        found: dict[str, int] = {}
        for pid in descendants(self.dyno.pid):
            with contextlib.suppress(OSError):
                command = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
                if "leash.py" not in command:
                    found |= {role: pid for role, part in ROLES.items() if part in command}
        return found

    def ready_s(self) -> float | None:
        """Return what dyno says, not the service, who is ready before dyno has had its token."""
        found = re.search(r"^ready after (\S+) s", self.said(), re.MULTILINE)
        return float(found[1]) if found else None

    def said(self) -> str:
        return self.log.read_text("utf-8")


def descendants(pid: int) -> list[int]:
    own: set[int] = set()
    with contextlib.suppress(OSError):  # it has ended
        # BentoML's process starts the engine from a thread.
        for task in Path(f"/proc/{pid}/task").iterdir():
            with contextlib.suppress(OSError):  # a thread has ended
                own |= {int(child) for child in (task / "children").read_text("utf-8").split()}
    return [*own, *(below for child in own for below in descendants(child))]


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text("utf-8").rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def eventually(holds: Callable[[], bool], within_s: float = PATIENCE_S) -> float:
    """Wait until it holds and return how long that took."""
    begin_s = time.monotonic()
    until(holds, "what is waited for", within_s=within_s)
    return time.monotonic() - begin_s


@contextlib.contextmanager
def serving(folder: Path, *settings: str) -> Iterator[Service]:
    port = free_port()
    log = folder / f"serve-{port}.log"
    arguments = [word for setting in settings for word in ("--set", setting)]
    with log.open("wb") as output:
        dyno = subprocess.Popen(
            [*DYNO, "serve", "--front", "bentoml", "--port", str(port), *arguments],
            stdout=output,
            stderr=output,
        )
    service = Service(dyno, port, log)
    # The first time on a machine BentoML's environment is made, which is not what is timed here.
    eventually(lambda: service.ready_s() is not None or dyno.poll() is not None, 240)
    try:
        yield service
    finally:
        dyno.terminate()
        dyno.wait(timeout=PATIENCE_S)


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with serving(tmp_path_factory.mktemp("bentoml")) as running:
        assert running.dyno.poll() is None, running.said()
        yield running


@pytest.fixture
def client(service: Service) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(
        base_url=f"http://127.0.0.1:{service.port}/v1", api_key="none", max_retries=0
    ) as opened:
        yield opened


# What is said.


def test_it_is_ready_soon_and_only_with_a_token(service: Service) -> None:
    assert 0 < (service.ready_s() or 0) < 60
    assert service.metric("generation_tokens_total") >= 1
    assert (service.health("/readyz"), service.health("/livez")) == (200, 200)
    assert [service.health(path) for path in ("/health", "/ping", "/version")] == [200] * 3


def test_a_chat_streams_with_its_usage(client: openai.OpenAI) -> None:
    stream = client.chat.completions.create(
        model="tiny",
        messages=[{"role": "user", "content": "Say something."}],
        max_tokens=7,
        stream=True,
        stream_options={"include_usage": True},
    )
    usages = [chunk.usage for chunk in stream if chunk.usage]

    assert [usage.completion_tokens for usage in usages] == [7]


def test_the_engines_errors_come_as_they_are(service: Service) -> None:
    status, body, headers = service.answer(
        "POST", "/v1/completions", {"model": "else", "prompt": "a"}
    )

    assert (status, json.loads(body)["error"]["code"]) == (404, "model_not_found")
    assert headers.get_all("date", []) == [headers["date"]]
    assert service.request("GET", "/v1/nothing")[0] == 404
    assert json.loads(service.request("POST", "/tokenize", {"prompt": "hello"})[1])["count"] > 0


def test_generate_streams_the_text_of_a_chat(service: Service, client: openai.OpenAI) -> None:
    chat = client.chat.completions.create(
        model="tiny",
        messages=[{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"}],
        max_tokens=50,
        extra_body={"ignore_eos": True},
    )
    asked = {"prompt": "Hi", "system_prompt": "Be brief.", "ignore_eos": True, "max_tokens": 50}
    status, body = service.request("POST", "/generate", asked)

    assert (status, body.decode()) == (200, chat.choices[0].message.content)


def test_generate_breaks_no_character(service: Service) -> None:
    asked = {"max_tokens": 1500, "temperature": 2.0, "ignore_eos": True}

    for prompt in "abcdefgh":
        status, body = service.request("POST", "/generate", {"prompt": prompt, **asked})

        assert status == 200
        if len(body) > len(body.decode()):  # random tokens: some are of several bytes, by chance
            return
    pytest.fail("no answer had a character of several bytes")


@pytest.mark.parametrize(
    ("asked", "said"),
    [({"max_tokens": 3}, "prompt"), ({"prompt": "a", "max_tokens": 10**6}, "maximum")],
)
def test_generate_refuses_with_a_status(service: Service, asked: Any, said: str) -> None:
    status, body = service.request("POST", "/generate", asked)

    assert status == 400
    assert said in body.decode()


def test_its_schema_says_that_generate_streams(service: Service) -> None:
    routes = json.loads(service.request("GET", "/schema.json")[1])["routes"]

    assert [(route["route"], route["output"]["is_stream"]) for route in routes] == [
        ("/generate", True)
    ]


def test_bentomls_own_figures_are_on_its_page(service: Service) -> None:
    (server,) = [server for server in server_metrics.pages() if server.kind == "bentoml"]
    _, page = service.request("GET", "/metrics")

    found = server_metrics.read_page(page, server)

    assert set(found) == {"requests", "running"}
    assert found["requests"] >= 1
    names = re.findall(rb"^# TYPE (\S+)", page, re.MULTILINE)
    assert len(names) == len(set(names))  # two pages in one are one page


# Load.


@pytest.mark.parametrize("endpoint", ["auto", "openai-completions", "bentoml"])
def test_it_is_measured_over_every_endpoint(
    endpoint: str, service: Service, dyno: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    done = dyno(
        *("bench", "--url", f"http://127.0.0.1:{service.port}", "--endpoint", endpoint),
        *("-c", "8", "--requests", "24", "--isl", "16", "--osl", "8", "--workload", "synthetic"),
        *("--no-calibration", "--json"),
    )

    summary = last_json(done.stdout)
    (level,) = summary["levels"]
    assert done.returncode == 0, done.stderr
    assert summary["spec"]["endpoint"] == ("openai-chat" if endpoint == "auto" else endpoint)
    assert (level["requests"]["completed"], level["requests"]["failed"]) == (24, 0)
    if endpoint != "bentoml":  # which counts no tokens
        assert level["tokens"] == {**level["tokens"], "output": 24 * 8, "source": "usage"}
        # Below BentoML's own figures its page shows the engine's.
        assert level["server"]["kind"] == "llmdyno"
        assert level["server"]["tokens"]["server"] == 24 * 8, level["server"]


def test_a_hundred_users_see_no_error(
    service: Service, dyno: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    done = dyno(
        *("bench", "--url", f"http://127.0.0.1:{service.port}", "-c", "100", "--ramp", "1s"),
        *("--duration", "5s", "--isl", "16", "--osl", "8", "--workload", "synthetic"),
        *("--no-calibration", "--json"),
    )

    requests = last_json(done.stdout)["levels"][0]["requests"]
    assert (requests["failed"], requests["errors"]) == (0, {})
    assert requests["completed"] > 100


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/generate", {"prompt": "a"}),
        ("/v1/completions", {"model": "tiny", "prompt": "a", "stream": True}),
        ("/v1/completions", {"model": "tiny", "prompt": "a", "stream": False}),
    ],
)
def test_who_hangs_up_is_not_worked_for(path: str, body: dict[str, Any], service: Service) -> None:
    asked = {**body, "max_tokens": LONG, "ignore_eos": True}
    cancelled = service.metric('requests_total{outcome="cancelled"}')
    if body.get("stream", True):
        with service.begun(path, asked):
            pass
    else:
        with contextlib.closing(service.connect()) as connection:
            connection.request(
                "POST", path, json.dumps(asked), {"Content-Type": "application/json"}
            )
            eventually(lambda: service.metric("requests_running") == 1)

    took_s = eventually(
        lambda: service.metric('requests_total{outcome="cancelled"}') == cancelled + 1
    )

    assert took_s < NOTICED_S
    eventually(lambda: stands_still(service), NOTICED_S)


def stands_still(service: Service) -> bool:
    """Return whether no token is made for a while; the step under way may still make some."""
    made = service.metric("generation_tokens_total")
    time.sleep(0.3)
    return service.metric("generation_tokens_total") == made


def test_nothing_of_this_was_a_fault(service: Service) -> None:
    errors = [line for line in service.said().splitlines() if "[ERROR]" in line]

    # BentoML calls a client's mistake one: the request without a prompt.
    assert [line.partition("] Exception ")[2] for line in errors] == ["on /generate [POST]"]


# Death.


def test_what_dies_is_replaced_until_it_dies_too_often(tmp_path: Path) -> None:
    settings = ("engine_restarts=2", "engine_backoff_s=0.2", "max_concurrency=3")
    completion = {"model": "tiny", "prompt": "a", "max_tokens": LONG, "ignore_eos": True}
    streamed = {**completion, "stream": True}
    generate = {"prompt": "a", "max_tokens": LONG, "ignore_eos": True}
    with serving(tmp_path, *settings) as service:
        before = service.processes()
        assert set(before) == set(ROLES)
        with (
            service.begun("/v1/completions", streamed) as events,
            service.begun("/generate", generate) as text,
            service.begun("/v1/completions", streamed),
        ):
            assert service.request("POST", "/v1/completions", completion)[0] == 429
            os.kill(before["model"], signal.SIGKILL)
            begin_s = time.monotonic()
            assert b'"error"' in events.read()[-300:]
            with pytest.raises(http.client.IncompleteRead):  # no text under 200 for an error
                text.read()
            assert time.monotonic() - begin_s < NOTICED_S
        eventually(lambda: service.health() == 503, NOTICED_S)
        eventually(lambda: service.answer("GET", "/v1/models")[2]["Retry-After"] == "1", NOTICED_S)
        assert service.health("/livez") == 200
        eventually(lambda: service.health() == 200)
        assert service.processes()["worker"] == before["worker"]

        os.kill(before["worker"], signal.SIGKILL)
        eventually(
            lambda: service.processes().get("worker") not in {None, before["worker"]}, NOTICED_S
        )
        eventually(lambda: service.health() == 200)
        assert service.processes()["engine"] not in {None, before["engine"]}

        os.kill(service.processes()["engine"], signal.SIGKILL)
        eventually(lambda: service.health("/health") == 503, NOTICED_S)
        eventually(lambda: service.health() == 200)
        last = service.processes()
        os.kill(last["engine"], signal.SIGKILL)

        assert service.dyno.wait(timeout=PATIENCE_S) == 3
        assert "the engine was killed by SIGKILL" in service.said().splitlines()[-2]
        eventually(lambda: not any(alive(pid) for pid in last.values()), NOTICED_S)


@pytest.mark.parametrize("victim", ["dyno", "bentoml"])
def test_kill_9_leaves_nothing(
    victim: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours = tmp_path / "of-user"
    ours.mkdir()
    monkeypatch.setenv("TMPDIR", str(ours))
    with serving(tmp_path) as service:
        processes = service.processes()
        made = [place.parent.name for place in ours.rglob("bentoml-*") if place.is_dir()]
        assert {*made} == {"tmp"}
        engine = Path(f"/proc/{processes['engine']}/environ").read_bytes().split(b"\0")
        assert f"TMPDIR={ours}".encode() in engine

        os.kill(processes.get(victim, service.dyno.pid), signal.SIGKILL)

        if victim == "bentoml":
            assert service.dyno.wait(timeout=NOTICED_S) == 3
            assert "was killed by SIGKILL" in service.said()
        eventually(lambda: not any(alive(pid) for pid in processes.values()), 10)
        assert not list(ours.glob("bentoml-*"))  # what it leaves is in the server's own folder


def test_in_a_relative_folder_all_that_it_writes_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A study's folder is often one; the service's workers run in it."""
    ours = tmp_path / "of-user"
    ours.mkdir()
    monkeypatch.setenv("TMPDIR", str(ours))
    monkeypatch.chdir(tmp_path)
    port = free_port()
    launch = FRONT.launch(
        *(ENGINE, "tiny", {}),
        artifact=None,
        folder=Path("s", "server"),
        host="127.0.0.1",
        port=port,
        says=lambda _: None,
    )

    with start(launch, log=tmp_path / "server.log"):
        made = [place for place in tmp_path.rglob("bentoml-*") if place.is_dir()]
        homes = [*tmp_path.rglob("bentoml_home")]

    folder = tmp_path / "s" / "server"
    assert {place.parent for place in made} == {folder / "tmp"}
    assert homes == [folder / "bentoml_home"]


def test_an_engine_that_cannot_start_is_not_tried_twice(tmp_path: Path) -> None:
    with serving(tmp_path, "cache_size=4000") as service:
        assert service.dyno.wait(timeout=PATIENCE_S) == 3

    assert "not enough memory, of the GPU or of the machine (out-of-memory)" in service.said()
    assert "restart 1" not in service.said()


class _Apart(WrappedEngine):
    """An engine in an environment of its own, whose programs come first on its path."""

    def launch(
        self, model: str, config: Config, *, artifact: Path | None, host: str, port: int
    ) -> Launch:
        inner = super().launch(model, config, artifact=artifact, host=host, port=port)
        return msgspec.structs.replace(inner, environment={"PATH": "/opt/own/bin:/usr/bin"})


def test_the_path_of_an_engines_environment_is_the_engines_alone(tmp_path: Path) -> None:
    launch = FRONT.launch(
        *(_Apart(ENGINE), "tiny", {}),
        artifact=None,
        folder=tmp_path,
        host="127.0.0.1",
        port=free_port(),
        says=lambda _: None,
    )

    assert launch.environment["PATH"] == os.environ["PATH"]
    (spec,) = tmp_path.rglob("spec.json")
    assert "PATH=/opt/own/bin:/usr/bin" in json.loads(spec.read_text())["argv"]


# The Bento.


@pytest.fixture
def bentoml(tmp_path: Path) -> tuple[Path, dict[str, str]]:
    """Return the program, and an environment in which no network can be asked."""
    programs = environments.ensure("bentoml", ENVIRONMENT, lambda _: None)
    nowhere = "http://127.0.0.1:9"
    environment = {
        **os.environ,
        **SETTINGS,
        "BENTOML_HOME": str(tmp_path / "home"),
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        **dict.fromkeys(("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"), nowhere),
        **dict.fromkeys(("PIP_NO_INDEX", "UV_OFFLINE"), "1"),
        "NO_PROXY": "127.0.0.1",
    }
    return programs / "bentoml", environment


def test_a_bento_is_built_without_a_network_and_serves(
    bentoml: tuple[Path, dict[str, str]], tmp_path: Path
) -> None:
    program, environment = bentoml
    inner = ENGINE.launch("tiny", {}, artifact=None, host="127.0.0.1", port=free_port())
    # By a name that is found in PATH: BentoML's own Python has no llmdyno.
    python = str(Path(sys.executable).with_name(f"python3.{sys.version_info.minor}"))
    inner = msgspec.structs.replace(
        inner, argv=(python, *inner.argv[1:]), environment={"HF_TOKEN": "secret-of-ours"}
    )
    project = tmp_path / "project"
    write_project(project, inner, {"engine_restarts": 0}, ENGINE)
    assert not any(
        b"secret-of-ours" in path.read_bytes() for path in project.rglob("*") if path.is_file()
    )
    environment["HF_TOKEN"] = "secret-of-ours"

    built = subprocess.run(
        [str(program), "build", "-o", "tag"], cwd=project, env=environment,
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert built.returncode == 0, built.stderr
    port = free_port()
    with (tmp_path / "bento.log").open("wb") as log:
        bento = subprocess.Popen(
            [str(program), "serve", "llmdyno_front:latest", "--host", "127.0.0.1",
             "--port", str(port)],
            env=environment, stdout=log, stderr=log,
        )  # fmt: skip
    service = Service(bento, port, tmp_path / "bento.log")
    try:
        eventually(lambda: service.health() == 200 or bento.poll() is not None)
        assert bento.poll() is None, service.said()
        status, text = service.request("POST", "/generate", {"prompt": "a", "max_tokens": 5})
        processes = service.processes()
    finally:
        bento.terminate()
        bento.wait(timeout=PATIENCE_S)
    assert (status, bool(text)) == (200, True), service.said()
    assert "engine" in processes
    eventually(lambda: not any(alive(pid) for pid in processes.values()), 10)


def test_an_engine_of_another_protocol_is_refused(tmp_path: Path) -> None:
    inner = ENGINE.launch("tiny", {}, artifact=None, host="127.0.0.1", port=1)
    other = msgspec.structs.replace(inner, endpoint="triton-grpc")

    with pytest.raises(UsageError, match="speaks triton-grpc"):
        write_project(tmp_path, other, {}, ENGINE)


# The plug-in.


def test_the_knobs_explain_themselves_and_are_checked(
    dyno: Callable[..., subprocess.CompletedProcess[str]],
) -> None:
    assert "429" in dyno("knobs", "bentoml").stdout
    assert "503" in dyno("knobs", "bentoml", "engine_restarts").stdout
    assert plugins.load("fronts", "bentoml") is FRONT
    for knob in KNOBS:
        assert knob.layer == "front"
        for words in (knob.does, knob.turn, knob.trades, knob.source):
            assert len(words) > 10, knob.name
        if (value := default(knob, "1")) is not None:
            check({knob.name: value}, KNOBS)
    with pytest.raises(UsageError, match="max_concurrency=0: must be"):
        check({"max_concurrency": 0}, [*ENGINE.knobs, *KNOBS])
    assert not {knob.name for knob in KNOBS} & {knob.name for knob in ENGINE.knobs}
