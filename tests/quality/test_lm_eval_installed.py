"""Whether lm-eval is there, and able to ask a server: with programs of the test's own."""

import sys
from pathlib import Path

import pytest

from llmdyno.errors import UsageError
from llmdyno.quality.lm_eval_installed import program, required

PYTHON = sys.executable


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr("sys.executable", str(tmp_path / "beside" / "python"))
    monkeypatch.setenv("PATH", str(tmp_path))
    return tmp_path


def script(path: Path, first: str) -> None:
    path.write_text(f"{first}\n")
    path.chmod(0o755)


@pytest.mark.usefixtures("folder")
def test_without_lm_eval_it_says_how_to_get_it() -> None:
    assert program() is None
    with pytest.raises(UsageError, match=r"--lm-eval a,b: lm-eval is not installed; pip install"):
        required("a,b")


@pytest.mark.parametrize("lacking", [("tenacity",), ("aiohttp", "tenacity"), ()])
def test_what_it_asks_servers_with_has_to_be_there(folder: Path, lacking: tuple[str, ...]) -> None:
    """A Python that has lm_eval and its packages, but for some, as modules of its own."""
    modules = folder / "modules"
    modules.mkdir()
    for name in {"lm_eval", "requests", "aiohttp", "tenacity", "tqdm"} - {*lacking}:
        (modules / f"{name}.py").touch()
    python = folder / "python3"
    script(python, f'#!/bin/sh\nPYTHONPATH={modules} exec {PYTHON} -S "$@"')
    script(folder / "lm_eval", f"#!{python}")

    if not lacking:
        assert required("a") == str(folder / "lm_eval")
        return
    named = ", ".join(one for one in ("requests", "aiohttp", "tenacity", "tqdm") if one in lacking)
    with pytest.raises(UsageError, match=rf"lacks {named}, .* -m pip install 'lm_eval\[api\]'"):
        required("a")


@pytest.mark.parametrize("first", ["#!/bin/sh", "", "#!/no/such/python", "#!/usr/bin/env python3"])
def test_a_program_that_names_no_python_is_taken_as_it_is(folder: Path, first: str) -> None:
    script(folder / "lm_eval", first)
    assert required("a") == str(folder / "lm_eval")
