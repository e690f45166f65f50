"""What the processor can do at most: measured once, kept, and read from beside a result."""

from pathlib import Path

import msgspec
import pytest

from llmdyno.machine import environment, peaks


@pytest.fixture(autouse=True)
def _another_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    peaks._of_cores.cache_clear()


def test_they_are_measured_once(tmp_path: Path) -> None:
    first = peaks.this_machine()
    assert 1e8 < first.bytes_s < 2e12
    assert 1e8 < first.flops < 1e14
    [place] = (tmp_path / "llmdyno/peaks").iterdir()
    place.write_bytes(msgspec.json.encode(msgspec.structs.replace(first, flops=1.0)))
    peaks._of_cores.cache_clear()
    assert peaks.this_machine() == msgspec.structs.replace(first, flops=1.0)


def test_a_file_that_is_torn_is_measured_again(tmp_path: Path) -> None:
    first = peaks.this_machine()
    [place] = (tmp_path / "llmdyno/peaks").iterdir()
    place.write_bytes(place.read_bytes()[:20])
    peaks._of_cores.cache_clear()
    assert peaks.this_machine().cores == first.cores


def test_they_stand_beside_a_result_that_asks_for_them() -> None:
    described = environment.describe(peaks=True)
    assert peaks.kept(described["cpu"]) == peaks.this_machine()
    assert peaks.kept(environment.describe()["cpu"]) is None
    assert peaks.kept({"peaks": {"flops": "many"}}) is None
