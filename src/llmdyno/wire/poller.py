"""Connections that are polled every few milliseconds; the kernel stamps their reads.

An event loop wakes up for every token of every stream, and a wake-up costs more than a token. But
the kernel stamps each packet when it arrives (SO_TIMESTAMPNS), so reading later loses nothing. One
poll reads all streams that have data, each read with the time at which its last packet arrived. A
thousand streams of 20 tokens a second then cost some hundred wake-ups a second instead of twenty
thousand, and a late client does not make the server look late.

A poll reads everything before it parses anything, and it finishes only a few responses. When a
thousand responses end at once, they are finished over many polls, so that reading goes on.

The period adapts to the load: it stays short enough that a stream seldom has two tokens waiting,
which would share a stamp. Only plain TCP on Linux is read like this. All other connections use the
event loop's transports behind the same interface (connect.connect decides).
"""

import asyncio
import os
import select
import socket
import struct
from collections.abc import Callable
from time import perf_counter_ns
from typing import Protocol

from llmdyno.wire import inbox, wall_clock
from llmdyno.wire.inbox import READ_BYTES, Inbox
from llmdyno.wire.sockets import Addresses

_STEP_NS = 50_000_000  # what lies between two readings of the clocks is less
_EDGES = select.EPOLLIN | select.EPOLLRDHUP | select.EPOLLET
SO_TIMESTAMPNS = 35  # asm-generic/socket.h; Python's socket module does not name it
_TIMESPEC = struct.Struct("@qq")
# Per link and poll, so that a server that never stops sending does not hold up the other links.
_READS_MAX = 16
_ANCILLARY_BYTES = socket.CMSG_SPACE(_TIMESPEC.size)

PERIOD_S_MIN = 0.001
PERIOD_S_MAX = 0.005
# While the share of streams with data in a poll is between these, the period stays as it is.
_READY_SHARE_MAX = 0.4
_READY_SHARE_MIN = 0.15
_POLLS_PER_CHANGE = 20
# Each takes some 0.3 ms: its record is written and the next request sent.
_RESPONSES_PER_POLL = 4


class Tally(Protocol):
    """Counts reads, for a live display."""

    reads: int


class Reader(Protocol):
    """What receives the reads of a link: an Exchange."""

    @property
    def inbox(self) -> Inbox | None:
        """Where the poller puts reads directly; None: it calls `take` for each read."""

    def take(self, stamp_ns: int, data: bytes) -> bool:
        """Keep a read and its kernel stamp (as perf_counter_ns); return whether to parse now."""

    def parse(self) -> bool:
        """Parse what was kept; return whether a response has ended with it."""

    def connection_lost(self, error: Exception | None) -> None:
        """Handle the loss of the connection; None: the peer closed it."""


class Link:
    """One connected socket; has the methods of an asyncio transport that the client uses."""

    def __init__(
        self,
        channel: socket.socket,
        reader: Reader,
        leave: Callable[[int], None],
        flush_later: Callable[["Link"], None],
        has_read: Callable[[Reader], None],
    ) -> None:
        self._channel = channel
        self._receive = channel.recvmsg
        self.reader = reader
        self._leave = leave
        self._flush_later = flush_later  # called if the socket does not accept everything
        self._has_read = has_read  # called if the reader has something to parse
        self._number = channel.fileno()
        self._unsent = memoryview(b"")
        self._closed = False

    def fileno(self) -> int:
        """Return the socket's descriptor, also after it was closed."""
        return self._number

    def is_closing(self) -> bool:
        """Return whether the link is closed, as an asyncio transport does."""
        return self._closed

    def write(self, data: bytes) -> None:
        """Send; the next polls send the bytes that the socket does not accept now."""
        self._unsent = memoryview(bytes(self._unsent) + data)
        self.flush()

    @property
    def has_unsent(self) -> bool:
        """Whether bytes are left that the socket has not accepted yet."""
        return bool(self._unsent) and not self._closed

    def flush(self) -> None:
        """Send the bytes that are left, as far as the socket accepts them now."""
        while self.has_unsent:
            try:
                sent = self._channel.send(self._unsent)
            except BlockingIOError:
                self._flush_later(self)
                return
            except OSError as error:
                self.lose(error)
                return
            self._unsent = self._unsent[sent:]

    def abort(self) -> None:
        """Close at once, without a call of the reader's connection_lost."""
        if not self._closed:
            self._closed = True
            self._leave(self._number)
            self._channel.close()

    def read(self, clock_offset_ns: int, since_ns: int | None = None) -> None:
        """Read all that has arrived, and pass it to the reader.

        Args:
            clock_offset_ns: wall clock minus perf_counter, because the kernel stamps in wall clock.
            since_ns: the wall clock was set after this: what is read arrived between then and now.
        """
        for _ in range(_READS_MAX):
            if self._closed:
                return
            try:
                data, ancillary, _, _ = self._receive(READ_BYTES, _ANCILLARY_BYTES)
            except BlockingIOError:
                return
            except OSError as error:
                self.lose(error)
                return
            if not data:
                self.lose(None)
                return
            if ancillary:
                seconds, nanoseconds = _TIMESPEC.unpack_from(ancillary[0][2])
                stamp_ns = seconds * 1_000_000_000 + nanoseconds - clock_offset_ns
            else:
                stamp_ns = perf_counter_ns()
            if since_ns is not None:
                stamp_ns = min(max(stamp_ns, since_ns), perf_counter_ns())
            if self.reader.take(stamp_ns, data):
                self._has_read(self.reader)
            if len(data) < READ_BYTES:
                return

    def lose(self, error: Exception | None) -> None:
        """Close, and call the reader's connection_lost; None: the peer closed it."""
        self.abort()
        self.reader.connection_lost(error)


class Poller:
    """Polls all links of one event loop, once a period; without links it does nothing.

    Args:
        tally: counts the reads that compiled code puts into inboxes.
        addresses: where the hosts are; None: they are looked up.
    """

    def __init__(self, tally: Tally | None = None, addresses: Addresses | None = None) -> None:
        self._loop = asyncio.get_running_loop()
        self._tally = tally  # of the reads that go straight into inboxes
        self._epoll = select.epoll()
        self._links: dict[int, Link] = {}
        self._inboxes: dict[int, Inbox] = {}  # of the links that are read by compiled code
        self._addresses = addresses or Addresses()
        self._unsent: list[Link] = []
        self._unparsed: dict[Reader, None] = {}  # in the order of their reads
        self._timer: asyncio.Handle | None = None
        self.period_s = PERIOD_S_MIN
        self._polls = 0
        self._ready = 0
        self._offset_ns: int | None = None  # of the last look
        self._polled_ns = 0  # when that was

    def _add(self, channel: socket.socket, reader: Reader) -> Link:
        """Take over a connected, non-blocking socket."""
        link = Link(channel, reader, self._forget, self._unsent.append, self._has_read)
        self._links[link.fileno()] = link
        events = select.EPOLLIN
        if inbox.look is not None and isinstance(reader.inbox, Inbox):
            self._inboxes[link.fileno()] = reader.inbox
            # Edge-triggered, because the compiled code reads until nothing is left.
            events = _EDGES
        self._epoll.register(channel, events)
        if self._timer is None:
            self._offset_ns = None  # as long as nobody looked, the clock may have been set
            self._timer = self._loop.call_later(self.period_s, self._poll)
        return link

    async def connect(self, host: str, port: int, reader: Reader) -> Link:
        """Connect to the first address that answers, and wait until it does.

        Raises:
            OSError: no address answers; gaierror: the name cannot be resolved.
        """
        options = [(socket.SOL_SOCKET, SO_TIMESTAMPNS)]
        return self._add(await self._addresses.connect(host, port, options), reader)

    def close(self) -> None:
        """Close all links and stop polling."""
        for link in list(self._links.values()):
            link.abort()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._epoll.close()

    def _forget(self, number: int) -> None:
        del self._links[number]
        self._inboxes.pop(number, None)
        self._epoll.unregister(number)

    def _has_read(self, reader: Reader) -> None:
        self._unparsed[reader] = None

    def _poll(self) -> None:
        if not self._links:
            self._timer = None
            return
        now_ns, offset_ns = wall_clock.read()  # the wall clock may be stepped
        before_ns, self._offset_ns = self._offset_ns, offset_ns
        since_ns, self._polled_ns = self._polled_ns, now_ns
        if before_ns is not None and abs(offset_ns - before_ns) > _STEP_NS:
            self._ready += self._read(offset_ns, since_ns)
        else:
            self._ready += (
                self._read_compiled(offset_ns) if self._inboxes else self._read(offset_ns)
            )
        if self._unsent:
            waiting, self._unsent[:] = self._unsent[:], []
            for link in waiting:
                link.flush()
        self._parse_some()
        if self._unparsed:
            self._timer = self._loop.call_soon(self._poll)
            return
        self._polls += 1
        if self._polls == _POLLS_PER_CHANGE:
            self._change_period()
        self._timer = self._loop.call_later(self.period_s, self._poll)

    def _read(self, offset_ns: int, since_ns: int | None = None) -> int:
        """Read what has arrived; return how many links had data.

        Args:
            offset_ns: wall clock minus perf_counter.
            since_ns: the last look, if the wall clock was set after it.
        """
        ready = self._epoll.poll(0)
        for number, _ in ready:
            link = self._links.get(number)
            if link is not None:  # None: closed while another link was read
                link.read(offset_ns, since_ns)
                if since_ns is not None and number in self._inboxes:  # an edge for what is left
                    self._epoll.modify(number, _EDGES)
        return len(ready)

    def _read_compiled(self, offset_ns: int) -> int:
        """Read all links that have an inbox in one compiled call; return how many had data."""
        assert inbox.look is not None, "else nothing is in _inboxes"
        links = self._links
        ended, lost, others, ready, reads = inbox.look(
            self._epoll.fileno(), self._inboxes, offset_ns
        )
        if self._tally is not None:
            self._tally.reads += reads
        for number in ended:
            self._unparsed[links[number].reader] = None
        for number, code in lost:
            if number in links:
                links[number].lose(OSError(code, os.strerror(code)) if code else None)
        for number in others:
            if number in links:
                links[number].read(offset_ns)
        return ready

    def _parse_some(self) -> None:
        ended = 0
        while self._unparsed and ended < _RESPONSES_PER_POLL:
            reader = next(iter(self._unparsed))
            del self._unparsed[reader]
            ended += reader.parse()

    def _change_period(self) -> None:
        share = self._ready / (self._polls * max(1, len(self._links)))
        if share > _READY_SHARE_MAX:
            self.period_s = max(PERIOD_S_MIN, self.period_s / 2)
        elif share < _READY_SHARE_MIN:
            self.period_s = min(PERIOD_S_MAX, self.period_s + 0.001)
        self._polls = self._ready = 0


def can_stamp() -> bool:
    """Return whether the kernel stamps the packets of a TCP socket, as Linux does."""
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as channel:
            channel.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
    except OSError:
        return False
    return hasattr(select, "epoll")
