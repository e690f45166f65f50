"""Where results and temporary files lie."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from llmdyno import store

HOLDS = """
import time
from llmdyno import store
with store.temporary_folder("dyno-test") as folder:
    print(folder, flush=True)
    time.sleep(600)
"""


def test_a_temporary_folder_goes_and_takes_those_of_the_killed_along(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    lives, killed = (
        subprocess.Popen([sys.executable, "-c", HOLDS], stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    )
    with lives, killed:
        assert lives.stdout is not None
        assert killed.stdout is not None
        of_the_living = Path(lives.stdout.readline().strip())
        of_the_dead = Path(killed.stdout.readline().strip())
        killed.send_signal(signal.SIGKILL)
        killed.wait()
        assert of_the_dead.is_dir()

        with store.temporary_folder("dyno-test") as folder:
            assert folder.parent == tmp_path
            assert of_the_living.is_dir()
            assert not of_the_dead.exists()
        assert not folder.exists()
        lives.kill()


def test_what_holds_while_processes_run_lies_beside_the_users_other_such_files(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", "/run/user/7")
    assert store.runtime_folder("x") == Path("/run/user/7/llmdyno/x")
    monkeypatch.delenv("XDG_RUNTIME_DIR")
    assert store.runtime_folder("x") == store.cache_folder("x")
