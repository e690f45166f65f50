"""The inbox of a connection: reads that are not parsed yet, each with the kernel's stamp.

While tokens stream in, nothing is parsed: see http1.py. If _reading.c was compiled on installation,
`Inbox` is its compiled class, and poller.py reads all connections in one call (`look`). Otherwise,
or with LLMDYNO_PLAIN_READING=1 in the environment, it is `PlainInbox`: the same in Python, but for
a body's chunks, which it leaves to the parser.
"""

import os
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, overload

# A stamp and the bytes that one read brought, in order.
Piece = tuple[int, bytes]

READ_BYTES = 16_384
# A read of up to so many bytes may be a fragment of a chunked body's end ("0\r\n\r\n").
SPLINTER_BYTES = 4


# A body in one: its bytes, where the part of each read ends in it, and the stamps of the reads.
Chunks = tuple[bytes, list[int], list[int]]


class Pieces(Sequence[Piece]):
    """A body in pieces that are cut only when somebody asks for one; few do.

    Args:
        data: the whole body.
        ends: where each piece ends in it, ascending.
        stamps_ns: of each piece.
    """

    def __init__(self, data: bytes, ends: list[int], stamps_ns: list[int]) -> None:
        self.data = data
        self.ends = ends
        self.stamps_ns = stamps_ns

    def __len__(self) -> int:
        """Return the number of pieces."""
        return len(self.ends)

    def __eq__(self, other: object) -> bool:
        """Compare with pieces of either kind."""
        return isinstance(other, Sequence) and list(self) == list(other)

    __hash__ = None  # type: ignore[assignment]  # as a list has none

    @overload
    def __getitem__(self, place: int) -> Piece: ...
    @overload
    def __getitem__(self, place: slice) -> list[Piece]: ...
    def __getitem__(self, place: int | slice) -> Piece | list[Piece]:
        """Return a piece, or several."""
        if isinstance(place, slice):
            return [self[number] for number in range(*place.indices(len(self)))]
        number = range(len(self))[place]  # counts from the end, too, and knows its bounds
        start = self.ends[number - 1] if number else 0
        return self.stamps_ns[number], self.data[start : self.ends[number]]


class PlainInbox:
    """Keeps reads with their stamps until they are parsed."""

    def __init__(self) -> None:
        self._pieces: list[Piece] = []
        self.at_once = True  # whether each read is to be parsed when it comes

    def __len__(self) -> int:
        """Return the number of reads that are kept."""
        return len(self._pieces)

    def add(self, stamp_ns: int, data: bytes) -> bool:
        """Keep a read; return whether to parse now, because it may be the last of its response.

        A chunked body ends with an empty line, which may arrive in fragments. A read that fills the
        buffer is parsed too: it is more than a token, and such reads must not pile up.
        """
        self._pieces.append((stamp_ns, data))
        return (
            self.at_once
            or not SPLINTER_BYTES < len(data) < READ_BYTES
            or data.endswith(b"\r\n\r\n")
        )

    def take(self) -> list[Piece]:
        """Return the reads in order, and empty the inbox."""
        pieces, self._pieces = self._pieces, []
        return pieces

    def take_chunks(self) -> Chunks | None:
        """Return the body if the reads are exactly its whole chunks and their end; then empty it.

        None: they are not, or a chunk has an extension. This class always returns None; only the
        compiled one looks.
        """
        return None

    @property
    def last_ns(self) -> int:
        """The stamp of the last read in perf_counter_ns; 0 if the inbox is empty."""
        return self._pieces[-1][0] if self._pieces else 0

    @property
    def size(self) -> int:
        """The bytes of all reads that are kept."""
        return sum(len(data) for _, data in self._pieces)


# Args: epoll's descriptor, the inboxes by descriptor, wall clock minus perf_counter in ns.
# Returns: the descriptors to parse now; (descriptor, errno or 0) of lost connections; descriptors
# without an inbox; the number of ready connections; the number of reads.
Look = Callable[
    [int, Mapping[int, "Inbox"], int], tuple[list[int], list[tuple[int, int]], list[int], int, int]
]
look: Look | None
# What wire/runs.py is for; it stands here so that a module compiled before it is not used at all.
SplitRun = Callable[[bytes, int, bytes, bytes], tuple[list[int], bytes]]
split_run: SplitRun | None

if TYPE_CHECKING:
    Inbox = PlainInbox
    look = split_run = None
else:
    try:
        if os.environ.get("LLMDYNO_PLAIN_READING") == "1":
            raise ImportError
        from llmdyno.wire._reading import Inbox, look, split_run
    except ImportError:  # no C compiler when it was installed, or compiled from an older source
        Inbox, look, split_run = PlainInbox, None, None
