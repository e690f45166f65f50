"""The standard streams of a command: closed, full, or a pipe that nobody reads."""

import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from llmdyno.cli.output import _Raw
from llmdyno.errors import StorageError

Streamer = Callable[..., str]


def shell(line: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run a line of the shell, where `dyno` is ours; return what came of it."""
    dyno = f'dyno() {{ {sys.executable} -m llmdyno "$@"; }}; '
    return subprocess.run(
        ["bash", "-c", dyno + line], cwd=folder, capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("dyno runs >&-", "is closed"),
        ("dyno runs --json >/dev/full", "cannot be written: No space left on device"),
        ("dyno knobs openvino >/dev/full", "cannot be written: No space left on device"),
        ("dyno bench --help >/dev/full", "cannot be written: No space left on device"),
        ("dyno --version >&- <&-", "is closed"),
        ("dyno knobs openvino | true; (exit ${PIPESTATUS[0]})", "has lost its reader"),
    ],
)
def test_standard_output_that_fails_is_one_sentence(line: str, words: str, tmp_path: Path) -> None:
    done = shell(line, tmp_path)

    assert done.returncode == 3
    assert done.stderr == f"dyno: standard output {words}; the result was not written there.\n"


@pytest.mark.parametrize("where", ["2>&-", "2>/dev/full", "<&- 2>&-"])
def test_a_standard_error_that_fails_takes_nothing_from_the_result(
    where: str, tmp_path: Path
) -> None:
    done = shell(f"dyno import nowhere.json {where}; dyno runs --json {where}", tmp_path)

    assert (done.returncode, done.stdout, done.stderr) == (0, "[]\n", "")


def test_the_first_fault_is_the_one_that_is_told(tmp_path: Path) -> None:
    done = shell("dyno report nowhere >&-", tmp_path)

    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "no such run or study" in done.stderr


@pytest.mark.parametrize("where", [">&-", "--json >/dev/full", ">/dev/full", ">&- 2>&- <&-"])
def test_a_benchmark_keeps_its_results_whatever_becomes_of_its_streams(
    where: str, streamer: Streamer, tmp_path: Path
) -> None:
    url = streamer("--ttft", "5ms", "--itl", "1ms")
    options = f"--url {url} --model m --endpoint openai-chat -c 1 --requests 2 --ramp 0s --osl 4"

    done = shell(f"dyno bench {options} --no-calibration --out r {where}", tmp_path)

    assert done.returncode == 3
    assert "Traceback" not in done.stderr
    assert ("2>&-" in where) or done.stderr.endswith("; the result was not written there.\n")
    (level,) = json.loads((tmp_path / "r" / "summary.json").read_bytes())["levels"]
    assert level["requests"]["completed"] == 2


def test_a_benchmark_prints_its_folder_or_the_document(streamer: Streamer, tmp_path: Path) -> None:
    url = streamer("--ttft", "5ms", "--itl", "1ms")
    options = f"--url {url} --model m --endpoint openai-chat -c 1 --requests 2 --ramp 0s --osl 4"

    plain = shell(f"dyno bench {options} --no-calibration --out r", tmp_path)

    assert (plain.returncode, plain.stdout) == (0, "r\n"), plain.stderr


def test_a_stream_that_another_process_made_non_blocking_is_waited_for() -> None:
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    sent, read = b"x" * 300_000, bytearray()

    def drain() -> None:
        while chunk := os.read(reading, 65536):
            read.extend(chunk)

    reader = threading.Thread(target=drain)
    raw = _Raw(writing, tells=True)
    left = memoryview(sent)
    left = left[raw.write(left) :]  # the pipe is full now, and nobody reads yet
    reader.start()
    while left:
        left = left[raw.write(left) :]
    os.close(writing)
    reader.join()
    os.close(reading)

    assert bytes(read) == sent


def test_a_fault_is_told_once_and_what_follows_is_dropped() -> None:
    full = os.open("/dev/full", os.O_WRONLY)
    told, silent = _Raw(full, tells=True), _Raw(full, tells=False)

    with pytest.raises(StorageError, match="No space left"):
        told.write(b"one")

    assert told.write(b"two") == silent.write(b"six") == 3
    os.close(full)
