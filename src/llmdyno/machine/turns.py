"""How soon this process gets a core when it wakes up beside others (Linux)."""

import contextlib
import ctypes
import os
import platform
import sys

# sched_setattr of each architecture that we run on: Linux, asm/unistd_64.h and asm-generic.
_CALLS = {"x86_64": 314, "aarch64": 274}
_SLICE_NS = 100_000  # the shortest that Linux takes
_NICENESS = -10


class _Attributes(ctypes.Structure):
    """`struct sched_attr` in its first version (linux/sched/types.h)."""

    _fields_ = (
        ("size", ctypes.c_uint32),
        ("policy", ctypes.c_uint32),
        ("flags", ctypes.c_uint64),
        ("nice", ctypes.c_int32),
        ("priority", ctypes.c_uint32),
        ("runtime", ctypes.c_uint64),
        ("deadline", ctypes.c_uint64),
        ("period", ctypes.c_uint64),
    )


def come_first() -> bool:
    """Let this process have a core as soon as it wakes up; return whether Linux agreed.

    For one that does little and often, and that others wait for. It takes two steps. Since Linux
    6.12 a process of the usual class that asks for a shorter slice than another one takes the core
    from it when it wakes up, as long as it has had no more than its share (`sched_runtime` of
    sched_setattr(2), EEVDF's "PREEMPT_SHORT"); else what runs keeps the core for its own slice,
    some milliseconds. That needs no privilege. Where we may, it also counts for more than what is
    beside it (`nice`).
    """
    with contextlib.suppress(OSError):
        os.nice(_NICENESS)
    number = _CALLS.get(platform.machine())
    if sys.platform != "linux" or number is None:
        return False
    if os.sched_getscheduler(0) != os.SCHED_OTHER:  # somebody has chosen a class for us
        return False
    asked = _Attributes(
        size=ctypes.sizeof(_Attributes),
        policy=os.SCHED_OTHER,
        nice=os.getpriority(os.PRIO_PROCESS, 0),
        runtime=_SLICE_NS,
    )
    return bool(ctypes.CDLL(None).syscall(number, 0, ctypes.byref(asked), 0) == 0)
