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
    errno.ENOMEM: LIMIT,  # no config is "out-of-memory" by what was never started
    errno.ENOENT: "missing-library",
}


@contextmanager
def starting(what: str) -> Iterator[None]:
    """Turn the system's refusal to start a process into a failure that has a class.

    Where the system's reason tells no class (E2BIG, EACCES) it stands alone, and the class is
    "died".

    Args:
        what: is started, as the subject of a sentence.

    Raises:
        ServerError: the system starts no process.
    """
    try:
        yield
    except OSError as error:
        kind = _KINDS.get(error.errno or 0)
        meaning = "" if kind is None else f": {FAILURES[kind]} ({kind})"
        raise ServerError(
            kind or "died", f"{what} cannot be started: {reason(error)}{meaning}."
        ) from error
