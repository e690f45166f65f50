"""What a connection has read and not parsed yet: bytes, with the kernel's stamp of each read.

While tokens stream in, nothing is parsed: see http1.py. If _reading.c was compiled on installation,
`Inbox` is its compiled class, and poller.py reads all connections in one call (`look`). Otherwise,
or with LLMDYNO_PLAIN_READING=1 in the environment, it is `PlainInbox`: the same in Python.
"""

import os
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

# A stamp and the bytes that one read brought, in order.
Piece = tuple[int, bytes]

READ_BYTES = 16_384
# The longest splinter of a chunked body's end ("0\r\n\r\n") that can arrive alone.
SPLINTER_BYTES = 4


class PlainInbox:
    """Keeps reads with their stamps until they are parsed."""

    def __init__(self) -> None:
        self._pieces: list[Piece] = []
        self.at_once = True  # whether each read is to be parsed when it comes

    def __len__(self) -> int:
        """Return how many reads are kept."""
        return len(self._pieces)

    def add(self, stamp_ns: int, data: bytes) -> bool:
        """Keep a read; return whether to parse now, as it may be the last one of a response.

        A chunked body ends with an empty line, whole or in splinters. A full read is no token, and
        such reads must not pile up unparsed.
        """
        self._pieces.append((stamp_ns, data))
        return (
            self.at_once
            or not SPLINTER_BYTES < len(data) < READ_BYTES
            or data.endswith(b"\r\n\r\n")
        )

    def take(self) -> list[Piece]:
        """Return what was read, and forget it."""
        pieces, self._pieces = self._pieces, []
        return pieces

    def take_chunks(self) -> list[Piece] | None:
        """Return the body that the reads hold, in chunks without extensions, and forget them.

        None: the reads hold something else than whole chunks and their end. This class never
        looks, and always returns None.
        """
        return None

    @property
    def last_ns(self) -> int:
        """When the last read came; 0 if none waits."""
        return self._pieces[-1][0] if self._pieces else 0

    @property
    def size(self) -> int:
        """Bytes that wait."""
        return sum(len(data) for _, data in self._pieces)


# (epoll's descriptor, inboxes by descriptor, wall clock less perf_counter) → descriptors of what is
# to be parsed, (descriptor, errno or 0) of what was lost, descriptors without an inbox, how many
# were ready, how many reads there were.
Look = Callable[
    [int, Mapping[int, "Inbox"], int], tuple[list[int], list[tuple[int, int]], list[int], int, int]
]
look: Look | None

if TYPE_CHECKING:
    Inbox = PlainInbox
    look = None
else:
    try:
        if os.environ.get("LLMDYNO_PLAIN_READING") == "1":
            raise ImportError
        from llmdyno.wire._reading import Inbox, look
    except ImportError:  # no C compiler when it was installed
        Inbox, look = PlainInbox, None
