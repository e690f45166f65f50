"""Reads are stamped when the kernel received them, however late the client looks."""

import asyncio
import contextlib
import socket
import struct
import time
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
import uvloop

from llmdyno.wire import inbox
from llmdyno.wire.inbox import READ_BYTES
from llmdyno.wire.poller import PERIOD_S_MAX, PERIOD_S_MIN, Poller, can_stamp

pytestmark = pytest.mark.skipif(not can_stamp(), reason="the kernel does not stamp TCP reads")


@pytest.fixture(autouse=True, params=["each read is told", "reads go into an inbox"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Both ways in which a reader may get its reads."""
    way: str = request.param
    if way != "each read is told":
        if inbox.look is None:
            pytest.skip("nothing was compiled")
        monkeypatch.setattr(Notes, "make_inbox", inbox.Inbox)
    return way


class Notes:
    """Keeps what a link tells it."""

    make_inbox: Callable[[], inbox.Inbox | None] = staticmethod(lambda: None)

    def __init__(self) -> None:
        self.told: list[tuple[int, bytes]] = []
        self.lost: list[Exception | None] = []
        self.parsed = 0
        self.inbox = self.make_inbox()

    @property
    def reads(self) -> list[tuple[int, bytes]]:
        if self.inbox is not None:
            self.told += self.inbox.take()
        return self.told

    def take(self, stamp_ns: int, data: bytes) -> bool:
        self.told.append((stamp_ns, data))
        return True

    def parse(self) -> bool:
        self.parsed += 1
        return True

    def connection_lost(self, error: Exception | None) -> None:
        self.lost.append(error)

    @property
    def data(self) -> bytes:
        return b"".join(data for _, data in self.reads)


Script = Callable[[Poller, socket.socket, str, int], Coroutine[Any, Any, None]]


def play(script: Script) -> None:
    """Run a script with a poller and a listening socket of the test's own."""

    async def main() -> None:
        poller = Poller()
        with socket.create_server(("127.0.0.1", 0)) as listener:
            await script(poller, listener, *listener.getsockname())
        poller.close()

    uvloop.run(main())


async def until(happened: Callable[[], object]) -> None:
    async with asyncio.timeout(5):
        while not happened():  # noqa: ASYNC110  # what happens has no event of its own
            await asyncio.sleep(0.002)


def test_a_client_that_looks_late_stamps_as_if_it_had_not() -> None:
    async def script(poller: Poller, listener: socket.socket, host: str, port: int) -> None:
        notes = Notes()
        await poller.connect(host, port, notes)
        peer, _ = listener.accept()
        sent = []  # between which moments; whoever has no core for a while is long between them
        for _ in range(3):
            before_ns = time.perf_counter_ns()
            peer.send(b"token")
            sent.append((before_ns, time.perf_counter_ns()))
            time.sleep(0.03)  # noqa: ASYNC251  # the loop is held up, as by a long computation
            await until(lambda: len(notes.reads) == len(sent))
        peer.close()

        stamps_ns = [stamp_ns for stamp_ns, _ in notes.reads]
        for stamp_ns, (before_ns, after_ns) in zip(stamps_ns, sent, strict=True):
            assert before_ns - 500_000 < stamp_ns < after_ns + 10_000_000, (stamps_ns, sent)

    play(script)


@pytest.mark.parametrize("step_s", [-3600, 0.2, 3600])
def test_a_wall_clock_that_is_set_moves_no_stamp_by_more_than_a_look(
    step_s: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kernel stamps a read before the step; the client looks after it."""
    step_ns = 0
    monkeypatch.setattr(
        "llmdyno.wire.wall_clock.clock_gettime_ns",
        lambda clock: time.clock_gettime_ns(clock) + step_ns,
    )

    async def script(poller: Poller, listener: socket.socket, host: str, port: int) -> None:
        nonlocal step_ns
        notes = Notes()
        await poller.connect(host, port, notes)
        peer, _ = listener.accept()
        peer.send(b"before")
        await until(lambda: len(notes.reads) == 1)
        await asyncio.sleep(0.01)
        sent_ns = time.perf_counter_ns()
        whole = b"x" * 200_000  # more than one turn reads
        sending = asyncio.get_running_loop().run_in_executor(None, peer.sendall, whole)
        time.sleep(0.01)  # noqa: ASYNC251  # it arrives before the next look
        step_ns = round(step_s * 1e9)
        await until(lambda: b"x" in notes.data)
        first_ns = notes.reads[1][0]
        looked_ns = time.perf_counter_ns()
        step_ns = 0  # here the kernel's clock does not go with it
        await until(lambda: len(notes.data) == len(whole) + len(b"before"))
        await sending
        peer.close()

        assert sent_ns - 1_000_000 < first_ns <= looked_ns

    play(script)


def test_more_than_the_socket_takes_is_sent_to_the_last_byte() -> None:
    async def script(poller: Poller, listener: socket.socket, host: str, port: int) -> None:
        notes = Notes()
        link = await poller.connect(host, port, notes)
        peer, _ = listener.accept()
        whole = bytes(range(256)) * 40_000
        link.write(whole)
        received = b""
        peer.setblocking(False)
        async with asyncio.timeout(10):
            while len(received) < len(whole):
                try:
                    received += peer.recv(1 << 20)
                except BlockingIOError:
                    await asyncio.sleep(0.002)
        peer.close()

        assert received == whole

    play(script)


def test_what_came_before_the_end_is_read_and_the_end_is_told_once() -> None:
    async def script(poller: Poller, listener: socket.socket, host: str, port: int) -> None:
        notes = Notes()
        link = await poller.connect(host, port, notes)
        peer, _ = listener.accept()
        whole = b"x" * 100_000
        peer.sendall(whole)
        peer.close()
        await until(lambda: notes.lost)

        assert notes.data == whole
        assert notes.lost == [None]
        assert link.is_closing()

    play(script)


def test_a_closed_link_says_nothing_more() -> None:
    async def script(poller: Poller, listener: socket.socket, host: str, port: int) -> None:
        notes = Notes()
        link = await poller.connect(host, port, notes)
        peer, _ = listener.accept()
        link.abort()
        await asyncio.sleep(0.02)

        assert (notes.reads, notes.lost) == ([], [])
        assert peer.recv(1) == b""
        peer.close()

    play(script)


def test_what_ends_together_is_worked_on_between_looks(way: str) -> None:
    events: list[str] = []

    class Ending(Notes):
        """Has work to do after each end, as a user has."""

        def take(self, stamp_ns: int, data: bytes) -> bool:
            events.append("read")
            return super().take(stamp_ns, data)

        def parse(self) -> bool:
            events.append("end")
            asyncio.get_running_loop().call_soon(events.append, "work")
            return super().parse()

    async def script(poller: Poller, listener: socket.socket, host: str, port: int) -> None:
        peers = []
        for _ in range(20):
            await poller.connect(host, port, Ending())
            peers.append(listener.accept()[0])
        for peer in peers:
            peer.send(b"the end")
        time.sleep(0.03)  # noqa: ASYNC251  # so that one look finds them all
        await until(lambda: events.count("work") == 20)
        for peer in peers:
            peer.close()

    play(script)

    some = ["end"] * 4 + ["work"] * 4
    reads = ["read"] * 20 if way == "each read is told" else []
    assert events == reads + some * 5


def test_busy_streams_are_looked_at_more_often_than_quiet_ones() -> None:
    async def script(poller: Poller, listener: socket.socket, host: str, port: int) -> None:
        notes = Notes()
        await poller.connect(host, port, notes)
        peer, _ = listener.accept()
        await until(lambda: poller.period_s == PERIOD_S_MAX)
        for _ in range(400):
            peer.send(b"token")
            await asyncio.sleep(0.001)
            if poller.period_s < PERIOD_S_MAX / 2:
                break
        peer.close()

        assert PERIOD_S_MIN <= poller.period_s < PERIOD_S_MAX / 2

    play(script)


def test_a_name_that_nobody_answers_to_is_the_sockets_own_error() -> None:
    async def script(poller: Poller, listener: socket.socket, host: str, port: int) -> None:
        listener.close()
        with pytest.raises(ConnectionRefusedError):
            await poller.connect(host, port, Notes())

    play(script)


def test_a_peer_that_sends_without_end_does_not_keep_the_others_waiting() -> None:
    async def script(poller: Poller, listener: socket.socket, host: str, port: int) -> None:
        notes = Notes()
        await poller.connect(host, port, notes)
        peer, _ = listener.accept()
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 2**21)
        with peer:
            peer.setblocking(False)
            filled = 0
            with contextlib.suppress(BlockingIOError):  # the buffers fill; the loop does not look
                while True:
                    filled += peer.send(bytes(2**16))
            poller._poll()
            at_once = len(notes.data)
            await until(lambda: len(notes.data) == filled)

        assert READ_BYTES < at_once <= 2**18

    play(script)


@pytest.mark.parametrize("pause_s", [0.0, 0.02])
def test_an_end_that_comes_with_the_last_bytes_or_later_is_seen(pause_s: float) -> None:
    async def script(poller: Poller, listener: socket.socket, host: str, port: int) -> None:
        notes = Notes()
        await poller.connect(host, port, notes)
        peer, _ = listener.accept()
        peer.send(b"the last word")
        await asyncio.sleep(pause_s)
        peer.shutdown(socket.SHUT_WR)
        await until(lambda: notes.lost)
        peer.close()

        assert (notes.data, notes.lost) == (b"the last word", [None])

    play(script)


def test_a_reset_is_told_with_its_reason_after_what_came_before() -> None:
    async def script(poller: Poller, listener: socket.socket, host: str, port: int) -> None:
        notes = Notes()
        await poller.connect(host, port, notes)
        peer, _ = listener.accept()
        peer.send(b"token")
        await until(lambda: notes.reads)
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        peer.close()
        await until(lambda: notes.lost)

        assert isinstance(notes.lost[0], ConnectionResetError)
        assert notes.data == b"token"

    play(script)


def test_reads_into_inboxes_are_counted() -> None:
    class Tally:
        reads = 0

    async def main() -> None:
        tally = Tally()
        poller = Poller(tally)
        with socket.create_server(("127.0.0.1", 0)) as listener:
            notes = Notes()
            host, port = listener.getsockname()
            await poller.connect(host, port, notes)
            peer, _ = listener.accept()
            for _ in range(5):
                before = len(notes.reads)
                peer.send(b"token")
                while len(notes.reads) == before:  # noqa: ASYNC110  # until() would bind `before`
                    await asyncio.sleep(0.002)
            peer.close()
        poller.close()
        assert tally.reads == (0 if notes.inbox is None else 5)

    uvloop.run(main())
