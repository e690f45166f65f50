"""Samples what this machine's processors use while a level runs, from the kernel's energy counters.

The counters are those of RAPL (Intel, AMD), which Linux shows below /sys/class/powercap. Since
Linux 5.10 only root may read them; where they cannot be read there are no samples.
Source: https://docs.kernel.org/power/powercap/powercap.html
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from time import perf_counter_ns

import msgspec

from llmdyno.records.entries import CpuEnergy

POWERCAP = Path("/sys/class/powercap")
_UJ = 1e-6


class Counter(msgspec.Struct):
    """One counter of the kernel, in microjoules, that begins anew when it is full."""

    part: str  # "package-0"
    file: Path
    full_uj: int
    last_uj: int
    used_uj: int = 0  # since it was opened

    def read_j(self) -> float | None:
        """Return what was used since it was opened, in J; None if it cannot be read.

        Between two calls the counter may begin anew once: a call every few seconds sees to that.
        """
        now_uj = _whole(self.file)
        if now_uj is None:
            return None
        step_uj = now_uj - self.last_uj
        self.used_uj += step_uj if step_uj >= 0 else step_uj + self.full_uj
        self.last_uj = now_uj
        return self.used_uj * _UJ


def counters(root: Path = POWERCAP) -> list[Counter]:
    """Open the counters that can be read: of each package, and of memory beside the packages.

    The other parts (core, uncore) lie within a package and would count twice.
    """
    found = []
    for folder in sorted(root.glob("intel-rapl:*")):
        name = _text(folder / "name")
        now_uj, full_uj = (_whole(folder / file) for file in ("energy_uj", "max_energy_range_uj"))
        if now_uj is None or full_uj is None:
            continue
        if name.startswith("package"):
            part = name
        elif name == "dram":
            part = f"dram-{folder.name.split(':')[1]}"
        else:
            continue
        counter = Counter(part=part, file=folder / "energy_uj", full_uj=full_uj, last_uj=now_uj)
        found.append(counter)
    return found


@contextlib.asynccontextmanager
async def around(
    level: int,
    zero_ns: int,
    interval_s: float,
    sink: Callable[[CpuEnergy], None],
    *,
    root: Path = POWERCAP,
) -> AsyncIterator[None]:
    """Sample the counters every interval during the body of the `with`.

    Args:
        level: the number that the samples get.
        zero_ns: the zero of their times, by perf_counter_ns.
        interval_s: between two samples.
        sink: takes the samples.
        root: where the kernel shows the counters.
    """
    opened = counters(root)
    if not opened:
        yield
        return

    def note() -> None:
        _note(opened, level, zero_ns, sink)

    async def sample() -> None:
        while True:
            note()
            await asyncio.sleep(interval_s)

    task = asyncio.create_task(sample())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        note()


def _note(
    opened: Sequence[Counter], level: int, zero_ns: int, sink: Callable[[CpuEnergy], None]
) -> None:
    for counter in opened:
        used_j = counter.read_j()
        if used_j is not None:
            t_ns = perf_counter_ns() - zero_ns
            sink(CpuEnergy(level=level, t_ns=t_ns, part=counter.part, energy_j=used_j))


def _text(file: Path) -> str:
    try:
        return file.read_text().strip()
    except OSError:
        return ""


def _whole(file: Path) -> int | None:
    text = _text(file)
    return int(text) if text.isdigit() else None
