"""What the author of an endpoint or a workload may import stays, and is enough to write one."""

import ast
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import pytest

OUTSIDE = sorted((Path(__file__).parent / "outside").glob("*.py"))
# A name may be added. One that goes breaks other people's packages: say so in the changelog.
PUBLIC = {
    "llmdyno.endpoints": {
        *("Ask", "Detection", "Endpoint", "Event", "Piece", "Reply", "ServerProbe", "Tensor"),
        *("count_of", "error_of", "joined_prompt", "merge", "read_events", "reported"),
    },
    "llmdyno.workload": {
        *("Draws", "Item", "Row", "Session", "Workload", "WorkloadSpec"),
        *("drawn_from", "require_dataset", "rows", "sessions_of", "synthetic_text"),
    },
}
# All of these is public.
WHOLE = {"llmdyno.errors"}


def imported(path: Path) -> Iterator[tuple[str, str]]:
    """Yield (module, name) of what a file imports of ours."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("llmdyno"):
            yield from ((str(node.module), alias.name) for alias in node.names)


@pytest.mark.parametrize("module", PUBLIC)
def test_the_public_names_are_there_and_documented(module: str) -> None:
    package = import_module(module)

    assert set(package.__all__) == PUBLIC[module]
    assert all(hasattr(package, name) for name in package.__all__)
    assert "__all__" in (package.__doc__ or "")


@pytest.mark.parametrize("path", OUTSIDE, ids=lambda path: path.stem)
def test_an_outside_plug_in_needs_no_other_names(path: Path) -> None:
    needed = list(imported(path))

    assert needed
    assert not [
        (module, name)
        for module, name in needed
        if module not in WHOLE and name not in PUBLIC.get(module, ())
    ]
