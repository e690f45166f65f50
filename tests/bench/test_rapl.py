"""The kernel's energy counters: which ones count, how they are added up, when there are none."""

import asyncio
from pathlib import Path

import pytest

from llmdyno.bench import rapl
from llmdyno.records.entries import CpuEnergy


def write(root: Path, folder: str, name: str, energy_uj: int | None, full_uj: int = 1000) -> Path:
    """Write a zone as the kernel shows it; without a counter if it cannot be read."""
    zone = root / folder
    zone.mkdir()
    (zone / "name").write_text(f"{name}\n")
    (zone / "max_energy_range_uj").write_text(f"{full_uj}\n")
    if energy_uj is not None:
        (zone / "energy_uj").write_text(f"{energy_uj}\n")
    return zone / "energy_uj"


def test_packages_and_their_memory_count_once(tmp_path: Path) -> None:
    write(tmp_path, "intel-rapl:0", "package-0", 5)
    write(tmp_path, "intel-rapl:0:0", "core", 3)
    write(tmp_path, "intel-rapl:0:1", "dram", 2)
    write(tmp_path, "intel-rapl:1", "package-1", None)  # only root may read it
    write(tmp_path, "intel-rapl:2", "psys", 9)  # the whole board, packages included

    assert [counter.part for counter in rapl.counters(tmp_path)] == ["package-0", "dram-0"]


def test_a_counter_that_begins_anew_goes_on(tmp_path: Path) -> None:
    file = write(tmp_path, "intel-rapl:0", "package-0", 900_000, full_uj=1_000_000)
    (counter,) = rapl.counters(tmp_path)

    file.write_text("950000")
    assert counter.read_j() == pytest.approx(0.05)
    file.write_text("50000")
    assert counter.read_j() == pytest.approx(0.15)
    file.unlink()
    assert counter.read_j() is None


def test_a_level_is_sampled_from_its_begin_to_its_end(tmp_path: Path) -> None:
    file = write(tmp_path, "intel-rapl:0", "package-0", 0, full_uj=10**9)
    samples: list[CpuEnergy] = []

    async def level() -> None:
        async with rapl.around(2, 0, 60.0, samples.append, root=tmp_path):
            await asyncio.sleep(0)
            file.write_text("7000000")

    asyncio.run(level())

    assert [(sample.level, sample.part, sample.energy_j) for sample in samples] == [
        (2, "package-0", 0.0),
        (2, "package-0", 7.0),
    ]


def test_without_counters_there_are_no_samples(tmp_path: Path) -> None:
    samples: list[CpuEnergy] = []

    async def level() -> None:
        async with rapl.around(0, 0, 1.0, samples.append, root=tmp_path):
            pass

    asyncio.run(level())

    assert samples == []
