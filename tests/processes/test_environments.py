"""Environments of servers: made once, whole or not at all."""

import errno
import os
import shutil
import signal
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from llmdyno.errors import ServerError
from llmdyno.processes import environments
from waiting import until

WHEEL = {
    "greeter.py": "def main(): print('good day')\n",
    "greeter-1.dist-info/METADATA": "Metadata-Version: 2.1\nName: greeter\nVersion: 1\n",
    "greeter-1.dist-info/WHEEL": "Wheel-Version: 1.0\nTag: py3-none-any\n",
    "greeter-1.dist-info/entry_points.txt": "[console_scripts]\ngreet = greeter:main\n",
    "greeter-1.dist-info/RECORD": "",
}


@pytest.fixture
def wheel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Make a package that needs no network, with a console script."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    path = tmp_path / "greeter-1-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in WHEEL.items():
            archive.writestr(name, content)
    return path


def program(folder: Path, text: str) -> None:
    """Put a program called uv first on the path."""
    path = folder / "bin" / "uv"
    path.parent.mkdir()
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    os.environ["PATH"] = f"{path.parent}:{os.environ['PATH']}"


@pytest.fixture
def path(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a test change the path."""
    monkeypatch.setenv("PATH", os.environ["PATH"])


def test_an_environment_is_made_once_and_its_scripts_run(wheel: Path) -> None:
    said: list[str] = []

    first = environments.ensure("greeter", [str(wheel)], said.append)
    told = len(said)
    second = environments.ensure("greeter", [str(wheel)], said.append)

    assert first == second
    assert len(said) == told
    assert said[0].startswith("installing greeter into ")
    assert said[-1].startswith("installed greeter in ")
    assert not any("instead" in line for line in said)
    greeting = subprocess.run([str(first / "greet")], capture_output=True, text=True, check=True)
    assert greeting.stdout == "good day\n"


def test_what_cannot_be_installed_is_said_and_leaves_nothing(wheel: Path) -> None:
    wheel.write_text("no wheel")

    with pytest.raises(ServerError, match="greeter cannot be installed") as caught:
        environments.ensure("greeter", [str(wheel)], lambda _: None)

    assert caught.value.kind == "missing-library"
    left = [path.name for path in environments.home().iterdir() if "greeter" in path.name]
    assert [Path(name).suffix for name in left] == [".lock"]


@pytest.mark.usefixtures("path", "wheel")
def test_an_index_that_cannot_be_reached_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")  # nobody listens there
    monkeypatch.setenv("PIP_RETRIES", "1")
    program(tmp_path, "exit 2")

    with pytest.raises(ServerError, match="greeter cannot be installed: the package index cannot"):
        environments.ensure("greeter", ["llmdyno-no-such-package==1"], lambda _: None)


@pytest.mark.usefixtures("path")
def test_pip_does_it_where_uv_cannot(wheel: Path, tmp_path: Path) -> None:
    program(tmp_path, "echo no such index >&2; exit 2")
    said: list[str] = []

    made = environments.ensure("greeter", [str(wheel)], said.append)

    assert (made / "greet").is_file()
    assert any("no such index" in line and "by pip instead" in line for line in said)


@pytest.mark.usefixtures("path")
def test_uv_is_told_where_pip_looks_and_no_password_is_shown(
    wheel: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    index = "https://someone:hidden@packages.example/simple"
    monkeypatch.setenv("PIP_INDEX_URL", index)
    monkeypatch.setenv("PIP_FIND_LINKS", "/one /two")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    program(
        tmp_path,
        f'echo "$UV_INDEX_URL $UV_FIND_LINKS $UV_NO_INDEX" > {tmp_path}/told\n'
        f'echo "$*" > {tmp_path}/words\necho cannot reach $UV_INDEX_URL; exit 1',
    )
    said: list[str] = []

    environments.ensure("greeter", [str(wheel)], said.append)

    assert (tmp_path / "told").read_text().strip() == f"{index} /one,/two 1"
    assert "hidden" not in (tmp_path / "words").read_text() + "".join(said)


@pytest.mark.usefixtures("path")
def test_what_a_killed_one_left_is_swept_and_its_installer_ends(
    wheel: Path, tmp_path: Path
) -> None:
    program(tmp_path, f"echo $$ > {tmp_path}/pid; exec sleep 600")
    code = (
        "from llmdyno.processes import environments;"
        f"environments.ensure('greeter', [{str(wheel)!r}], print)"
    )
    killed = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.DEVNULL)
    pid = tmp_path / "pid"
    installer = Path(
        "/proc", until(lambda: pid.read_text().strip() if pid.is_file() else "", "the installer")
    )

    killed.send_signal(signal.SIGKILL)
    killed.wait()
    until(lambda: not installer.exists(), "the end of the installer", within_s=10.0)

    assert list(environments.home().glob(".greeter-*"))
    shutil.rmtree(tmp_path / "bin")
    environments.ensure("greeter", [str(wheel)], lambda _: None)
    assert not list(environments.home().glob(".greeter-*"))


@pytest.mark.usefixtures("wheel")
def test_an_installer_that_the_system_does_not_start_is_no_missing_library(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def full(*_: object, **__: object) -> None:
        raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))

    monkeypatch.setattr("subprocess.Popen", full)

    with pytest.raises(ServerError, match=r"^What installs greeter cannot be started: ") as failed:
        environments.ensure("greeter", ["greeter"], lambda _: None)

    assert failed.value.kind == "system-limit"


def test_so_is_pip_where_it_is_asked_for_the_indexes(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    said: list[str] = []

    def full(*_: object, **__: object) -> None:
        raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))

    monkeypatch.setattr("llmdyno.processes.indexes.subprocess.run", full)
    monkeypatch.setattr(environments, "_fill_by_pip", lambda *_: said.append("by pip"))
    monkeypatch.setattr("shutil.which", lambda _: "uv")

    environments._fill("greeter", tmp_path / "python", ["greeter"], said.append)

    assert said[0].startswith("pip, which is asked for the package indexes, cannot be started: ")
    assert said[1:] == ["by pip"]
