"""Where an engine is found: its named Python, ours, and a program of another environment."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from llmdyno.deploy.portable import PortableEngine
from llmdyno.engines import Launch, _homes, lmdeploy, mlc_llm, sglang, tensorrt_llm, vllm
from llmdyno.engines._homes import home
from llmdyno.errors import HomeError, UsageError
from llmdyno.fronts import native
from llmdyno.processes import containers
from llmdyno.serve.stack import Stack

ENGINES = {
    "vllm": (vllm.ENGINE, "vllm", "vllm"),
    "sglang": (sglang.ENGINE, "sglang", "sglang"),
    "lmdeploy": (lmdeploy.ENGINE, "lmdeploy", "lmdeploy"),
    "mlc-llm": (mlc_llm.ENGINE, "mlc_llm", "mlc_llm"),
    "tensorrt-llm": (tensorrt_llm.ENGINE, "tensorrt_llm", "trtllm-serve"),
}


class Environment:
    """A Python environment with an engine's package and program, which are empty."""

    def __init__(self, folder: Path, package: str, console: str, version: str) -> None:
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True)
        (site,) = folder.glob("lib/python*/site-packages")
        (site / package).mkdir()
        (site / package / "__init__.py").write_text("raise RuntimeError('it is not imported')")
        about = site / f"{package}-{version}.dist-info"
        about.mkdir()
        about.joinpath("METADATA").write_text(f"Name: {package}\nVersion: {version}\n")
        about.joinpath("RECORD").write_text(f"{package}/__init__.py,,\n")
        self.folder = folder
        self.python = folder / "bin" / "python"
        self.script = folder / "bin" / console
        self.write(f"#!{self.python}\n")

    def write(self, text: str) -> None:
        self.script.write_text(text + "import sys\n")
        self.script.chmod(0o755)

    def on_path(self, monkeypatch: pytest.MonkeyPatch, link: Path) -> None:
        """Have the script alone on the path, as `uv tool install` and pipx leave it."""
        link.mkdir()
        (link / self.script.name).symlink_to(self.script)
        monkeypatch.setenv("PATH", str(link), prepend=os.pathsep)


@pytest.fixture
def apart(request: pytest.FixtureRequest, tmp_path: Path) -> Environment:
    """An environment with the engine that the test is of, vLLM if it does not say."""
    name = getattr(request, "param", "vllm")
    _, package, console = ENGINES[name]
    return Environment(tmp_path / "its own", package, console, "9.8.7")


def launched(name: str) -> Launch:
    engine = ENGINES[name][0]
    return engine.launch("org/model", {}, artifact=None, host="127.0.0.1", port=8000)


@pytest.mark.parametrize(("apart", "name"), [(name, name) for name in ENGINES], indirect=["apart"])
def test_an_engine_of_another_environment_is_found_by_its_program(
    apart: Environment, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A path with a blank: the first line cannot hold it, so pip and uv write it into the second.
    apart.write(f"#!/bin/sh\n'''exec' '{apart.python}' \"$0\" \"$@\"\n' '''\n")
    apart.on_path(monkeypatch, tmp_path / "bin")

    assert ENGINES[name][0].version() == "9.8.7"
    launch = launched(name)
    assert launch.argv[0] in {
        str(tmp_path / "bin" / apart.script.name),
        str(apart.python),
        str(apart.script),
    }
    # The programs that its packages call are those of its environment.
    assert launch.environment["PATH"].split(os.pathsep)[0] == str(apart.folder / "bin")


@pytest.mark.parametrize(("apart", "name"), [(name, name) for name in ENGINES], indirect=["apart"])
@pytest.mark.parametrize("by", ["folder", "Python"])
def test_an_engine_is_found_by_the_variable_that_names_its_python(
    apart: Environment, name: str, by: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = apart.folder if by == "folder" else apart.python
    monkeypatch.setenv(f"DYNO_{name.upper().replace('-', '_')}_PYTHON", str(place))

    assert ENGINES[name][0].version() == "9.8.7"
    assert launched(name).argv[0] in {str(apart.python), str(apart.script)}


def test_a_path_in_the_first_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    there = Environment(tmp_path / "own", "vllm", "vllm", "1.2")
    there.on_path(monkeypatch, tmp_path / "bin")

    found = home("vllm", "vllm", "vllm")

    assert found is not None
    assert (found.version, found.python) == ("1.2", str(there.python))


def test_a_program_whose_environment_lacks_the_engine_is_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    there = Environment(tmp_path / "own", "another", "vllm", "1.2")
    there.on_path(monkeypatch, tmp_path / "bin")

    assert home("vllm", "vllm", "vllm") is None


@pytest.mark.parametrize("name", ENGINES)
def test_a_script_that_cannot_be_read_has_an_unknown_version(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An engine that is started by its Python cannot be started by such a script."""
    script = tmp_path / ENGINES[name][2]
    script.write_text("#!/bin/bash\nmodule load it\n")
    script.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)

    by_its_python = name in {"sglang", "mlc-llm"}
    assert ENGINES[name][0].version() == (None if by_its_python else "unknown")
    programs = {sys.executable} if by_its_python else {str(script), script.name}
    assert launched(name).argv[0] in programs


def replaced(there: Environment, package: str, version: str) -> None:
    """Replace a package as pip does: its metadata go, and others come."""
    (old,) = there.folder.glob("lib/python*/site-packages/*.dist-info")
    about = old.with_name(f"{package}-{version}.dist-info")
    old.rename(about)
    about.joinpath("METADATA").write_text(f"Name: {package}\nVersion: {version}\n")


@pytest.mark.parametrize("by", ["variable", "path"])
def test_an_engine_that_is_replaced_is_noticed(
    by: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    there = Environment(tmp_path / "own", "vllm", "vllm", "1.2")
    if by == "path":
        there.on_path(monkeypatch, tmp_path / "bin")
    else:
        monkeypatch.setenv("DYNO_VLLM_PYTHON", str(there.python))
    assert vllm.ENGINE.version() == "1.2"
    with monkeypatch.context() as patch:  # it is not started again as long as nothing changes
        patch.setattr(subprocess, "run", None)
        assert vllm.ENGINE.version() == "1.2"

    replaced(there, "vllm", "1.3")
    assert vllm.ENGINE.version() == "1.3"

    # Written where it lies, as by an installation that can be edited.
    (metadata,) = there.folder.glob("lib/python*/site-packages/*.dist-info/METADATA")
    metadata.write_text("Name: vllm\nVersion: 1.4\n")
    assert vllm.ENGINE.version() == "1.4"


def test_an_engine_that_comes_later_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    there = Environment(tmp_path / "own", "vllm", "vllm", "1.2")
    monkeypatch.setenv("DYNO_VLLM_PYTHON", str(there.python))
    (package,) = there.folder.glob("lib/python*/site-packages/vllm")
    package.rename(away := tmp_path / "away")
    with pytest.raises(HomeError, match="that Python has no vllm"):
        vllm.ENGINE.version()

    away.rename(package)

    assert vllm.ENGINE.version() == "1.2"


def test_a_python_that_does_not_answer_is_not_one_without_the_engine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    python = tmp_path / "python"
    python.write_text("#!/bin/sh\nexec sleep 60\n")
    python.chmod(0o755)
    console = tmp_path / "vllm"
    console.write_text(f"#!{python}\n")
    console.chmod(0o755)
    monkeypatch.setattr(_homes, "_ANSWER_S", 0.05)

    with monkeypatch.context() as patch:
        patch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
        with pytest.raises(HomeError, match=r"vllm: .*has not said within 0\.05 s whether it has"):
            vllm.ENGINE.version()
    monkeypatch.setenv("DYNO_VLLM_PYTHON", str(python))
    with pytest.raises(HomeError, match=r"DYNO_VLLM_PYTHON=.*has not said within 0\.05 s"):
        vllm.ENGINE.version()


@pytest.mark.parametrize(
    ("program", "words"),
    [
        ("#!/no/such/program\n", "python cannot be started: "),
        ("#!/bin/sh\necho boom >&2; exit 3\n", "ends with status 3, boom"),
    ],
)
def test_a_python_that_fails_says_how(
    program: str, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    python = tmp_path / "python"
    python.write_text(program)
    python.chmod(0o755)
    monkeypatch.setenv("DYNO_VLLM_PYTHON", str(python))

    with pytest.raises(HomeError, match=words):
        vllm.ENGINE.version()


def test_the_python_that_runs_dyno_comes_before_the_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Its version was told of this Python, and the program of the path was started.
    there = Environment(tmp_path / "own", "msgspec", "msgspec", "9.8.7")
    there.on_path(monkeypatch, tmp_path / "bin")

    found = home("vllm", "msgspec", "msgspec")

    assert found is not None
    assert found.version != "9.8.7"
    assert found.program("msgspec") == (sys.executable, "-m", "msgspec")
    assert found.environment == {}


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("/no/such/python", "give the Python that vllm is installed in"),
        ("this", "that Python has no vllm"),
    ],
)
def test_a_variable_that_is_wrong_is_a_sentence(
    value: str, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    named = sys.executable if value == "this" else value
    monkeypatch.setenv("DYNO_VLLM_PYTHON", named)

    with pytest.raises(HomeError, match=words) as refused:
        Stack(engine=vllm.ENGINE, front=native.FRONT, model="org/model").require_engine()

    assert f"DYNO_VLLM_PYTHON={named}" in str(refused.value)


def test_without_an_engine_the_sentence_names_the_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/none")

    with pytest.raises(UsageError, match=r"pip install sglang\. .* DYNO_SGLANG_PYTHON\."):
        Stack(engine=sglang.ENGINE, front=native.FRONT, model="org/model").require_engine()


@pytest.mark.parametrize(("apart", "name"), [(name, name) for name in ENGINES], indirect=["apart"])
def test_a_bundle_and_a_container_know_nothing_of_the_environment(
    apart: Environment, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(f"DYNO_{name.upper().replace('-', '_')}_PYTHON", str(apart.folder))
    engine = ENGINES[name][0]

    bundled = PortableEngine(engine).launch("org/model", {}, artifact=None, host="h", port=8000)
    assert str(apart.folder) not in str(bundled)
    assert "PATH" not in bundled.environment

    if engine.image:
        container = containers.Container(runtime="docker", image=engine.image)
        wrapped = containers.launch_in(container, launched(name), reads=())
        assert str(apart.folder) not in str(wrapped)


def test_what_a_build_starts_is_its_environments(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    there = Environment(tmp_path / "own", "tensorrt_llm", "trtllm-build", "0.20.0")
    monkeypatch.setenv("DYNO_TENSORRT_LLM_PYTHON", str(there.folder))
    model = tmp_path / "model"
    model.mkdir()
    (model / "config.json").write_text('{"model_type": "llama"}')

    steps = tensorrt_llm.ENGINE.build(str(model), {"backend": "tensorrt"}, tmp_path / "built")

    assert [step.argv[0] for step in steps] == [str(there.python), str(there.script)]
    bundled = PortableEngine(tensorrt_llm.ENGINE).build(
        str(model), {"backend": "tensorrt"}, tmp_path / "built"
    )
    assert [step.argv[0] for step in bundled] == ["python3", "trtllm-build"]
