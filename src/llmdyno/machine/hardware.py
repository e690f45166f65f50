"""What this machine is made of: processor, memory, GPUs.

Read from the kernel and from nvidia-smi each time it is asked for, never guessed: what cannot be
read is None. environment.py writes it beside every result.
"""

import hashlib
import os
import platform
import re
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec

_NVIDIA_SMI_TIMEOUT_S = 10.0  # without persistence mode it must load the driver first
_GPU_FIELDS = (
    *("name", "memory.total", "driver_version", "compute_cap"),
    *("clocks.max.sm", "power.limit", "mig.mode.current", "uuid"),
)


class Cpu(msgspec.Struct, frozen=True, kw_only=True):
    """The processor, and how much of it this process may use."""

    model: str
    cores_usable: int  # logical ones in our affinity mask
    cores_physical: int | None  # of the whole machine
    quota_cores: float | None  # what a container may use; None: all of them
    governor: str | None


class Gpu(msgspec.Struct, frozen=True, kw_only=True):
    """One NVIDIA GPU as nvidia-smi describes it."""

    name: str
    memory_mib: float | None
    driver: str
    compute_capability: str
    clock_mhz_max: float | None
    power_limit_w: float | None
    mig: bool
    id: str | None = None  # of this very GPU: a hash of its UUID; None: it was not asked for


def cpu() -> Cpu:
    """Return the processor's model, its cores, their quota and governor, as far as Linux tells."""
    information = _read("/proc/cpuinfo")
    model = re.search(r"^model name\s*: (.+)$", information, re.MULTILINE)
    # One block a logical core; two of them on the same physical one share both numbers.
    cores = {
        tuple(re.findall(r"^(?:physical id|core id)\s*: (\d+)$", block, re.MULTILINE))
        for block in information.split("\n\n")
    } - {()}
    return Cpu(
        model=model[1] if model else platform.processor() or platform.machine(),
        cores_usable=len(os.sched_getaffinity(0)),
        cores_physical=len(cores) or None,
        quota_cores=_quota_cores(_read("/sys/fs/cgroup/cpu.max")),
        governor=_read("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor").strip() or None,
    )


# What /proc/cpuinfo calls the instructions that multiply numbers of 16 bits (bfloat16): engines
# that find them use them unasked.
BF16_FLAGS = frozenset({"avx512_bf16", "amx_bf16", "avx_ne_convert", "bf16"})


def cpu_flags() -> frozenset[str]:
    """Return what instructions the processor has, as Linux names them; none if it does not tell."""
    found = re.search(r"^(?:flags|Features)\s*: (.+)$", _read("/proc/cpuinfo"), re.MULTILINE)
    return frozenset(found[1].split()) if found else frozenset()


def boot_id() -> str | None:
    """Return a hash of what Linux calls this boot of the machine; None: it does not tell.

    Containers of one machine have the same, copies of one image do not.
    """
    return _hashed(text) if (text := _read("/proc/sys/kernel/random/boot_id").strip()) else None


def memory_bytes() -> int:
    """Return the size of the machine's memory."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def gpus() -> tuple[Gpu, ...]:
    """Describe the NVIDIA GPUs; none where nvidia-smi is missing or fails."""
    return tuple(_gpu(line) for line in _ask_nvidia_smi(_GPU_FIELDS))


def shown_gpus(environment: Mapping[str, str]) -> tuple[str, ...] | None:
    """Return which GPUs CUDA_VISIBLE_DEVICES leaves to a program, as indices and UUIDs.

    None where it leaves all of them, and where it names parts of GPUs or anything else that cannot
    be told from here. Indices are those of the PCI bus, which CUDA's are, too, where it is told so
    or all GPUs are alike.
    """
    text = environment.get("CUDA_VISIBLE_DEVICES")
    if text is None:
        return None
    names = tuple(name.strip() for name in text.split(",") if name.strip())
    if not all(re.fullmatch(r"-?\d+|GPU-[\da-fA-F-]+", name) for name in names):
        return None
    # As CUDA reads it: what follows a number below zero is not there.
    cut = next((place for place, name in enumerate(names) if name.startswith("-")), len(names))
    return names[:cut]


def gpus_visible() -> int | None:
    """Return how many GPUs a server would see; None where nobody here can tell.

    That is so without NVIDIA's tools (another maker's GPUs have others), and with MIG.
    """
    found = gpus()
    if not found or any(gpu.mig for gpu in found):
        return None
    if "CUDA_VISIBLE_DEVICES" not in os.environ:
        return len(found)
    shown = shown_gpus(os.environ)
    return None if shown is None else len(shown)


def least_used_gpus(count: int) -> tuple[int, ...]:
    """Return the indices (in the order of the PCI bus) of the GPUs that others use least.

    None of them where nvidia-smi is missing or fails, where there are fewer, and where one is split
    by MIG, whose parts have no such index.
    """
    found = []
    for line in _ask_nvidia_smi(("index", "memory.used", "utilization.gpu", "mig.mode.current")):
        index, memory, use, mig = line.split(", ")
        if mig == "Enabled":
            return ()
        found.append((_number(memory) or 0.0, _number(use) or 0.0, int(index)))
    if len(found) < count:
        return ()
    return tuple(sorted(index for _, _, index in sorted(found)[:count]))


def _ask_nvidia_smi(fields: Sequence[str]) -> list[str]:
    program = shutil.which("nvidia-smi")
    if program is None:
        return []
    try:
        asked = subprocess.run(
            [program, f"--query-gpu={','.join(fields)}", "--format=csv,noheader,nounits"],
            capture_output=True,
            text=True,
            check=True,
            timeout=_NVIDIA_SMI_TIMEOUT_S,
        )
    except (OSError, subprocess.SubprocessError):
        return []
    return [line for line in asked.stdout.splitlines() if line.strip()]


def _gpu(line: str) -> Gpu:
    name, memory, driver, capability, clock_max, power, mig, *uuid = line.split(", ")
    return Gpu(
        name=name,
        memory_mib=_number(memory),
        driver=driver,
        compute_capability=capability,
        clock_mhz_max=_number(clock_max),
        power_limit_w=_number(power),
        mig=mig == "Enabled",
        id=_hashed(uuid[0]) if uuid else None,
    )


def _hashed(text: str) -> str:
    """Return what tells a machine from others without naming it: results are passed on."""
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def _number(text: str) -> float | None:
    """Read a figure of nvidia-smi, which also writes [N/A] and [Not Supported]."""
    try:
        return float(text)
    except ValueError:
        return None


def _quota_cores(text: str) -> float | None:
    """Read cgroup v2's cpu.max: microseconds of CPU ("max": no limit) in a period."""
    found = re.match(r"(\d+) (\d+)", text)
    return int(found[1]) / int(found[2]) if found else None


def _read(path: str) -> str:
    try:
        return Path(path).read_text("utf-8")
    except OSError:
        return ""
