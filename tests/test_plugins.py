"""Plug-ins by name: ours by their files' names, others' by their modules'."""

import re
import sys
from pathlib import Path

import pytest

from llmdyno import plugins
from llmdyno.endpoints.openai_chat import ENDPOINT
from llmdyno.errors import UsageError


def test_names_are_those_of_the_files_with_dashes() -> None:
    assert plugins.names("fronts") == ["bentoml", "native", "triton"]
    assert "openai-chat" in plugins.names("endpoints")
    assert not [name for name in plugins.names("engines") if "_" in name]


def test_a_plug_in_is_the_object_of_its_file() -> None:
    assert plugins.load("endpoints", "openai-chat") is ENDPOINT


def test_a_kind_within_a_wing_is_named_by_its_last_part() -> None:
    assert (
        plugins.load("workload.traces", "azure")
        is sys.modules["llmdyno.workload.traces.azure"].TRACE
    )


def test_a_dotted_name_is_a_module_of_somebody_elses(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "somebodys_package"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "engine.py").write_text('ENGINE = "theirs"\n')
    monkeypatch.syspath_prepend(tmp_path)

    assert plugins.load("engines", "somebodys_package.engine") == "theirs"


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("vlm", "engine: no 'vlm'. Did you mean 'vllm'?"),
        ("no_such.module", "engine: 'no_such.module' is not a module with ENGINE"),
        ("llmdyno.units", "engine: 'llmdyno.units' is not a module with ENGINE"),
        (".vllm", "engine: '.vllm' is not a module with ENGINE"),
    ],
)
def test_a_name_of_none_is_one_sentence(name: str, said: str) -> None:
    with pytest.raises(UsageError, match=re.escape(said)):
        plugins.load("engines", name)


def test_a_module_without_a_package_is_told_how_a_plug_in_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "my_lone_engine.py").write_text('ENGINE = "mine"\n')
    monkeypatch.syspath_prepend(tmp_path)

    with pytest.raises(UsageError, match=re.escape("with its package: PACKAGE.my_lone_engine.")):
        plugins.load("engines", "my_lone_engine")
