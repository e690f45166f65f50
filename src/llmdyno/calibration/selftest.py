"""`dyno selftest`: the accuracy and the capacity of the client on this machine.

Each load runs against a new streamer of known timing (calibrate.py has the method). The first two
loads show the accuracy with one user and with a hundred. The last one shows the CPU time of an
event under high load, and with it the capacity of a core.
"""

from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from llmdyno.calibration.calibrate import Reading, Shape, Timing, reading, streaming
from llmdyno.machine import environment

SCHEMA = "llmdyno.selftest/1"


class Case(msgspec.Struct, frozen=True, kw_only=True):
    """One load of the selftest, with the timing of its streamer."""

    name: str
    timing: Timing
    shape: Shape


_STEADY = Timing(ttft_s=0.1, itl_s=0.02)
CASES: Sequence[Case] = (
    Case(name="1 user", timing=_STEADY, shape=Shape(users=1, tokens=16, duration_s=4.0)),
    Case(name="100 users", timing=_STEADY, shape=Shape(users=100, tokens=64, duration_s=6.0)),
    Case(
        name="burst",
        timing=Timing(ttft_s=0.05, itl_s=0.01),
        shape=Shape(users=200, tokens=128, duration_s=4.0),
    ),
)


async def selftest(notify: Callable[[str], None]) -> dict[str, Any]:
    """Run every case and return the document of `dyno selftest`.

    Args:
        notify: called with a line before each case.

    Raises:
        TargetError: a streamer does not start or answer.
        StorageError: the temporary folder cannot be written.
    """
    readings: dict[str, Reading] = {}
    for case in CASES:
        notify(f"{case.name}: {case.shape.duration_s:g} s ...")
        async with streaming(case.timing) as target:
            readings[case.name] = await reading(target, case.timing, case.shape)
    return {
        "schema": SCHEMA,
        "environment": environment.describe(),
        "events_per_s_max": readings["burst"].events_per_s_max,
        "loads": [
            {
                "name": case.name,
                "ttft_ms": case.timing.ttft_s * 1e3,
                "itl_ms": case.timing.itl_s * 1e3,
                **msgspec.structs.asdict(readings[case.name]),
            }
            for case in CASES
        ],
    }
