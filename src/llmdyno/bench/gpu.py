"""Samples this machine's GPUs while a level runs: use, memory, power, clock, throttle reasons.

run.py wraps a level in `around` when the server is on this machine. Another process reads the
driver and writes lines, because a call of the driver in our process would block the event loop that
stamps reads. That process is nvml.py if nvidia-ml-py is installed, else nvidia-smi in its loop
mode; without either there are no samples. If CUDA_VISIBLE_DEVICES names some of the GPUs, the
others are left out, because they do not serve this run.
"""

import asyncio
import contextlib
import ctypes
import importlib.util
import os
import shutil
import socket
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from time import perf_counter_ns

from llmdyno.machine import hardware
from llmdyno.processes.starting import starting
from llmdyno.records.entries import GpuSample

_FIELDS = (
    "index",
    "utilization.gpu",
    "memory.used",
    "power.draw",
    "clocks.sm",
    "temperature.gpu",
    "clocks_throttle_reasons.active",
    "uuid",
)


@contextlib.asynccontextmanager
async def around(
    level: int, zero_ns: int, interval_s: float, sink: Callable[[GpuSample], None]
) -> AsyncIterator[None]:
    """Sample the GPUs every interval during the body of the `with`.

    Args:
        level: the number that the samples get.
        zero_ns: the zero of their times, by perf_counter_ns.
        interval_s: between two samples.
        sink: takes the samples.

    Raises:
        ServerError: the system starts no further process.
    """
    program = sampler() if _has_nvidia() else None
    if not program:
        yield
        return
    arguments = (
        f"--query-gpu={','.join(_FIELDS)}",
        "--format=csv,noheader,nounits",
        f"--loop-ms={max(100, round(interval_s * 1000))}",
    )
    with starting("nvidia-smi"):
        process = await asyncio.create_subprocess_exec(
            *program, *arguments, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL
        )
    task = asyncio.create_task(_note_lines(process, level, zero_ns, sink))
    try:
        yield
    finally:
        task.cancel()
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await asyncio.gather(task, return_exceptions=True)
        await process.wait()


def _has_nvidia() -> bool:
    """Whether this machine may have NVIDIA's driver; without it a sampler starts for nothing."""
    if shutil.which("nvidia-smi") is not None or sys.platform == "win32":
        return True
    try:
        ctypes.CDLL("libnvidia-ml.so.1")  # as pynvml loads it
    except OSError:
        return False
    return True


def sampler() -> list[str]:
    """Return the command that writes samples, without its arguments; empty if none is installed."""
    if importlib.util.find_spec("pynvml") is not None:
        return [sys.executable, "-m", "llmdyno.bench.nvml"]
    program = shutil.which("nvidia-smi")
    return [program] if program else []


async def _note_lines(
    process: asyncio.subprocess.Process,
    level: int,
    zero_ns: int,
    sink: Callable[[GpuSample], None],
) -> None:
    assert process.stdout is not None
    shown = hardware.shown_gpus(os.environ)
    async for line in process.stdout:
        sample = read_line(line.decode(), level, perf_counter_ns() - zero_ns, shown)
        if sample is not None:
            sink(sample)


def read_line(
    line: str, level: int, t_ns: int, shown: Sequence[str] | None = None
) -> GpuSample | None:
    """Read a line of nvidia-smi; None if it is no sample (an error, a warning).

    Args:
        line: the cells of one GPU, separated by commas; nvml.py adds the energy counter (J).
        level: the number that the sample gets.
        t_ns: its time in the journal.
        shown: the GPUs that count, by index or by the beginning of the UUID; a line of another GPU
            gives None. None: all count.
    """
    cells = [cell.strip() for cell in line.split(",")]
    if len(cells) not in {len(_FIELDS), len(_FIELDS) + 1} or not cells[0].isdigit():
        return None
    if shown is not None and not any(_is_named(cells[0], cells[7], name) for name in shown):
        return None
    use, memory, power, clock, temperature = (_number(cell) for cell in cells[1:6])
    return GpuSample(
        level=level,
        t_ns=t_ns,
        gpu=int(cells[0]),
        use=None if use is None else use / 100,
        memory_mib=memory,
        power_w=power,
        clock_mhz=clock,
        temperature_c=temperature,
        throttle=int(cells[6], 16) if cells[6].startswith("0x") else 0,
        energy_j=_number(cells[8]) if len(cells) > len(_FIELDS) else None,
    )


def _is_named(index: str, uuid: str, name: str) -> bool:
    return name == index or (name.startswith("GPU-") and uuid.lower().startswith(name.lower()))


def is_local(host: str) -> bool:
    """Return whether a host is this machine: whether a socket can be bound to its address."""
    try:
        found = socket.getaddrinfo(host, 0, type=socket.SOCK_STREAM)
    except OSError:
        return False
    for family, kind, protocol, _, address in found:
        with contextlib.suppress(OSError), socket.socket(family, kind, protocol) as probe:
            probe.bind(address)
            return True
    return False


def _number(text: str) -> float | None:
    """Read a number; None for [N/A] and [Not Supported], which nvidia-smi also writes."""
    try:
        return float(text)
    except ValueError:
        return None
