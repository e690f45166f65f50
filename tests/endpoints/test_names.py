"""What is known of an endpoint stands in its own file: no other file of the program names one.

An engine's, a front's, the recorder's and the streamer's own file says what it speaks. Some engines
and fronts have the name of an endpoint (tgi, bentoml): this test does not look for those.
"""

import ast
from collections.abc import Iterator
from pathlib import Path

import llmdyno
from llmdyno import plugins

SOURCE = Path(llmdyno.__file__).parent
OWN = ("endpoints", "engines", "fronts", "importers", "record", "streamer", "testing")
NAMES = set(plugins.names("endpoints")) - {
    *plugins.names("engines"),
    *plugins.names("fronts"),
}
FILES = [
    path for path in sorted(SOURCE.rglob("*.py")) if path.relative_to(SOURCE).parts[0] not in OWN
]


def strings(path: Path) -> Iterator[str]:
    """Yield the texts in a file's code; docstrings are none."""
    tree = ast.parse(path.read_text())
    documents = {
        id(node.body[0].value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
        and node.body
        and isinstance(node.body[0], ast.Expr)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            if id(node) not in documents:
                yield node.value
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield from (alias.name.replace("_", "-") for alias in node.names)


def test_no_other_file_names_an_endpoint() -> None:
    found = {str(path.relative_to(SOURCE)): NAMES.intersection(strings(path)) for path in FILES}

    assert {file: names for file, names in found.items() if names} == {}


def test_a_name_would_be_found() -> None:
    assert {"openai-chat"} == NAMES.intersection(strings(SOURCE / "streamer" / "__init__.py"))
