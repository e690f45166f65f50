"""What this processor can do at most, measured once and kept.

A result's distance from the limit is a share of these figures. They are kept on the machine and
written beside each result of an engine that computes on the processor, so that a page made again
says the same.
"""

import hashlib
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack, suppress
from datetime import UTC, datetime
from functools import cache
from pathlib import Path

import msgspec

from llmdyno import store
from llmdyno.errors import DynoError, StorageError, reason
from llmdyno.machine import hardware

# Weights of this size may stay in a CPU's last cache from step to step, and of the next do not.
_NEAR_MIB = 8
_FAR_MIB = 128
_COLUMNS = 1024
_SIDE = 1024
_ROUNDS = 10
_TIMEOUT_S = 60.0
# One thread of BLAS each: threads of its own spin while they wait, which counts as CPU time.
_ONE_THREAD = ("OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "OMP_NUM_THREADS")


class Peaks(msgspec.Struct, frozen=True, kw_only=True):
    """What all usable cores together can do at most.

    Attributes:
        bytes_s: read from memory; of a matrix of 128 MiB times a vector.
        near_bytes_s: read of one of 8 MiB, which a large cache keeps.
        flops: operations a second in 32 bits; of products of square matrices.
        cores: how many those are.
        cpu: the processor's model.
        measured: when, UTC.
        multiplies_bf16: whether it has instructions for products in 16 bits, two in place of one.
    """

    bytes_s: float
    near_bytes_s: float
    flops: float
    cores: int
    cpu: str
    measured: str
    multiplies_bf16: bool = False


def kept(cpu: Mapping[str, object]) -> Peaks | None:
    """Return the peaks that stand beside a result, in its environment's "cpu"; None: none do."""
    with suppress(msgspec.ValidationError):
        return msgspec.convert(cpu.get("peaks"), Peaks)
    return None


def this_machine() -> Peaks:
    """Return the peaks of this machine's usable cores: as kept, or else measured now, in 0.5 s.

    Raises:
        DynoError: they cannot be measured now, as on a machine without memory left; says why.
    """
    found = _of_cores(hardware.cpu().model, len(os.sched_getaffinity(0)))
    if isinstance(found, str):
        raise DynoError(f"what this processor can do at most cannot be measured: {found}")
    return found


@cache  # a failure too: each try may take a minute
def _of_cores(model: str, cores: int) -> Peaks | str:
    """Return the peaks, or why they are not known."""
    place = _place(model, cores)
    with suppress(OSError, msgspec.MsgspecError):
        return msgspec.json.decode(place.read_bytes(), type=Peaks)
    peaks = _measured_apart()
    if isinstance(peaks, str):
        return peaks
    with suppress(StorageError):  # they hold for this process then
        store.make_folder(place.parent)
        store.write_json(place, msgspec.to_builtins(peaks))
    return peaks


def _place(model: str, cores: int) -> Path:
    name = hashlib.sha256(f"{model} {cores}".encode()).hexdigest()[:12]
    return store.cache_folder("peaks") / f"{name}.json"


def _measured_apart() -> Peaks | str:
    """Measure in a process of its own, whose BLAS has not yet chosen its threads; else say why."""
    try:
        done = subprocess.run(
            [sys.executable, "-m", __name__],
            env={**os.environ, **dict.fromkeys(_ONE_THREAD, "1")},
            capture_output=True,
            check=False,
            timeout=_TIMEOUT_S,
        )
        return msgspec.json.decode(done.stdout, type=Peaks)
    except subprocess.TimeoutExpired:
        return f"it was not done within {_TIMEOUT_S:g} s"
    except OSError as error:
        return f"no process could be started for it ({reason(error)})"
    except msgspec.MsgspecError:
        said = done.stderr.decode(errors="replace").split("\n")
        last = next((line.strip() for line in reversed(said) if line.strip()), "it said nothing")
        return f"its process ended with {done.returncode} ({last})"


def measure() -> Peaks:
    """Measure; for a process whose BLAS has one thread.

    All cores compute at once, a thread each, and each is timed by its own CPU time: what else runs
    on the machine meanwhile does not make it slower. Of several rounds the best counts.
    """
    import numpy as np

    cores = len(os.sched_getaffinity(0))

    def reading(mib: int) -> Callable[[], object]:
        """Return what a step does with its weights, the part of one core."""
        rows = max(1, mib * 2**20 // (4 * _COLUMNS * cores))
        matrix = np.ones((rows, _COLUMNS), dtype=np.float32)
        vector = np.ones(_COLUMNS, dtype=np.float32)
        out = np.empty(rows, dtype=np.float32)
        return lambda: np.matmul(matrix, vector, out=out)

    def computing() -> Callable[[], object]:
        matrix = np.ones((_SIDE, _SIDE), dtype=np.float32)
        out = np.empty_like(matrix)
        return lambda: np.matmul(matrix, matrix, out=out)

    return Peaks(
        bytes_s=_FAR_MIB * 2**20 / cores * _a_second(cores, lambda: reading(_FAR_MIB)),
        near_bytes_s=_NEAR_MIB * 2**20 / cores * _a_second(cores, lambda: reading(_NEAR_MIB)),
        flops=2.0 * _SIDE**3 * _a_second(cores, computing),
        cores=cores,
        cpu=hardware.cpu().model,
        measured=datetime.now(UTC).isoformat(timespec="seconds"),
        multiplies_bf16=bool(hardware.cpu_flags() & hardware.BF16_FLAGS),
    )


def _a_second(cores: int, make: Callable[[], Callable[[], object]]) -> float:
    """Return how often a second all cores together do what `make` prepares for each."""
    from concurrent.futures import ThreadPoolExecutor  # only the process that measures needs it

    together = threading.Barrier(cores)
    best_s = [float("inf")] * cores

    def repeat(core: int) -> None:
        with ExitStack() as failing:
            failing.callback(together.abort)  # or the others would wait for it for ever
            run = make()
            for _ in range(_ROUNDS):
                together.wait()
                began_s = time.thread_time()
                run()
                best_s[core] = min(best_s[core], time.thread_time() - began_s)
            failing.pop_all()

    with ThreadPoolExecutor(cores) as pool, ExitStack() as failing:
        failing.callback(together.abort)
        threads = [pool.submit(repeat, core) for core in range(cores)]
        failing.pop_all()
    failures = [error for thread in threads if (error := thread.exception()) is not None]
    for error in failures:
        if not isinstance(error, threading.BrokenBarrierError):  # the one that failed itself
            raise error
    assert not failures, "a barrier was broken by nobody"
    return sum(1 / seconds for seconds in best_s)


if __name__ == "__main__":
    sys.stdout.buffer.write(msgspec.json.encode(measure()))
