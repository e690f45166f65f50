"""GPUs of this machine while a level runs: use, memory, power, clock, and why it is not higher.

bench.py wraps a level in `around` when the server is on this machine. Another process reads the
driver and writes lines: asking it in ours would hold up the event loop whose stamps we are taking.
It is nvml.py where nvidia-ml-py is installed, else nvidia-smi in its loop mode; without either
there are no samples.
"""

import asyncio
import contextlib
import importlib.util
import shutil
import socket
import sys
from collections.abc import AsyncIterator, Callable
from time import perf_counter_ns

from llmdyno.records import GpuSample

_FIELDS = (
    *("index", "utilization.gpu", "memory.used", "power.draw", "clocks.sm", "temperature.gpu"),
    "clocks_throttle_reasons.active",
)


@contextlib.asynccontextmanager
async def around(
    level: int, zero_ns: int, interval_s: float, sink: Callable[[GpuSample], None]
) -> AsyncIterator[None]:
    """Sample the GPUs every interval while what is inside is done."""
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
    """Return the command that writes samples, without its arguments; none: there is none."""
    if importlib.util.find_spec("pynvml") is not None:
        return [sys.executable, "-m", "llmdyno.nvml"]
    program = shutil.which("nvidia-smi")
    return [program] if program else []


async def _note_lines(
    process: asyncio.subprocess.Process,
    level: int,
    zero_ns: int,
    sink: Callable[[GpuSample], None],
) -> None:
    assert process.stdout is not None
    async for line in process.stdout:
        sample = read_line(line.decode(), level, perf_counter_ns() - zero_ns)
        if sample is not None:
            sink(sample)


def read_line(line: str, level: int, t_ns: int) -> GpuSample | None:
    """Read a line of nvidia-smi's; None if it is not one of samples (an error, a warning)."""
    cells = [cell.strip() for cell in line.split(",")]
    if len(cells) != len(_FIELDS) or not cells[0].isdigit():
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


def is_local(host: str) -> bool:
    """Tell whether that host is this machine: whether one of its addresses can be bound here."""
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
