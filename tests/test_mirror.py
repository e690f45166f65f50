"""The tests mirror the source: src/llmdyno/WING/NAME.py is tested by tests/WING/test_NAME.py.

Who changes a module finds its tests by its path. Beside them may stand tests of no single module:
contracts, faults, messages, whole runs.
"""

from pathlib import Path

import pytest

TESTS = Path(__file__).parent
SOURCE = TESTS.parent / "src" / "llmdyno"

# Covered by the test that starts it: a module whose every public name is one process's entry.
EXEMPT = {
    "embedded/worker.py": "a process; embedded/test_server.py talks to it through the server",
    "load/worker.py": "a process; load/test_workers.py starts it and reads its journal",
}
# Wings whose tests do not mirror them yet.
PENDING = {
    *("cli", "endpoints", "importers", "records", "report", "results", "terminal", "testing"),
    *("tune", "workload"),
}


def modules() -> list[Path]:
    """Return the public modules, relative to the package."""
    found = [path.relative_to(SOURCE) for path in SOURCE.rglob("*.py")]
    return sorted(path for path in found if not any(part.startswith("_") for part in path.parts))


def file_of(module: Path) -> Path:
    """Return where the tests of a module stand."""
    return TESTS / module.with_name(f"test_{module.name}")


def is_pending(module: Path) -> bool:
    return module.parts[0] in PENDING


@pytest.mark.parametrize(
    "module", [module for module in modules() if not is_pending(module)], ids=str
)
def test_a_module_has_its_test_file(module: Path) -> None:
    if str(module) not in EXEMPT:
        assert file_of(module).is_file(), f"no {file_of(module).relative_to(TESTS)}"


@pytest.mark.parametrize("module", EXEMPT)
def test_what_is_exempt_is_there_and_has_no_test_file(module: str) -> None:
    assert (SOURCE / module).is_file(), "no such module"
    assert not file_of(Path(module)).exists(), "it has a test file by now"


@pytest.mark.parametrize("wing", sorted(PENDING))
def test_what_is_pending_is_a_wing(wing: str) -> None:
    assert (SOURCE / wing).is_dir()


def test_a_test_file_tests_something() -> None:
    empty = [
        path.relative_to(TESTS)
        for path in TESTS.rglob("test_*.py")
        if "\ndef test_" not in path.read_text() and "class Test" not in path.read_text()
    ]

    assert empty == []
