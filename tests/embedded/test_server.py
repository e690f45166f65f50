"""The embedded engine over real HTTP: a real worker, the model `tiny`, OpenAI's own client."""

import asyncio
import contextlib
import http.client
import json
import os
import re
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import openai
import pytest
from openai.types.chat import ChatCompletionMessageParam

from llmdyno.bench.detect import detect
from llmdyno.bench.prober import Prober
from llmdyno.bench.recount import recount
from llmdyno.engines.openvino import ENGINE
from llmdyno.processes.ports import free_port
from llmdyno.records.entries import Record
from llmdyno.wire.target import parse_url
from waiting import until

CHAT: list[ChatCompletionMessageParam] = [{"role": "user", "content": "Say something."}]
PATIENCE_S = 150.0


class Server(msgspec.Struct):
    """A server under test."""

    process: subprocess.Popen[bytes]
    port: int
    stderr: Path

    def client(self) -> openai.OpenAI:
        return openai.OpenAI(
            base_url=f"http://127.0.0.1:{self.port}/v1", api_key="none", max_retries=0
        )

    def request(
        self, method: str, path: str, body: object = None, *, raw: bytes | None = None
    ) -> tuple[int, bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE_S)
        with contextlib.closing(connection):
            data = raw if raw is not None else None if body is None else json.dumps(body).encode()
            connection.request(method, path, data)
            response = connection.getresponse()
            return response.status, response.read()

    def health(self) -> int:
        """Return the status of /health, 0 if nothing answers."""
        try:
            return self.request("GET", "/health")[0]
        except OSError:
            return 0

    def metric(self, name: str) -> float:
        page = self.request("GET", "/metrics")[1].decode()
        found = re.search(rf"^llmdyno_{re.escape(name)} (\S+)$", page, re.MULTILINE)
        assert found, page
        return float(found[1])

    def worker(self) -> int:
        pid = self.process.pid
        return int(Path(f"/proc/{pid}/task/{pid}/children").read_text().split()[0])

    def said(self) -> str:
        return self.stderr.read_text()


def eventually(holds: Callable[[], bool]) -> None:
    until(holds, "what is waited for", within_s=PATIENCE_S)


@contextlib.contextmanager
def starting(
    folder: Path, config: str = "{}", *, model: str = "tiny", port: int = 0
) -> Iterator[Server]:
    port = port or free_port()
    stderr = folder / f"stderr-{port}-{time.monotonic_ns()}"
    launch = ENGINE.launch(model, json.loads(config), artifact=None, host="127.0.0.1", port=port)
    with stderr.open("wb") as log:
        process = subprocess.Popen(launch.argv, stderr=log)
    try:
        yield Server(process, port, stderr)
    finally:
        process.kill()
        process.wait()


@contextlib.contextmanager
def started(folder: Path, config: str = "{}") -> Iterator[Server]:
    with starting(folder, config) as server:
        eventually(lambda: server.health() == 200 or server.process.poll() is not None)
        assert server.process.poll() is None, server.said()
        yield server


@pytest.fixture(scope="module", autouse=True)
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Keep the built-in models of this module in a folder of its own."""
    path = tmp_path_factory.mktemp("embedded")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(path / "cache"))
        yield path


@pytest.fixture(scope="module")
def server(folder: Path) -> Iterator[Server]:
    with started(folder) as running:
        yield running


@pytest.fixture
def client(server: Server) -> Iterator[openai.OpenAI]:
    with server.client() as opened:
        yield opened


def events(body: bytes) -> list[bytes]:
    assert body.endswith(b"\n\n")
    return [event.removeprefix(b"data: ") for event in body[:-2].split(b"\n\n")]


# What is said


def test_models_names_the_one_there_is(client: openai.OpenAI) -> None:
    assert [card.id for card in client.models.list()] == ["tiny"]


def test_a_chat_in_one_piece(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(model="tiny", messages=CHAT, max_completion_tokens=9)
    assert answer.usage is not None
    assert (answer.object, answer.choices[0].finish_reason) == ("chat.completion", "length")
    assert answer.choices[0].message.content
    assert answer.usage.completion_tokens == 9
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + 9


def test_a_chat_stream_opens_with_its_role_and_ends_with_its_usage(client: openai.OpenAI) -> None:
    first, *rest = client.chat.completions.create(
        model="tiny",
        messages=CHAT,
        max_tokens=9,
        stream=True,
        stream_options={"include_usage": True},
    )
    assert first.choices[0].delta.role == "assistant"
    assert not first.choices[0].delta.content
    *texts, finish, usage = rest
    assert all(event.choices[0].delta.content for event in texts)
    assert finish.choices[0].finish_reason == "length"
    assert usage.choices == []
    assert usage.usage is not None
    assert usage.usage.completion_tokens == 9
    assert all(event.usage is None for event in (first, *texts, finish))
    whole = client.chat.completions.create(model="tiny", messages=CHAT, max_tokens=9)
    streamed = "".join(event.choices[0].delta.content or "" for event in texts)
    assert streamed == whole.choices[0].message.content


def test_a_completion_stream_without_usage_ends_with_the_mark(server: Server) -> None:
    asked = {"model": "tiny", "prompt": "Once", "max_tokens": 5, "stream": True}
    status, body = server.request("POST", "/v1/completions", asked)
    *chunks, mark = events(body)
    assert (status, mark) == (200, b"[DONE]")
    decoded = [json.loads(chunk) for chunk in chunks]
    assert all("usage" not in chunk for chunk in decoded)
    assert decoded[-1]["choices"][0]["finish_reason"] == "length"
    _, whole = server.request("POST", "/v1/completions", {**asked, "stream": False})
    text = "".join(chunk["choices"][0]["text"] for chunk in decoded)
    assert text == json.loads(whole)["choices"][0]["text"]


def test_a_long_stream_is_whole_utf8_and_counts_every_token(server: Server) -> None:
    # At this temperature the model makes the odd byte of a character, and bytes that are none.
    asked = {
        "model": "tiny",
        "prompt": "é",
        "max_tokens": 600,
        "ignore_eos": True,
        "temperature": 2,
        "seed": 3,
    }
    before = server.metric("generation_tokens_total")
    _, body = server.request(
        "POST",
        "/v1/completions",
        {**asked, "stream": True, "stream_options": {"include_usage": True}},
    )
    decoded = [json.loads(event.decode()) for event in events(body)[:-1]]
    text = "".join(chunk["choices"][0]["text"] for chunk in decoded[:-1])
    assert "\ufffd" not in text
    assert decoded[-1]["usage"]["completion_tokens"] == 600
    assert server.metric("generation_tokens_total") - before == 600
    _, whole = server.request("POST", "/v1/completions", asked)
    assert json.loads(whole)["choices"][0]["text"] == text


def test_streams_at_once_say_what_each_says_alone(client: openai.OpenAI) -> None:
    def answer(prompt: str) -> tuple[str, int]:
        made = client.completions.create(model="tiny", prompt=prompt, max_tokens=24)
        assert made.usage is not None
        return made.choices[0].text, made.usage.completion_tokens

    prompts = [f"Number {number} is" for number in range(16)]
    together: dict[str, tuple[str, int]] = {}
    threads = [
        threading.Thread(target=lambda prompt=prompt: together.update({prompt: answer(prompt)}))
        for prompt in prompts
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert together == {prompt: answer(prompt) for prompt in prompts}


def test_a_seed_repeats_a_sample_and_no_temperature_is_greedy(client: openai.OpenAI) -> None:
    def say(seed: int | None, temperature: float | None) -> str:
        answer = client.completions.create(
            model="tiny", prompt="A", max_tokens=20, seed=seed, temperature=temperature
        )
        return str(answer.choices[0].text)

    assert say(7, 1.0) == say(7, 1.0)
    assert say(7, 1.0) != say(8, 1.0)
    assert say(None, 1.0) != say(None, 1.0)
    assert say(None, None) == say(1, 0.0)


@pytest.mark.parametrize("stream", [False, True])
def test_a_stop_string_ends_the_text_before_it(client: openai.OpenAI, stream: bool) -> None:
    def say(stop: str | list[str] | None) -> tuple[str, str]:
        if not stream:
            choice = client.completions.create(
                model="tiny", prompt="Once", max_tokens=30, stop=stop
            ).choices[0]
            return choice.text, choice.finish_reason
        chunks = list(
            client.completions.create(
                model="tiny", prompt="Once", max_tokens=30, stop=stop, stream=True
            )
        )
        text = "".join(chunk.choices[0].text for chunk in chunks)
        return text, chunks[-1].choices[0].finish_reason

    full, finish = say(None)
    assert finish == "length"
    stop = full[20:26]  # somewhere in the middle of the words
    assert say(stop) == (full[: full.index(stop)], "stop")
    assert say(["never said", stop]) == (full[: full.index(stop)], "stop")
    assert say("never said") == (full, "length")


def test_log_probabilities_are_those_of_the_chosen_tokens(client: openai.OpenAI) -> None:
    made = client.completions.create(model="tiny", prompt="Once", max_tokens=6, logprobs=1)
    said, text = made.choices[0].logprobs, made.choices[0].text
    assert said is not None
    assert said.tokens is not None
    assert said.token_logprobs is not None
    assert made.usage is not None
    assert len(said.tokens) == len(said.token_logprobs) == made.usage.completion_tokens == 6
    # A token may be half a character, which the text as a whole does not show.
    assert "".join(said.tokens).replace("\ufffd", "") == text
    assert all(value <= 0 for value in said.token_logprobs)
    assert said.text_offset == [len("".join(said.tokens[:at])) for at in range(6)]
    plain = client.completions.create(model="tiny", prompt="Once", max_tokens=6)
    assert plain.choices[0].text == text
    assert plain.choices[0].logprobs is None

    chat = client.chat.completions.create(
        model="tiny", messages=CHAT, max_tokens=4, n=2, logprobs=True
    )
    for choice in chat.choices:
        assert choice.logprobs is not None
        assert choice.logprobs.content is not None
        raw = b"".join(bytes(one.bytes or ()) for one in choice.logprobs.content)
        assert raw.decode(errors="ignore") == choice.message.content
        assert len(choice.logprobs.content) == 4


@pytest.mark.parametrize(
    ("path", "fields"),
    [
        ("completions", {"prompt": "A", "logprobs": 2}),
        ("completions", {"prompt": "A", "logprobs": True}),
        ("completions", {"prompt": "A", "logprobs": 1, "stream": True}),
        ("chat/completions", {"messages": CHAT, "logprobs": 1}),
        ("chat/completions", {"messages": CHAT, "logprobs": True, "stream": True}),
    ],
)
def test_other_tokens_and_streams_have_no_log_probabilities(
    server: Server, path: str, fields: dict[str, object]
) -> None:
    status, body = server.request("POST", f"/v1/{path}", {"model": "tiny", **fields})
    error = json.loads(body)["error"]
    assert (status, error["param"]) == (400, "logprobs")
    assert "'logprobs': " in error["message"]


def test_tokenize_counts_as_usage_does(server: Server, client: openai.OpenAI) -> None:
    asked = [{"role": "user", "content": [{"type": "text", "text": "Say something."}]}]
    status, body = server.request("POST", "/tokenize", {"messages": asked})
    answer = json.loads(body)
    assert (status, answer["count"]) == (200, len(answer["tokens"]))
    assert answer["max_model_len"] == 8192
    made = client.chat.completions.create(model="tiny", messages=CHAT, max_tokens=1)
    assert made.usage is not None
    assert made.usage.prompt_tokens == answer["count"]
    _, body = server.request("POST", "/tokenize", {"prompt": "hello there", "model": "tiny"})
    assert 1 <= json.loads(body)["count"] <= 5


def test_what_it_is_and_how_it_counts_is_found_out_by_asking(server: Server) -> None:
    kept: list[Record] = []
    texts = ("Say", " something", " of a few words.")
    uncounted = Record(
        level=0,
        request=0,
        user=0,
        prompt=0,
        due_ns=0,
        sent_ns=0,
        end_ns=3,
        outcome="completed",
        gaps_ns=(1, 1, 1),
        texts=texts,
        input_text="hello there",
    )

    async def ask() -> tuple[str, str]:
        target = parse_url(f"http://127.0.0.1:{server.port}")
        await recount([uncounted], target, "tiny", None, kept.append)
        prober = Prober(target)
        with contextlib.closing(prober):
            return await detect(prober, "auto", "")

    assert asyncio.run(ask()) == ("openai-chat", "tiny")
    _, body = server.request("POST", "/tokenize", {"prompt": "".join(texts)})
    assert kept[0].output_tokens == json.loads(body)["count"]
    assert kept[0].source == "server-tokenizer"
    assert kept[0].input_tokens >= 1


# What is refused


@pytest.mark.parametrize(
    ("fields", "status", "param", "code"),
    [
        ({"model": "huge"}, 404, "model", "model_not_found"),
        ({"n": 0}, 400, "n", None),
        ({"logprobs": 0}, 400, "logprobs", None),
        ({"suffix": "Z"}, 400, "suffix", None),
        ({"best_of": 2}, 400, "best_of", None),
        ({"tools": [{"type": "function"}]}, 400, "tools", None),
        ({"response_format": {"type": "json_object"}}, 400, "response_format", None),
        ({"min_tokens": 3}, 400, "min_tokens", None),
        ({"prompt": [1, 99_999]}, 400, "prompt", None),
        ({"prompt": ["A", ""]}, 400, "prompt", None),
        ({"top_p": 0}, 400, "top_p", None),
        ({"temperature": -1}, 400, "temperature", None),
        ({"max_tokens": 0}, 400, "max_tokens", None),
        ({"max_tokens": "ten"}, 400, "max_tokens", None),
        ({"stop": ["a", "b", "c", "d", "e"]}, 400, "stop", None),
        ({"prompt": None}, 400, "prompt", None),
        ({"prompt": ""}, 400, "prompt", None),
        ({"max_tokens": 8192}, 400, "max_tokens", "context_length_exceeded"),
        ({"prompt": "word " * 9000}, 400, "prompt", "context_length_exceeded"),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
def test_what_cannot_be_done_is_refused_by_name(
    server: Server,
    fields: dict[str, object],
    status: int,
    param: str,
    code: str | None,
    stream: bool,
) -> None:
    asked = {"model": "tiny", "prompt": "A", "max_tokens": 2, "stream": stream, **fields}
    got, body = server.request("POST", "/v1/completions", asked)
    error = json.loads(body)["error"]
    assert (got, error["param"], error["code"]) == (status, param, code), error
    assert error["type"] == "invalid_request_error"
    assert param in error["message"] or code == "context_length_exceeded"


def test_fields_that_ask_for_what_we_do_anyway_are_taken(client: openai.OpenAI) -> None:
    made = client.chat.completions.create(
        model="tiny",
        messages=CHAT,
        max_tokens=1,
        n=1,
        logprobs=False,
        presence_penalty=0,
        response_format={"type": "text"},
        user="somebody",
    )
    assert made.choices[0].finish_reason == "length"


def test_a_list_of_prompts_is_a_choice_each_and_token_ids_are_a_prompt(server: Server) -> None:
    def texts(prompt: object, **fields: object) -> list[str]:
        asked = {"model": "tiny", "prompt": prompt, "max_tokens": 6, **fields}
        status, body = server.request("POST", "/v1/completions", asked)
        assert status == 200, body
        choices = json.loads(body)["choices"]
        assert [choice["index"] for choice in choices] == list(range(len(choices)))
        return [choice["text"] for choice in choices]

    prompts = ["One", "Two", "Three"]
    alone = [texts(prompt)[0] for prompt in prompts]
    assert texts(prompts) == alone
    assert texts(prompts, echo=True) == [a + b for a, b in zip(prompts, alone, strict=True)]
    assert texts("One", n=2) == [alone[0]] * 2  # greedy: there is one answer
    ids = json.loads(server.request("POST", "/tokenize", {"prompt": "One"})[1])["tokens"]
    assert texts(ids) == [alone[0]]
    assert texts([ids, ids]) == [alone[0]] * 2
    sampled = texts("One", n=2, temperature=1, seed=4)
    assert len(set(sampled)) == 2


def test_a_stream_of_several_choices_says_what_each_says_alone(client: openai.OpenAI) -> None:
    def stream(**fields: Any) -> list[Any]:
        asked = client.completions.create(
            model="tiny",
            max_tokens=6,
            stream=True,
            stream_options={"include_usage": True},
            extra_body={"echo": True},
            **fields,
        )
        return list(asked)

    *events, counted = stream(prompt=["One", "Two"])
    texts, ends = ["", ""], []
    for event in events:
        (choice,) = event.choices
        texts[choice.index] += choice.text
        ends += [choice.index] if choice.finish_reason else []
    assert sorted(ends) == [0, 1]
    assert counted.usage.completion_tokens == 12
    whole = client.completions.create(model="tiny", prompt=["One", "Two"], max_tokens=6, echo=True)
    assert texts == [choice.text for choice in whole.choices]
    assert whole.usage == counted.usage


def test_unknown_fields_are_ignored_with_a_warning(server: Server) -> None:
    asked = {"model": "tiny", "prompt": "A", "max_tokens": 2, "top_pp": 0.5, "user": "me"}
    for stream in (False, True):
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=PATIENCE_S)
        with contextlib.closing(connection):
            body = json.dumps({**asked, "stream": stream})
            connection.request("POST", "/v1/completions", body)
            response = connection.getresponse()
            assert response.status == 200
            warning = response.getheader("X-Warning")
            assert warning is not None
            assert warning.endswith('"top_pp"')
            assert response.read()


def test_tokens_end_the_answer_where_they_are_asked_to(server: Server) -> None:
    def say(**fields: object) -> tuple[str, str, int]:
        asked = {"model": "tiny", "prompt": "Hello", "max_tokens": 6, **fields}
        document = json.loads(server.request("POST", "/v1/completions", asked)[1])
        choice = document["choices"][0]
        return choice["text"], choice["finish_reason"], document["usage"]["completion_tokens"]

    plain = say()[0]
    body = server.request("POST", "/tokenize", {"prompt": plain, "add_special_tokens": False})[1]
    third = json.loads(body)["tokens"][2]
    for ignore_eos in (False, True):
        text, finish, tokens = say(stop_token_ids=[third], ignore_eos=ignore_eos)
        assert (finish, tokens) == ("stop", 3)
        assert plain.startswith(text)
        assert len(text) < len(plain)
    assert say(stop_token_ids=[third], min_tokens=5)[2] >= 5
    assert say(stop=[plain[1:3]], min_tokens=6) == (plain, "length", 6)


@pytest.mark.parametrize("path", ["/health", "/ping", "/version", "/v1/models/tiny"])
def test_what_clients_look_at_is_there(server: Server, path: str) -> None:
    assert server.request("GET", path)[0] == 200
    assert server.request("GET", "/v1/models/none")[0] == 404


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("POST", "/v1/chat/completions", b"{", 400),
        ("POST", "/v1/chat/completions", b"[]", 400),
        ("POST", "/v1/chat/completions", b'{"model": "tiny", "messages": []}', 400),
        ("POST", "/tokenize", b"{}", 400),
        ("GET", "/v1/nothing", None, 404),
        ("GET", "/v1/completions", None, 405),
        ("DELETE", "/health", None, 405),
    ],
)
def test_errors_are_openais_with_the_right_status(
    server: Server, method: str, path: str, body: bytes | None, status: int
) -> None:
    got, answer = server.request(method, path, raw=body)
    assert got == status
    assert set(json.loads(answer)["error"]) == {"message", "type", "param", "code"}


# Clients that go


@pytest.mark.parametrize("stream", [False, True])
def test_a_client_that_hangs_up_cancels_its_generation(server: Server, stream: bool) -> None:
    cancelled = 'requests_total{outcome="cancelled"}'
    before = server.metric(cancelled)
    made = server.metric("generation_tokens_total")
    asked = {"model": "tiny", "prompt": "A", "max_tokens": 8000, "ignore_eos": True}
    body = json.dumps({**asked, "stream": stream}).encode()
    with socket.create_connection(("127.0.0.1", server.port)) as connection:
        head = f"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n"
        connection.sendall(head.encode() + body)
        if stream:
            assert connection.recv(100).startswith(b"HTTP/1.1 200")
        eventually(lambda: server.metric("generation_tokens_total") > made)
    eventually(lambda: server.metric(cancelled) == before + 1)
    server.request("POST", "/tokenize", {"prompt": "A"})  # the worker does this after the cancel
    eventually(lambda: server.metric("requests_running") == 0)
    made = server.metric("generation_tokens_total")
    assert server.request("POST", "/v1/completions", {**asked, "max_tokens": 3})[0] == 200
    assert server.metric("generation_tokens_total") == made + 3  # and not one of the cancelled


def test_the_metrics_agree_with_what_was_answered(server: Server) -> None:
    names = [
        "prompt_tokens_total",
        "generation_tokens_total",
        'requests_total{outcome="length"}',
        "time_to_first_token_seconds_count",
        "request_latency_seconds_count",
        "inter_token_latency_seconds_count",
    ]
    before = [server.metric(name) for name in names]
    _, body = server.request(
        "POST", "/v1/completions", {"model": "tiny", "prompt": "A B C", "max_tokens": 6}
    )
    prompt_tokens = json.loads(body)["usage"]["prompt_tokens"]
    after = [server.metric(name) for name in names]
    grown = [late - early for late, early in zip(after, before, strict=True)]
    assert grown == [prompt_tokens, 6, 1, 1, 1, 5]
    assert server.metric("requests_waiting") == 0
    assert 0 <= server.metric("kv_cache_usage_ratio") <= 1


# Beginnings and ends


def read_stream(server: Server, max_tokens: int, then: Callable[[], object]) -> bytes:
    """Start a stream, do something once it runs, and return all of its body."""
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=PATIENCE_S)
    with contextlib.closing(connection):
        asked = {"model": "tiny", "prompt": "A", "max_tokens": max_tokens, "stream": True}
        connection.request(
            "POST", "/v1/completions", json.dumps({**asked, "ignore_eos": True}).encode()
        )
        response = connection.getresponse()
        first = response.read(10)
        then()
        return first + response.read()


# Stands beside every Python that finds it, and lets the worker load nothing before it may.
_HELD_WORKER = """
import os, sys, time
if "llmdyno.embedded.worker" in sys.orig_argv:
    while not os.path.exists(os.environ["WORKER_MAY_LOAD"]):
        time.sleep(0.01)
"""


def test_a_server_that_loads_its_model_says_so(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "sitecustomize.py").write_text(_HELD_WORKER)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setenv("WORKER_MAY_LOAD", str(tmp_path / "may-load"))
    asked = {"model": "tiny", "prompt": "A", "max_tokens": 1}
    with starting(folder) as server:
        eventually(lambda: server.health() != 0 or server.process.poll() is not None)
        assert server.health() == 503, server.said()
        status, body = server.request("POST", "/v1/completions", asked)
        assert (status, json.loads(body)["error"]["code"]) == (503, "loading")
        (tmp_path / "may-load").touch()
        eventually(lambda: server.health() == 200 or server.process.poll() is not None)
        assert server.request("POST", "/v1/completions", asked)[0] == 200, server.said()


def test_sigterm_lets_a_running_stream_finish(folder: Path) -> None:
    with started(folder) as server:
        # Few enough that a slow machine makes them within DRAIN_S.
        body = read_stream(server, 120, lambda: server.process.send_signal(signal.SIGTERM))
        assert events(body)[-1] == b"[DONE]"
        assert len(events(body)) > 100
        assert server.process.wait(PATIENCE_S) == 0


def test_a_dead_worker_ends_streams_with_an_error_and_the_server_too(folder: Path) -> None:
    with started(folder) as server:
        whole: list[tuple[int, bytes]] = []
        asked = {"model": "tiny", "prompt": "B", "max_tokens": 8000, "ignore_eos": True}
        other = threading.Thread(
            target=lambda: whole.append(server.request("POST", "/v1/completions", asked))
        )
        other.start()
        eventually(lambda: server.metric("generation_tokens_total") > 0)
        body = read_stream(server, 8000, lambda: os.kill(server.worker(), signal.SIGKILL))
        *_, last = events(body)
        assert json.loads(last)["error"]["code"] == "engine_died"
        assert b"[DONE]" not in body
        other.join()
        assert whole[0][0] == 500
        assert json.loads(whole[0][1])["error"]["code"] == "engine_died"
        assert server.health() in {503, 0}
        assert server.process.wait(PATIENCE_S) == 1
        assert "status -9" in server.said()
        assert "SIGKILL" in server.said()


def test_a_killed_server_leaves_no_worker_behind(folder: Path) -> None:
    with started(folder) as server:
        worker = Path(f"/proc/{server.worker()}")
        assert worker.exists()
        server.process.kill()
        server.process.wait()
        eventually(lambda: not worker.exists() or "Z" in (worker / "stat").read_text().split()[2])


def test_a_small_kv_cache_is_a_limit_that_is_told_and_shared(folder: Path) -> None:
    with started(folder, '{"num_kv_blocks": 8}') as server:
        asked = {"model": "tiny", "prompt": "A", "ignore_eos": True}
        _, body = server.request("POST", "/v1/completions", {**asked, "max_tokens": 256})
        error = json.loads(body)["error"]
        assert error["code"] == "context_length_exceeded"
        assert "256 tokens" in error["message"]
        answers: list[int] = []

        def ask() -> None:
            _, body = server.request("POST", "/v1/completions", {**asked, "max_tokens": 255})
            answers.append(json.loads(body)["usage"]["completion_tokens"])

        threads = [threading.Thread(target=ask) for _ in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert answers == [255, 255, 255]


def test_prompts_that_cannot_be_split_are_refused_not_choked_on(folder: Path) -> None:
    config = '{"dynamic_split_fuse": false, "max_num_batched_tokens": 512, "max_num_seqs": 2}'
    with started(folder, config) as server:
        asked = {"model": "tiny", "prompt": "word " * 600, "max_tokens": 4}
        status, body = server.request("POST", "/v1/completions", asked)
        assert status == 400
        assert "max_num_batched_tokens=512" in json.loads(body)["error"]["message"]
        assert server.request("POST", "/v1/completions", {**asked, "prompt": "word"})[0] == 200


@pytest.mark.parametrize(
    ("model", "config", "status", "failure"),
    [
        ("tiny", '{"KV_CACHE_PRECISION": "u7"}', 1, "bad-config"),
        ("tiny", '{"max_num_sequences": 4}', 1, "bad-config"),
        ("tiny", '{"cache_size": 100000}', 1, "out-of-memory"),
        ("nobody.gguf", "{}", 2, "model-not-found"),
    ],
)
def test_a_start_that_fails_says_why_and_the_engine_names_the_class(
    folder: Path, model: str, config: str, status: int, failure: str
) -> None:
    with starting(folder, config, model=model) as server:
        assert server.process.wait(PATIENCE_S) == status
        assert failure_class(server.said()) == failure
        assert "Traceback" not in server.said()


def test_a_port_in_use_is_said_before_the_model_is_loaded(folder: Path, server: Server) -> None:
    with starting(folder, port=server.port) as second:
        assert second.process.wait(PATIENCE_S) == 2
        assert failure_class(second.said()) == "port-in-use"


def failure_class(said: str) -> str | None:
    symptoms = ENGINE.launch("tiny", {}, artifact=None, host="127.0.0.1", port=1).symptoms
    return next((kind for pattern, kind in symptoms if re.search(pattern, said)), None)
