"""One request and its answer on their way through: where each ends, and what is kept of them."""

from typing import Any

import httptools

from llmdyno.record.entries import Passed
from llmdyno.record.heads import Head
from llmdyno.record.protocols import endpoint_of
from llmdyno.wire.exchange import RESPONSE_BYTES_MAX
from llmdyno.wire.inbox import Piece

# Of a request that may have to be sent again, because its connection was stale.
_RESENT_BYTES_MAX = 8 * 2**20
_REQUEST_BYTES_MAX = 256 * 2**20  # a longer one passes, too, and is recorded without its prompt
_NO_BODY = frozenset({204, 304})
# Of an answer in chunks that came and cannot have ended it: so many are parsed at once at most,
# some tenths of a millisecond.
_UNPARSED_MAX = 64
_END = b"\r\n\r\n"  # of a chunked body; the last read may hold only a part of it


class Exchange:
    """One request and its answer, each followed by a parser.

    Args:
        head: of the request.
    """

    def __init__(self, head: Head) -> None:
        self.is_asked = False  # the request is whole
        self.has_answer = False  # something of it came
        self.is_answered = False
        self.ends_with_connection = False  # only the end of the connection ends the answer
        self.goes_on = True  # both sides keep their connections
        self.can_be_sent_again = True
        self.sent = bytearray()  # of the request, as long as it can be sent again
        self.passed: Passed | None = None  # what is recorded; None: the request is of another kind
        if head.method == "POST" and endpoint_of(head.path):
            self.passed = Passed(path=head.path, headers=head.headers)
        self._is_head = head.method == "HEAD"
        self._is_chunked = False  # the answer
        self._unparsed: list[Piece] = []  # of the answer, in their order
        self._body = bytearray()
        self._kept_bytes = 0
        self._asking: Any = httptools.HttpRequestParser(_Asked(self))
        self._answer: _Answer | None = _Answer(self)
        self._answering: Any = httptools.HttpResponseParser(self._answer)

    def note_sent(self, data: bytes, *, connected: bool) -> None:
        """Keep what goes to the server: it may have to be sent again, or is not sent yet."""
        if not self.can_be_sent_again:
            return
        self.sent += data
        if connected and len(self.sent) > _RESENT_BYTES_MAX:
            self.can_be_sent_again = False
            self.sent.clear()

    def follow_request(self, data: bytes, now_ns: int) -> None:
        """Parse a part of the request.

        Raises:
            HttpParserError: it is no HTTP, or goes on after its end.
        """
        if self.passed is not None:  # first, because what is no HTTP has come, too
            self.passed.asked_ns = now_ns
        self._asking.feed_data(data)

    def note_answer(self, data: bytes, now_ns: int) -> bool:
        """Keep a part of the answer until it is parsed; return whether that should be soon.

        It need not be while the part cannot be the answer's last: a token costs an append then.
        """
        self._unparsed.append((now_ns, data))
        return (
            not self._is_chunked
            or len(data) < len(_END)
            or data.endswith(_END)
            or len(self._unparsed) >= _UNPARSED_MAX
        )

    def follow_answer(self) -> None:
        """Parse what has come of the answer.

        Raises:
            HttpParserUpgrade: the server speaks another protocol from here on.
            HttpParserError: it is no HTTP.
        """
        parts, self._unparsed = self._unparsed, []
        if parts and not self.has_answer:
            self.has_answer = True
            self.can_be_sent_again = False
            self.sent.clear()
        assert self._answer is not None, "not released"
        for now_ns, data in parts:
            self._answer.now_ns = now_ns
            self._answering.feed_data(data)

    def ended(self, error: str, now_ns: int) -> Passed:
        """Return what is recorded of a request that is recorded and has ended.

        Args:
            error: what broke it; empty: its answer is whole, and ended when its last part came.
            now_ns: when it broke.
        """
        assert self.passed is not None, "asked by the caller"
        assert self._answer is not None, "not released"
        self.passed.body = bytes(self._body)
        self.passed.end_ns = now_ns if error else self._answer.now_ns
        self.passed.error = error
        return self.passed

    def release(self) -> None:
        """Let go of the parsers, which hold on to this object; nothing is followed any more.

        So it is gone at once, and no collection has to find it while others' bytes wait.
        """
        self._asking = self._answering = self._answer = None

    # The parsers' callbacks.

    def take_request_body(self, data: bytes) -> None:
        """Keep a part of the request's body, if the request is recorded."""
        if self.passed is not None and len(self._body) + len(data) <= _REQUEST_BYTES_MAX:
            self._body += data

    def take_request_end(self) -> None:
        """Note that the request is whole."""
        self.is_asked = True
        self.goes_on = bool(self._asking.should_keep_alive())

    def take_answer_head(self, headers: dict[str, str]) -> None:
        """Note how the answer ends; a HEAD has no body whatever its headers say."""
        status = self._answering.get_status_code()
        if status < 200:  # another one follows
            headers.clear()
            return
        if self.passed is not None:
            self.passed.status = status
            self.passed.answer_headers = headers
        if self._is_head:
            closes = "close" in headers.get("connection", "").lower()
            self._take_end(keep=not closes)
            return
        self._is_chunked = "chunked" in headers.get("transfer-encoding", "").lower()
        framed = self._is_chunked or "content-length" in headers or status in _NO_BODY
        self.ends_with_connection = not framed

    def take_answer_body(self, data: bytes, now_ns: int) -> None:
        """Keep a part of the answer's body, if the request is recorded."""
        self._kept_bytes += len(data)
        if self.passed is not None and self._kept_bytes <= RESPONSE_BYTES_MAX:
            self.passed.pieces.append((now_ns, data))

    def take_answer_end(self) -> None:
        """Note that the answer is whole, unless this was only an interim one."""
        if self._answering.get_status_code() >= 200:
            self._take_end(keep=bool(self._answering.should_keep_alive()))

    def _take_end(self, *, keep: bool) -> None:
        self.is_answered = True
        self.goes_on = self.goes_on and keep


class _Asked:
    """What httptools calls while it parses a request."""

    def __init__(self, exchange: Exchange) -> None:
        self._exchange = exchange

    def on_message_begin(self) -> None:
        if self._exchange.is_asked:
            raise httptools.HttpParserError("a request ahead of the answer to the one before")

    def on_body(self, body: bytes) -> None:
        self._exchange.take_request_body(body)

    def on_message_complete(self) -> None:
        self._exchange.take_request_end()


class _Answer:
    """What httptools calls while it parses an answer."""

    def __init__(self, exchange: Exchange) -> None:
        self._exchange = exchange
        self._headers: dict[str, str] = {}
        self.now_ns = 0

    def on_header(self, name: bytes, value: bytes) -> None:
        key, text = name.decode("latin-1").lower(), value.decode("latin-1")
        self._headers[key] = f"{self._headers[key]}, {text}" if key in self._headers else text

    def on_headers_complete(self) -> None:
        self._exchange.take_answer_head(self._headers)

    def on_body(self, body: bytes) -> None:
        self._exchange.take_answer_body(body, self.now_ns)

    def on_message_complete(self) -> None:
        self._exchange.take_answer_end()
