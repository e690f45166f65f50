"""What is known of a workload stands in its own file: no other file of the program names one.

Most of their names are words that mean other things, too: `trace` is an arrival, `file` an
argument. They are looked for where a workload is compared or made; the others anywhere.
"""

import ast
from collections.abc import Iterator
from pathlib import Path

import llmdyno
from llmdyno import plugins

SOURCE = Path(llmdyno.__file__).parent
OWN = ("workload", "testing")
WORDS = {"chat", "file", "sessions", "trace"}
NAMES = set(plugins.names("workload.kinds"))
FILES = [
    path for path in sorted(SOURCE.rglob("*.py")) if path.relative_to(SOURCE).parts[0] not in OWN
]
# What --quick is made of, as a user would write it.
ALLOWED = {"cli/flags.py": {"chat-system"}}


def named(path: Path) -> Iterator[str]:
    """Yield the texts in a file that may be names of workloads."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Constant) and node.value in NAMES - WORDS:
            yield str(node.value)
        elif compares(node) or makes(node):
            yield from texts(node)


def compares(node: ast.AST) -> bool:
    return isinstance(node, ast.Compare) and "workload" in ast.unparse(node)


def makes(node: ast.AST) -> bool:
    return isinstance(node, ast.Call) and ast.unparse(node.func).endswith("Workload")


def texts(node: ast.AST) -> Iterator[str]:
    for part in ast.walk(node):
        if isinstance(part, ast.Constant) and isinstance(part.value, str):
            yield part.value


def test_no_other_file_names_a_workload() -> None:
    found = {str(path.relative_to(SOURCE)): NAMES.intersection(named(path)) for path in FILES}

    assert {file: names for file, names in found.items() if names - ALLOWED.get(file, set())} == {}


def test_the_exceptions_are_needed() -> None:
    for file, names in ALLOWED.items():
        assert names <= set(named(SOURCE / file))


def test_the_comparisons_of_old_would_be_found(tmp_path: Path) -> None:
    path = tmp_path / "old.py"
    path.write_text(
        'if spec.workload.name == "trace" or workload.get("name") in {"sessions"}:\n'
        '    Workload(name="file")\n'
    )

    assert NAMES.intersection(named(path)) == {"trace", "sessions", "file"}
