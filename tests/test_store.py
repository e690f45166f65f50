"""Where results and temporary files lie."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from llmdyno import store
from llmdyno.cli.app import app
from llmdyno.errors import StorageError, UsageError
from llmdyno.processes.containers import hub_cache

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


def test_a_run_is_found_by_its_id_or_the_end_of_it_and_never_by_chance(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    run = store.RUNS / "20261129-163533-chat-c2-fbe9"
    run.mkdir(parents=True)

    assert store.find("fbe9") == store.find("c2-fbe9") == store.find(run.name) == run
    for missing in ("a", "b", "e9", "chat", "before"):
        with pytest.raises(UsageError, match=f"^{missing}: no such run or study here"):
            store.find(missing)


def test_a_file_of_no_run_is_named_as_it_was_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("mine.json").write_text("{}")

    with pytest.raises(UsageError, match=r"^mine.json: is no file of a run or study"):
        store.find("mine.json")


@pytest.mark.parametrize(
    ("document", "words"),
    [
        ({"a": 1}, "holds no document of dyno's; this version reads llmdyno.summary/1"),
        ([1], "holds no document of dyno's"),
        ({"schema": "llmdyno.summary/9"}, "holds the schema llmdyno.summary/9; this version"),
    ],
)
def test_what_is_no_document_of_this_version_is_refused_by_its_name(
    tmp_path: Path, document: Any, words: str
) -> None:
    store.write_json(tmp_path / store.SUMMARY, document)

    with pytest.raises(StorageError, match=rf"summary.json: {words}"):
        store.read_document(tmp_path / store.SUMMARY)


@pytest.mark.parametrize("ask", [store.find, lambda name: store.check_folder(Path(name))])
def test_a_folder_whose_name_is_no_text_is_refused_before_anything_is_measured(
    ask: Callable[[str], object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    odd = Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xfcml"))
    odd.mkdir()
    monkeypatch.chdir(odd)

    with pytest.raises(UsageError, match=r"\\xfcml: is no utf-8; rename that folder"):
        ask(".")


def install(shell: str) -> None:
    CliRunner().invoke(app, ["completion", shell, "--install"], catch_exceptions=False)


@pytest.mark.parametrize(
    ("ask", "instead"),
    [
        (lambda: store.cache_folder("artifacts"), "XDG_CACHE_HOME"),
        (hub_cache, "HF_HOME"),
        (lambda: install("bash"), None),
    ],
)
def test_a_user_without_a_home_is_told_what_to_set(
    ask: Callable[[], Path | None], instead: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def nobody(_: int) -> None:
        raise KeyError

    monkeypatch.setattr("pwd.getpwuid", nobody)
    others = {"XDG_CACHE_HOME", "HF_HOME"} - {instead}
    for name in ("HOME", "XDG_CACHE_HOME", "HF_HOME"):
        monkeypatch.delenv(name, raising=False)
    for name in others:  # what these name is of no use here
        monkeypatch.setenv(name, "/elsewhere")

    names = f"HOME, or {instead}," if instead else "HOME"
    said = rf"^HOME is not set, and user \d+ has no home folder on this machine: set {names} to a "
    with pytest.raises(UsageError, match=said):
        ask()

    if instead is not None:
        monkeypatch.setenv(instead, "/cache")
        found = ask()
        assert found is not None
        assert found.is_relative_to("/cache")
