"""`dyno record`: what passes is a trace when it ends, and is replayed with the same prefixes."""

import contextlib
import json
import os
import random
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest

from conftest import DYNO
from llmdyno.errors import UsageError
from llmdyno.record.entries import Passed, Settings
from llmdyno.record.lines import Lines
from llmdyno.record.proxy import check_hash_key, check_out, listen_address
from llmdyno.records.prefixes import HitCounter
from llmdyno.spec import Workload
from llmdyno.workload.prompts import Prompts
from llmdyno.workload.words import synthetic_text
from scripted_server import DONE, STOP, chunk

Streamer = Callable[..., str]
Recorder = Callable[..., tuple[subprocess.Popen[str], str]]


@pytest.fixture
def recorder(tmp_path: Path) -> Iterator[Recorder]:
    """Start `dyno record` before a server; return the process and where it listens."""
    started: list[subprocess.Popen[str]] = []

    def start(url: str, *arguments: str) -> tuple[subprocess.Popen[str], str]:
        process = subprocess.Popen(
            [
                *DYNO,
                *("record", "--listen", "127.0.0.1:0", "--url", url, "--out", "t.jsonl"),
                *arguments,
            ],
            cwd=tmp_path,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        assert process.stderr is not None
        for line in process.stderr:
            if line.startswith("Recording"):
                return process, line.split(" from ")[1].split()[0]
        raise AssertionError("it did not start")

    yield start
    for process in started:
        process.kill()
        process.communicate()


def ask(url: str, content: str, **fields: Any) -> bytes:
    body = {"model": "m", "max_tokens": 3, "messages": [{"role": "user", "content": content}]}
    request = Request(  # a server of our own
        f"{url}/v1/chat/completions", json.dumps({**body, **fields}).encode()
    )
    with urlopen(request, timeout=10) as answer:
        found: bytes = answer.read()
        return found


def test_traffic_becomes_a_trace_and_ctrl_c_ends_it(
    streamer: Streamer, recorder: Recorder, tmp_path: Path
) -> None:
    process, url = recorder(streamer("--ttft", "5ms", "--itl", "1ms"), "--json")
    ask(url, "one", stream=True)
    ask(url, "two", stream=True, stream_options={"include_usage": True})
    with urlopen(f"{url}/v1/models", timeout=10) as answer:
        assert json.load(answer)["data"][0]["id"] == "streamer"
    with pytest.raises(HTTPError):  # the streamer has none
        urlopen(Request(f"{url}/v1/embeddings", b"{}"), timeout=10)

    process.send_signal(signal.SIGINT)
    said, told = process.communicate(timeout=20)

    assert process.returncode == 0, told
    assert "Passed and not recorded" in told
    assert "/v1/embeddings 1." in told
    assert "2 requests recorded: t.jsonl" in told
    assert json.loads(said) == {"out": "t.jsonl", "requests": 2, "failed": 0}
    rows = [json.loads(line) for line in (tmp_path / "t.jsonl").read_text().splitlines()]
    assert [row["output_source"] for row in rows] == ["chunks", "usage"]
    assert [row["output_tokens"] for row in rows] == [3, 3]


class Held:
    """A server whose answer is under way until it is told to go on."""

    def __init__(self) -> None:
        self.go_on = threading.Event()
        held = self

        class Answers(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.send_error(404)

            def do_POST(self) -> None:
                self.rfile.read(int(self.headers["Content-Length"]))
                self.send_response(200)
                self.send_header("Content-Type", "text/event-stream")
                self.end_headers()
                with contextlib.suppress(OSError):  # it was cut
                    self.wfile.write(chunk("a"))
                    held.go_on.wait()
                    self.wfile.write(STOP + DONE)

            def log_message(self, *_: object) -> None:
                """Say nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Answers)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever).start()

    def close(self) -> None:
        self.go_on.set()
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def held() -> Iterator[Held]:
    server = Held()
    yield server
    server.close()


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGINT])
def test_only_ctrl_c_again_cuts_what_is_under_way(
    number: signal.Signals, held: Held, recorder: Recorder, tmp_path: Path
) -> None:
    """Bash hangs up on what it runs after the terminal has, so that closing it sends two."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)  # whoever runs the tests may ignore it
    process, url = recorder(held.url)
    signal.signal(signal.SIGHUP, before)
    body = {"model": "m", "max_tokens": 4, "messages": [{"role": "user", "content": "x"}]}
    asked = json.dumps({**body, "stream": True}).encode()
    with urlopen(Request(f"{url}/v1/chat/completions", asked), timeout=10) as answer:
        answer.readline()
        process.send_signal(number)
        assert process.stderr is not None
        assert "under way and may end" in process.stderr.readline()
        process.send_signal(number)
        if number == signal.SIGHUP:
            held.go_on.set()
        answer.read()
    process.communicate(timeout=20)

    (row,) = [json.loads(line) for line in (tmp_path / "t.jsonl").read_text().splitlines()]
    assert process.returncode == 0
    assert row["outcome"] == ("completed" if number == signal.SIGHUP else "cut")


def test_what_had_passed_is_written_even_if_the_proxy_is_killed(
    streamer: Streamer, recorder: Recorder, tmp_path: Path
) -> None:
    process, url = recorder(streamer("--ttft", "1ms", "--itl", "1ms"))
    for number in range(5):
        ask(url, f"number {number}")

    os.kill(process.pid, signal.SIGKILL)
    process.communicate(timeout=20)  # the scribe has our pipes, too: this waits for its end

    # The last one may have been on its way to the scribe when its process was killed.
    assert len((tmp_path / "t.jsonl").read_text().splitlines()) in {4, 5}


def test_a_port_that_is_taken_is_said(dyno: Callable[..., Any], streamer: Streamer) -> None:
    url = streamer()

    done = dyno("record", "--url", url, "--listen", url.removeprefix("http://"), "--out", "t.jsonl")

    assert done.returncode == 2
    assert "cannot be listened on: " in done.stderr
    assert "in use" in done.stderr.lower()


def test_an_address_and_a_file_are_checked(tmp_path: Path) -> None:
    assert listen_address("[::1]:80") == ("::1", 80)
    assert listen_address(":80") == ("127.0.0.1", 80)
    check_hash_key("k" * 64)
    check_out(tmp_path / "new")
    assert (tmp_path / "new").stat().st_mode & 0o077 == 0  # for its owner alone
    (tmp_path / "old").write_text("something")
    with pytest.raises(UsageError, match="holds something"):
        check_out(tmp_path / "old")


# Replay.


def conversations(rng: random.Random) -> Iterator[list[dict[str, str]]]:
    """Yield the requests of conversations: three system prompts, histories that grow, in a mix."""
    systems = [synthetic_text(words, rng) for words in (40, 400, 900)]
    going: list[list[dict[str, str]]] = []
    for _ in range(300):
        if not going or rng.random() < 0.3:
            going.append([{"role": "system", "content": rng.choice(systems)}])
        messages = rng.choice(going[-6:])
        question = synthetic_text(rng.randint(5, 120), rng)
        messages.append({"role": "user", "content": question})
        yield messages
        answer = synthetic_text(rng.randint(20, 200), rng)
        messages.append({"role": "assistant", "content": answer})


def hits_in_words(prompts: list[list[str]]) -> float:
    """Return the share of all words that a cache of blocks of 16 words has seen before."""
    cache, hit = HitCounter(), 0.0
    for words in prompts:
        full = len(words) - len(words) % 16
        ids = [hash(tuple(words[:end])) for end in range(16, full + 1, 16)]
        hit += cache.share(ids, [16] * len(ids)) * full
    return hit / sum(map(len, prompts))


def test_a_replay_has_the_prefix_hits_of_the_original(tmp_path: Path) -> None:
    lines = Lines(Settings(out="", started_ns=0, key=b"k", block_characters=64))
    originals: list[list[str]] = []
    rows: list[str] = []
    for number, messages in enumerate(conversations(random.Random(5))):
        words = [word for m in messages for word in m["content"].split()]
        originals.append(words)
        usage = {"prompt_tokens": len(words), "completion_tokens": 9}
        passed = Passed(
            path="/v1/chat/completions",
            headers={},
            body=json.dumps({"messages": messages}).encode(),
            asked_ns=number * 10**9,
            end_ns=number * 10**9 + 1,
            status=200,
            pieces=[(1, json.dumps({"choices": [], "usage": usage}).encode())],
        )
        rows.append(json.dumps(lines.line(passed)))
    (tmp_path / "t.jsonl").write_text("\n".join(rows))

    prompts = Prompts(Workload(name="trace", dataset=str(tmp_path / "t.jsonl")))
    replayed = [prompts.draw().prompt.split() for _ in originals]

    assert list(map(len, replayed)) == list(map(len, originals))
    assert hits_in_words(originals) > 0.5
    assert hits_in_words(replayed) == pytest.approx(hits_in_words(originals), abs=0.02)
