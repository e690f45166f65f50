"""The table of commands, and how every command ends."""

import errno
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner

from llmdyno import __version__
from llmdyno.cli.app import COMMANDS, _ended, app, load

Dyno = Callable[..., subprocess.CompletedProcess[str]]


def test_the_help_lists_the_commands_in_their_order() -> None:
    lines = CliRunner().invoke(app, ["--help"]).output.splitlines()

    listed = [line.split()[0] for line in lines[lines.index("Commands:") + 1 :]]
    assert listed == list(COMMANDS)
    assert all(f"  {line}" in "\n".join(lines) for _, line in COMMANDS.values())


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_is_there_with_help_for_each_of_its_flags(name: str) -> None:
    command = load(name)

    assert command.help
    assert all(parameter.help for parameter in command.params if parameter.name != "help")


def test_the_version_is_printed_alone() -> None:
    assert CliRunner().invoke(app, ["--version"]).output == f"{__version__}\n"


def test_no_command_is_the_help_and_wrong_usage(dyno: Dyno) -> None:
    done = dyno()

    assert done.returncode == 2
    assert "Commands:" in done.stderr + done.stdout


def test_a_command_imports_its_own_group_alone() -> None:
    script = (
        "import sys; from llmdyno.cli.app import load; load('env');"
        "print(*sorted(name for name in sys.modules if name.startswith('llmdyno.cli.')))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )

    loaded = {name.removeprefix("llmdyno.cli.") for name in done.stdout.split()}
    assert loaded == {"app", "help", "machine", "options", "output"}


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["knobs", "openvin"], "Did you mean 'openvino'?"),
        (["knobs", "openvino", "max_num_seq"], "Did you mean 'max_num_seqs'?"),
        (["report", "nowhere"], "nowhere: no such run or study here"),
        (["export", "nowhere"], "name a file with --csv or --parquet"),
        (["import", "nowhere.json"], "nowhere.json"),
        (["serve", "--engine", "openvino", "--set", "cache_size=-1"], "cache_size=-1: must be"),
        (["serve", "--model", "hugee"], "hugee"),
        (["serve", "--set", "cache_size"], "write knob=value"),
        (["build", "--engine", "openvin"], "Did you mean 'openvino'?"),
        (["build", "--model", "hugee"], "hugee"),
        (["build", "--set", "weight_format=int3"], "must be one of fp16, int8, int4"),
        (["build", "--set", "int4_ratio=0.5"], "no effect while weight_format=unset"),
        (["build", "--set", "weight_fromat=int8"], "Did you mean 'weight_format'?"),
        (["artifacts", "prune", "--older-than", "old"], "write a duration such as"),
        (["artifacts", "prune", "--keep", "-1"], "--keep -1: must be at least 0"),
        (
            ["bench", "http://h:1", "-c", "2"],
            "The server's address is a flag: write --url before it",
        ),
        (["bench", "--proxy", "http://p:1", "-c", "2"], "Missing option '--url'"),
    ],
)
def test_wrong_usage_is_one_sentence(arguments: list[str], words: str, dyno: Dyno) -> None:
    done = dyno(*arguments)

    assert done.returncode == 2, done.stderr
    assert words in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def test_a_word_that_is_no_text_is_refused_before_anything_starts(tmp_path: Path) -> None:
    word = os.fsdecode(b"f\xfcr")
    words = ["bench", "--url", "http://127.0.0.1:1", "--note", word, "--out", str(tmp_path / "run")]

    done = subprocess.run(
        [sys.executable, "-m", "llmdyno", *words], capture_output=True, text=True, check=False
    )

    assert done.returncode == 2
    assert done.stderr.startswith(r"dyno: f\xfcr: is no utf-8")
    assert done.stderr.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_a_page_is_written_where_the_locale_is_ascii(results: Path) -> None:
    ascii_locale = {"LC_ALL": "POSIX", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}

    done = subprocess.run(
        [sys.executable, "-m", "llmdyno", "report", "runs/r"],
        cwd=results,
        env={**os.environ, **ascii_locale},
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 0, done.stderr
    assert "TTFT" in (results / "runs/r/report.html").read_text("utf-8")


def test_a_pipe_that_closes_early_is_no_fault(tmp_path: Path) -> None:
    done = subprocess.run(
        ["sh", "-c", f"{sys.executable} -m llmdyno knobs openvino | head -1"],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
    )

    assert "Traceback" not in done.stderr
    assert "Broken pipe" not in done.stderr


@pytest.fixture
def started(tmp_path: Path) -> dict[str, str]:
    """Return the variables by which `dyno` stays in its first import until a signal comes."""
    said = "import time; print('importing', flush=True); time.sleep(30)"
    (tmp_path / "typer.py").write_text(said)
    return {**os.environ, "PYTHONPATH": str(tmp_path)}


def ended_by(signal_number: int, command: list[str], variables: dict[str, str]) -> tuple[int, str]:
    """Send a signal to a command that imports; return its status, and what it said."""
    with subprocess.Popen(
        command, env=variables, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "importing\n"
        listed = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        os.kill(int(listed[0]) if listed else process.pid, signal_number)
        _, said = process.communicate(timeout=20)
    return process.returncode, said


def test_ctrl_c_in_the_first_import_is_one_sentence(started: dict[str, str]) -> None:
    command = [sys.executable, "-m", "llmdyno", "--version"]

    assert ended_by(signal.SIGINT, command, started) == (130, "dyno: interrupted.\n")


def test_a_container_that_is_stopped_at_once_ends(started: dict[str, str]) -> None:
    apart = ["unshare", "--fork", "--pid"]
    if shutil.which("unshare") is None or subprocess.call([*apart, "true"]):
        pytest.skip("needs the right to make a process namespace")
    command = [*apart, sys.executable, "-m", "llmdyno", "--version"]

    assert ended_by(signal.SIGTERM, command, started) == (130, "dyno: interrupted.\n")


@pytest.mark.parametrize(
    ("error", "lacks"),
    [
        (MemoryError(), "memory"),
        (OSError(errno.EMFILE, "Too many open files"), "open file (ulimit -n)"),
        (OSError(errno.ENOMEM, "Cannot allocate memory"), "memory"),
        (RuntimeError("can't start new thread"), "thread (ulimit -u, or the container's limit)"),
    ],
)
def test_what_dyno_itself_has_too_little_of_is_a_sentence_and_not_status_1(
    error: Exception, lacks: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """1, as Python ends by itself, says that an SLO was missed."""

    def part() -> int:
        try:
            raise error
        finally:
            raise RuntimeError("Cannot close a running event loop")

    assert _ended(part) == 3
    assert capsys.readouterr().err.startswith(f"dyno: there is no {lacks} left for dyno itself")


def test_another_error_is_ours_and_shows_its_traceback_with_a_status_of_its_own(
    capsys: pytest.CaptureFixture[str],
) -> None:
    def part() -> int:
        raise RuntimeError("ours")

    assert _ended(part) == 70

    lines = capsys.readouterr().err.splitlines()
    assert lines[0].startswith("Traceback")
    assert lines[-2] == "RuntimeError: ours"
    assert lines[-1].startswith("dyno: a fault of dyno itself")
