"""gRPC over one connection, behind the same interface as HTTP/1.1: exchange.Exchange.

Each user has a connection with one call at a time on it, and the poller reads it with the kernel's
stamps, as it reads HTTP/1.1. Streams on one shared connection would share its reads, its flow
control and its faults. grpcio's event queue costs three to four times the CPU time per token. So
this file implements HTTP/2 itself, as far as a call needs it. Frames are parsed as they arrive,
because the server may expect an answer at any time (PING, SETTINGS). Messages are parsed after the
stream has ended. We grant the server the largest flow-control window, so that no stream waits for
the client that measures it. A call ends with the server's trailers. A gRPC status other than OK is
the error class grpc-NAME.
"""

import asyncio
import re
import ssl
import struct
from collections.abc import Callable, Iterable
from urllib.parse import unquote

import hpack

from llmdyno.faults import grpc_fault
from llmdyno.wire.exchange import (
    HEADER_BYTES_MAX,
    RESPONSE_BYTES_MAX,
    TLS_ALERT,
    Exchange,
    Meter,
    Response,
)
from llmdyno.wire.inbox import Piece
from llmdyno.wire.poller import Link
from llmdyno.wire.target import Target

_DATA, _HEADERS, _RST_STREAM, _SETTINGS, _PING, _GOAWAY = 0, 1, 3, 4, 6, 7
_WINDOW_UPDATE, _CONTINUATION = 8, 9
_END_STREAM, _ACK, _END_HEADERS, _PADDED, _PRIORITY = 0x1, 0x1, 0x4, 0x8, 0x20
_HEAD_BYTES = 9  # of a frame
_FRAME_BYTES_MAX = 16_384  # HTTP/2's default, in both directions; we never allow more
_WINDOW_FIRST, _WINDOW_MAX = 65_535, 2**31 - 1
_INITIAL_WINDOW_SIZE = 4  # the number of that setting (RFC 9113, section 6.5.2)
_STREAM_MAX = 2**31 - 1
_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_PORT_OF_ITS_OWN = "gRPC has a port of its own (Triton: 8001)"
# The error codes of RST_STREAM and GOAWAY, by number (RFC 9113, section 7).
_REASONS = """
    NO_ERROR PROTOCOL_ERROR INTERNAL_ERROR FLOW_CONTROL_ERROR SETTINGS_TIMEOUT STREAM_CLOSED
    FRAME_SIZE_ERROR REFUSED_STREAM CANCEL COMPRESSION_ERROR CONNECT_ERROR ENHANCE_YOUR_CALM
    INADEQUATE_SECURITY HTTP_1_1_REQUIRED
""".split()


def _frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    return struct.pack(">I", len(payload) << 8 | kind) + struct.pack(">BI", flags, stream) + payload


def _setting(name: int, value: int) -> bytes:
    return struct.pack(">HI", name, value)


_HELLO = (
    _PREFACE
    # Setting 2 is ENABLE_PUSH: none. Then the largest windows for a stream and the connection.
    + _frame(_SETTINGS, 0, 0, _setting(2, 0) + _setting(_INITIAL_WINDOW_SIZE, _WINDOW_MAX))
    + _frame(_WINDOW_UPDATE, 0, 0, struct.pack(">I", _WINDOW_MAX - _WINDOW_FIRST))
)


def call(target: Target, path: str, message: bytes) -> bytes:
    """Return the bytes of a call for GrpcConnection.send, which fills in the stream's number.

    Args:
        target: the server, with the headers that every call gets.
        path: of the method, such as /inference.GRPCInferenceService/ModelInfer.
        message: with gRPC's prefix of flag and length: see kserve.framed.
    """
    given = {header.key for header in target.headers}
    fields = [
        (":method", "POST"),
        (":scheme", "https" if target.tls else "http"),
        (":path", path),
        (":authority", target.authority),
        ("content-type", "application/grpc"),
        ("te", "trailers"),
        *(() if "user-agent" in given else (("user-agent", "llmdyno"),)),
        *((header.key, header.value) for header in target.headers),
    ]
    block = b"".join(b"\0" + _literal(name) + _literal(value) for name, value in fields)
    return _frame(_HEADERS, _END_HEADERS, 0, block) + message


def _literal(text: str) -> bytes:
    """Return a header's name or value as an HPACK literal, neither indexed nor compressed."""
    data = text.encode()
    if len(data) < 0x7F:
        return bytes([len(data)]) + data
    rest, length = len(data) - 0x7F, bytearray([0x7F])
    while rest > 0x7F:
        length.append(rest & 0x7F | 0x80)
        rest >>= 7
    return bytes([*length, rest]) + data


class _Message:
    """The message of the call under way, sent as far as the server's windows allow."""

    def __init__(self) -> None:
        self.unsent = b""
        self.window = _WINDOW_FIRST  # bytes that the server allows: on the connection,
        self.stream_window = 0  # on the stream of the call,
        self._stream_window_first = _WINDOW_FIRST  # and on a new stream
        self._stream = 0

    def begin(self, stream: int, message: bytes) -> None:
        """Set the message of a new call; nothing is sent yet."""
        self._stream = stream
        self.unsent = message
        self.stream_window = self._stream_window_first

    def allow_streams(self, window: int) -> None:
        """Set the window of new streams in bytes; the open stream's moves by the difference."""
        self.stream_window += window - self._stream_window_first
        self._stream_window_first = window

    def next_frames(self) -> bytes:
        """Return the part of the message that may be sent now, in frames, and count it as sent."""
        frames = []
        while self.unsent:
            size = min(len(self.unsent), self.window, self.stream_window, _FRAME_BYTES_MAX)
            if size <= 0:
                break
            part, self.unsent = self.unsent[:size], self.unsent[size:]
            self.window -= size
            self.stream_window -= size
            flags = 0 if self.unsent else _END_STREAM
            frames.append(_frame(_DATA, flags, self._stream, part))
        return b"".join(frames)


class _HeaderBlock:
    """Headers or trailers: one HEADERS frame and its CONTINUATION frames."""

    def __init__(self) -> None:
        self._decoder = hpack.Decoder()
        self._parts: list[bytes] = []
        self.ends_stream = False

    def begin(self, *, ends_stream: bool) -> None:
        """Start a new block and drop the parts of the one before."""
        self._parts = []
        self.ends_stream = ends_stream

    def add(self, part: bytes) -> int:
        """Add the payload of one frame; return the size of the block so far in bytes."""
        self._parts.append(part)
        return sum(map(len, self._parts))

    def decode(self) -> Iterable[tuple[bytes, bytes]]:
        """Return the (name, value) pairs of a whole block; each must be decoded exactly once."""
        fields: Iterable[tuple[bytes, bytes]] = self._decoder.decode(
            b"".join(self._parts), raw=True
        )
        return fields


class GrpcConnection(Exchange):
    """A connection for gRPC calls, one at a time, each on a new HTTP/2 stream."""

    def __init__(self, meter: Meter) -> None:
        super().__init__(meter)
        self._block = _HeaderBlock()
        self._message = _Message()
        self._rest = b""  # the beginning of a frame
        self._next_stream = 1
        self._stream = b""  # of the call under way, as its frames name it
        self._taken_bytes = 0  # read since the last WINDOW_UPDATE
        self._taken: list[Piece] = []  # reads, stamped, not parsed yet
        self._greeted = False  # the server has sent anything at all
        self._leaving = False  # GOAWAY: the server accepts no further call on this connection
        self._frames: dict[int, Callable[[int, bytes, bytes], None]] = {
            _DATA: self._on_data,
            _HEADERS: self._on_headers,
            _CONTINUATION: self._on_continuation,
            _RST_STREAM: self._on_reset,
            _SETTINGS: self._on_settings,
            _PING: self._on_ping,
            _GOAWAY: self._on_goaway,
            _WINDOW_UPDATE: self._on_window_update,
        }

    @property
    def usable(self) -> bool:
        """Whether the connection is open and the server still accepts calls on it."""
        return super().usable and not self._leaving and self._next_stream <= _STREAM_MAX

    def send(self, data: bytes) -> asyncio.Future[Response]:
        """Start a call whose bytes call() made; returns at once, as Exchange.send does."""
        done = self._begin()
        if self._transport is None:
            self.connection_lost(None)
            return done
        self._stream = struct.pack(">I", self._next_stream)
        end = _HEAD_BYTES + int.from_bytes(data[:3], "big")
        head = data[:5] + self._stream + data[_HEAD_BYTES:end]
        if self._taken_bytes:
            head = self._given_back() + head
        self._message.begin(self._next_stream, data[end:])
        self._next_stream += 2
        self._transport.write(head + self._message.next_frames())
        return done

    def _given_back(self) -> bytes:
        """Return the WINDOW_UPDATE that lets the server send as many bytes as we have read."""
        taken, self._taken_bytes = self._taken_bytes, 0
        return _frame(_WINDOW_UPDATE, 0, 0, struct.pack(">I", taken))

    # The event loop or the poller calls these.

    def connection_made(self, transport: asyncio.BaseTransport | Link) -> None:
        """Keep the transport and send the preface with our settings."""
        super().connection_made(transport)
        self._write(_HELLO)

    def connection_lost(self, error: Exception | None) -> None:
        """End the call under way, if any; if nothing ever came, say that it may not be gRPC."""
        self.parse()
        if self._greeted or isinstance(error, ssl.SSLError):
            super().connection_lost(error)
        else:
            self._transport = None
            detail = f"the server hung up without a word of HTTP/2: {_PORT_OF_ITS_OWN}"
            self._finish("reset" if error else "no-response", detail)

    def take(self, stamp_ns: int, data: bytes) -> bool:
        """Keep a read with its stamp; returns True, because a frame may need an answer now."""
        self._meter.reads += 1
        self._taken.append((stamp_ns, data))
        return True

    def parse(self) -> bool:
        """Parse the frames that were read and answer them; return whether the call has ended."""
        asked = self._response is not None
        taken, self._taken = self._taken, []
        for stamp_ns, data in taken:
            self._parse(stamp_ns, data)
        return asked and self._response is None

    def _parse(self, stamp_ns: int, data: bytes) -> None:
        self._greeted = True
        response = self._response
        if response is not None:
            response.reads += 1
        self._stamp_ns = stamp_ns
        buffer = self._rest + data if self._rest else data
        at, size = 0, len(buffer)
        while size - at >= _HEAD_BYTES:
            length = int.from_bytes(buffer[at : at + 3], "big")
            if length > _FRAME_BYTES_MAX:
                self._break_off(*_no_frame(buffer[at:]))
                return
            end = at + _HEAD_BYTES + length
            if end > size:
                break
            kind, flags, stream = buffer[at + 3], buffer[at + 4], buffer[at + 5 : at + 9]
            payload = buffer[at + _HEAD_BYTES : end]
            at = end
            if kind in self._frames:  # unknown frames are ignored (RFC 9113, section 4.1)
                try:
                    self._frames[kind](flags, stream, payload)
                except (ValueError, IndexError, struct.error, hpack.HPACKError) as error:
                    self._break_off("bad-grpc", f"a broken frame of kind {kind}: {error}")
            if self._transport is None:
                return
        self._rest = buffer[at:]

    def _write(self, data: bytes) -> None:
        if self._transport is not None:
            self._transport.write(data)

    # Frames.

    def _on_data(self, flags: int, stream: bytes, payload: bytes) -> None:
        self._taken_bytes += len(payload)
        response = self._response
        if response is None or stream != self._stream:  # a frame of a call that has ended
            return
        if flags & _PADDED:
            payload = _unpadded(payload)
        response.add(self._stamp_ns, payload)
        self._received_bytes += len(payload)
        if self._received_bytes > RESPONSE_BYTES_MAX:
            self._break_off("too-large", f"no end after {self._received_bytes} bytes")
        elif flags & _END_STREAM and response.status in {0, 200}:
            self._break_off("bad-grpc", "the stream ended without a gRPC status")
        elif flags & _END_STREAM:  # an HTTP response without gRPC, such as a proxy's 503
            self._finish()

    def _on_headers(self, flags: int, stream: bytes, payload: bytes) -> None:
        if flags & _PADDED:
            payload = _unpadded(payload)
        if flags & _PRIORITY:
            payload = payload[5:]
        self._block.begin(ends_stream=bool(flags & _END_STREAM))
        self._on_continuation(flags, stream, payload)

    def _on_continuation(self, flags: int, stream: bytes, payload: bytes) -> None:
        size = self._block.add(payload)
        if size > HEADER_BYTES_MAX:
            self._break_off("header-too-large", f"no end after {size} bytes")
        elif flags & _END_HEADERS:
            # Blocks of old streams are decoded too: they change HPACK's table for later ones.
            fields = self._block.decode()
            if stream == self._stream and self._response is not None:
                self._on_fields(self._response, fields)

    def _on_fields(self, response: Response, fields: Iterable[tuple[bytes, bytes]]) -> None:
        """Note the headers or the trailers of the call under way."""
        if response.first_byte_ns < 0:
            response.first_byte_ns = self._stamp_ns
        for name, value in fields:
            response.headers[name.decode("latin-1")] = value.decode("latin-1")
        said = response.headers
        status = said.get(":status", "")
        response.status = int(status) if status.isdecimal() else 0
        if not self._block.ends_stream:
            return
        self.served += 1
        if response.status not in {0, 200}:  # an HTTP error without gRPC
            self._finish()
        elif not response.status:
            self._break_off("bad-grpc", "a header without a status")
        elif "grpc-status" not in said:
            self._break_off("bad-grpc", "the stream ended without a gRPC status")
        elif said["grpc-status"] == "0":
            self._finish()
        else:
            words = unquote(said.get("grpc-message", ""), errors="replace")
            self._finish(grpc_fault(said["grpc-status"]), words)

    def _on_reset(self, _flags: int, stream: bytes, payload: bytes) -> None:
        if stream == self._stream:
            (reason,) = struct.unpack(">I", payload)
            fault = "truncated" if self._begun else "reset"
            self._finish(fault, f"the server reset the stream: {_reason(reason)}")

    def _on_settings(self, flags: int, _stream: bytes, payload: bytes) -> None:
        if flags & _ACK:
            return
        for name, value in struct.iter_unpack(">HI", payload):
            if name == _INITIAL_WINDOW_SIZE:
                self._message.allow_streams(value)
        self._write(_frame(_SETTINGS, _ACK, 0) + self._message.next_frames())

    def _on_ping(self, flags: int, _stream: bytes, payload: bytes) -> None:
        if not flags & _ACK:
            self._write(_frame(_PING, _ACK, 0, payload))

    def _on_goaway(self, _flags: int, _stream: bytes, payload: bytes) -> None:
        last, reason = struct.unpack_from(">II", payload)
        self._leaving = True
        if self._response is None:
            self.close()
        elif int.from_bytes(self._stream, "big") > last & _STREAM_MAX:
            words = payload[8:][:200].decode(errors="replace")
            detail = f"the server takes no more calls here: {_reason(reason)} {words}".strip()
            self._break_off("no-response", detail)

    def _on_window_update(self, _flags: int, stream: bytes, payload: bytes) -> None:
        (more,) = struct.unpack(">I", payload)
        if stream == self._stream:
            self._message.stream_window += more
        elif not any(stream):
            self._message.window += more
        if self._message.unsent:
            self._write(self._message.next_frames())

    def _finish(self, error: str = "", detail: str = "") -> None:
        if self._message.unsent:  # the response came before the whole message was sent
            self._message.unsent = b""
            self._leaving = True
        super()._finish(error, detail)


def _unpadded(payload: bytes) -> bytes:
    if payload[0] >= len(payload):
        raise ValueError("more padding than payload")
    return payload[1 : len(payload) - payload[0]]


def _reason(number: int) -> str:
    return _REASONS[number] if number < len(_REASONS) else str(number)


def _no_frame(data: bytes) -> tuple[str, str]:
    """Return the error class of bytes that are no HTTP/2 frame, and what they seem to be."""
    if data.startswith(TLS_ALERT):
        return "tls", "the server speaks TLS: give its URL with grpcs://"
    if re.match(rb"HTTP/1\.\d", data):
        return "bad-grpc", f"the server speaks HTTP/1.1: give http:// in --url; {_PORT_OF_ITS_OWN}"
    return "bad-grpc", f"no frame of HTTP/2: {data[:40]!r}"
