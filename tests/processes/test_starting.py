"""A process that the system does not start is a failure with a class, not a traceback."""

import errno
import os

import pytest

from llmdyno.errors import ServerError
from llmdyno.processes.starting import starting


@pytest.mark.parametrize(
    ("number", "kind"),
    [
        (errno.EAGAIN, "system-limit"),
        (errno.EMFILE, "system-limit"),
        (errno.ENFILE, "system-limit"),
        (errno.ENOMEM, "out-of-memory"),
        (errno.ENOENT, "missing-library"),
    ],
)
def test_the_systems_refusal_has_a_class_and_says_what_was_not_started(
    number: int, kind: str
) -> None:
    with (
        pytest.raises(ServerError, match=f"^A worker cannot be started: .*{kind}") as failed,
        starting("A worker"),
    ):
        raise OSError(number, os.strerror(number))

    assert failed.value.kind == kind
    assert os.strerror(number) in str(failed.value)
