"""What a run does without until its requests are sent: the start costs no more than it must."""

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

# Says of each level whether numpy is there as it begins, and with how many threads of its BLAS it
# is imported.
_SCRIPT = """
import os, sys
class Watch:
    def find_spec(self, name, path=None, target=None):
        if name == "numpy":
            print("threads", os.environ.get("OPENBLAS_NUM_THREADS"), file=sys.stderr)
sys.meta_path.insert(0, Watch())
from llmdyno.load.level import Level
run = Level.run
async def told(self, *begin):
    print("level", "numpy" in sys.modules, "rich" in sys.modules, file=sys.stderr)
    return await run(self, *begin)
Level.run = told
from llmdyno.cli.app import main
sys.argv = ["dyno", *sys.argv[1:]]
main()
"""
SHORT = ("-c", "2", "--requests", "4", "--isl", "16", "--osl", "4")


def told(url: str, folder: Path, *asked: str) -> list[str]:
    """Run `dyno bench` as asked; return what the script says, in its order."""
    clean = {name: value for name, value in os.environ.items() if name != "OPENBLAS_NUM_THREADS"}
    done = subprocess.run(
        [
            *(sys.executable, "-c", _SCRIPT, "bench", "--url", url, "--out", str(folder / "run")),
            *asked,
        ],
        capture_output=True,
        text=True,
        check=True,
        env=clean,
    )
    said = done.stderr.splitlines()
    return [line for line in said if re.fullmatch(r"threads \w+|level (True|False) \w+", line)]


@pytest.mark.parametrize(
    "asked",
    [
        SHORT,
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

    said = told(url, tmp_path, "--no-calibration", *asked)

    assert said == ["level False False", "threads 1"]  # the summary needs it


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        # The levels of the calibration come first, too.
        (SHORT, ["threads 1", *["level True False"] * 3]),
        (
            ("--no-calibration", "--slo", "ttft:p99<2s", *SHORT),
            ["threads 1", "level True False"],
        ),
        (
            # Four rounds, however alike they are.
            ("--no-calibration", "--repeat", "4", "--repeat-until", "0.0001%", *SHORT),
            [*["level False False"] * 3, "threads 1", "level True False"],
        ),
    ],
    ids=["calibration", "slo", "repeat-until"],
)
def test_wherever_numpy_is_needed_its_blas_has_one_thread(
    streamer: Callable[..., str], tmp_path: Path, asked: tuple[str, ...], said: list[str]
) -> None:
    assert told(streamer("--ttft", "2ms", "--itl", "1ms"), tmp_path, *asked) == said
