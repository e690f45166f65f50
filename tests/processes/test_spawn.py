"""Our end of the leash: the one place that parses its words."""

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from llmdyno.processes import leash, spawn
from llmdyno.processes.spawn import OnLeash


def on_leash(script: str) -> OnLeash:
    return OnLeash(("sh", "-c", script), environment=os.environ, output=subprocess.DEVNULL)


@pytest.mark.parametrize(
    ("script", "ending", "words"),
    [
        ("exit 0", "exit 0", "ended with exit status 0"),
        ("exit 3", "exit 3", "ended with exit status 3"),
        ("kill -9 $$", "signal 9", "was killed by SIGKILL"),
    ],
)
def test_the_end_of_a_command_is_heard(script: str, ending: str, words: str) -> None:
    command = on_leash(script)

    assert command.ended(10.0)
    assert command.pid > 0
    assert (command.ending, command.ending_in_words) == (ending, words)
    command.stop(grace_s=1.0)
    assert command.has_cleaned_up


def test_a_running_command_has_no_ending_and_stops() -> None:
    command = on_leash("exec sleep 600")

    assert not command.ended()
    assert not command.ended(0.05)
    assert not command.ending
    command.stop(grace_s=5.0, timeout_s=20.0)
    assert command.has_cleaned_up
    assert not Path("/proc", str(command.pid)).exists()


def test_a_killed_leash_is_a_lost_command() -> None:
    command = on_leash("exec sleep 600")
    os.kill(command.process.pid, signal.SIGKILL)

    assert command.ended(10.0)
    assert (command.ending, command.ending_in_words) == ("lost", "lost its leash")
    command.stop(grace_s=1.0)
    assert not command.has_cleaned_up


def test_a_copy_of_it_needs_nothing_of_llmdyno(tmp_path: Path) -> None:
    for module in (leash, spawn):
        shutil.copy(str(module.__file__), tmp_path)
    code = (
        f"import sys, os; sys.path.insert(0, {str(tmp_path)!r})\n"
        "from spawn import OnLeash\n"
        "command = OnLeash(['true'], environment=os.environ, output=None)\n"
        "print(command.ended(10.0), command.ending, 'llmdyno' in sys.modules)\n"
        "command.stop(grace_s=1.0)\n"
    )

    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", code], capture_output=True, text=True, check=False
    )

    assert done.stdout == "True exit 0 False\n", done.stderr
