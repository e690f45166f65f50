"""Faults of gRPC, frame by frame, and a real gRPC server that refuses, dies, stalls and floods.

The frames are sent by a script, so that each is what a test says; the rest is grpcio's own server.
"""

import asyncio
import itertools
import struct
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import hpack
import pytest
import uvloop

from endpoint_streams import rpc_end, rpc_failure, rpc_response
from harness import Answer, come, drive, overheard, raw, silence
from llmdyno.faults import meaning
from llmdyno.load import level
from llmdyno.processes.ports import free_port
from llmdyno.records.entries import Record
from llmdyno.wire import grpc as rpc
from llmdyno.wire.target import parse_url
from scripted_server import Client, scripted

ENDPOINT = "triton-grpc"
Make = Callable[[int], Answer]  # given the number of the call's stream


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(level, "BACKOFF_FIRST_S", 0.01)


# Frames.

DATA, HEADERS, RST, SETTINGS, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = 0, 1, 3, 4, 6, 7, 8, 9
END_STREAM, END_HEADERS, PADDED, PRIORITY = 1, 4, 8, 32
READY = [(":status", "200"), ("content-type", "application/grpc")]


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    return (
        struct.pack(">I", len(payload))[1:]
        + bytes([kind, flags])
        + struct.pack(">I", stream)
        + payload
    )


def block(*fields: tuple[str, str]) -> bytes:
    encoder = hpack.Encoder()
    encoder.header_table_size = 0  # every block stands for itself
    return encoder.encode(fields)


def head(stream: int) -> bytes:
    return frame(HEADERS, END_HEADERS, stream, block(*READY))


def trailers(stream: int, status: str = "0", words: str = "") -> bytes:
    fields = block(("grpc-status", status), ("grpc-message", words))
    return frame(HEADERS, END_HEADERS | END_STREAM, stream, fields)


def refusal(stream: int, status: str, words: str = "") -> bytes:
    """Return a header that is trailers at once, as servers send them that have nothing else."""
    fields = block(*READY, ("grpc-status", status), ("grpc-message", words))
    return frame(HEADERS, END_HEADERS | END_STREAM, stream, fields)


def first(stream: int) -> bytes:
    return head(stream) + frame(DATA, 0, stream, rpc_response("a"))


def whole(stream: int) -> bytes:
    """Return two tokens, as a server should send them."""
    rest = frame(DATA, 0, stream, rpc_response("é")) + frame(DATA, 0, stream, rpc_end())
    return first(stream) + rest + trailers(stream)


class Server:
    """Reads the frames of a connection as a server does."""

    def __init__(self, client: Client) -> None:
        self._reader = client._reader
        self.answered: list[tuple[int, int, bytes]] = []  # kind, flags, payload of what is no call

    async def greet(self, client: Client) -> None:
        await self._reader.readexactly(len(rpc._PREFACE))
        await client.send(frame(SETTINGS, 0, 0), frame(SETTINGS, 1, 0))

    async def call(self) -> int:
        """Return the number of the next call's stream, once it was said in full."""
        while True:
            kind, flags, stream, payload = await self.frame()
            if kind == DATA and flags & END_STREAM:
                return stream
            if kind not in {DATA, HEADERS}:
                self.answered.append((kind, flags, payload))

    async def frame(self) -> tuple[int, int, int, bytes]:
        begun = await self._reader.readexactly(9)
        payload = await self._reader.readexactly(int.from_bytes(begun[:3], "big"))
        return begun[3], begun[4], int.from_bytes(begun[5:9], "big"), payload


def run(
    *makes: Make, then: Callable[[Server], Awaitable[None]] | None = None, **options: Any
) -> list[Record]:
    """Answer the calls of all connections one after the other, the last answer for ever."""
    numbers = itertools.count()

    async def script(client: Client) -> None:
        server = Server(client)
        await server.greet(client)
        while True:
            stream = await server.call()
            await makes[min(next(numbers), len(makes) - 1)](stream)(client)
            if then is not None:
                await then(server)

    async def main() -> list[Record]:
        async with scripted(script) as url:
            return await drive(url.replace("http", "grpc"), ENDPOINT, **options)

    return uvloop.run(main())


FAULTS: dict[str, tuple[str, Make]] = {
    "closed without an answer": ("no-response", lambda _: raw(close=True)),
    "reset without an answer": ("reset", lambda _: raw(reset=True)),
    "closed in the middle": ("truncated", lambda n: raw(first(n), close=True)),
    "closed inside a frame": ("truncated", lambda n: raw(first(n)[:-5], close=True)),
    "reset in the middle": ("truncated", lambda n: raw(first(n), reset=True, pause_s=0.05)),
    "the stream reset": ("truncated", lambda n: raw(first(n) + frame(RST, 0, n, b"\0\0\0\x08"))),
    "never answers": ("timeout", lambda _: silence()),
    "stalls after the header": ("timeout", lambda n: silence(head(n))),
    "stalls in the stream": ("timeout", lambda n: silence(first(n))),
    "stalls but pings": (
        "timeout",
        lambda n: raw(first(n), *[frame(PING, 0, 0, bytes(8))] * 80),
    ),
    "takes no calls": (
        "no-response",
        lambda _: raw(frame(GOAWAY, 0, 0, struct.pack(">II", 0, 11) + b"too_many_pings")),
    ),
    "speaks HTTP/1.1": ("bad-grpc", lambda _: raw(b"HTTP/1.1 400 Bad Request\r\n\r\n")),
    "speaks TLS": ("tls", lambda _: raw(b"\x15\x03\x01\x00\x02\x02\x16\0\0")),
    "garbage": ("bad-grpc", lambda _: raw(b"\xff" * 40)),
    "garbage in the stream": ("bad-grpc", lambda n: raw(first(n) + b"garbage" * 9)),
    "a frame that is too long": (
        "bad-grpc",
        lambda n: raw(first(n) + frame(DATA, 0, n, bytes(20_000))),
    ),
    "a header that is none": (
        "bad-grpc",
        lambda n: raw(frame(HEADERS, END_HEADERS, n, b"\xff\xff\xff\xff\xff")),
    ),
    "a header without end": (
        "header-too-large",
        lambda n: raw(
            frame(HEADERS, 0, n, bytes(9)) + frame(CONTINUATION, 0, n, bytes(16_000)) * 20
        ),
    ),
    "more padding than payload": (
        "bad-grpc",
        lambda n: raw(head(n) + frame(DATA, PADDED, n, b"\x09abc")),
    ),
    "padding of nothing": ("bad-grpc", lambda n: raw(head(n) + frame(DATA, PADDED, n))),
    "settings cut short": ("bad-grpc", lambda _: raw(frame(SETTINGS, 0, 0, b"abc"))),
    "no trailers": ("bad-grpc", lambda n: raw(first(n) + frame(DATA, END_STREAM, n))),
    "a header without a status": ("bad-grpc", lambda n: raw(trailers(n))),
    "trailers without a status": (
        "bad-grpc",
        lambda n: raw(first(n) + frame(HEADERS, END_HEADERS | END_STREAM, n, block(("a", "b")))),
    ),
    "a proxy's page": (
        "http-503",
        lambda n: raw(
            frame(HEADERS, END_HEADERS, n, block((":status", "503")))
            + frame(DATA, END_STREAM, n, b"<html>no upstream</html>")
        ),
    ),
    "an error in the stream": (
        "stream-error",
        lambda n: raw(first(n) + frame(DATA, 0, n, rpc_failure("out of memory")) + trailers(n)),
    ),
    "an error in the stream and a status": (
        "stream-error",
        lambda n: raw(first(n) + frame(DATA, 0, n, rpc_failure("oom")) + trailers(n, "13")),
    ),
    "no final response": ("truncated", lambda n: raw(first(n) + trailers(n))),
    "half a message": (
        "truncated",
        lambda n: raw(first(n) + frame(DATA, 0, n, rpc_end()[:-3]) + trailers(n)),
    ),
    "nothing but the end": (
        "no-tokens",
        lambda n: raw(head(n) + frame(DATA, 0, n, rpc_end()) + trailers(n)),
    ),
    "nothing at all": ("truncated", lambda n: raw(head(n) + trailers(n))),
    "a message that is none": (
        "bad-message",
        lambda n: raw(first(n) + frame(DATA, 0, n, b"\0\0\0\0\3\xff\xff\xff") + trailers(n)),
    ),
    "a compressed message": (
        "bad-message",
        lambda n: raw(first(n) + frame(DATA, 0, n, b"\1\0\0\0\1x") + trailers(n)),
    ),
    "cancelled": ("grpc-cancelled", lambda n: raw(refusal(n, "1"))),
    "the deadline": ("grpc-deadline-exceeded", lambda n: raw(first(n) + trailers(n, "4"))),
    "too many": ("grpc-resource-exhausted", lambda n: raw(refusal(n, "8", "queue full"))),
    "unavailable": ("grpc-unavailable", lambda n: raw(head(n) + trailers(n, "14"))),
    "a status that is none": ("grpc-unknown", lambda n: raw(head(n) + trailers(n, "99"))),
    "a status that is no number": ("grpc-unknown", lambda n: raw(head(n) + trailers(n, "x"))),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_has_its_class_and_the_user_goes_on(name: str) -> None:
    fault, make = FAULTS[name]

    # What is silent is waited for; all else ends long before.
    timeout_s = 0.7 if fault == "timeout" else 20.0
    failed, completed = run(make, lambda n: raw(whole(n)), requests=2, timeout_s=timeout_s)

    assert (failed.outcome, failed.error) == ("failed", fault), failed.detail
    assert meaning(failed.error)
    assert (completed.outcome, completed.error) == ("completed", ""), completed.detail
    assert completed.output_tokens == 2


def test_the_servers_words_are_kept() -> None:
    words = {
        "too many": "queue full",
        "an error in the stream": "out of memory",
        "takes no calls": "the server takes no more calls here: ENHANCE_YOUR_CALM too_many_pings",
        "the stream reset": "the server reset the stream: CANCEL",
    }

    for name, expected in words.items():
        (record,) = run(FAULTS[name][1], requests=1, timeout_s=1.0)
        assert record.detail == expected


def _bytewise(n: int) -> Answer:
    data = whole(n)
    return raw(*(data[at : at + 1] for at in range(len(data))), pause_s=0.0)


def _split_message(n: int) -> Answer:
    message = rpc_response("a")
    parts = [frame(DATA, 0, n, message[at : at + 7]) for at in range(0, len(message), 7)]
    return raw(head(n) + b"".join(parts) + whole(n)[len(first(n)) :])


ODD_BUT_WHOLE: dict[str, Make] = {
    "one write": lambda n: raw(whole(n)),
    "a byte at a time": _bytewise,
    "a message in many frames": _split_message,
    "many messages in a frame": lambda n: raw(
        head(n) + frame(DATA, 0, n, rpc_response("a") + rpc_response("é") + rpc_end()) + trailers(n)
    ),
    "the last token is final": lambda n: raw(
        first(n) + frame(DATA, 0, n, rpc_response("é", final=True)) + trailers(n)
    ),
    "empty frames": lambda n: raw(head(n) + frame(DATA, 0, n) * 3 + whole(n)[len(head(n)) :]),
    "padded frames": lambda n: raw(
        frame(HEADERS, END_HEADERS | PADDED | PRIORITY, n, b"\2" + bytes(5) + block(*READY) + b"xx")
        + frame(DATA, PADDED, n, b"\3" + rpc_response("a") + b"xyz")
        + whole(n)[len(first(n)) :]
    ),
    "headers in pieces": lambda n: raw(
        frame(HEADERS, 0, n, block(*READY)[:3])
        + frame(CONTINUATION, 0, n, block(*READY)[3:4])
        + frame(CONTINUATION, END_HEADERS, n, block(*READY)[4:])
        + whole(n)[len(head(n)) :]
    ),
    "frames that we do not know": lambda n: raw(
        frame(0x2A, 0xFF, n, b"?" * 99) + whole(n) + frame(0x2A, 0, 0)
    ),
    "pings and settings in between": lambda n: raw(
        first(n)
        + frame(PING, 0, 0, b"bdp ping")
        + frame(SETTINGS, 0, 0, struct.pack(">HI", 4, 1_000_000))
        + frame(WINDOW_UPDATE, 0, 0, struct.pack(">I", 1000))
        + whole(n)[len(first(n)) :]
    ),
    "a stream of nobody": lambda n: raw(
        first(n) + frame(DATA, 0, n + 2, rpc_response("x")) + whole(n)[len(first(n)) :]
    ),
    "a reset after the end": lambda n: raw(whole(n) + frame(RST, 0, n, bytes(4))),
    "a last call": lambda n: raw(
        first(n) + frame(GOAWAY, 0, 0, struct.pack(">II", n, 0)) + whole(n)[len(first(n)) :]
    ),
}


@pytest.mark.parametrize("name", ODD_BUT_WHOLE)
def test_an_odd_response_is_whole_and_every_token_counted(name: str) -> None:
    records = run(ODD_BUT_WHOLE[name], requests=2, timeout_s=5.0)

    for record in records:
        assert (record.outcome, record.error) == ("completed", ""), record.detail
        assert record.output_tokens == 2
    assert len(records) == 2


def test_pings_and_settings_are_acknowledged() -> None:
    seen: list[tuple[int, int, bytes]] = []

    async def then(server: Server) -> None:
        await server.call()
        seen.extend(server.answered)

    run(ODD_BUT_WHOLE["pings and settings in between"], then=then, requests=2, timeout_s=5.0)

    assert (PING, 1, b"bdp ping") in seen
    assert (SETTINGS, 1, b"") in seen


def test_tokens_bear_the_stamps_of_their_reads() -> None:
    n = 1
    parts = [first(n), frame(DATA, 0, n, rpc_response("b")), frame(DATA, 0, n, rpc_response("c"))]

    (record,) = run(
        lambda _: raw(*parts, frame(DATA, 0, n, rpc_end()) + trailers(n), pause_s=0.1), requests=1
    )

    assert record.outcome == "completed"
    assert len(record.gaps_ns) == 3
    assert min(record.gaps_ns[1:]) > 0.09e9
    assert record.end_ns - sum(record.gaps_ns) > 0.09e9


def test_a_prompt_waits_for_the_servers_window() -> None:
    """A call of 200 kB to a server that opens 65,535 bytes, then some, then all."""
    received: list[int] = []
    size = 200_000

    async def script(client: Client) -> None:
        server = Server(client)
        await server.greet(client)
        total = 0
        while True:
            kind, flags, stream, payload = await server.frame()
            if kind != DATA:
                continue
            assert len(payload) <= 16_384
            total += len(payload)
            if flags & END_STREAM:
                break
            if total in {65_535, 66_535}:
                received.append(total)
                more = struct.pack(">I", 1_000 if total == 65_535 else 1_000_000)
                opened = [frame(WINDOW_UPDATE, 0, place, more) for place in (0, stream)]
                await client.send(*opened, pause_s=0.02)
        received.append(total)
        await client.send(whole(stream))
        await asyncio.sleep(60)

    async def main() -> list[Record]:
        async with scripted(script) as url:
            return await drive(url.replace("http", "grpc"), ENDPOINT, requests=1, prompt="x" * size)

    (record,) = uvloop.run(main())

    assert record.outcome == "completed", record.detail
    assert received[:2] == [65_535, 66_535]
    assert received[2] > size


def test_a_response_without_end_is_broken_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rpc, "RESPONSE_BYTES_MAX", 100_000)

    (record,) = run(
        lambda n: raw(head(n) + frame(DATA, 0, n, bytes(16_000)) * 9), requests=1, timeout_s=5.0
    )

    assert record.error == "too-large"


# grpcio's own server.


class Model:
    """A method that answers as it is told, and notes what it hears."""

    def __init__(self) -> None:
        self.answers: Callable[[Any], Iterator[bytes]] = self.two_tokens
        self.heard: list[bytes] = []
        self.metadata: dict[str, str] = {}
        self.cancelled = threading.Event()
        self.made = 0  # tokens of an endless answer

    def two_tokens(self, _context: Any) -> Iterator[bytes]:
        yield from (message[5:] for message in (rpc_response("a"), rpc_response("é"), rpc_end()))

    def endless(self, context: Any) -> Iterator[bytes]:
        context.add_callback(self.cancelled.set)
        while context.is_active():
            self.made += 1
            yield rpc_response("a")[5:]
            time.sleep(0.02)

    def service(self, details: Any) -> Any:
        def infer(requests: Iterator[bytes], context: Any) -> Iterator[bytes]:
            self.heard.extend(requests)
            self.metadata = dict(context.invocation_metadata())
            yield from self.answers(context)

        assert details.method == "/inference.GRPCInferenceService/ModelStreamInfer"
        return grpc.stream_stream_rpc_method_handler(infer)


class _Handler(grpc.GenericRpcHandler):  # type: ignore[misc]  # it has no types
    def __init__(self, model: Model) -> None:
        self._model = model

    def service(self, handler_call_details: Any) -> Any:
        return self._model.service(handler_call_details)


@contextmanager
def serving(model: Model, port: int = 0, credentials: Any = None) -> Iterator[int]:
    server = grpc.server(
        ThreadPoolExecutor(64),
        handlers=[_Handler(model)],
        options=[("grpc.max_send_message_length", -1), ("grpc.max_receive_message_length", -1)],
    )
    address = f"127.0.0.1:{port}"
    if credentials is None:
        port = server.add_insecure_port(address)
    else:
        port = server.add_secure_port(address, credentials)
    server.start()
    try:
        yield port
    finally:
        server.stop(None).wait()


def loaded(port: int, **options: Any) -> list[Record]:
    return uvloop.run(drive(f"grpc://127.0.0.1:{port}", ENDPOINT, **options))


def test_a_real_server_is_heard_in_full() -> None:
    with serving(Model()) as port:
        records = loaded(port, users=20, requests=200)

    assert {(record.outcome, record.output_tokens) for record in records} == {("completed", 2)}
    assert len(records) == 200


STATUSES = [
    (grpc.StatusCode.RESOURCE_EXHAUSTED, "grpc-resource-exhausted"),
    (grpc.StatusCode.UNAVAILABLE, "grpc-unavailable"),
    (grpc.StatusCode.DEADLINE_EXCEEDED, "grpc-deadline-exceeded"),
    (grpc.StatusCode.INVALID_ARGUMENT, "grpc-invalid-argument"),
    (grpc.StatusCode.UNAUTHENTICATED, "grpc-unauthenticated"),
]


@pytest.mark.parametrize(("status", "fault"), STATUSES)
@pytest.mark.parametrize("tokens", [0, 1])
def test_a_status_is_the_class_with_its_words(status: Any, fault: str, tokens: int) -> None:
    def refuse(context: Any) -> Iterator[bytes]:
        yield from [rpc_response("a")[5:]] * tokens
        context.abort(status, "no: 100 % é")

    model = Model()
    model.answers = refuse

    with serving(model) as port:
        (record,) = loaded(port, requests=1)

    assert (record.error, record.detail) == (fault, "no: 100 % é")
    assert record.output_tokens == tokens


def test_an_exception_in_the_server_is_a_class() -> None:
    def fail(_context: Any) -> Iterator[bytes]:
        yield rpc_response("a")[5:]
        raise RuntimeError("boom")

    model = Model()
    model.answers = fail

    with serving(model) as port:
        (record,) = loaded(port, requests=1)

    assert record.error == "grpc-unknown"
    assert "boom" in record.detail


def test_a_huge_message_and_a_long_prompt_come_through() -> None:
    def flood(_context: Any) -> Iterator[bytes]:
        yield rpc_response("x" * 20_000_000)[5:]
        yield rpc_end()[5:]

    model = Model()
    model.answers = flood

    with serving(model) as port:
        (record,) = loaded(port, requests=1, prompt="y" * 3_000_000)

    assert (record.outcome, record.output_tokens) == ("completed", 1), record.detail
    assert len(model.heard[0]) > 3_000_000


@pytest.mark.parametrize("how", [{"timeout_s": 1.5}, {"grace_s": 0.0, "duration_s": 1.5}])
def test_who_gives_up_cancels_the_call(how: dict[str, float]) -> None:
    model = Model()
    model.answers = model.endless

    with serving(model) as port:
        limit = {} if "duration_s" in how else {"requests": 1}
        records = loaded(port, **how, **limit)
        assert model.cancelled.wait(30.0)

    (record,) = records
    assert (record.outcome, record.error) in {("failed", "timeout"), ("cut", "")}
    assert 0 < record.output_tokens <= model.made


def test_a_server_that_dies_and_returns() -> None:
    port = free_port()

    async def main() -> list[Record]:
        url = f"grpc://127.0.0.1:{port}"
        with overheard() as records:
            with serving(Model(), port):
                running = asyncio.create_task(
                    drive(url, ENDPOINT, users=2, duration_s=600.0, think_s=0.02)
                )
                await come(records, "", 1)
            await come(records, "refused", 1)
            with serving(Model(), port):
                await come(records, "", 1)
                running.cancel()
                await asyncio.wait([running])
        return records

    records = uvloop.run(main())

    assert records[0].outcome == "completed"
    assert {record.error for record in records} <= {
        "",
        "refused",
        "reset",
        "truncated",
        "no-response",
        "grpc-unavailable",  # as the server says while it ends
        "grpc-cancelled",  # as it says of a call that it had begun
    }


def test_an_api_key_is_metadata() -> None:
    model = Model()
    with serving(model) as port:
        target = parse_url(f"grpc://127.0.0.1:{port}", "k" * 300)
        (record,) = uvloop.run(drive("", ENDPOINT, target=target, requests=1))

    assert record.outcome == "completed"
    assert model.metadata["authorization"] == "Bearer " + "k" * 300


def test_tls(certificate: Path) -> None:
    pem = certificate.read_bytes()
    credentials = grpc.ssl_server_credentials([(pem, certificate.with_suffix(".crt").read_bytes())])

    with serving(Model(), credentials=credentials) as port:

        def outcomes(url: str, **trust: Any) -> set[str]:
            target = parse_url(url, **trust)
            records = uvloop.run(drive("", ENDPOINT, target=target, requests=3, timeout_s=2.0))
            return {record.error for record in records}

        ca_cert = str(certificate.with_suffix(".crt"))
        assert outcomes(f"grpcs://localhost:{port}", ca_cert=ca_cert) == {""}
        assert outcomes(f"grpcs://localhost:{port}") == {"tls-certificate"}
        assert outcomes(f"grpcs://localhost:{port}", insecure=True) == {""}
        assert outcomes(f"grpc://localhost:{port}") <= {"tls", "no-response", "reset"}
