"""The structure is what ARCHITECTURE.md says: wings in layers, no circles, short functions."""

import ast
import importlib
import inspect
import pkgutil
import re
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

import llmdyno

ROOT = Path(__file__).parent.parent
SOURCE = ROOT / "src" / "llmdyno"
MODULES = sorted(SOURCE.rglob("*.py"))
ROOT_MODULES_MAX = 8
FUNCTION_LINES_MAX = 60
FILE_LINES_MAX = 400
DEPTH_MAX = 2


def layers() -> dict[str, int]:
    """Return the layer of each wing and root module, from the page that people read."""
    page = (ROOT / "ARCHITECTURE.md").read_text()
    block = re.search(r"```layers\n(.*?)```", page, re.DOTALL)
    assert block is not None
    found: dict[str, int] = {}
    for number, line in enumerate(block[1].splitlines()):
        for name in line.split("#")[0].split():
            assert name not in found, f"{name} is in two layers"
            found[name] = number
    return found


def wing(path: Path) -> str:
    """Return the wing that a file belongs to, or the root module that it is."""
    first = path.relative_to(SOURCE).parts[0]
    return first.removesuffix(".py")


@cache
def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


def name_of(path: Path) -> str:
    parts = path.relative_to(SOURCE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


FILES = {name_of(path): path for path in MODULES}


@cache
def imported(path: Path) -> frozenset[Path]:
    """Return the files of ours that a file imports, also inside functions."""
    names: set[str] = set()
    for node in ast.walk(parsed(path)):
        if isinstance(node, ast.ImportFrom) and node.module:
            named = {f"{node.module}.{alias.name}" for alias in node.names}
            names |= {name if name in FILES else node.module for name in named}
        elif isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
    return frozenset(FILES[name] for name in names if name in FILES) - {SOURCE / "__init__.py"}


def circles() -> list[list[str]]:
    """Return the files that import each other in a circle: Tarjan's strong components."""
    order: dict[Path, int] = {}
    low: dict[Path, int] = {}
    stack: list[Path] = []
    found: list[list[str]] = []

    def visit(path: Path) -> None:
        order[path] = low[path] = len(order)
        stack.append(path)
        for other in imported(path):
            if other not in order:
                visit(other)
                low[path] = min(low[path], low[other])
            elif other in stack:
                low[path] = min(low[path], order[other])
        if low[path] == order[path]:
            start = stack.index(path)
            component = stack[start:]
            del stack[start:]
            if len(component) > 1:
                found.append(sorted(name_of(member) for member in component))

    for path in MODULES:
        if path not in order:
            visit(path)
    return found


def test_every_wing_has_a_layer_and_every_layer_a_wing() -> None:
    wings = {wing(path) for path in MODULES} - {"__init__", "__main__"}

    assert set(layers()) == wings


def test_the_readme_shows_every_wing() -> None:
    tree = (ROOT / "README.md").read_text().partition("## The tree")[2]
    shown = {name for line in tree.splitlines() for name in re.findall(r"^ {6}(\w+)/", line)}
    folders = {path.name for path in SOURCE.iterdir() if (path / "__init__.py").exists()}

    assert shown == folders


def test_the_root_is_small() -> None:
    modules = {path.stem for path in SOURCE.glob("*.py")} - {"__init__", "__main__"}

    assert len(modules) <= ROOT_MODULES_MAX


def test_a_module_imports_only_from_its_wing_and_layers_before_it() -> None:
    order = layers()
    upward = [
        (name_of(path), name_of(other))
        for path in MODULES
        if wing(path) not in {"__init__", "__main__"}
        for other in imported(path)
        if wing(other) != wing(path) and order[wing(other)] >= order[wing(path)]
    ]

    assert upward == []


def test_no_files_import_each_other_in_a_circle() -> None:
    assert circles() == []


def rows_of_knobs(path: Path) -> set[int]:
    """Return the lines that rows of a table of knobs take."""
    return {
        line
        for node in ast.walk(parsed(path))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "Knob"
        for line in range(node.lineno, (node.end_lineno or node.lineno) + 1)
    }


def test_files_are_short_but_for_rows_of_knobs() -> None:
    lines = {
        name_of(path): len(path.read_text().splitlines()) - len(rows_of_knobs(path))
        for path in MODULES
        if not path.stem.endswith("_knobs")  # nothing but a table
    }

    assert {name: count for name, count in lines.items() if count > FILE_LINES_MAX} == {}


def test_functions_are_short() -> None:
    long = {
        (name_of(path), node.name): node.end_lineno - node.body[0].lineno + 1
        for path in MODULES
        for node in ast.walk(parsed(path))
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


@pytest.mark.parametrize(
    ("command", "imported"),
    [
        (["--help"], []),
        # Their flags are the spec's fields, whose structs are msgspec's: 40 ms (dev/LOG.md).
        (["bench", "--help"], ["msgspec"]),
        (["tune", "--help"], ["msgspec"]),
        (["serve", "--help"], ["msgspec"]),
    ],
)
def test_help_imports_nothing_heavy(command: list[str], imported: list[str]) -> None:
    """What makes `dyno --help` slow is what it imports; a clock would only measure the machine."""
    script = (
        "import sys; from llmdyno.cli.app import app; app(sys.argv[1:], standalone_mode=False);"
        "heavy = {'numpy', 'optuna', 'altair', 'rich', 'msgspec', 'asyncio'};"
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, *command], capture_output=True, text=True, check=True
    )

    assert done.stdout.splitlines()[-1] == str(imported)


def test_the_documents_name_no_file_that_is_not_there() -> None:
    pages = [ROOT / name for name in ("README.md", "ARCHITECTURE.md", "CONTRIBUTING.md")]
    links = {
        (page.name, link)
        for page in pages
        for link in re.findall(r"\]\(([^)#:]+)\)", page.read_text())
    }

    assert not {(page, link) for page, link in links if not (ROOT / link).exists()}
