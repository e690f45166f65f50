"""Builds: run once and recorded, or written as a script for another machine."""

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from conftest import DYNO
from llmdyno import plugins
from llmdyno.engines import Engine
from llmdyno.knobs import Value, default
from llmdyno.serve import build

ENGINE: Engine = plugins.load("engines", "built.scripted")
BUILD = (*DYNO, "build", "--engine", "built.scripted", "--model", "m")


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache; builds write a line each into the file that $BUILDS names."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("BUILDS", str(tmp_path / "builds"))
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent.parent))
    monkeypatch.chdir(tmp_path)
    return tmp_path / "cache" / "llmdyno" / "artifacts"


def test_the_script_builds_elsewhere_and_holds_no_secret(cache: Path, tmp_path: Path) -> None:
    subprocess.run([*BUILD, "--script", "b.sh"], check=True, capture_output=True)
    script = (tmp_path / "b.sh").read_text()
    run = ["bash", "b.sh", "an odd 'name'"]

    without = subprocess.run(run, capture_output=True, text=True, check=False)
    done = subprocess.run(
        run, env={**os.environ, "HUB_TOKEN": "x"}, capture_output=True, text=True, check=False
    )

    assert "hf_abcdefgh" not in script
    assert without.returncode != 0
    assert "HUB_TOKEN: set it" in without.stderr
    assert done.returncode == 0, done.stderr
    assert Path(done.stdout.strip()) == tmp_path / "an odd 'name'"
    assert (tmp_path / "an odd 'name'" / "itl").read_text() == "40\n"
    assert not cache.exists()


def test_dry_run_prints_the_commands_and_runs_none(cache: Path) -> None:
    done = subprocess.run([*BUILD, "--dry-run"], capture_output=True, text=True, check=True)

    assert len(done.stdout.splitlines()) == 2
    assert f" sh {cache}" in done.stdout
    assert not cache.exists()


def test_an_engine_with_nothing_to_build_says_so(
    dyno: Callable[..., subprocess.CompletedProcess[str]],
) -> None:
    done = dyno("build", "--engine", "vllm", "--model", "org/name")

    assert (done.returncode, done.stdout) == (0, "")
    assert done.stderr == "vllm serves 'org/name' as it is: nothing to build.\n"


def test_a_recipe_names_what_is_built_and_leaves_defaults_out(cache: Path) -> None:
    plain = build.recipe(ENGINE, "m", {}, None)
    fast = build.recipe(ENGINE, "m", {"build": "fast"}, None)

    assert plain is not None
    assert fast is not None
    assert (plain.engine, plain.model, plain.knobs) == (ENGINE.name, "m", {})
    assert fast.knobs == {"build": "fast"}
    assert plain.id != fast.id
    assert not cache.exists()


@pytest.mark.parametrize(
    ("name", "builds"),
    [("openvino", {"weight_format": "int8"}), ("tensorrt-llm", {"backend": "tensorrt"})],
)
def test_configs_that_differ_at_run_time_only_share_a_build(
    name: str, builds: dict[str, Value], tmp_path: Path
) -> None:
    """A study builds once for all trials that turn only what is set at the start."""
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    engine: Engine = plugins.load("engines", name)
    plain = build.recipe(engine, str(tmp_path), builds, None)
    turned = {
        knob.name: value
        for knob in engine.knobs
        if knob.layer != "build" and knob.name not in builds
        for value in knob.search
        if value != default(knob, None)
    }

    assert plain is not None
    assert len(turned) > 3
    for knob, value in turned.items():
        assert build.recipe(engine, str(tmp_path), {**builds, knob: value}, None) == plain, knob


def test_an_engine_that_builds_nothing_has_no_recipe() -> None:
    vllm = plugins.load("engines", "vllm")

    assert build.recipe(vllm, "org/name", {}, None) is None
    assert build.ensure(vllm, "org/name", {}, notify=lambda _: None) is None


def test_a_change_of_a_models_files_is_another_recipe(tmp_path: Path) -> None:
    model = tmp_path / "model"
    model.mkdir()
    (model / "weights").write_bytes(b"1")
    before = build.recipe(ENGINE, str(model), {}, None)
    assert build.recipe(ENGINE, str(model), {}, None) == before

    (model / "weights").write_bytes(b"12")

    assert build.recipe(ENGINE, str(model), {}, None) != before
