"""The faults of the world, by name; our own bugs are assertions, not errors.

    DynoError                 one clear sentence, and the exit status it ends with
    ├── UsageError       (2)  wrong usage or config: nothing was started
    ├── HomeError        (2)  where an engine is installed was named wrong
    ├── TargetError      (3)  the server under test cannot be reached or does not answer
    ├── ServerError      (3)  a server that we started failed; `kind` says how
    ├── StorageError     (3)  results cannot be written or read (disk full, no such run)
    └── InterruptError (130)  the user stopped us; what was measured before is kept

A failed *request* is none of these: it is a record with an error class (see records/entries.py).
"""

import errno
import os
from collections.abc import Iterable

_SHORTAGES = {
    errno.ENOMEM: "memory",
    errno.EMFILE: "open file (ulimit -n)",
    errno.ENFILE: "open file (fs.file-max)",
}


class DynoError(Exception):
    """A fault with a sentence for the user; `exit_status` is what `dyno` ends with."""

    exit_status = 3


class UsageError(DynoError):
    """The user asked for something that cannot be; said before anything starts."""

    exit_status = 2


class HomeError(DynoError):
    """Where an engine is installed was named wrong, or cannot be found out.

    It is no UsageError: that may mean that one engine cannot do what is asked, so that a study over
    several leaves it out. This one names a place of the machine, which no study keeps.
    """

    exit_status = 2


class TargetError(DynoError):
    """The server under test is not there, or does not speak the endpoint's protocol."""


class ServerError(DynoError):
    """A server that we started failed.

    `kind` is one of the classes of processes/diagnosis.FAILURES, e.g. "out-of-memory".
    """

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind


class StorageError(DynoError):
    """Results cannot be written or read."""


class InterruptError(DynoError):
    """The user stopped us; what was measured before is kept."""

    exit_status = 130


def reason(error: OSError) -> str:
    """Say why the system refused something, in its own words.

    asyncio puts a sentence of its own around them, with the address, which the caller names anyhow.
    """
    if error.errno and error.errno > 0:
        return os.strerror(error.errno)
    return error.strerror or str(error)  # names that are not found have numbers of their own


def shortage(error: BaseException | None) -> str | None:
    """Return what the system has not left for dyno itself; None: the error is another one.

    An event loop that cannot be made cannot be closed either: what the error came of counts, unless
    it was raised `from None`. Of a group each error must be such a one. EAGAIN is none: a process
    that is not started has a class (processes/starting.py), and a socket's would be our own fault.
    """
    known = set()
    while error is not None and id(error) not in known:
        known.add(id(error))
        if isinstance(error, BaseExceptionGroup):
            lacks = [shortage(one) for one in error.exceptions]
            return lacks[0] if all(lacks) else None
        if isinstance(error, MemoryError):
            return "memory"
        if isinstance(error, OSError) and error.errno in _SHORTAGES:
            return _SHORTAGES[error.errno]
        if isinstance(error, RuntimeError) and "can't start new thread" in str(error):
            return "thread (ulimit -u, or the container's limit)"
        hidden = error.__suppress_context__
        error = error.__cause__ or (None if hidden else error.__context__)
    return None


def nearest(name: str, known: Iterable[str]) -> str:
    """Return " Did you mean …?" with the closest known name, or the list of all of them."""
    names = sorted(known)
    if not names:
        return " There is none."
    by_lower = {other.lower(): other for other in reversed(names)}
    import difflib  # 5 ms, for what was misspelt

    close = difflib.get_close_matches(name, names, n=1, cutoff=0.6) or [
        by_lower[other] for other in difflib.get_close_matches(name.lower(), by_lower, n=1)
    ]
    if close:
        return f" Did you mean '{close[0]}'?"
    return f" Known: {', '.join(names)}."
