"""Open files: as many as the connections need, or one sentence before anything starts."""

import resource

import pytest

from llmdyno.errors import UsageError
from llmdyno.machine import open_files


def test_too_many_connections_for_a_process_are_said_before_anything_starts() -> None:
    with pytest.raises(UsageError, match=r"need 9,000,000,064 open files, but the system allows"):
        open_files.allow(9_000_000_000)


def test_the_soft_limit_is_raised_as_far_as_it_may_be(monkeypatch: pytest.MonkeyPatch) -> None:
    set_to: list[tuple[int, int]] = []
    monkeypatch.setattr(resource, "setrlimit", lambda _, limits: set_to.append(limits))

    for soft, hard in ((1024, 4096), (1024, 1_000_000), (1024, resource.RLIM_INFINITY)):
        monkeypatch.setattr(resource, "getrlimit", lambda _, limits=(soft, hard): limits)
        open_files.allow(100)
    assert [soft for soft, _ in set_to] == [4096, 65_536, 65_536]

    open_files.allow(100_000)
    assert set_to[-1] == (100_000 + open_files.SPARE, resource.RLIM_INFINITY)


def test_what_is_enough_already_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    set_to: list[tuple[int, int]] = []
    monkeypatch.setattr(resource, "setrlimit", lambda _, limits: set_to.append(limits))

    for limits in ((70_000, 70_000), (resource.RLIM_INFINITY, resource.RLIM_INFINITY)):
        monkeypatch.setattr(resource, "getrlimit", lambda _, limits=limits: limits)
        open_files.allow(100)

    assert set_to == []
