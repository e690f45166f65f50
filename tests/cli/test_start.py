"""What a run does without until its requests are sent: the start costs no more than it must."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

# Of the modules that a level finds imported as it begins, and of those that are there at the end.
_SCRIPT = """
import sys
from llmdyno.load.level import Level
run = Level.run
async def told(self, *begin):
    print("numpy" in sys.modules, "rich" in sys.modules, file=sys.stderr)
    return await run(self, *begin)
Level.run = told
from llmdyno.cli.app import main
sys.argv = ["dyno", *sys.argv[1:]]
try:
    main()
finally:
    print("numpy" in sys.modules, file=sys.stderr)
"""


@pytest.mark.parametrize(
    "asked",
    [
        ("-c", "2", "--requests", "4", "--isl", "16", "--osl", "4"),
        ("-c", "2", "--requests", "4", "--osl", "4"),
        ("--workload", "agent", "-c", "2", "--requests", "4", "--isl", "50", "--osl", "4"),
        ("--request-rate", "50", "--requests", "4", "--isl", "16", "--osl", "4"),
    ],
    ids=["synthetic", "chat", "agent", "poisson"],
)
def test_no_level_waits_for_numpy(
    streamer: Callable[..., str], tmp_path: Path, asked: tuple[str, ...]
) -> None:
    url = streamer("--ttft", "2ms", "--itl", "1ms")
    done = subprocess.run(
        [
            *(sys.executable, "-c", _SCRIPT, "bench", "--url", url, "--no-calibration"),
            *("--out", str(tmp_path / "run"), *asked),
        ],
        capture_output=True,
        text=True,
        check=True,
    )
    told = [line for line in done.stderr.splitlines() if line.startswith(("True", "False"))]

    assert told == ["False False", "True"]  # the summary did need it
