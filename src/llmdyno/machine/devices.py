"""Leases on parts of this machine, for servers that are measured beside each other.

A part is some of the GPUs or, for an engine that computes on the CPU, some of the cores. No two
leases hold the same part.
"""

import os
from collections.abc import Mapping, Sequence

import msgspec

from llmdyno.errors import UsageError
from llmdyno.machine import hardware
from llmdyno.units import counted


class Lease(msgspec.Struct, frozen=True, kw_only=True):
    """A part of the machine that one server, and who measures it, have to themselves."""

    gpus: tuple[str, ...] = ()  # as CUDA_VISIBLE_DEVICES names them
    cores: tuple[int, ...] = ()  # empty: all that we may use

    def __str__(self) -> str:
        """Return what a person calls it: "GPU 0,1", "cores 0-3"."""
        return f"GPU {','.join(self.gpus)}" if self.gpus else f"cores {_ranges(self.cores)}"

    @property
    def environment(self) -> Mapping[str, str]:
        """The variables that show a server no other GPU."""
        if not self.gpus:
            return {}
        # CUDA's own order of the indices differs from the bus's, by which ours are.
        order = {} if "CUDA_VISIBLE_DEVICES" in os.environ else {"CUDA_DEVICE_ORDER": "PCI_BUS_ID"}
        return {**order, "CUDA_VISIBLE_DEVICES": ",".join(self.gpus)}


class Devices:
    """What can be leased on this machine, and what of it is free.

    Args:
        lanes: how many leases there are to be at once.
        gpus_each: GPUs that the usual one takes; 0: it computes on the CPU, and the cores are
            divided evenly.

    Raises:
        UsageError: there are not so many, or nobody can tell how many there are.
    """

    def __init__(self, lanes: int, gpus_each: int) -> None:
        self._by_gpu = gpus_each > 0
        if self._by_gpu:
            self._free: list[Lease] = [Lease(gpus=(name,)) for name in _gpu_names(lanes)]
            self._check(lanes, gpus_each, "GPU", len(self._free))
        else:
            cores = sorted(os.sched_getaffinity(0))
            self._check(lanes, 1, "CPU core", len(cores))
            cuts = [len(cores) * number // lanes for number in range(lanes + 1)]
            self._free = [
                Lease(cores=tuple(cores[low:high]))
                for low, high in zip(cuts, cuts[1:], strict=False)
            ]
        self._all = len(self._free)

    @staticmethod
    def _check(lanes: int, each: int, what: str, found: int) -> None:
        if found >= lanes * each:
            return
        raise UsageError(
            f"--parallel {lanes}: takes {counted(lanes * each, what)}, {each} for each trial, and"
            f" {found} can be used here; set at most {found // each}."
        )

    def fits(self, gpus: int) -> bool:
        """Tell whether something that takes so many GPUs can ever have them."""
        return not self._by_gpu or max(1, gpus) <= self._all

    def take(self, gpus: int) -> Lease | None:
        """Lease so many GPUs, or one part of the cores; None: they are not free now."""
        count = max(1, gpus) if self._by_gpu else 1
        if len(self._free) < count:
            return None
        taken, self._free = self._free[:count], self._free[count:]
        names = tuple(name for one in taken for name in one.gpus)
        return Lease(gpus=names) if self._by_gpu else taken[0]

    def give_back(self, lease: Lease) -> None:
        """Free what was leased."""
        parts = [Lease(gpus=(name,)) for name in lease.gpus] or [lease]
        self._free = sorted([*self._free, *parts], key=lambda one: (one.cores, one.gpus))


def _gpu_names(lanes: int) -> tuple[str, ...]:
    """Return the GPUs that we may use, as CUDA_VISIBLE_DEVICES names them."""
    if "CUDA_VISIBLE_DEVICES" in os.environ:
        shown = hardware.shown_gpus(os.environ)
        if shown is None:
            raise UsageError(
                f"--parallel {lanes}: CUDA_VISIBLE_DEVICES={os.environ['CUDA_VISIBLE_DEVICES']}"
                " names parts of GPUs, which cannot be leased one by one; name whole GPUs."
            )
        return shown
    found = hardware.gpus()
    if not found or any(gpu.mig for gpu in found):
        raise UsageError(
            f"--parallel {lanes}: nvidia-smi does not tell which whole GPUs there are; name them in"
            " CUDA_VISIBLE_DEVICES."
        )
    return tuple(str(number) for number in range(len(found)))


def _ranges(cores: Sequence[int]) -> str:
    """Return cores as Linux writes them: "0-3,8"."""
    parts: list[list[int]] = []
    for core in cores:
        if parts and parts[-1][1] == core - 1:
            parts[-1][1] = core
        else:
            parts.append([core, core])
    return ",".join(str(low) if low == high else f"{low}-{high}" for low, high in parts)
