"""A workload of somebody else's package: it proves itself in three lines, and `dyno` asks it."""

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from llmdyno.testing.workloads import WorkloadContract
from outside.riddles import WORKLOAD

Dyno = Callable[..., subprocess.CompletedProcess[str]]
TESTS = str(Path(__file__).parent.parent)


class TestRiddles(WorkloadContract):
    workload = WORKLOAD


WRONG = {
    "not there": (["--workload", "outside.nothing"], "workload: 'outside.nothing' is not a module"),
    "no workload": (["--workload", "outside.lines"], "is not a module with WORKLOAD"),
    "its own check": (
        ["--workload", "outside.riddles", "--system-prompt", "hint.txt"],
        "--system-prompt: gives a riddle away",
    ),
    "a field of no use": (
        ["--workload", "outside.riddles", "--isl", "5"],
        "--isl 5: only for --workload agent, synthetic; 'outside.riddles' has its own prompts.",
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_spec_is_one_sentence(name: str, dyno: Dyno, tmp_path: Path) -> None:
    arguments, words = WRONG[name]
    (tmp_path / "hint.txt").write_text("Be helpful.")

    done = dyno(
        *("bench", "--url", "http://127.0.0.1:9", *arguments),
        PYTHONPATH=os.pathsep.join([TESTS, os.environ.get("PYTHONPATH", "")]),
    )

    assert done.returncode == 2, done.stderr
    assert words in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
