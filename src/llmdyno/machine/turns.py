"""How soon this process gets a core when it wakes up beside others (Linux)."""

import ctypes
import os
import platform
import sys

# sched_setattr of each architecture that we run on: Linux, asm/unistd_64.h and asm-generic.
_CALLS = {"x86_64": 314, "aarch64": 274}
_SLICE_NS = 100_000  # the shortest that Linux takes


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


def take_short_turns() -> bool:
    """Ask Linux for short turns on the core, and so for early ones; return whether it agreed.

    Since Linux 6.12 a process of the usual class that asks for a shorter slice than another one
    takes the core from it when it wakes up, as long as it has had no more than its share
    (`sched_runtime` of sched_setattr(2), EEVDF's "PREEMPT_SHORT"). It needs no privilege and gives
    no more of the core. Without it, what runs may keep the core for its own slice, some
    milliseconds. An older Linux takes the call and does nothing.
    """
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
    return ctypes.CDLL(None).syscall(number, 0, ctypes.byref(asked), 0) == 0
