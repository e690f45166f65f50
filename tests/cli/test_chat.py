"""`dyno chat`: lines in, answers out, and what each took beside them."""

import os
import pty
import signal
import subprocess
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from conftest import DYNO, last_json

Streamer = Callable[..., str]


def chat(url: str, said: str, *arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*DYNO, "chat", "--url", url, *arguments],
        input=said,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
        cwd=cwd,
    )


def test_lines_of_a_pipe_are_turns(streamer: Streamer, tmp_path: Path) -> None:
    url = streamer("--ttft", "5ms", "--itl", "20ms")
    (tmp_path / "system.txt").write_text("be brief")

    done = chat(
        *(url, "hello you\n\nand now\n", "--max-tokens", "4", "--json"),
        *("--system-prompt", "system.txt"),
        cwd=tmp_path,
    )

    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[:2] == [" word word word word"] * 2
    document = last_json(done.stdout)
    assert (document["endpoint"], document["model"]) == ("openai-chat", "streamer")
    # be brief, hello you; then the answer and the second question besides
    assert [turn["input_tokens"] for turn in document["turns"]] == [4, 10]
    assert [turn["output_tokens"] for turn in document["turns"]] == [4, 4]
    assert done.stderr.count("[TTFT ") == 2
    assert "tok/s after the first; tokens: 10 in, 4 out (usage)" in done.stderr


@pytest.mark.parametrize(
    ("url", "arguments", "status", "words"),
    [
        ("http://127.0.0.1:9", (), 3, "(refused)"),
        ("http://127.0.0.1:9", ("--endpoint", "openai-chta"), 2, "openai-chta"),
        ("ftp://h", (), 2, "--url ftp://h: write http://host:port"),
        ("http://127.0.0.1:9", ("--system-prompt", "none.txt"), 2, "--system-prompt none.txt"),
    ],
)
def test_what_cannot_be_is_a_sentence(
    url: str, arguments: tuple[str, ...], status: int, words: str, tmp_path: Path
) -> None:
    done = chat(url, "hi\n", *arguments, cwd=tmp_path)

    assert done.returncode == status
    assert words in done.stderr
    assert done.stderr.startswith("dyno: ")
    assert done.stderr.count("\n") == 1


def test_a_person_is_asked_and_ends_it_with_the_end_of_the_input(
    streamer: Streamer, tmp_path: Path
) -> None:
    url = streamer("--ttft", "5ms", "--itl", "1ms")
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [*DYNO, "chat", "--url", url, "--max-tokens", "2"],
        stdin=theirs,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=tmp_path,
    )
    os.close(theirs)

    os.write(ours, b"hi\n\x04")  # Ctrl-D
    out, said = process.communicate(timeout=30)
    os.close(ours)

    assert process.returncode == 0, said
    assert out == " word word\n"
    assert said.count("> ") == 2


def test_ctrl_c_ends_it_with_its_own_status(streamer: Streamer, tmp_path: Path) -> None:
    url = streamer("--ttft", "5ms", "--itl", "500ms")
    process = subprocess.Popen(
        [*DYNO, "chat", "--url", url, "--max-tokens", "100"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=tmp_path,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write("hi\n")
    process.stdin.flush()
    assert process.stdout.read(5) == " word"

    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=30)

    assert process.returncode == 130
    assert said.endswith("dyno: interrupted.\n")


@pytest.mark.parametrize("command", [("chat",), ("record", "--out", "t.jsonl")])
def test_a_key_whose_variable_is_not_set_is_refused(
    dyno: Callable[..., subprocess.CompletedProcess[str]], command: tuple[str, ...]
) -> None:
    done = dyno(*command, "--url", "http://127.0.0.1:9", "--api-key-env", "NO_SUCH_VARIABLE")

    assert done.returncode == 2
    assert "--api-key-env NO_SUCH_VARIABLE" in done.stderr


def test_it_reaches_a_server_as_a_benchmark_does(tmp_path: Path) -> None:
    seen: list[dict[str, str]] = []

    class Refusing(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            seen.append(dict(self.headers))
            self.send_error(404)

        do_POST = do_GET  # noqa: N815  # the library's word

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    with HTTPServer(("127.0.0.1", 0), Refusing) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        done = subprocess.run(
            [
                *(*DYNO, "chat", "--url", f"http://127.0.0.1:{server.server_port}"),
                *("--header", "X-Team: speed", "--header-env", "X-Pass=PASS"),
            ],
            env={**os.environ, "PASS": "hush"},
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
            cwd=tmp_path,
        )
        server.shutdown()

    assert done.returncode == 3
    assert "Traceback" not in done.stderr
    assert "hush" not in done.stderr
    assert {(one["X-Team"], one["X-Pass"]) for one in seen} == {("speed", "hush")}
