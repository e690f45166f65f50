"""GPUs of this machine while a level runs: use, memory, power, clock, and why it is not higher.

run.py wraps a level in `around` when the server is on this machine. Another process reads the
driver and writes lines: asking it in ours would hold up the event loop whose stamps we are taking.
It is nvml.py where nvidia-ml-py is installed, else nvidia-smi in its loop mode; without either
there are no samples. Where CUDA_VISIBLE_DEVICES leaves us some of the GPUs, the others are somebody
else's and none of this run's.
"""

import asyncio
import contextlib
import importlib.util
import os
import shutil
import socket
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from time import perf_counter_ns

from llmdyno.machine import hardware
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
    """Sample the GPUs every interval during the body of the `with`."""
    program = sampler()
    if not program:
        yield
        return
    arguments = (
        f"--query-gpu={','.join(_FIELDS)}",
        "--format=csv,noheader,nounits",
        f"--loop-ms={max(100, round(interval_s * 1000))}",
    )
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


def sampler() -> list[str]:
    """Return the command that writes samples, without its arguments; empty if there is none."""
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
    """Read a line of nvidia-smi's; None if it is not one of samples (an error, a warning).

    None, too, for a GPU that is not among those `shown`, by index or by the beginning of its UUID.
    """
    cells = [cell.strip() for cell in line.split(",")]
    if len(cells) != len(_FIELDS) or not cells[0].isdigit():
        return None
    if shown is not None and not any(_is_named(cells[0], cells[-1], name) for name in shown):
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
    )


def _is_named(index: str, uuid: str, name: str) -> bool:
    return name == index or (name.startswith("GPU-") and uuid.lower().startswith(name.lower()))


def is_local(host: str) -> bool:
    """Return whether a host is this machine: one of its addresses can be bound here."""
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
    """Read a figure; nvidia-smi also writes [N/A] and [Not Supported]."""
    try:
        return float(text)
    except ValueError:
        return None
