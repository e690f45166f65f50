"""Writes the lines of nvidia-smi's loop mode by NVML: `python -m llmdyno.bench.nvml --loop-ms=500`.

gpu.py starts it if nvidia-ml-py is installed (extra `gpu`), in a process of its own like
nvidia-smi, so that a slow call of the driver delays no stamp. Each line has the same cells in the
same units, and one more; a value that a GPU does not report is [N/A]. If NVML cannot be opened,
the process becomes nvidia-smi, if that is installed.
"""

import os
import shutil
import sys
import time
from collections.abc import Callable
from typing import Any, TypeVar

import pynvml

_MIB = 2**20
_LOOP_FLAG = "--loop-ms="
_Fact = TypeVar("_Fact", int, str)


def cells(number: int, gpu: Any) -> list[str]:
    """Return the cells of one GPU's line, in the order of gpu.py's query to nvidia-smi.

    The last cell is more than nvidia-smi has: the energy that the GPU has used, in J.

    Args:
        number: the GPU's index.
        gpu: NVML's handle of it.
    """
    memory_mib = _told(lambda: pynvml.nvmlDeviceGetMemoryInfo(gpu, pynvml.nvmlMemory_v2).used)
    power_w = _told(lambda: pynvml.nvmlDeviceGetPowerUsage(gpu))
    energy_mj = _told(lambda: pynvml.nvmlDeviceGetTotalEnergyConsumption(gpu))
    # The old name of this call works with old and new drivers.
    throttle = _told(lambda: pynvml.nvmlDeviceGetCurrentClocksThrottleReasons(gpu))
    return [
        str(number),
        _cell(_told(lambda: pynvml.nvmlDeviceGetUtilizationRates(gpu).gpu)),
        _cell(memory_mib, 1 / _MIB),
        _cell(power_w, 1e-3),
        _cell(_told(lambda: pynvml.nvmlDeviceGetClockInfo(gpu, pynvml.NVML_CLOCK_SM))),
        _cell(_told(lambda: pynvml.nvmlDeviceGetTemperature(gpu, pynvml.NVML_TEMPERATURE_GPU))),
        "[N/A]" if throttle is None else f"{throttle:#018x}",
        _told(lambda: pynvml.nvmlDeviceGetUUID(gpu)) or "[N/A]",
        "[N/A]" if energy_mj is None else f"{energy_mj * 1e-3:.3f}",
    ]


def _told(ask: Callable[[], _Fact]) -> _Fact | None:
    try:
        return ask()
    except pynvml.NVMLError:
        return None


def _cell(value: int | None, unit: float = 1.0) -> str:
    return "[N/A]" if value is None else f"{value * unit:g}"


def main() -> None:
    """Write a line for each GPU every interval, until the process is killed."""
    (loop_ms,) = (text[len(_LOOP_FLAG) :] for text in sys.argv if text.startswith(_LOOP_FLAG))
    try:
        pynvml.nvmlInit()
        gpus = [pynvml.nvmlDeviceGetHandleByIndex(i) for i in range(pynvml.nvmlDeviceGetCount())]
    except pynvml.NVMLError as error:
        program = shutil.which("nvidia-smi")
        if program is None:
            sys.exit(f"NVML: {error}")
        os.execv(program, [program, *sys.argv[1:]])  # noqa: S606  # no shell is wanted
    period_s = int(loop_ms) / 1000
    due_s = time.monotonic()
    while True:
        for number, gpu in enumerate(gpus):
            sys.stdout.write(", ".join(cells(number, gpu)) + "\n")
        sys.stdout.flush()
        due_s += period_s
        time.sleep(max(0.0, due_s - time.monotonic()))


if __name__ == "__main__":
    main()
