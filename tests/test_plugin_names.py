"""A plug-in is named in its own file and nowhere else: what others need of it, it says itself."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import llmdyno
from llmdyno import plugins

SOURCE = Path(llmdyno.__file__).parent

# (file, name) → why it may stand there.
ALLOWED = {
    ("tune/spec.py", "openvino"): "the default of --engine, typed once",
    ("predict/asked.py", "vllm"): "the default of --engine of dyno plan, typed once",
    ("tune/spec.py", "native"): "the default of --front, typed once",
    ("embedded/convert.py", "openvino"): "a subcommand of optimum-cli",
    ("engines/sglang.py", "triton"): "an attention kernel's language, not the server",
    ("importers/vllm.py", "vllm"): "the importer of that name",
    ("importers/llm_d.py", "native"): "a key of its reports",
    ("endpoints/tgi.py", "tgi"): "the endpoint of that name",
    ("endpoints/bentoml.py", "bentoml"): "the endpoint of that name",
    ("endpoints/triton_generate.py", "triton"): "what the server calls itself",
    ("fronts/_triton/preprocessing.py", "openvino"): "a kind of tokenizer, by its library",
    ("fronts/_triton/postprocessing.py", "openvino"): "a kind of tokenizer, by its library",
    ("fronts/_triton/backends/_llmapi.py", "tensorrt_llm"): "what NVIDIA calls its model",
}


def literals(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value


def is_own(path: Path, name: str) -> bool:
    """Whether a file is the plug-in's own, or lies in a folder of its own, such as `_triton`."""
    stem = name.replace("-", "_")
    return stem in {part.removesuffix(".py").lstrip("_") for part in path.parts}


def named_elsewhere(kind: str) -> set[tuple[str, str]]:
    names = {each for name in plugins.names(kind) for each in (name, name.replace("-", "_"))}
    return {
        (str(path), text)
        for path in sorted(file.relative_to(SOURCE) for file in SOURCE.rglob("*.py"))
        for text in literals(SOURCE / path)
        if text in names and not is_own(path, text)
    }


@pytest.mark.parametrize("kind", ["engines", "fronts"])
def test_no_other_file_names_a_plug_in(kind: str) -> None:
    assert named_elsewhere(kind) <= ALLOWED.keys()


def test_what_is_allowed_is_there() -> None:
    for path, name in ALLOWED:
        assert name in literals(SOURCE / path), f"{path} does not name {name}: strike it out"


def test_the_grep_finds_a_name(tmp_path: Path) -> None:
    (tmp_path / "thief.py").write_text('def f(engine):\n    return engine.name == "vllm"\n')

    assert "vllm" in literals(tmp_path / "thief.py")
    assert not is_own(Path("bench/thief.py"), "vllm")
    assert is_own(Path("engines/vllm.py"), "vllm")
    assert is_own(Path("fronts/_triton/install.py"), "triton")
