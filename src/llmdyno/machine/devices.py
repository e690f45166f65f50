"""Leases on parts of this machine, for servers that are measured beside each other.

A part is some of the GPUs or, for an engine that computes on the CPU, some of the cores. No two
leases hold the same part.
"""

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import msgspec

from llmdyno.errors import UsageError
from llmdyno.machine import hardware
from llmdyno.units import counted

_VARIABLES = ("CUDA_VISIBLE_DEVICES", "CUDA_DEVICE_ORDER")
_TOPOLOGY = Path("/sys/devices/system/cpu")


class Lease(msgspec.Struct, frozen=True, kw_only=True):
    """A part of the machine that one server, and who measures it, have to themselves."""

    gpus: tuple[str, ...] = ()  # as CUDA_VISIBLE_DEVICES names them
    cores: tuple[int, ...] = ()  # empty: all that we may use

    def __str__(self) -> str:
        """Return what a person calls it: "GPU 0,1", "cores 0-3"."""
        if self.gpus:
            return f"GPU {','.join(self.gpus)}"
        return f"{'core' if len(self.cores) == 1 else 'cores'} {_ranges(self.cores)}"

    @property
    def environment(self) -> Mapping[str, str]:
        """The variables that show a server no other GPU; one that has cores alone sees none."""
        if not self.gpus:
            return {"CUDA_VISIBLE_DEVICES": ""}
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
        self._wanted = lanes
        self.each = max(1, gpus_each)  # parts of the usual lease
        self.by_gpu = gpus_each > 0
        if self.by_gpu:
            self._all = [Lease(gpus=(name,)) for name in _gpu_names(lanes, gpus_each)]
            self._check(gpus_each, "GPU", len(self._all))
        else:
            cores = _cores()
            self._check(1, "CPU core", len(cores))
            each = len(cores) // lanes  # equally many for each, lest the lanes differ
            self._all = [
                Lease(cores=tuple(sorted(cores[number * each : (number + 1) * each])))
                for number in range(lanes)
            ]
        self._taken: list[Lease] = []  # in parts
        self._at_first = len(self._all)
        self._before = {name: os.environ.get(name) for name in _VARIABLES}

    def _check(self, each: int, what: str, found: int) -> None:
        if found >= self._wanted * each:
            return
        takes = f"takes {counted(self._wanted * each, what)}, {each} for each trial"
        most = found // each
        advice = f"set at most {most}" if most > 1 else "leave it out"
        raise UsageError(
            f"--parallel {self._wanted}: {takes}, and {found} can be used here; {advice}."
        )

    @property
    def lanes(self) -> int:
        """How many usual leases there can be at once."""
        return min(self._wanted, len(self._all) // self.each)

    def lanes_without(self, name: str) -> int:
        """Return how many usual leases there could be at once if this one were left out."""
        rest = sum(not _is_of(part, name) for part in self._all)
        return min(self._wanted, rest // self.each)

    @property
    def parts(self) -> int:
        """How many GPUs there are to share out, or how many lots of cores."""
        return len(self._all)

    @property
    def usual(self) -> list[Lease]:
        """The usual leases, in the order in which they are taken while all is free."""
        parts = [self._all[n * self.each : (n + 1) * self.each] for n in range(self.lanes)]
        return [_joined(part) for part in parts]

    def checked_by(self, name: str) -> list[str]:
        """Return the names of the leases in which the usual server shows if these parts work.

        That is the lease itself if it is as large as a usual one; else all usual ones that have
        one of its parts, and one that reaches to the end, where parts may be left over.
        """
        count, each = len(self._all), self.each
        if sum(_is_of(part, name) for part in self._all) == each:
            return [name]
        begins = {*range(0, count - each + 1, each), max(0, count - each)}
        leases = [str(_joined(self._all[at : at + each])) for at in sorted(begins)]
        return [lease for lease in leases if shares(lease, name)]

    def admit(self, names: Sequence[str]) -> None:
        """Do nothing: what was never compared is left out by its name."""

    def fits(self, gpus: int) -> bool:
        """Tell whether something that takes so many GPUs can ever have them."""
        return max(1, gpus) <= len(self._all) if self.by_gpu else gpus == 0

    def take(self, gpus: int, name: str = "") -> Lease | None:
        """Lease so many GPUs, or one part of the cores; None: they are not free now.

        Args:
            gpus: how many.
            name: of the very parts that are wanted, as a lease is called; empty: any.
        """
        count = max(1, gpus) if self.by_gpu else 1
        free = [part for part in self._all if part not in self._taken]
        if name:
            free = [part for part in free if _is_of(part, name)]
        if len(free) < count:
            return None
        self._taken += free[:count]
        return _joined(free[:count])

    def give_back(self, lease: Lease) -> None:
        """Let others have the parts of a lease that take() has returned."""
        self._taken = [part for part in self._taken if not _is_of(part, str(lease))]

    def leave_out(self, name: str) -> None:
        """Lease no part of this again; `name` is a lease's, as a person calls it."""
        self._all = [part for part in self._all if not _is_of(part, name)]

    def hide_left_out(self) -> None:
        """Show what is started from now on no GPU that was left out, in a lease or without one."""
        if self.by_gpu and len(self._all) < self._at_first and self._all:
            os.environ.update(_joined(self._all).environment)

    def show_all(self) -> None:
        """Take back what hide_left_out() has done."""
        for name, value in self._before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def shares(one: str, other: str) -> bool:
    """Tell whether leases of these names have a part in common."""
    (kind, _, members), (other_kind, _, others) = one.partition(" "), other.partition(" ")
    if kind == other_kind == "GPU":
        return not {*members.split(",")}.isdisjoint(others.split(","))
    return one == other


def _joined(parts: Sequence[Lease]) -> Lease:
    return Lease(
        gpus=tuple(name for one in parts for name in one.gpus),
        cores=tuple(core for one in parts for core in one.cores),
    )


def _is_of(part: Lease, name: str) -> bool:
    """Tell whether a part belongs to a lease of that name."""
    kind, _, members = name.partition(" ")
    if part.gpus:
        return kind == "GPU" and part.gpus[0] in members.split(",")
    return str(part) == name


def _gpu_names(lanes: int, each: int) -> tuple[str, ...]:
    """Return the GPUs that we may use, as CUDA_VISIBLE_DEVICES names them.

    If the user has not chosen, those that others use least come first.
    """
    if "CUDA_VISIBLE_DEVICES" in os.environ:
        shown = hardware.shown_gpus(os.environ)
        if shown is None:
            raise UsageError(
                f"--parallel {lanes}: CUDA_VISIBLE_DEVICES={os.environ['CUDA_VISIBLE_DEVICES']}"
                " names parts of GPUs, which cannot be leased one by one; name whole GPUs."
            )
        return tuple(dict.fromkeys(shown))
    found = hardware.gpus()
    if not found or any(gpu.mig for gpu in found):
        raise UsageError(
            f"--parallel {lanes}: nvidia-smi does not tell which whole GPUs there are; name them in"
            " CUDA_VISIBLE_DEVICES."
        )
    first = hardware.least_used_gpus(min(lanes * each, len(found)))
    return tuple(str(number) for number in dict.fromkeys((*first, *range(len(found)))))


def _cores() -> list[int]:
    """Return the cores that we may use; those that share a socket or a physical core are together.

    A container that may use less time than its cores have gets as many as the time is for.
    """
    cores = sorted(os.sched_getaffinity(0), key=lambda core: (*_place(core), core))
    quota = hardware.cpu().quota_cores
    return cores if quota is None else cores[: max(1, int(quota))]


def _place(core: int) -> tuple[int, int]:
    """Return the socket and the physical core of a logical one; 0 and its number: not told."""
    folder = _TOPOLOGY / f"cpu{core}/topology"
    try:
        socket, physical = (
            int((folder / name).read_text("ascii")) for name in ("physical_package_id", "core_id")
        )
    except (OSError, ValueError):
        return 0, core
    return socket, physical


def _ranges(cores: Iterable[int]) -> str:
    """Return cores as Linux writes them: "0-3,8"."""
    parts: list[list[int]] = []
    for core in sorted(cores):
        if parts and parts[-1][1] == core - 1:
            parts[-1][1] = core
        else:
            parts.append([core, core])
    return ",".join(str(low) if low == high else f"{low}-{high}" for low, high in parts)
