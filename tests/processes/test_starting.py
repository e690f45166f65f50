"""A process that the system does not start is a failure with a class, not a traceback."""

import errno
import os

import pytest

from llmdyno.errors import ServerError
from llmdyno.processes.starting import starting
from llmdyno.tune.blame import MACHINES


@pytest.mark.parametrize(
    ("number", "kind"),
    [
        (errno.EAGAIN, "system-limit"),
        (errno.EMFILE, "system-limit"),
        (errno.ENFILE, "system-limit"),
        (errno.ENOMEM, "system-limit"),
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


@pytest.mark.parametrize("number", [errno.E2BIG, errno.EACCES, errno.ENOEXEC])
def test_a_reason_that_tells_no_class_stands_alone(number: int) -> None:
    with pytest.raises(ServerError) as failed, starting("A worker"):
        raise OSError(number, os.strerror(number))

    assert str(failed.value) == f"A worker cannot be started: {os.strerror(number)}."
    assert failed.value.kind == "died"


def test_a_config_is_not_blamed_for_what_the_system_did_not_start() -> None:
    """A failure of the machine is tried again; a config's own is a result."""
    for number in (errno.EAGAIN, errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOENT):
        with pytest.raises(ServerError) as failed, starting("The server"):
            raise OSError(number, os.strerror(number))
        assert failed.value.kind in MACHINES
