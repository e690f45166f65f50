"""NVML's lines: cells as nvidia-smi writes them; a real GPU is not needed to tell nothing."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from llmdyno.bench.gpu import read_line

pynvml = pytest.importorskip("pynvml")


def test_a_gpu_that_tells_nothing_is_a_line_that_gpu_py_reads() -> None:
    from llmdyno.bench import nvml

    line = ", ".join(nvml.cells(0, None))  # NVML was not opened, so that every question fails

    assert line == "0" + ", [N/A]" * 8
    sample = read_line(line, 0, 0)
    assert sample is not None
    assert (sample.gpu, sample.use, sample.throttle) == (0, None, 0)


def test_the_energy_counter_is_told_in_joules(monkeypatch: pytest.MonkeyPatch) -> None:
    from llmdyno.bench import nvml

    monkeypatch.setattr(
        pynvml, "nvmlDeviceGetTotalEnergyConsumption", lambda _: 123_456_789
    )  # in mJ
    sample = read_line(", ".join(nvml.cells(0, None)), 0, 0)

    assert sample is not None
    assert sample.energy_j == 123_456.789


def test_values_are_in_nvidia_smis_units() -> None:
    from llmdyno.bench import nvml

    assert nvml._cell(70_123 * 2**20, 1 / 2**20) == "70123"
    assert nvml._cell(612_500, 1e-3) == "612.5"
    assert nvml._cell(0) == "0"


def run(path: str) -> subprocess.CompletedProcess[str]:
    """Run it with this PATH, where NVML cannot be opened."""
    return subprocess.run(
        [sys.executable, "-m", "llmdyno.bench.nvml", "--loop-ms=100"],
        env={**os.environ, "PATH": path, "LD_LIBRARY_PATH": ""},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def has_driver() -> bool:
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return False
    pynvml.nvmlShutdown()
    return True


@pytest.mark.skipif(has_driver(), reason="needs a machine without NVIDIA's driver")
def test_without_nvml_it_becomes_nvidia_smi_or_says_why_not(tmp_path: Path) -> None:
    done = run(str(tmp_path))
    assert done.returncode == 1
    assert done.stderr.startswith("NVML: ")

    program = tmp_path / "nvidia-smi"
    program.write_text('#!/bin/sh\necho "asked with $*"\n')
    program.chmod(0o755)
    assert run(str(tmp_path)).stdout == "asked with --loop-ms=100\n"
