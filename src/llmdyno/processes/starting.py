"""What the system says when it starts no further process: a fault of the machine, in a sentence."""

import errno
from collections.abc import Iterator
from contextlib import contextmanager

from llmdyno.errors import ServerError, reason
from llmdyno.processes.diagnosis import FAILURES, LIMIT

_KINDS = {
    errno.EAGAIN: LIMIT,  # of processes: a user's, or a container's
    errno.EMFILE: LIMIT,  # of files that we may open
    errno.ENFILE: LIMIT,  # of files that all may open
    errno.ENOMEM: "out-of-memory",
}


@contextmanager
def starting(what: str) -> Iterator[None]:
    """Turn the system's refusal to start a process into a failure that has a class.

    Args:
        what: is started, as the subject of a sentence.

    Raises:
        ServerError: the system starts no process.
    """
    try:
        yield
    except OSError as error:
        kind = _KINDS.get(error.errno or 0, "missing-library")
        raise ServerError(
            kind, f"{what} cannot be started: {reason(error)}: {FAILURES[kind]} ({kind})."
        ) from error
