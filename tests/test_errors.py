"""The error tree: what `dyno` ends with, and the name that was probably meant."""

import asyncio
import errno
import socket
from collections.abc import Callable

import pytest

from llmdyno.errors import (
    DynoError,
    HomeError,
    InterruptError,
    ServerError,
    StorageError,
    TargetError,
    UsageError,
    nearest,
    reason,
    shortage,
)


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (UsageError("x"), 2),
        (HomeError("x"), 2),
        (TargetError("x"), 3),
        (ServerError("hung", "x"), 3),
        (StorageError("x"), 3),
        (InterruptError("x"), 130),
    ],
)
def test_each_fault_has_its_exit_status(error: DynoError, status: int) -> None:
    assert error.exit_status == status
    assert str(error) == "x"


def test_a_server_error_says_of_which_kind() -> None:
    assert ServerError("out-of-memory", "x").kind == "out-of-memory"


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("vlm", " Did you mean 'vllm'?"),
        ("cpu_runtime_cache", " Did you mean 'CPU_RUNTIME_CACHE'?"),
        ("zzz", " Known: CPU_RUNTIME_CACHE, sglang, vllm."),
    ],
)
def test_the_nearest_name_is_offered_or_all_of_them(name: str, said: str) -> None:
    assert nearest(name, ["vllm", "sglang", "CPU_RUNTIME_CACHE"]) == said


def test_where_nothing_is_known_that_is_said() -> None:
    assert nearest("x", []) == " There is none."


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (OSError(errno.EADDRINUSE, "error while binding"), "Address already in use"),
        (socket.gaierror(socket.EAI_NONAME, "Name or service not known"), "Name or service not"),
        (OSError("no number at all"), "no number at all"),
    ],
)
def test_the_systems_own_words_are_told(error: OSError, said: str) -> None:
    assert reason(error).startswith(said)


def raised(how: Callable[[], None]) -> Exception:
    with pytest.raises(Exception) as caught:
        how()
    return caught.value


def from_another() -> None:
    try:
        raise MemoryError
    except MemoryError as error:
        raise RuntimeError("x") from error


def while_another_is_handled() -> None:
    try:
        raise MemoryError
    except MemoryError:
        raise RuntimeError("x")  # noqa: B904 - so Python does it where a handler fails


def from_none() -> None:
    try:
        raise MemoryError
    except MemoryError:
        raise RuntimeError("x") from None


def of_tasks() -> None:
    async def fails() -> None:
        raise OSError(errno.EMFILE, "Too many open files")

    async def work() -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(fails())
            group.create_task(fails())

    asyncio.run(work())


def of_tasks_beside_a_fault_of_ours() -> None:
    raise ExceptionGroup("x", [MemoryError(), KeyError("ours")])


@pytest.mark.parametrize(
    ("how", "lacks"),
    [
        (from_another, "memory"),
        (while_another_is_handled, "memory"),
        (from_none, None),
        (of_tasks, "open file (ulimit -n)"),
        (of_tasks_beside_a_fault_of_ours, None),
    ],
)
def test_a_shortage_is_found_where_it_is_the_reason_and_hides_no_fault_of_ours(
    how: Callable[[], None], lacks: str | None
) -> None:
    assert shortage(raised(how)) == lacks
