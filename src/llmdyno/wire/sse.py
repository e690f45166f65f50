"""Server-sent events: splits the body of a streamed response into its events, on bytes.

The input is the body in pieces, each with the stamp of the read that brought it. A piece may end
anywhere, inside an event or inside a UTF-8 character. An event gets the stamp of the piece that
completed it. Line ends may be LF, CRLF or CR, and a byte order mark may come first. Comments and
fields other than `data` and `event` are skipped (WHATWG HTML, "Server-sent events", section 9.2).
Events whose name says that they only keep the connection alive are skipped too; the data of one
whose name says that it is an error is an `ErrorData`.
"""

import re
from bisect import bisect_left
from collections.abc import Iterable, Iterator
from itertools import accumulate

from llmdyno.wire.inbox import Piece, Pieces

_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_NAME = re.compile(rb"^event: *(\S.*?) *$", re.MULTILINE)
# Events of these names only keep the connection alive; their data is ignored.
_KEEP_ALIVE = re.compile(rb"ping|pong|heartbeat|keep[-_ ]?alive", re.IGNORECASE)
# The last word decides: "error", "stream_error", "response.error".
_ERROR = re.compile(rb"(?:.*[-_. ])?(?:error|exception)", re.IGNORECASE)


class ErrorData(bytes):
    """The data of an event whose name says that it is an error; it may be empty."""

    __slots__ = ()


class Body:
    """A whole body as one bytes object, with the offset at which each piece begins."""

    def __init__(self, pieces: Iterable[Piece]) -> None:
        if isinstance(pieces, Pieces):
            self.data, self._ends, self._stamps = pieces.data, pieces.ends, pieces.stamps_ns
            return
        pieces = list(pieces)
        self.data = b"".join([data for _, data in pieces])
        self._ends = list(accumulate([len(data) for _, data in pieces]))
        self._stamps = [stamp for stamp, _ in pieces]

    def stamps_ns(self, ends: list[int]) -> list[int]:
        """Return, for each end offset, the stamp of the piece that brought the byte before it."""
        stamps = self._stamps
        first = bisect_left(self._ends, ends[0]) if ends else 0
        if self._ends[first : first + len(ends)] == ends:  # an event a piece: the usual case
            return stamps[first : first + len(ends)]
        return [stamps[bisect_left(self._ends, end)] for end in ends]

    def between(self, start: int, end: int) -> Iterator[Piece]:
        """Yield the pieces between two offsets, the first and the last one cut to them."""
        for number in range(bisect_left(self._ends, start + 1), len(self._ends)):
            begins = self._ends[number - 1] if number else 0
            if begins >= end:
                return
            yield self._stamps[number], self.data[max(start, begins) : min(end, self._ends[number])]


def events(pieces: Iterable[Piece]) -> Iterator[Piece]:
    """Yield (stamp, data) for each event with data; several `data` lines are joined with LF.

    An event that its name calls an error is yielded without data, too.
    """
    # Parts of the event under way; joined only when it is complete, because each join copies all.
    begun: list[bytes] = []
    line_ended = False  # the parts so far end with LF
    cr_ended = False  # the last piece ended with CR, so a LF at the start of this one belongs to it
    mark = _BYTE_ORDER_MARK  # only before the first event
    stamp = 0
    for stamp, piece in pieces:
        if not begun and _is_whole(piece):
            mark, cr_ended = b"", False
            yield stamp, piece[6:-2]
            continue
        body = piece[1:] if cr_ended and piece.startswith(b"\n") else piece
        cr_ended = piece.endswith(b"\r") if piece else cr_ended
        if b"\r" in body:
            body = body.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        if begun and body:
            begun.append(body)
            if b"\n\n" not in body and not (line_ended and body.startswith(b"\n")):
                line_ended = body.endswith(b"\n")
                continue
            body = b"".join(begun)
            begun = []
        *complete, rest = body.split(b"\n\n")
        if rest:
            begun = [rest]
            line_ended = rest.endswith(b"\n")
        for event in complete:
            if (data := _data(event.removeprefix(mark))) is not None:
                yield stamp, data
            mark = b""
    # The standard drops a last event without a blank line. Many servers close right after it, so
    # dropping it would lose tokens that did arrive.
    if begun and (data := _data(b"".join(begun).removeprefix(mark))) is not None:
        yield stamp, data


def _is_whole(piece: bytes) -> bool:
    """Whether a piece is one event with one line of data: the usual case, and the cheapest."""
    return (
        piece.startswith(b"data: ")
        and piece.find(b"\n") == len(piece) - 2
        and piece.endswith(b"\n")
        and b"\r" not in piece
    )


def ends_within_event(body: bytes) -> bool:
    """Whether a body ends in the middle of an event: without the blank line that ends each."""
    plain = body.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
    return bool(plain.strip(b"\n")) and not plain.endswith(b"\n\n")


def _data(event: bytes) -> bytes | None:
    if event.startswith(b"data:") and b"\n" not in event:
        return event[6:] if event.startswith(b" ", 5) else event[5:]
    name = _NAME.search(event)
    if name is not None and _KEEP_ALIVE.fullmatch(name[1]):
        return None
    lines = [
        line[5:].removeprefix(b" ")
        for line in event.split(b"\n")
        if line.startswith(b"data:") or line == b"data"
    ]
    if name is not None and _ERROR.fullmatch(name[1]):
        return ErrorData(b"\n".join(lines))
    return b"\n".join(lines) if lines else None
