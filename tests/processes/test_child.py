"""A command that cannot outlive us: run to its end, its failure explained, its output kept."""

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from llmdyno.errors import ServerError, StorageError
from llmdyno.processes.child import TAIL_BYTES, Child, end_of, run_step
from llmdyno.processes.launch import Step
from waiting import until


def shell(script: str, **more: Any) -> Step:
    return Step(what="make it", argv=("sh", "-c", script), **more)


def silent(_: str) -> None:
    """Take no notice of progress."""


def test_a_step_runs_with_its_variables_and_its_output_goes_to_the_end_of_the_log(
    tmp_path: Path,
) -> None:
    log = tmp_path / "log"
    log.write_text("$ before\n")

    run_step(shell('echo "$WORD"; echo too >&2', environment={"WORD": "hello"}), log=log,
             progress=silent)  # fmt: skip

    assert log.read_text() == "$ before\nhello\ntoo\n"


@pytest.mark.parametrize(
    ("script", "kind", "words"),
    [
        ("echo it broke; exit 3", "died", "it broke"),
        ("echo no space; exit 1", "bad-config", "no space"),
        ("kill -9 $$", "", "was killed by SIGKILL"),
    ],
)
def test_a_step_that_fails_says_what_how_and_where(
    script: str, kind: str, words: str, tmp_path: Path
) -> None:
    step = shell(script, symptoms=(("no space", "bad-config"),) if kind == "bad-config" else ())
    log = tmp_path / "log"

    with pytest.raises(ServerError, match=rf"(?s)^make it: .*{words}") as raised:
        run_step(step, log=log, progress=silent)

    assert raised.value.kind == (kind or raised.value.kind)
    assert str(raised.value).endswith(f"Log: {log}")


def test_secrets_stay_out_of_a_failure(tmp_path: Path) -> None:
    step = shell('echo "bad $API_TOKEN"; exit 1', environment={"API_TOKEN": "hf_do_not_tell"})

    with pytest.raises(ServerError) as raised:
        run_step(step, log=tmp_path / "log", progress=silent)

    assert "bad" in str(raised.value)
    assert "hf_do_not_tell" not in str(raised.value)


def test_a_log_that_cannot_be_written_is_said_before_the_start(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="cannot write the build's log"):
        run_step(shell("touch made"), log=tmp_path / "no folder" / "log", progress=silent)

    assert not (tmp_path / "made").exists()


@pytest.fixture
def start(tmp_path: Path) -> Callable[[str], Child]:
    def start(script: str) -> Child:
        with (tmp_path / "log").open("wb") as output:
            return Child(shell(script), output.fileno(), lambda: end_of(tmp_path / "log"))

    return start


def test_leaving_the_context_stops_it_and_that_is_no_failure(
    start: Callable[[str], Child],
) -> None:
    with start("echo started; exec sleep 600") as command:
        until(command.last_lines, "its start")
        assert not command.ended()
        assert command.failure() is None
        assert command.leash_pid != command.pid

    assert command.failure() is None
    assert not Path("/proc", str(command.pid)).exists()
    command.stop()  # once more does nothing


def test_an_end_before_we_asked_for_it_is_a_failure(start: Callable[[str], Child]) -> None:
    command = start("echo last words; exit 0")
    command.wait(30.0)
    command.stop()

    failure = command.failure()
    assert command.succeeded()
    assert failure is not None
    assert "last words" in str(failure)
    assert command.last_lines() == ["last words"]


def test_the_end_of_a_log_is_what_came_after_and_not_too_much(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_bytes(b"before" + b"x" * TAIL_BYTES)

    assert end_of(log, 6) == b"x" * TAIL_BYTES
    assert len(end_of(log)) == TAIL_BYTES
    assert end_of(log, log.stat().st_size) == b""


def test_what_opens_a_teams_database_reaches_no_server(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PGPASSWORD", "a-secret")
    monkeypatch.setenv("PGPASSFILE", "/a/file")
    log = tmp_path / "log"

    run_step(shell("env"), log=log, progress=silent)

    assert "PATH=" in log.read_text()
    assert "PGPASS" not in log.read_text()


def test_a_command_that_the_system_does_not_start_has_a_class(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))

    monkeypatch.setattr("llmdyno.processes.spawn.subprocess.Popen", refuse)

    with pytest.raises(ServerError, match=r"^The command cannot be started") as failed:
        run_step(shell("true"), log=tmp_path / "log", progress=silent)

    assert failed.value.kind == "system-limit"
