"""Public docstrings say something: more than the name says, and which errors a caller must expect.

Only the source text is read, by ast: nothing of the package is imported.
"""

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

SOURCE = Path(__file__).resolve().parents[1] / "src" / "llmdyno"
SHORT_CHARACTERS = 28  # a docstring of no more must have more words than its name has

Documented = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef


class Public(NamedTuple):
    """One public function, method or class: where it stands, and its tree."""

    place: str
    node: Documented

    @property
    def docstring(self) -> str:
        return ast.get_docstring(self.node) or ""


def _of(body: list[ast.stmt], within: str, file: str) -> Iterator[Public]:
    """Yield the public functions and classes of a body, and those within its public classes."""
    for node in body:
        if not isinstance(node, Documented) or node.name.startswith("_"):
            continue
        name = f"{within}{node.name}"
        yield Public(f"{file}:{node.lineno} {name}", node)
        if isinstance(node, ast.ClassDef):
            yield from _of(node.body, f"{name}.", file)


@cache
def _public() -> list[Public]:
    """Return everything public in the package."""
    return [
        found
        for path in sorted(SOURCE.rglob("*.py"))
        for found in _of(ast.parse(path.read_text()).body, "", str(path.relative_to(SOURCE)))
    ]


def _our_errors() -> frozenset[str]:
    """Return the names of the error tree in errors.py."""
    tree = ast.parse((SOURCE / "errors.py").read_text())
    return frozenset(node.name for node in tree.body if isinstance(node, ast.ClassDef))


def _raised_in(function: Documented) -> Iterator[str]:
    """Yield the errors that this function raises by name, without those of inner functions."""
    rest: list[ast.AST] = list(function.body)
    while rest:
        node = rest.pop()
        if isinstance(node, Documented | ast.Lambda):
            continue
        if (
            isinstance(node, ast.Raise)
            and isinstance(node.exc, ast.Call)
            and isinstance(node.exc.func, ast.Name)
        ):
            yield node.exc.func.id
        rest.extend(ast.iter_child_nodes(node))


def _is_cli_command(found: Public) -> bool:
    """Tell whether `dyno` shows this docstring to its users, as the help of a command."""
    return found.place.startswith("cli/") and any(
        isinstance(decorator, ast.Call)
        and isinstance(decorator.func, ast.Name)
        and decorator.func.id == "command"
        for decorator in found.node.decorator_list
    )


def _words(name: str) -> int:
    """Count the words of a name: those between underscores, or those of a class's CamelCase."""
    return len(re.findall(r"[A-Z]+[a-z0-9]*|[a-z0-9]+", name))


def _says_more_than_its_name(found: Public) -> bool:
    text = found.docstring
    # "Return the path." has the word of `path` and two that any docstring has.
    return len(text) > SHORT_CHARACTERS or len(text.split()) > _words(found.node.name) + 2


def test_a_public_docstring_says_more_than_its_name() -> None:
    poor = [
        f'{one.place}: "{one.docstring}"' for one in _public() if not _says_more_than_its_name(one)
    ]
    assert not poor


def test_a_function_that_raises_one_of_our_errors_says_so() -> None:
    ours = _our_errors()
    silent = [
        f"{one.place}: {sorted(raised)}"
        for one in _public()
        if not isinstance(one.node, ast.ClassDef)
        # Only main() calls a command. Its docstring is the help, where Raises: is of no use.
        and not _is_cli_command(one)
        and (raised := ours.intersection(_raised_in(one.node)))
        and "Raises:" not in one.docstring
    ]
    assert not silent


def test_the_checks_find_a_docstring_that_says_nothing() -> None:
    text = '''
def path():
    """Return the path."""
    raise UsageError("x")

class Sender:
    def hang_up(self):
        """Close all connections once nothing more is sent."""
        def later():
            raise StorageError("x")

@command()
def show():
    """Show a run."""
    raise UsageError("x")
'''
    function, sender, method, shown = _of(ast.parse(text).body, "", "cli/x.py")
    assert not _says_more_than_its_name(function)
    assert not _says_more_than_its_name(sender)
    assert _says_more_than_its_name(method)
    assert list(_raised_in(function.node)) == ["UsageError"]
    assert list(_raised_in(method.node)) == []
    assert not _is_cli_command(function)
    assert _is_cli_command(shown)
