"""Open files: as many as the connections need, or one sentence before anything starts."""


import pytest

from llmdyno.errors import UsageError
from llmdyno.machine import open_files


def test_too_many_connections_for_a_process_are_said_before_anything_starts() -> None:
    with pytest.raises(UsageError, match=r"need 9,000,000,064 open files, but the system allows"):
        open_files.allow(9_000_000_000)
