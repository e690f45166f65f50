"""HTTP/1.1 over one connection, built for exact stamps at little cost: the client's hot path.

While a response streams in, a read costs one clock reading and one append; nothing is parsed until
the response can have ended. An HTTP response with a chunked body ends with an empty line, so a read
that does not end with CRLF CRLF and is not a bare splinter of it cannot be the last one: it is kept
with its stamp and parsed later, by llhttp, piece by piece, so that every byte of the body still
bears the stamp of the read that brought it. Bodies framed in another way are parsed at once. What a
broken server says so oddly that its end goes unseen is parsed when nothing has come for a second
(`Connection.look_after`).
"""

import asyncio
import errno
import re
import socket
import ssl
from collections.abc import Iterator, Sequence
from functools import lru_cache
from time import perf_counter_ns
from typing import TypeVar, cast
from urllib.parse import SplitResult, quote, urlsplit

import httptools
import msgspec

from llmdyno.errors import UsageError
from llmdyno.wire.compression import codings, decode
from llmdyno.wire.inbox import Inbox, Piece
from llmdyno.wire.poller import Link, Poller
from llmdyno.wire.tunnel import ProxyError, open_tunnel

CONNECT_TIMEOUT_S = 30.0
HEADER_BYTES_MAX = 256 * 2**10
RESPONSE_BYTES_MAX = 256 * 2**20
_SILENCE_NS = 1_000_000_000
# What a path may hold as it is (RFC 3986); a percent sign is taken for an escape made already.
_PATH_CHARACTERS = "/%:@!$&'()*+,;=~"
_BEARER = "Bearer "
_REDACTED = "[API key]"
_TELLING_CHARACTERS = 4  # so many of a key may tell whose it is
TLS_ALERT = b"\x15\x03"  # what a TLS server says to plain HTTP
# What connect() says when it is this machine that can hold no more connections.
_OUR_LIMITS = frozenset({errno.EMFILE, errno.ENFILE, errno.EADDRNOTAVAIL, errno.ENOBUFS})
_ERRNO = re.compile(r"\[Errno (\d+)\]")


# Scheme of a URL → (with TLS, gRPC, the port if it names none).
_SCHEMES = {
    "http": (False, False, 80),
    "https": (True, False, 443),
    "grpc": (False, True, 8001),  # Triton's
    "grpcs": (True, True, 443),
}


class Target(msgspec.Struct, frozen=True, kw_only=True):
    """Where requests go. `headers` may hold a secret: it is never written anywhere."""

    host: str
    port: int
    tls: bool
    prefix: str  # of the URL's path, without a slash at the end
    headers: tuple[tuple[str, str], ...] = ()
    ca_cert: str | None = None  # PEM file of whom to trust, instead of the system's store
    insecure: bool = False  # trust anybody
    proxy: tuple[str, int] | None = None
    rpc: bool = False  # it speaks gRPC, not HTTP/1.1: see grpc.py

    def head(self, path: str, length: int) -> bytes:
        """Return the request line and headers of a POST with a JSON body of `length` bytes."""
        # A proxy that is to pass on plain HTTP needs the whole URL.
        origin = f"http://{self.authority}" if self.proxy and not self.tls else ""
        lines = [
            f"POST {origin}{self.prefix}{path} HTTP/1.1",
            f"Host: {self.authority}",
            "Content-Type: application/json",
            "Accept: text/event-stream, application/json",
            "Accept-Encoding: identity",
            "User-Agent: llmdyno",
            f"Content-Length: {length}",
            *(f"{name}: {value}" for name, value in self.headers),
        ]
        return ("\r\n".join(lines) + "\r\n\r\n").encode()

    def redact(self, text: str) -> str:
        """Return a server's words without the API key, should it repeat that to us, or begin to."""
        return "".join(self.redact_parts([text]))

    def redact_parts(self, parts: Sequence[str]) -> list[str]:
        """Do so with words that came in parts: the key may be spread over some of them."""
        text = "".join(parts)
        secrets = [value.removeprefix(_BEARER) for _, value in self.headers]
        hidden = [place for secret in secrets for place in _places(text, secret)]
        if not hidden:
            return list(parts)
        found = []
        start = 0
        for part in parts:
            end = start + len(part)
            kept = ""
            at = start
            for low, high in sorted(hidden):
                kept += text[at : max(at, min(low, end))]
                kept += _REDACTED if start <= low < end else ""
                at = min(end, max(at, high))
            found.append(kept + text[at:end])
            start = end
        return found

    @property
    def authority(self) -> str:
        """host:port, as in the Host header."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"


def _places(text: str, secret: str) -> Iterator[tuple[int, int]]:
    """Yield where the secret stands, and where the text ends with the beginning of it.

    Words are cut short before they come here, maybe in the middle of the key.
    """
    end = 0
    while (start := text.find(secret, end)) >= 0:
        end = start + len(secret)
        yield start, end
    for length in range(len(secret) - 1, _TELLING_CHARACTERS - 1, -1):
        if text.endswith(secret[:length], end):
            yield len(text) - length, len(text)
            return


def parse_url(
    url: str,
    api_key: str | None = None,
    *,
    ca_cert: str | None = None,
    insecure: bool = False,
    proxy: str | None = None,
) -> Target:
    """Read a base URL, and what belongs to it.

    Raises:
        UsageError: it is not an http:// or https:// URL with a host, or the rest does not fit it.
    """
    parts = _split("--url", url)
    if parts.scheme not in _SCHEMES or not parts.hostname:
        raise UsageError(f"--url {url}: write http://host:port, https://host or grpc://host:port.")
    if parts.port == 0:
        raise UsageError(f"--url {url}: nobody listens on port 0.")
    tls, rpc, port = _SCHEMES[parts.scheme]
    if (ca_cert or insecure) and not tls:
        flag = "--ca-cert" if ca_cert else "--insecure"
        raise UsageError(f"{flag}: only for an https:// URL, or grpcs://, not for {url}.")
    prefix = parts.path.rstrip("/")
    if rpc and prefix:
        raise UsageError(f"--url {url}: a gRPC address ends with its port, without {prefix}.")
    target = Target(
        host=parts.hostname,
        port=parts.port or port,
        tls=tls,
        rpc=rpc,
        prefix=quote(prefix, safe=_PATH_CHARACTERS),
        headers=_authorization(api_key),
        ca_cert=ca_cert,
        insecure=insecure,
        proxy=_parse_proxy(proxy) if proxy else None,
    )
    if ca_cert:
        try:
            _tls_context(ca_cert, insecure, rpc)
        except (OSError, ssl.SSLError) as error:
            raise UsageError(
                f"--ca-cert {ca_cert}: is no PEM file of certificates: {error}."
            ) from error
    return target


def _authorization(api_key: str | None) -> tuple[tuple[str, str], ...]:
    """Return the header with the key; a line end after it, as files have, is none of the key's."""
    key = (api_key or "").strip()
    if not key.isprintable() or " " in key:
        raise UsageError("--api-key-env: the variable holds a blank or a line end within the key.")
    return (("Authorization", _BEARER + key),) if key else ()


def _parse_proxy(proxy: str) -> tuple[str, int]:
    parts = _split("--proxy", proxy)
    if parts.scheme != "http" or not parts.hostname or not parts.port or parts.path.strip("/"):
        raise UsageError(f"--proxy {proxy}: write http://host:port.")
    return parts.hostname, parts.port


def _split(flag: str, url: str) -> SplitResult:
    try:
        parts = urlsplit(url)
        _ = parts.port  # read here because it may be no number
        (parts.hostname or "").encode("idna")  # as getaddrinfo will
    except UnicodeError as error:
        raise UsageError(f"{flag} {url}: the host's name cannot be one: {error}.") from error
    except ValueError as error:
        raise UsageError(f"{flag} {url}: {error}.") from error
    if parts.query or parts.fragment:
        raise UsageError(f"{flag} {url}: must end with the path, without ? or #.")
    if parts.username is not None:
        advice = "; see --api-key-env" if flag == "--url" else ""
        raise UsageError(f"{flag}: must not hold a user name or password{advice}.")
    return parts


class Response(msgspec.Struct, kw_only=True):
    """What came back for one request, complete or not. Stamps are perf_counter_ns readings."""

    sent_ns: int
    end_ns: int = 0
    first_byte_ns: int = -1
    status: int = 0
    headers: dict[str, str] = {}  # names in lower case
    pieces: list[Piece] = []  # the body, with the stamp of the read that brought each part
    reads: int = 0
    error: str = ""  # the error class, if the exchange did not come to its end
    detail: str = ""

    def body(self) -> bytes:
        """Return the whole body."""
        return b"".join(piece for _, piece in self.pieces)


class Meter:
    """Counts that a live display reads while responses stream in."""

    def __init__(self) -> None:
        self.reads = 0


class Exchange(asyncio.Protocol):
    """One connection, in whatever protocol: at most one request under way, kept alive between."""

    inbox: Inbox | None = None  # where reads may go without take(), see polled.Reader

    def __init__(self, meter: Meter) -> None:
        self._meter = meter
        self._transport: asyncio.Transport | None = None
        self._response: Response | None = None
        self._done: asyncio.Future[Response] | None = None
        self._stamp_ns = 0  # of the read that is being parsed
        self._received_bytes = 0  # of the response, as far as it was parsed
        self.served = 0  # responses that came to their end on this connection

    @property
    def usable(self) -> bool:
        """Whether another request can be sent."""
        return self._transport is not None and not self._transport.is_closing()

    def send(self, data: bytes) -> asyncio.Future[Response]:
        """Send a request; the future always gets a Response, never an exception."""
        raise NotImplementedError

    def take(self, stamp_ns: int, data: bytes) -> bool:
        """Take a read with its stamp; whether it is to be parsed now."""
        raise NotImplementedError

    def parse(self) -> bool:
        """Parse what was taken; whether the request under way has ended with it."""
        raise NotImplementedError

    def look_after(self, now_ns: int) -> None:
        """See, once a second or so, to what has been put off."""

    def came_before(self, moment_ns: int) -> list[Piece]:
        """Return the body so far, if all of it came before that moment; else nothing."""
        pieces = [] if self._response is None else self._response.pieces
        return pieces if pieces and pieces[-1][0] < moment_ns else []

    def give_up(self, error: str, detail: str = "") -> None:
        """End the request under way as it stands, with that error class, and the connection."""
        self.parse()
        self._break_off(error, detail)

    def close(self) -> None:
        """Close the connection at once."""
        if self._transport is not None:
            self._transport.abort()
            self._transport = None

    # What the event loop calls.

    def connection_made(self, transport: asyncio.BaseTransport | Link) -> None:
        """Take the transport."""
        # uvloop's transports are none of asyncio's classes, though they have the same methods.
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        """Stamp a read."""
        if self.take(perf_counter_ns(), data):
            self.parse()

    def eof_received(self) -> None:
        """Leave the rest to connection_lost."""

    def connection_lost(self, error: Exception | None) -> None:
        """End the request under way, if any: cut off, or never answered."""
        self._transport = None
        response = self._response
        if response is None:
            return
        if isinstance(error, ssl.SSLError):
            self._finish("tls", str(error))
        elif error is not None:
            self._finish(
                "reset", error.strerror or str(error) if isinstance(error, OSError) else ""
            )
        elif response.first_byte_ns < 0:
            self._finish("no-response", "the server closed the connection without answering")
        else:
            self._finish("truncated", "the server closed the connection in the middle")

    def _break_off(self, error: str, detail: str) -> None:
        self._finish(error, detail)
        self.close()

    def _begin(self) -> asyncio.Future[Response]:
        """Begin a request, sent now."""
        assert self._done is None, "one request at a time"
        done = self._done = asyncio.get_running_loop().create_future()
        self._received_bytes = 0
        self._response = Response(sent_ns=perf_counter_ns())
        return done

    def _finish(self, error: str = "", detail: str = "") -> None:
        response, done = self._response, self._done
        if response is None or done is None:
            return
        self._response = self._done = None
        response.end_ns = perf_counter_ns() if error else self._stamp_ns
        for coding in reversed(codings(response.headers)):
            response.pieces, broken = decode(response.pieces, coding)
            if broken and not error:
                error, detail = "bad-encoding", broken
        response.error, response.detail = error, detail
        if not done.done():
            done.set_result(response)


class Connection(Exchange):
    """An exchange in HTTP/1.1."""

    def __init__(self, meter: Meter) -> None:
        super().__init__(meter)
        self._parser = httptools.HttpResponseParser(self)
        self.inbox: Inbox = Inbox()  # read, stamped, not parsed yet
        self._headers_complete = False
        self._between_chunks = False
        self._until_close = False
        self._asked = False  # a request was sent, ever

    def send(self, data: bytes) -> asyncio.Future[Response]:
        """Send a request; the future always gets a Response, never an exception."""
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
        """Take what the server said, if anything, before it was asked for its answer.

        It has hung up, or it speaks first: to say that it is overloaded, or because it is no HTTP.
        """
        for _, data in self.inbox.take():
            self.inbox.add(sent_ns, data)
        transport = self._transport
        self.connection_lost(None)
        if transport is not None:
            transport.abort()

    def look_after(self, now_ns: int) -> None:
        """Parse what waits if nothing has come for a second, or far too much."""
        if self.inbox:
            silent = now_ns - self.inbox.last_ns > _SILENCE_NS
            if silent or self.inbox.size > RESPONSE_BYTES_MAX:
                self._parse()

    # What the poller calls instead.

    def take(self, stamp_ns: int, data: bytes) -> bool:
        """Keep a read with its stamp; whether it can be the last one of the response."""
        self._meter.reads += 1
        return self.inbox.add(stamp_ns, data)

    def parse(self) -> bool:
        """Parse what was kept; whether the request under way has ended with it."""
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

    # What the parser calls.

    def on_message_begin(self) -> None:
        """Go on with no server that answers more often than it is asked."""
        if self._response is None:
            self.close()

    def on_header(self, name: bytes, value: bytes) -> None:
        """Keep one header; what is said twice is a list."""
        if self._response is not None:
            headers = self._response.headers
            key, text = name.decode("latin-1").lower(), value.decode("latin-1")
            headers[key] = f"{headers[key]}, {text}" if key in headers else text

    def on_headers_complete(self) -> None:
        """Learn the status and how the body is framed."""
        response = self._response
        if response is None:
            return
        status = self._parser.get_status_code()
        if status < 200:  # 1xx: the real one follows
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
        """Note that a chunk has begun."""
        self._between_chunks = False

    def on_chunk_complete(self) -> None:
        """Note that a chunk has ended."""
        self._between_chunks = True

    def on_body(self, body: bytes) -> None:
        """Keep a part of the body with its stamp."""
        if self._response is not None:
            self._response.pieces.append((self._stamp_ns, body))

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
        if not self._asked:  # it waits for the first request: see _take_unasked
            return
        if self._between_chunks and self._read_chunks():
            return
        waiting = self.inbox.take()
        try:
            for self._stamp_ns, data in waiting:
                response = self._response
                if response is None:  # nobody asked: not a server to go on with
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
            else:
                self._break_off("bad-http", str(error))
        else:
            if self._response is not None and waiting:
                self._limit(waiting)

    def _read_chunks(self) -> bool:
        """Read the rest of a chunked body without the parser, if it is all there and all plain."""
        response, reads, last_ns = self._response, len(self.inbox), self.inbox.last_ns
        if response is None or self._received_bytes + self.inbox.size > RESPONSE_BYTES_MAX:
            return False
        pieces = self.inbox.take_chunks()
        if pieces is None:
            return False
        response.pieces += pieces
        response.reads += reads
        self._stamp_ns = last_ns
        keep = self._parser.should_keep_alive()
        self._parser = httptools.HttpResponseParser(self)  # that one still waits for the rest
        self._complete(keep)
        return True

    def _limit(self, parsed: list[Piece]) -> None:
        """Break off a response that goes on and on."""
        self._received_bytes += sum(len(data) for _, data in parsed)
        detail = f"no end after {self._received_bytes} bytes"
        if self._received_bytes > RESPONSE_BYTES_MAX:
            assert self._response is not None, "asked by _parse"
            self._response.pieces = []  # to read so much would hold up everybody
            self._break_off("too-large", detail)
        elif not self._headers_complete and self._received_bytes > HEADER_BYTES_MAX:
            self._break_off("header-too-large", detail)

    def _finish(self, error: str = "", detail: str = "") -> None:
        self.inbox.at_once = True  # what comes now was not asked for
        super()._finish(error, detail)


class ConnectError(Exception):
    """A connection could not be made; `kind` is the record's error class."""

    def __init__(self, kind: str, detail: str) -> None:
        super().__init__(detail)
        self.kind = kind


AnyExchange = TypeVar("AnyExchange", bound=Exchange)


async def connect(
    target: Target,
    meter: Meter,
    timeout_s: float = CONNECT_TIMEOUT_S,
    poller: Poller | None = None,
) -> Connection:
    """Open a connection for HTTP/1.1; plain TCP is read by the poller, if there is one.

    Raises:
        ConnectError: it could not be made.
    """
    return await connect_as(Connection(meter), target, timeout_s, poller)


async def connect_as(
    exchange: AnyExchange, target: Target, timeout_s: float, poller: Poller | None
) -> AnyExchange:
    """Open a connection for an exchange, and return that.

    Raises:
        ConnectError: it could not be made.
    """
    via = f"the proxy {target.proxy[0]}:{target.proxy[1]}" if target.proxy else target.authority
    try:
        async with asyncio.timeout(timeout_s):
            await _open(exchange, target, poller)
    except TimeoutError as error:
        raise ConnectError("connect-timeout", f"no connection in {timeout_s:g} s") from error
    except ProxyError as error:
        raise ConnectError("proxy", str(error)) from error
    except socket.gaierror as error:
        host = target.proxy[0] if target.proxy else target.host
        raise ConnectError("dns", f"{host}: {error.strerror}") from error
    except ssl.SSLCertVerificationError as error:
        raise ConnectError("tls-certificate", error.verify_message or str(error)) from error
    except ssl.SSLError as error:
        raise ConnectError("tls", str(error)) from error
    except OSError as error:
        raise ConnectError(_kind(error), f"{via}: {error.strerror or error}") from error
    return exchange


async def _open(exchange: Exchange, target: Target, poller: Poller | None) -> None:
    loop = asyncio.get_running_loop()
    context = _tls_context(target.ca_cert, target.insecure, target.rpc) if target.tls else None
    # What is no plain HTTP goes through a proxy in a tunnel.
    if target.proxy and (context or target.rpc):
        channel = await open_tunnel(target.proxy, target.authority)
        name = target.host if context else None
        await loop.create_connection(
            lambda: exchange, sock=channel, ssl=context, server_hostname=name
        )
        return
    host, port = target.proxy or (target.host, target.port)
    if poller is not None and context is None:
        exchange.connection_made(await poller.connect(host, port, exchange))
    else:
        await loop.create_connection(lambda: exchange, host, port, ssl=context)


def _kind(error: OSError) -> str:
    """Return the class of a connection that was not made."""
    # A host with several addresses that all fail is one error with all of them in its text.
    codes = {error.errno} if error.errno else {int(n) for n in _ERRNO.findall(str(error))}
    if codes & _OUR_LIMITS:
        return "client-limit"
    if codes == {errno.ECONNREFUSED} or isinstance(error, ConnectionRefusedError):
        return "refused"
    if isinstance(error, ConnectionResetError | ConnectionAbortedError):
        return "reset"
    return "connect-timeout" if codes == {errno.ETIMEDOUT} else "unreachable"


@lru_cache(maxsize=4)
def _tls_context(ca_cert: str | None, insecure: bool, rpc: bool) -> ssl.SSLContext:
    """Return whom to trust; reading the system's store takes long enough to do it once."""
    context = ssl.create_default_context(cafile=ca_cert)
    context.set_alpn_protocols(["h2" if rpc else "http/1.1"])
    if insecure:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context
