"""Server-sent events, split on bytes: the body of a streamed response into its events.

The input is what the transport kept: pieces of the body, each with the stamp of the read that
brought it. A piece may end anywhere, inside an event or inside a UTF-8 character; an event bears
the stamp of the piece that completed it. Line ends may be LF, CRLF or CR, comments and fields other
than `data` are skipped (WHATWG HTML, "Server-sent events", section 9.2).
"""

from collections.abc import Iterable, Iterator

# A stamp and the bytes that one read brought, in order.
Piece = tuple[int, bytes]


def events(pieces: Iterable[Piece]) -> Iterator[Piece]:
    """Yield (stamp, data) for each event with data; several `data` lines are joined with LF."""
    rest = b""
    stamp = 0
    for stamp, body in pieces:
        rest = rest + body if rest else body
        if b"\r" in rest:
            # A CR at the very end may be half of a CRLF: leave it for the next piece.
            held = b"\r" if rest.endswith(b"\r") else b""
            rest = (
                rest[: len(rest) - len(held)].replace(b"\r\n", b"\n").replace(b"\r", b"\n") + held
            )
        if b"\n\n" not in rest:
            continue
        *complete, rest = rest.split(b"\n\n")
        for event in complete:
            if (data := _data(event)) is not None:
                yield stamp, data
    # The standard drops an event that no blank line ended; servers that close right after their
    # last event are common, and dropping it would lose tokens that did arrive.
    if rest and (data := _data(rest.replace(b"\r", b"\n"))) is not None:
        yield stamp, data


def _data(event: bytes) -> bytes | None:
    if event.startswith(b"data: ") and b"\n" not in event:
        return event[6:]
    lines = [
        line[5:].removeprefix(b" ")
        for line in event.split(b"\n")
        if line.startswith(b"data:") or line == b"data"
    ]
    return b"\n".join(lines) if lines else None
