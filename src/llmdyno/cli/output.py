"""What commands share: what they print and where, interruption, numpy without threads.

A standard stream may be closed (`>&-`), full (a disk), or a pipe whose reader has gone. The
results of a run lie in files, so a stream that fails must not end the work: what people read is
dropped, and a result that cannot be written ends the command with one sentence.
"""

import codecs
import io
import json
import os
import select
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from llmdyno.errors import StorageError
from llmdyno.processes.stops import handled, stops

EXIT_THRESHOLD_MISSED = 1  # done, but an SLO or a limit was missed
_STDIN, _STDOUT, _STDERR = range(3)


@contextmanager
def terminate_as_interrupt() -> Iterator[None]:
    """Take SIGTERM and a closed terminal as Ctrl-C: servers are stopped, results kept."""
    numbers = [number for number in stops() if number != signal.SIGINT]
    with handled(signal.default_int_handler, numbers):
        yield


def say(line: str) -> None:
    """Write a line for people, to standard error."""
    sys.stderr.write(line + "\n")
    sys.stderr.flush()


def print_line(line: str) -> None:
    """Write a line of a result, to standard output."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def print_json(document: Any) -> None:
    """Write a result as one line of JSON, to standard output."""
    import msgspec

    written = msgspec.json.encode(document).decode()
    if not written.isascii() and codecs.lookup(sys.stdout.encoding or "utf-8").name != "utf-8":
        written = json.dumps(json.loads(written))  # a terminal of another encoding gets escapes
    print_line(written)


class _Raw(io.FileIO):
    """A standard stream below its buffer; after its first fault it takes everything and drops it.

    Args:
        number: the file descriptor.
        tells: raise StorageError at the first fault.
        fault: what is wrong with it from the start, in words; "" if nothing is.
    """

    def __init__(self, number: int, *, tells: bool, fault: str = "") -> None:
        super().__init__(number, "wb", closefd=False)
        self._tells = tells
        self._fault = fault
        self._lost = False

    def write(self, data: Any, /) -> int:
        if not self._lost and not self._fault:
            try:
                return self._write(data)
            except BrokenPipeError:
                self._fault = "has lost its reader"
            except OSError as error:
                self._fault = f"cannot be written: {error.strerror}"
        told, self._lost = self._lost, True
        if self._tells and not told:
            raise StorageError(f"standard output {self._fault}; the result was not written there.")
        return len(data)

    def _write(self, data: Any) -> int:
        """Write some of the data; wait for a stream that another process made non-blocking."""
        while (written := super().write(data)) is None:
            select.select((), (self,), ())
        return written


def guard_streams() -> None:
    """Put streams that survive every fault in the place of standard output and standard error.

    Closed descriptors become the null device first: a socket must not get the number of a standard
    stream, and a child must not get a socket for its standard output.
    """
    closed = {number for number in (_STDIN, _STDOUT, _STDERR) if _fill(number)}
    for name, number in (("stdout", _STDOUT), ("stderr", _STDERR)):
        stream = getattr(sys, name)
        is_our_own = stream is not None and stream is getattr(sys, f"__{name}__")
        if not is_our_own and number not in closed:
            continue  # what a test or an embedding program has put there
        raw = _Raw(number, tells=number == _STDOUT, fault="is closed" if number in closed else "")
        guarded = io.TextIOWrapper(
            io.BufferedWriter(raw),
            encoding=stream.encoding if stream else "utf-8",
            errors="backslashreplace",  # a word that the terminal's encoding lacks is no fault
            line_buffering=stream.line_buffering if stream else False,
        )
        setattr(sys, name, guarded)


def _fill(number: int) -> bool:
    """Put the null device where a standard descriptor is closed; return whether it was."""
    try:
        os.fstat(number)
    except OSError:
        null = os.open(os.devnull, os.O_RDWR)
        if null != number:
            os.dup2(null, number)
            os.close(null)
        os.set_inheritable(number, True)
        return True
    return False


def flush_output() -> None:
    """Write what is still held back for standard output.

    Raises:
        StorageError: it cannot be written.
    """
    sys.stdout.flush()
