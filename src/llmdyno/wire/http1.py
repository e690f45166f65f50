"""HTTP/1.1 over one connection, built for exact stamps at little cost: the client's hot path.

While a response streams in, a read costs one clock reading and one append. Nothing is parsed until
a read that may be the last one. A chunked body ends with an empty line, so a read that neither ends
with CRLF CRLF nor is a short fragment of it cannot be the last. Such a read is kept with its stamp.
llhttp parses the reads later, one by one, so that every byte of the body keeps the stamp of the
read that brought it. Bodies with other framing are parsed at once. If a broken server ends its
response in a form that this rule does not see, `Connection.look_after` parses it after a second of
silence.
"""

import asyncio
import re

import httptools

from llmdyno.wire.exchange import (
    HEADER_BYTES_MAX,
    RESPONSE_BYTES_MAX,
    TLS_ALERT,
    Exchange,
    Meter,
    Response,
)
from llmdyno.wire.inbox import Inbox, Piece

# A frame with the settings (or GOAWAY) of HTTP/2, which gRPC speaks, on no stream.
_HTTP2 = re.compile(rb"\0[\0-\xff]{2}[\x04\x07][\0-\xff]\0{4}", re.DOTALL)
_SILENCE_NS = 1_000_000_000


class Connection(Exchange):
    """A connection that speaks HTTP/1.1; httptools calls its on_… methods while it parses."""

    def __init__(self, meter: Meter) -> None:
        super().__init__(meter)
        self._parser = httptools.HttpResponseParser(self)
        self.inbox: Inbox = Inbox()  # read, stamped, not parsed yet
        self._headers_complete = False
        self._between_chunks = False
        self._until_close = False
        self._asked = False  # whether a request has ever been sent

    def send(self, data: bytes) -> asyncio.Future[Response]:
        """Send a request; returns at once, as Exchange.send does."""
        self._asked = True
        self.inbox.at_once = True
        self._headers_complete = self._between_chunks = False
        done = self._begin()
        assert self._response is not None
        if self._transport is None or self.inbox:
            self._take_unasked(self._response.sent_ns)
        else:
            self._transport.write(data)
        return done

    def _take_unasked(self, sent_ns: int) -> None:
        """Use bytes that came before the request as the response to it.

        An overloaded server may send an error and hang up at once; a server that is no HTTP server
        may speak first.
        """
        for _, data in self.inbox.take():
            self.inbox.add(sent_ns, data)
        transport = self._transport
        self.connection_lost(None)
        if transport is not None:
            transport.abort()

    def look_after(self, now_ns: int) -> None:
        """Parse the deferred reads if nothing has come for a second, or if far too much has."""
        if self.inbox:
            silent = now_ns - self.inbox.last_ns > _SILENCE_NS
            if silent or self.inbox.size > RESPONSE_BYTES_MAX:
                self._parse()

    # The poller calls these.

    def take(self, stamp_ns: int, data: bytes) -> bool:
        """Keep a read with its stamp; return whether it may be the last one of the response."""
        self._meter.reads += 1
        return self.inbox.add(stamp_ns, data)

    def parse(self) -> bool:
        """Parse the kept reads; return whether the request under way has ended with them."""
        asked = self._response is not None
        self._parse()
        return asked and self._response is None

    def connection_lost(self, error: Exception | None) -> None:
        """End the request under way, if any: complete, cut off, or never answered."""
        self._transport = None
        self._parse()
        if error is None and self._headers_complete and self._until_close:
            self._finish()
        else:
            super().connection_lost(error)

    # The parser calls these.

    def on_message_begin(self) -> None:
        """Close the connection if the server starts a response that nobody asked for."""
        if self._response is None:
            self.close()

    def on_header(self, name: bytes, value: bytes) -> None:
        """Keep one header; the values of a repeated one are joined by commas."""
        if self._response is not None:
            headers = self._response.headers
            key, text = name.decode("latin-1").lower(), value.decode("latin-1")
            headers[key] = f"{headers[key]}, {text}" if key in headers else text

    def on_headers_complete(self) -> None:
        """Note the status, and decide by the framing whether reads can be parsed later."""
        response = self._response
        if response is None:
            return
        status = self._parser.get_status_code()
        if status < 200:  # 1xx: the final response follows
            return
        response.status = status
        # Only the last coding frames the body.
        coding = response.headers.get("transfer-encoding", "").lower()
        chunked = coding.rpartition(",")[2].strip() == "chunked"
        self._until_close = not chunked and "content-length" not in response.headers
        self.inbox.at_once = not chunked
        self._headers_complete = True
        self._between_chunks = chunked

    def on_chunk_header(self) -> None:
        """Note that a chunk has begun, so the body cannot end here."""
        self._between_chunks = False

    def on_chunk_complete(self) -> None:
        """Note that a chunk has ended, so the body may end next."""
        self._between_chunks = True

    def on_body(self, body: bytes) -> None:
        """Keep a part of the body with its stamp."""
        if self._response is not None:
            self._response.add(self._stamp_ns, body)

    def on_message_complete(self) -> None:
        """End the request, unless this was only an interim response."""
        if self._response is None:
            return
        if not self._headers_complete:  # 1xx
            self._response.headers.clear()
            return
        self._complete(self._parser.should_keep_alive() and not self._until_close)

    def _complete(self, keep: bool) -> None:
        self.served += 1
        self._finish()
        if not keep:
            self.close()

    def _parse(self) -> None:
        if not self._asked:  # these bytes wait for the first request: see _take_unasked
            return
        if self._between_chunks and self._read_chunks():
            return
        waiting = self.inbox.take()
        try:
            for self._stamp_ns, data in waiting:
                response = self._response
                if response is None:  # bytes without a request: such a connection is not reused
                    self.close()
                    return
                if response.first_byte_ns < 0:
                    response.first_byte_ns = self._stamp_ns
                response.reads += 1
                self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            self._break_off("bad-http", "the server switched to another protocol")
        except httptools.HttpParserError as error:
            if not self._headers_complete and data.startswith(TLS_ALERT):
                self._break_off("tls", "the server speaks TLS: give its URL with https://")
            elif not self._headers_complete and _HTTP2.match(data):
                self._break_off("bad-http", "the server speaks gRPC: give its URL with grpc://")
            else:
                self._break_off("bad-http", str(error))
        else:
            if self._response is not None and waiting:
                self._limit(waiting)

    def _read_chunks(self) -> bool:
        """Read the rest of a chunked body without the parser; return whether that was possible.

        It is if the whole rest is there and no chunk has an extension.
        """
        response, reads, last_ns = self._response, len(self.inbox), self.inbox.last_ns
        if response is None or self._received_bytes + self.inbox.size > RESPONSE_BYTES_MAX:
            return False
        chunks = self.inbox.take_chunks()
        if chunks is None:
            return False
        response.add_rest(*chunks)
        response.reads += reads
        self._stamp_ns = last_ns
        keep = self._parser.should_keep_alive()
        self._parser = httptools.HttpResponseParser(self)  # the old one still expects the body
        self._complete(keep)
        return True

    def _limit(self, parsed: list[Piece]) -> None:
        """Break off a response that is longer than we accept."""
        self._received_bytes += sum(len(data) for _, data in parsed)
        detail = f"no end after {self._received_bytes} bytes"
        if self._received_bytes > RESPONSE_BYTES_MAX:
            assert self._response is not None, "asked by _parse"
            self._response.pieces = []  # reading so much would delay all users
            self._break_off("too-large", detail)
        elif not self._headers_complete and self._received_bytes > HEADER_BYTES_MAX:
            self._break_off("header-too-large", detail)

    def _finish(self, error: str = "", detail: str = "") -> None:
        self.inbox.at_once = True  # bytes from here on belong to no request
        super()._finish(error, detail)
