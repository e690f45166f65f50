"""`python -m llmdyno.record.scribe`: a process that turns what has passed into lines of the trace.

It reads frames from its standard input: the settings, then each request that has ended. When the
input ends, because the proxy is told to stop or was killed, it writes what is left, says as JSON
how many requests there are, and ends.
"""

import asyncio
import os
import signal
import sys
from collections.abc import Iterator
from typing import BinaryIO

import msgspec

from llmdyno.errors import UsageError
from llmdyno.record.entries import Passed, Settings, Written
from llmdyno.record.lines import Counter, Lines

_LENGTH_BYTES = 8
_NICENESS = 5  # the proxy and the server come first
COMMAND = (sys.executable, "-m", "llmdyno.record.scribe")


def frame(data: bytes) -> bytes:
    """Return data with its length before it, as the scribe reads it."""
    return len(data).to_bytes(_LENGTH_BYTES) + data


def frames(source: BinaryIO) -> Iterator[bytes]:
    """Yield the frames of a stream up to its end; the last one may be cut off, and is left out."""
    while len(size := source.read(_LENGTH_BYTES)) == _LENGTH_BYTES:
        data = source.read(int.from_bytes(size))
        if len(data) < int.from_bytes(size):
            return
        yield data


def write_all(received: Iterator[bytes], lines: Lines, file: int) -> Written:
    """Append a line for each request, at once; what cannot be written is counted, not raised.

    Args:
        received: each request that has ended, encoded.
        lines: makes the lines.
        file: of the trace, open for appending.
    """
    written = Written()
    decode = msgspec.msgpack.Decoder(Passed).decode
    for data in received:
        line = lines.line(decode(data))
        try:
            _append(file, msgspec.json.encode(line) + b"\n")
        except OSError as error:
            written.lost += 1
            written.why_lost = written.why_lost or error.strerror or str(error)
            continue
        written.requests += 1
        written.failed += line["outcome"] == "failed"
    return written


def _append(file: int, line: bytes) -> None:
    """Write a whole line, or take back what was written of it."""
    size = os.fstat(file).st_size
    try:
        while line:
            line = line[os.write(file, line) :]
    except OSError:
        os.truncate(file, size)
        raise


def _counter(path: str) -> Counter | None:
    if not path:
        return None
    from llmdyno.bench.recount import LocalTokenizer

    tokenizer = LocalTokenizer(path)

    def count(text: str, *, special: bool) -> int:
        return sum(asyncio.run(tokenizer.count([text], special=special)))

    return count


def main() -> None:
    """Read frames until the input ends."""
    # The proxy says when it is over. systemd sends all three to every process of a service; Linux
    # hangs up on us if we stand still while the proxy dies.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    os.nice(_NICENESS)
    received = frames(sys.stdin.buffer)
    settings = msgspec.msgpack.decode(next(received), type=Settings)
    try:
        lines = Lines(settings, _counter(settings.tokenizer))
    except UsageError as error:
        sys.exit(str(error))
    file = os.open(settings.out, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        written = write_all(received, lines, file)
    finally:
        os.close(file)
    sys.stdout.buffer.write(msgspec.json.encode(written))


if __name__ == "__main__":
    main()
