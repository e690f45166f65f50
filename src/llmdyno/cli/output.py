"""What commands share: what they print and where, interruption, numpy without threads."""

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def terminate_as_interrupt() -> Iterator[None]:
    """Take SIGTERM as Ctrl-C, so that servers are stopped and results kept."""
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def import_numpy() -> None:
    """Import numpy without the threads of its BLAS, which measure nothing and spin as they start.

    The variable goes at once: servers that we start are not to inherit it.
    """
    name = "OPENBLAS_NUM_THREADS"
    if name in os.environ:
        return
    os.environ[name] = "1"
    try:
        import numpy as np  # noqa: F401
    finally:
        del os.environ[name]


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

    print_line(msgspec.json.encode(document).decode())
