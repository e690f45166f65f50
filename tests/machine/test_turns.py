"""A process that comes first has asked Linux for short slices, and keeps its class."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

_SCRIPT = (
    "import os; from pathlib import Path; from llmdyno.machine.turns import come_first;"
    "agreed = come_first(); print(agreed, os.sched_getscheduler(0) == os.SCHED_OTHER,"
    " os.getpriority(os.PRIO_PROCESS, 0)); print(Path('/proc/self/sched').read_text())"
)


@pytest.mark.skipif(not Path("/proc/self/sched").exists(), reason="Linux tells it there")
def test_a_process_that_comes_first_has_short_slices() -> None:
    before = os.getpriority(os.PRIO_PROCESS, 0)
    done = subprocess.run(
        [sys.executable, "-c", _SCRIPT], capture_output=True, text=True, check=True
    )
    first, *table = done.stdout.splitlines()
    agreed, same_class, niceness = first.split()

    assert (agreed, same_class) == ("True", "True")
    assert int(niceness) in {before, max(-20, before - 10)}  # with the right to it, or without
    slices = [line.split(":")[1].strip() for line in table if line.startswith("se.slice")]
    if not slices:
        pytest.skip("this Linux is older than 6.12, and takes the call without a use for it")
    assert slices == ["100000"]
