"""A launch for another machine: no path of this one, programs by name."""

import sys
from pathlib import Path

import pytest

from llmdyno import plugins
from llmdyno.deploy.portable import PYTHON, PortableEngine
from llmdyno.engines import Engine
from llmdyno.fronts import model_link


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A checkpoint, as far as a launch looks at it."""
    folder = tmp_path / "my model"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    return folder


def portable(name: str) -> PortableEngine:
    engine: Engine = plugins.load("engines", name)
    return PortableEngine(engine)


def test_python_is_by_name_and_a_models_folder_is_in_the_bundle(model: Path) -> None:
    launch = portable("sglang").launch(str(model), {}, artifact=None, host="h", port=8000)

    (place,) = model_link(str(model))
    assert launch.argv[0] == PYTHON
    assert launch.argv[launch.argv.index("--model-path") + 1] == place
    assert launch.model == place
    assert launch.probe is not None
    assert launch.probe[1]["model"] == place
    assert str(model) not in str(launch)
    assert sys.executable not in str(launch)


def test_a_hubs_id_stays_as_it_is() -> None:
    launch = portable("sglang").launch("org/m", {}, artifact=None, host="h", port=8000)

    assert launch.model == "org/m"


def test_a_program_of_the_path_is_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "text-generation-launcher"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")

    launch = portable("tgi").launch("org/m", {}, artifact=None, host="h", port=8000)

    assert launch.argv[0] == "text-generation-launcher"


def test_settings_in_a_file_lie_in_the_bundle() -> None:
    launch = portable("tensorrt-llm").launch(
        "org/m", {"enable_chunked_prefill": True}, artifact=None, host="h", port=8000
    )

    assert launch.files
    for path in launch.files:
        assert Path(path).parent == Path("files")
        assert path in launch.argv


def test_all_else_is_the_engines_own() -> None:
    engine = plugins.load("engines", "vllm")
    made = PortableEngine(engine)

    assert (made.name, made.knobs, made.image) == (engine.name, engine.knobs, engine.image)
    assert made.packages == engine.packages
    with pytest.raises(AttributeError):
        _ = made.no_such_fact
