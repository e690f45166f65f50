"""The server of known timing, seen through a raw socket: nothing between us and its writes."""

import json
import re
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from waiting import until

Start = Callable[..., socket.socket]


@pytest.fixture
def connect() -> Iterator[Start]:
    """Return a function that starts a streamer with these options and connects to it."""
    servers: list[subprocess.Popen[bytes]] = []
    clients: list[socket.socket] = []

    def connect(*options: str) -> socket.socket:
        if not servers:
            server = subprocess.Popen(
                [sys.executable, "-m", "llmdyno.streamer", *options], stdout=subprocess.PIPE
            )
            servers.append(server)
        client = socket.create_connection(("127.0.0.1", port_of(servers[0])), timeout=30)
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        clients.append(client)
        return client

    ports: dict[int, int] = {}

    def port_of(server: subprocess.Popen[bytes]) -> int:
        assert server.stdout is not None
        if server.pid not in ports:
            ports[server.pid] = json.loads(server.stdout.readline())["port"]
        return ports[server.pid]

    yield connect
    for client in clients:
        client.close()
    for server in servers:
        server.terminate()
        assert server.wait(timeout=30) == 0
        assert server.stdout is not None
        server.stdout.close()


def post(path: str, body: object, headers: str = "") -> bytes:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    return (
        f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(raw)}\r\n{headers}\r\n"
    ).encode() + raw


def chat(**more: object) -> bytes:
    messages = [{"role": "user", "content": "one two three"}]
    return post("/v1/chat/completions", {"messages": messages, **more})


def read_stream(client: socket.socket) -> list[tuple[float, bytes]]:
    """Return (time, bytes) of every read until the end of one chunked reply."""
    reads: list[tuple[float, bytes]] = []
    tail = b""
    while tail != b"\r\n0\r\n\r\n":
        data = client.recv(65536)
        assert data, reads
        reads.append((time.monotonic(), data))
        tail = (tail + data)[-7:]
    return reads


def read_plain(client: socket.socket) -> tuple[int, Any]:
    """Return the status and the JSON document of one reply with a length."""
    data = b""
    while b"\r\n\r\n" not in data:
        data += client.recv(65536)
    head, _, body = data.partition(b"\r\n\r\n")
    length = re.search(rb"Content-Length: (\d+)", head)
    assert length
    while len(body) < int(length[1]):
        body += client.recv(65536)
    assert len(body) == int(length[1])
    return int(head.split()[1]), json.loads(body)


def ask(client: socket.socket, path: str) -> Any:
    client.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
    return read_plain(client)[1]


def events(reads: list[tuple[float, bytes]]) -> list[Any]:
    raw = b"".join(data for _, data in reads)
    found = re.findall(rb"^data: (.*)$", raw, re.MULTILINE)
    assert found[-1] == b"[DONE]"
    return [json.loads(event) for event in found[:-1]]


def texts(found: list[Any]) -> list[str]:
    return [event["choices"][0]["delta"]["content"] for event in found if event["choices"]]


@pytest.mark.alone
def test_every_token_comes_when_it_is_due(connect: Start) -> None:
    client = connect("--ttft", "80ms", "--itl", "10ms")
    sent_s = time.monotonic()

    client.sendall(chat(stream=True, max_tokens=30))
    reads = read_stream(client)

    assert texts(events(reads)) == [" word"] * 30
    late_ms: list[float] = []
    for at_s, data in reads:  # on a busy machine one read may hold several tokens
        late_ms += [1e3 * (at_s - sent_s - 0.08) - 10 * len(late_ms)] * data.count(b" word")
    assert min(late_ms) > -1.0
    # The most punctual is within a few ms, of the last ten as well: there is no drift.
    assert min(late_ms) < 5.0
    assert min(late_ms[-10:]) < 5.0
    truth = ask(client, "/truth")
    assert (truth["requests"], truth["completed"], truth["in_flight"]) == (1, 1, 0)
    assert (truth["tokens"], truth["chunks"]) == (30, 30)
    assert 0 < truth["late_ms"]["p50"] <= truth["late_ms"]["p99"]


def test_a_stream_says_what_an_openai_server_says(connect: Start) -> None:
    client = connect("--ttft", "1ms", "--itl", "1ms")

    client.sendall(
        chat(stream=True, max_tokens=3, model="m", stream_options={"include_usage": True})
    )
    found = events(read_stream(client))

    assert texts(found) == [" word"] * 3
    assert [event["model"] for event in found] == ["m"] * 4
    assert [event["choices"][0]["finish_reason"] for event in found[:3]] == [None, None, "length"]
    assert found[3]["choices"] == []
    assert found[3]["usage"] == {"prompt_tokens": 3, "completion_tokens": 3, "total_tokens": 6}


def test_without_usage_asked_none_is_sent(connect: Start) -> None:
    client = connect("--ttft", "1ms", "--itl", "1ms")

    client.sendall(chat(stream=True))
    found = events(read_stream(client))

    assert texts(found) == [" word"] * 16
    assert not any("usage" in event for event in found)


def test_several_tokens_a_chunk(connect: Start) -> None:
    client = connect("--ttft", "20ms", "--itl", "10ms", "--tokens-per-chunk", "4")
    sent_s = time.monotonic()

    client.sendall(chat(stream=True, max_completion_tokens=10))
    reads = read_stream(client)

    assert texts(events(reads)) == [" word" * 4, " word" * 4, " word" * 2]
    assert reads[-1][0] - sent_s >= 0.1 - 0.001
    assert ask(client, "/truth")["tokens"] == 10


def test_the_role_can_come_first(connect: Start) -> None:
    client = connect("--ttft", "400ms", "--itl", "1ms", "--role-chunk")
    sent_s = time.monotonic()

    client.sendall(chat(stream=True, max_tokens=2))
    reads = read_stream(client)
    found = events(reads)

    assert found[0]["choices"][0]["delta"] == {"role": "assistant", "content": ""}
    assert texts(found[1:]) == [" word"] * 2
    assert reads[-1][0] - sent_s >= 0.4 - 0.001
    assert ask(client, "/truth")["chunks"] == 2


def test_the_role_comes_at_once(connect: Start) -> None:
    client = connect("--ttft", "1h", "--role-chunk")

    client.sendall(chat(stream=True, max_tokens=2))
    heard = b""
    while b"assistant" not in heard:  # it has a timeout of 30 s
        heard += client.recv(65536)

    assert b" word" not in heard


def test_completions_streaming_and_whole(connect: Start) -> None:
    client = connect("--ttft", "1ms", "--itl", "1ms")

    client.sendall(post("/v1/completions", {"prompt": "a b", "stream": True, "max_tokens": 2}))
    found = events(read_stream(client))
    client.sendall(post("/v1/completions", {"prompt": "a b", "max_tokens": 2}))
    status, whole = read_plain(client)

    assert [event["choices"][0]["text"] for event in found] == [" word"] * 2
    assert (status, whole["choices"][0]["text"]) == (200, " word word")
    assert whole["usage"]["total_tokens"] == 4


def test_a_whole_reply_comes_when_its_last_token_is_due(connect: Start) -> None:
    client = connect("--ttft", "50ms", "--itl", "10ms")
    sent_s = time.monotonic()

    client.sendall(chat(max_tokens=11))
    status, whole = read_plain(client)

    assert time.monotonic() - sent_s >= 0.15 - 0.001
    assert status == 200
    assert whole["choices"][0]["message"]["content"] == " word" * 11


def test_requests_sent_ahead_are_served_in_turn(connect: Start) -> None:
    client = connect("--ttft", "30ms", "--itl", "1ms")
    sent_s = time.monotonic()

    client.sendall(chat(max_tokens=1) + chat(max_tokens=2) + chat(max_tokens=3))
    counts = [read_plain(client)[1]["usage"]["completion_tokens"] for _ in range(3)]

    assert counts == [1, 2, 3]
    assert time.monotonic() - sent_s >= 0.09


def test_a_request_in_two_pieces_arrives_with_the_second(connect: Start) -> None:
    client = connect("--ttft", "50ms", "--itl", "1ms")
    request = chat(stream=True, max_tokens=1)

    client.sendall(request[:-5])
    time.sleep(0.1)
    sent_s = time.monotonic()
    client.sendall(request[-5:])

    assert read_stream(client)[0][0] - sent_s >= 0.05 - 0.001


def test_a_request_may_ask_before_it_sends_the_body(connect: Start) -> None:
    client = connect("--ttft", "1ms", "--itl", "1ms")
    body = json.dumps({"prompt": "a", "max_tokens": 1}).encode()

    request = post("/v1/completions", body, "Expect: 100-continue\r\n")
    client.sendall(request[: -len(body)])
    go_ahead = client.recv(100)
    client.sendall(body)

    assert go_ahead == b"HTTP/1.1 100 Continue\r\n\r\n"
    assert read_plain(client)[0] == 200


def test_connection_close_is_honoured(connect: Start) -> None:
    client = connect("--ttft", "1ms", "--itl", "1ms")

    client.sendall(
        post("/v1/completions", {"prompt": "a", "stream": True}, "Connection: close\r\n")
    )

    assert len(events(read_stream(client))) == 16
    assert client.recv(1) == b""
    truth = ask(connect(), "/truth")
    assert (truth["completed"], truth["aborted"]) == (1, 0)


def test_a_client_that_hangs_up_is_counted(connect: Start) -> None:
    client = connect("--ttft", "1ms", "--itl", "20ms")
    client.sendall(chat(stream=True, max_tokens=1000))
    client.recv(1000)
    client.close()
    other = connect()

    until(lambda: ask(other, "/truth")["aborted"], "the end of the stream")
    truth = ask(other, "/truth")

    assert (truth["requests"], truth["completed"], truth["aborted"]) == (1, 0, 1)
    assert truth["in_flight"] == 0
    assert truth["tokens"] < 1000


def test_many_streams_at_once_are_all_accounted_for(connect: Start) -> None:
    clients = [connect("--ttft", "50ms", "--itl", "5ms") for _ in range(60)]

    for client in clients:
        client.sendall(chat(stream=True, max_tokens=20))
    counts = [len(texts(events(read_stream(client)))) for client in clients]

    assert counts == [20] * 60
    truth = ask(clients[0], "/truth")
    assert (truth["completed"], truth["tokens"]) == (60, 1200)


def test_a_slow_reader_loses_nothing(connect: Start) -> None:
    client = connect("--ttft", "1ms", "--itl", "0ms", "--tokens-per-chunk", "1000")

    client.sendall(chat(stream=True, max_tokens=2_000_000))
    other = connect()
    until(lambda: ask(other, "/truth")["blocked_writes"], "a write that does not fit")
    reads = read_stream(client)

    assert b"".join(data for _, data in reads).count(b" word") == 2_000_000
    truth = ask(client, "/truth")
    assert truth["blocked_writes"] > 0
    assert truth["tokens"] == 2_000_000


@pytest.mark.parametrize(
    ("request_", "status", "said"),
    [
        (b"nonsense\r\n\r\n", 400, "not HTTP"),
        (post("/v1/chat/completions", b"{"), 400, "truncated"),
        (post("/v1/chat/completions", b'{"model": "\xff"}'), 400, "UTF-8"),
        (post("/v1/chat/completions", {"prompt": "a"}), 400, "`messages` is missing"),
        (post("/v1/completions", {"prompt": "a", "max_tokens": 0}), 400, "max_tokens"),
        (post("/v1/elsewhere", {}), 404, "/v1/elsewhere"),
        (b"GET /v1/completions HTTP/1.1\r\n\r\n", 405, "POST"),
        (b"GET /nowhere HTTP/1.1\r\n\r\n", 404, "/nowhere"),
    ],
)
def test_a_wrong_request_is_refused(
    request_: bytes, status: int, said: str, connect: Start
) -> None:
    client = connect()

    client.sendall(request_)
    answered, document = read_plain(client)

    assert answered == status
    assert said.lower() in document["error"]["message"].lower()  # msgspec's words change
    assert ask(connect(), "/truth")["refused"] == 1


def test_health_models_and_metrics(connect: Start) -> None:
    client = connect("--ttft", "1ms", "--itl", "1ms")
    client.sendall(chat(max_tokens=5))
    read_plain(client)

    assert ask(client, "/health") == {"status": "ok"}
    assert ask(client, "/v1/models")["data"][0]["id"] == "streamer"
    client.sendall(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n")
    metrics = client.recv(65536).decode()
    assert "llmdyno_streamer_requests_total 1\n" in metrics
    assert "llmdyno_streamer_tokens_total 5\n" in metrics


@pytest.mark.parametrize(
    ("options", "said"),
    [(["--ttft", "soon"], "--ttft soon"), (["--tokens-per-chunk", "0"], "at least 1")],
)
def test_wrong_options(options: list[str], said: str) -> None:
    asked = subprocess.run(
        [sys.executable, "-m", "llmdyno.streamer", *options],
        capture_output=True, text=True, check=False,
    )  # fmt: skip

    assert asked.returncode == 2
    assert said in asked.stderr
    assert "Traceback" not in asked.stderr
