"""The quickstart and the tutorials, followed from the first command to the last.

Commands, files and servers are the page's own; REPLACED makes them short. A study is measured in a
lab (study_lab.py), because it takes minutes: test_demo.py runs the quickstart's for real.
"""

import itertools
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from http import HTTPStatus
from pathlib import Path
from urllib.request import urlopen

import pytest
from typer.testing import CliRunner

import documents
from documents import ROOT, Block
from llmdyno.cli.app import app
from llmdyno.processes.ports import free_port
from studies import wait_until
from study_lab import Start, StudyLab

Dyno = Callable[..., subprocess.CompletedProcess[str]]
PAGES = (
    "quickstart",
    "extending",
    *(f"tutorials/{path.stem}" for path in sorted((documents.DOCS / "tutorials").glob("*.md"))),
)
SKIPPED = (documents.ONCE, documents.NEEDS_GPU, documents.NEEDS_SERVER)
PORTS = ("8000", "8001", "9000")
REPLACED = (
    (r"--duration \S+", "--duration 1s --interval 500ms"),
    (r"-c [\d,]+", "-c 2"),
    (r"--osl \d+", "--osl 4"),
    (r"dyno bench(?!.*(--osl|trace))", "dyno bench --osl 4"),
    (r"dyno bench", "dyno bench --no-calibration"),
    # A recommendation among three engines takes seconds; cli/test_plan.py is about it.
    (r"dyno plan --engine (\w+),", r"dyno plan --config-only --engine \1,"),
    (r"<\d+m?s", "<60s"),  # the machine may be busy
    # Fronts are started by fronts/test_triton.py and fronts/test_bentoml.py.
    (r"dyno serve .* --front \w+( .*)?", r"python -m llmdyno.streamer --port 8000\1"),
    (r"--port 8000 .*--port", "--port"),
    (r"llmdyno.streamer (.*) --model tiny", r"llmdyno.streamer \1"),
    (r"dyno tune (.*)--trial-duration \S+", r"dyno tune \1"),
    (r"dyno tune", "dyno tune --no-quality --warmup 0s --pairs 2 --trials 2"),
    (r"dyno tune (.*--quick)", r"dyno tune -c 2 \1"),
)


def faster(start: Start) -> tuple[float, float]:
    """Be twice as fast with a prefix cache, and never quite the same twice."""
    gap_ms = 10.0 if start.config.get("enable_prefix_caching") else 20.0
    return gap_ms * (1 + 0.002 * (start.number % 2)), gap_ms


class Reader:
    """Somebody who types what a page says, in a folder of their own."""

    def __init__(self, folder: Path, dyno: Dyno) -> None:
        self.folder = folder
        self.ran: list[str] = []
        self._dyno = dyno
        self._terminals: list[subprocess.Popen[bytes]] = []
        self._ports = dict(zip(PORTS, map(str, itertools.count(free_port())), strict=False))
        programs = folder / "programs"
        programs.mkdir()
        for name, module in (("dyno", "-m llmdyno"), ("python", "")):
            (programs / name).write_text(f'#!/bin/sh\nexec {sys.executable} {module} "$@"\n')
            (programs / name).chmod(0o755)
        self._environment = {
            **os.environ,
            "PATH": f"{programs}:{os.environ['PATH']}",
            "PYTHON": sys.executable,
        }

    def follow(self, page: str) -> None:
        """Do what the blocks of a page say, in their order."""
        for block in documents.blocks(page):
            if block.language == "python" and block.title:
                (self.folder / block.title).parent.mkdir(exist_ok=True)
                (self.folder / block.title).write_text("\n".join(block.lines) + "\n")
            elif block.language == "sh" and block.title not in SKIPPED:
                for line in block.lines:
                    self._type(block, line)

    def close(self) -> None:
        """End what still runs in other terminals."""
        for terminal in self._terminals:
            if terminal.poll() is None:
                os.killpg(terminal.pid, signal.SIGTERM)
        for terminal in self._terminals:
            terminal.wait(timeout=20)

    def _type(self, block: Block, line: str) -> None:
        self.ran.append(line)
        for pattern, replacement in REPLACED:
            line = re.sub(pattern, replacement, line)
        line = self._with_ports(line)
        if block.title == documents.ANOTHER_TERMINAL:
            self._begin(line)
            return
        (words,) = documents.calls(line)
        expected = int((block.title or "0")[-1])
        if words[0] == "tune":
            study = CliRunner().invoke(app, words)
            assert study.exit_code == expected, (line, study.output, study.exception)
        elif line.startswith("dyno "):
            done = self._dyno(*words)
            assert done.returncode == expected, (line, done.stderr)
        else:
            typed = subprocess.run(
                ["sh", "-c", line],
                cwd=self.folder,
                env=self._environment,
                capture_output=True,
                check=False,
            )
            assert typed.returncode == expected, (line, typed.stderr)

    def _begin(self, line: str) -> None:
        """Start a server, and wait until its port is open."""
        if line.startswith("sh "):
            script = self.folder / line.removeprefix("sh ")
            text = self._with_ports(script.read_text())
            script.write_text(text)
        else:
            text = line
        found = re.search(r"(?:--port |--listen \S+:)(\d+)", text)
        assert found is not None, line
        terminal = subprocess.Popen(
            ["sh", "-c", line],
            cwd=self.folder,
            env=self._environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        self._terminals.append(terminal)
        # The script of a bundle waits for nobody: the port is open before the engine is there.
        ready = _is_healthy if line.startswith("sh ") else _is_open
        wait_until(lambda: terminal.poll() is not None or ready(int(found[1])))
        assert terminal.poll() is None, line

    def _with_ports(self, text: str) -> str:
        return re.sub(r"\b(8000|8001|9000)\b", lambda port: self._ports[port[0]], text)


def _is_open(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _is_healthy(port: int) -> bool:
    try:
        with urlopen(f"http://127.0.0.1:{port}/health", timeout=5) as answer:
            return bool(answer.status == HTTPStatus.OK)
    except OSError:
        return False


@pytest.fixture
def reader(tmp_path: Path, dyno: Dyno, monkeypatch: pytest.MonkeyPatch) -> Iterator[Reader]:
    StudyLab(tmp_path / "lab" / "study", monkeypatch).world = faster
    (tmp_path / "lab").mkdir()
    model = tmp_path / "Meta-Llama-3-8B-Instruct"
    model.mkdir()
    (model / "config.json").write_text('{"model_type": "llama"}')
    monkeypatch.chdir(tmp_path)
    reader = Reader(tmp_path, dyno)
    yield reader
    reader.close()


@pytest.mark.parametrize("page", PAGES)
def test_a_reader_follows_it_to_its_end(
    reader: Reader, page: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if page != "quickstart":  # a study's page takes a second; one is drawn
        monkeypatch.setattr("llmdyno.cli.tune._study_page", lambda folder, _: folder)
    reader.follow(f"docs/{page}.md")

    assert len(reader.ran) >= 2


def test_the_quickstart_tunes_as_the_demo_does() -> None:
    makefile = (ROOT / "Makefile").read_text()
    (command,) = re.findall(r"\$\(BIN\)/(dyno tune .*)", makefile)

    assert f"{command} --out first-study" in documents.lines("docs/quickstart.md")
