"""`dyno quality`, over servers of known answers."""

import json
import subprocess
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from conftest import last_json

Dyno = Callable[..., subprocess.CompletedProcess[str]]
FAST = ("--ttft", "1ms", "--itl", "0ms")
ASK = ("--tokens", "8", "--json")


def test_two_servers_alike_are_the_same_and_one_alone_is_its_own_yardstick(
    dyno: Dyno, streamer: Callable[..., str]
) -> None:
    one = streamer(*FAST)

    done = dyno("quality", "--url", one, "--against", one, *ASK, "--fail-above", "0.1%")
    assert done.returncode == 0, done.stderr
    document = last_json(done.stdout)
    assert document["schema"] == "llmdyno.quality/1"
    assert document["prompts"] == 32
    assert document["verdict"] == "the same"
    assert "Output: the same. 100 % of 32 greedy answers" in done.stderr

    alone = dyno("quality", "--url", one, *ASK)
    assert alone.returncode == 0, alone.stderr
    assert last_json(alone.stdout)["comparison"] is None
    assert "against itself, asked again: 100 %" in alone.stderr


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        (("--fail-above", "1%"), 2, "--fail-above: compares two servers"),
        (("--fail-above", "much", "--against", "http://127.0.0.1:9"), 2, "--fail-above much:"),
        (("--endpoint", "nonsense"), 2, "nonsense"),
        (("-m", "a:0.5,b:0.5"), 2, "--model a:0.5,b:0.5: each server is asked for one model"),
        (("--header", "nonsense"), 2, "--header nonsense"),
        ((), 3, "--url 127.0.0.1:9: "),
    ],
)
def test_what_cannot_be_is_said(
    dyno: Dyno, arguments: tuple[str, ...], status: int, said: str
) -> None:
    done = dyno("quality", "--url", "http://127.0.0.1:9", *arguments)
    assert done.returncode == status
    assert said in done.stderr
    assert "Traceback" not in done.stderr


@pytest.fixture
def told() -> Iterator[Callable[[str], str]]:
    """Start servers of OpenAI's chat: `told("a b c")` returns the URL of one that says that."""
    servers: list[ThreadingHTTPServer] = []

    def start(words: str) -> str:
        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            wbufsize = 1 << 16  # head and body in one write: no wait for an acknowledgement

            def do_POST(self) -> None:
                asked = json.loads(self.rfile.read(int(self.headers["content-length"])))
                answer = _stream(words) if asked["stream"] else _whole(words)
                self.send_response(200)
                self.send_header("content-length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)

            def log_message(self, *_: object) -> None:
                pass

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        servers.append(server)
        return f"http://127.0.0.1:{server.server_port}"

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def _whole(words: str) -> bytes:
    content = [{"token": word, "logprob": -0.5} for word in words.split()]
    choice = {"message": {"content": words}, "logprobs": {"content": content}}
    return json.dumps({"choices": [{"index": 0, "finish_reason": "stop", **choice}]}).encode()


def _stream(words: str) -> bytes:
    choices = [{"index": 0, "delta": {"content": words}, "finish_reason": "stop"}]
    event = json.dumps({"choices": choices, "usage": {"prompt_tokens": 1, "completion_tokens": 1}})
    return f"data: {event}\n\ndata: [DONE]\n\n".encode()


def test_answers_that_differ_fail_above_a_limit(dyno: Dyno, told: Callable[[str], str]) -> None:
    one, other = told("a b c d"), told("a b X d")

    both = ("quality", "--url", one, "--against", other, "-m", "m", *ASK)
    done = dyno(*both, "--fail-above", "30%")
    document = last_json(done.stdout)
    assert done.returncode == 1, done.stderr
    assert document["verdict"] == "differs"
    assert document["detail"] == "chosen"
    assert document["excess"]["mean"] == pytest.approx(1 / 3, abs=1e-4)
    assert document["comparison"]["alone"]["first_difference"]["p50"] == 3
    assert dyno(*both, "--fail-above", "34%").returncode == 0
