"""The structure is what ARCHITECTURE.md says: layers without cycles, short functions."""

import ast
import importlib
import inspect
import pkgutil
import re
import subprocess
import sys
from pathlib import Path

import pytest

import llmdyno

ROOT = Path(__file__).parent.parent
SOURCE = ROOT / "src" / "llmdyno"
MODULES = sorted(path for path in SOURCE.rglob("*.py"))
FUNCTION_LINES_MAX = 60
DEPTH_MAX = 2


def layers() -> dict[str, int]:
    """Return the layer of each top-level module or package, from the page that people read."""
    page = (ROOT / "ARCHITECTURE.md").read_text()
    block = re.search(r"```layers\n(.*?)```", page, re.DOTALL)
    assert block is not None
    found: dict[str, int] = {}
    for number, line in enumerate(block[1].splitlines()):
        for name in line.split("#")[0].split():
            assert name not in found, f"{name} is in two layers"
            found[name] = number
    return found


def top(path: Path) -> str:
    """Return the top-level module or package that a file belongs to."""
    first = path.relative_to(SOURCE).parts[0]
    return first.removesuffix(".py")


def imported(path: Path) -> set[str]:
    """Return the top-level modules of ours that a file imports, also inside functions."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module:
            parts = node.module.split(".")
            if parts[0] == "llmdyno":
                names |= {parts[1]} if len(parts) > 1 else {alias.name for alias in node.names}
        elif isinstance(node, ast.Import):
            names |= {n.name.split(".")[1] for n in node.names if n.name.startswith("llmdyno.")}
    return names - {"__version__"}


def test_every_module_has_a_layer_and_every_layer_a_module() -> None:
    compiled = {path.stem for path in SOURCE.glob("*.c")}
    modules = ({top(path) for path in MODULES} | compiled) - {"__init__", "__main__"}

    assert set(layers()) == modules


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(SOURCE)))
def test_a_module_imports_only_from_layers_before_its_own(path: Path) -> None:
    if top(path) in {"__init__", "__main__"}:
        return
    order = layers()
    own = top(path)
    later = {name for name in imported(path) if name != own and order[name] >= order[own]}

    assert not later


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(SOURCE)))
def test_functions_are_short(path: Path) -> None:
    long = {
        node.name: node.end_lineno - node.body[0].lineno + 1
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and node.end_lineno is not None
        and node.end_lineno - node.body[0].lineno + 1 > FUNCTION_LINES_MAX
    }

    assert not long


def test_classes_are_shallow() -> None:
    deep = {}
    for module in pkgutil.walk_packages(llmdyno.__path__, "llmdyno."):
        if module.name.endswith("__main__"):
            continue
        for name, cls in inspect.getmembers(importlib.import_module(module.name), inspect.isclass):
            ours = [base for base in cls.__mro__ if base.__module__.startswith("llmdyno")]
            if cls.__module__ == module.name and len(ours) > DEPTH_MAX:
                deep[f"{module.name}.{name}"] = len(ours)

    assert not deep


@pytest.mark.parametrize("command", [["--help"], ["bench", "--help"], ["tune", "--help"]])
def test_help_imports_nothing_heavy(command: list[str]) -> None:
    """What makes `dyno --help` slow is what it imports; a clock would only measure the machine."""
    script = (
        "import sys; from llmdyno.cli import app; app(sys.argv[1:], standalone_mode=False);"
        "heavy = {'numpy', 'optuna', 'altair', 'rich', 'msgspec', 'asyncio'};"
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, *command], capture_output=True, text=True, check=True
    )

    assert done.stdout.splitlines()[-1] == "[]"


def test_the_documents_name_no_file_that_is_not_there() -> None:
    pages = [ROOT / name for name in ("README.md", "ARCHITECTURE.md", "CONTRIBUTING.md")]
    links = {
        (page.name, link)
        for page in pages
        for link in re.findall(r"\]\(([^)#:]+)\)", page.read_text())
    }

    assert not {(page, link) for page, link in links if not (ROOT / link).exists()}
