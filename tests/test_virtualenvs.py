"""Environments of servers: made once, whole or not at all."""

import subprocess
import zipfile
from pathlib import Path

import pytest

from llmdyno import virtualenvs
from llmdyno.errors import ServerError

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


def test_an_environment_is_made_once_and_its_scripts_run(wheel: Path) -> None:
    said: list[str] = []

    first = virtualenvs.ensure("greeter", [str(wheel)], said.append)
    second = virtualenvs.ensure("greeter", [str(wheel)], said.append)

    assert first == second
    assert len(said) == 1
    greeting = subprocess.run([str(first / "greet")], capture_output=True, text=True, check=True)
    assert greeting.stdout == "good day\n"


def test_what_cannot_be_installed_is_said_and_leaves_nothing(wheel: Path) -> None:
    wheel.write_text("no wheel")

    with pytest.raises(ServerError, match="greeter cannot be installed") as caught:
        virtualenvs.ensure("greeter", [str(wheel)], lambda _: None)

    assert caught.value.kind == "missing-library"
    assert [path.suffix for path in virtualenvs.home().iterdir()] == [".lock"]
