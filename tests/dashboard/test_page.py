"""The page in a headless Chromium: what it is sent is drawn, as text, and nothing is refused."""

import contextlib
import json
import os
import re
import socket
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlsplit

import pytest

from browser import CHROMIUM, violations
from llmdyno.dashboard import server
from llmdyno.dashboard.board import Board

AXE = os.environ.get("LLMDYNO_AXE")
EVIL = "<img src=x onerror=alert(1)>"
NOW: dict[str, Any] = {
    "name": "trial 2",
    "load": "2 users",
    "phase": "running",
    "elapsed_s": 3.0,
    "duration_s": 10.0,
    "requests": None,
    "users": 2,
    "waiting": None,
    "in_flight": 1,
    "completed": 1234,
    "failed": 1,
    "errors": {EVIL: 1},
    "rate": 33.3,
    "ttft_p50": 12.0,
    "ttft_p99": None,
}


def step(number: int, value: float | None, *, best: bool = False) -> dict[str, Any]:
    return {
        "stack": "vllm+native",
        "phase": "trial",
        "state": "failed" if value is None else "measured",
        "value": value,
        "slo_met": None if value is None else True,
        "label": f"trial {number}",
        "config": f"name={EVIL}",
        "why": "died: out of memory" if value is None else "",
        "cost_s": 61.0,
        "best": best,
    }


class Sent(Protocol):
    """What takes the parts of a page: a board, or what stands in for one."""

    def put(self, name: str, data: Any) -> None: ...

    def add(self, name: str, entry: Any) -> None: ...


def filled(board: Sent) -> None:
    """Send all that a study sends."""
    board.put("head", {"kind": "tune", "title": f"Tuning {EVIL}", "about": "for token_rate"})
    board.put("now", NOW)
    study = {"objective": "token_rate:mean", "unit": "tok/s", "maximise": True, "trials": 4}
    lost = {"state": "pruned", "why": "ended after 4 s: 60 tok/s at most"}
    steps = [step(1, 100.0), step(2, None), step(3, 250.0, best=True), {**step(4, 50.0), **lost}]
    board.put("study", {**study, "searching": False, "baseline": 90.0, "steps": steps})
    board.put("outlook", {"lines": ["best so far 250", "next, 4 of 4"]})
    board.put("doubts", [f"{EVIL} is doubtful"])
    board.add("lines", "  trial 3: 250 tok/s")
    for at in range(5):
        point = {
            "run": "trial 2",
            "part": 1,
            "from": at - 1,
            "at": at,
            "rate": 30.0 + at,
            "ttft_p50": 12.0,
        }
        board.add("points", {**point, "ttft_p99": None})
    board.put("end", {"said": "Better at 100 users."})


def filled_by_a_benchmark(board: Sent) -> None:
    """Send all that a benchmark sends, with a level that runs and one that is over."""
    board.put("head", {"kind": "bench", "title": "Benchmark of m", "about": "http://h, 10 users"})
    board.put("now", NOW)
    level = {"name": "10 users", "rate": 99.0, "ttft_p50": 12.0, "ttft_p99": 80.0}
    board.put("levels", [{**level, "tpot_p50": 9.0, "completed": 40, "failed": 2}])
    board.put("doubts", [f"{EVIL} is doubtful", "few cores"])
    for at in range(12):
        point = {
            "run": "",
            "part": 1 + at // 6,
            "from": at - 1,
            "at": at,
            "load": f"{10 + at // 6} users",
        }
        board.add("points", {**point, "rate": 30.0 + at, "ttft_p50": 12.0, "ttft_p99": 30.0})


def in_a_file(board: Any) -> str:
    """Return the page with what a board was sent, as a file that needs no server."""
    events = [*board.parts.items(), *((f"{name}+", told) for name, told in board.lists.items())]
    # What is sent may hold markup, which would end the script.
    sent = json.dumps(events).replace("<", "\\u003c")
    source = f"""<script>window.EventSource = class {{
      constructor() {{ this.hears = {{}}; setTimeout(() => {{
        for (const [name, data] of {sent}) this.hears[name]({{ data: JSON.stringify(data) }});
      }}); }}
      addEventListener(name, hears) {{ this.hears[name] = hears; }}
    }};</script>"""
    return server.PAGE.read_text().replace("</head>", f"{source}</head>")


class Tunnel:
    """What stands between a browser and the page, as `ssh -L` does: it sees what was told.

    Args:
        to: the page's own URL.
        last: what stands in the last event that the browser is to be sent.
    """

    def __init__(self, to: str, last: bytes) -> None:
        place = urlsplit(to)
        self.told = threading.Event()  # the browser has been sent the last event
        self._to = (str(place.hostname), place.port or 0)
        self._last = last
        self._listener = socket.create_server(("127.0.0.1", 0))
        port = self._listener.getsockname()[1]
        self.url = place._replace(netloc=f"127.0.0.1:{port}").geturl()
        threading.Thread(target=self._listen, daemon=True).start()

    def close(self) -> None:
        """Take no further connection; the others end with either side."""
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _listen(self) -> None:
        with contextlib.suppress(OSError):  # no longer listened on
            while True:
                client, _ = self._listener.accept()
                threading.Thread(target=self._pass_on, args=(client,), daemon=True).start()

    def _pass_on(self, client: socket.socket) -> None:
        """Pass on one request and its answer; a browser may open a connection for none."""
        with contextlib.suppress(OSError), client:
            asked = b""
            while b"\r\n\r\n" not in asked:
                if not (data := client.recv(65536)):
                    return
                asked += data
            with socket.create_connection(self._to) as page:
                page.sendall(asked)
                told = b""
                while data := page.recv(65536):
                    client.sendall(data)
                    told += data
                    if asked.startswith(b"GET /events") and self._last in told:
                        self.told.set()


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here")
def test_a_study_is_drawn_and_nothing_of_it_is_markup(tmp_path: Path) -> None:
    command = [
        *(str(CHROMIUM), "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run"),
        *("--enable-logging=stderr", "--v=0", f"--user-data-dir={tmp_path / 'profile'}"),
        *("--virtual-time-budget=5000", "--dump-dom"),
    ]
    with Board(0, {"stop": lambda: None, "enough": lambda: None}) as board:
        filled(board)
        with contextlib.closing(Tunnel(board.url, b"Better at 100 users.")) as tunnel:
            browser = subprocess.Popen(
                [*command, tunnel.url], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
            )
            try:
                assert tunnel.told.wait(120)
            except BaseException:
                browser.kill()
                raise
    dom, said = browser.communicate(timeout=60)

    assert not [line for line in said.splitlines() if "CONSOLE" in line]
    assert "<img" not in dom
    text = re.sub(r"<[^>]+>", " ", dom)
    for words in ("33.3 tok/s", "1,234", "Better at 100 users.", "died: out of memory", "is doubt"):
        assert words in text, words
    assert "50 so far" in text
    assert "60 tok/s at most" in text
    assert len(re.findall(r'<circle class="dot"', dom)) == 2
    assert len(re.findall(r'class="miss" d=', dom)) == 1
    assert len(re.findall(r'<tr class="best"', dom)) == 1
    assert len(re.findall(r'<tr class="pruned"', dom)) == 1
    assert len(re.findall(r'<path class="pruned"', dom)) == 1
    assert re.search(r'id="stop"[^>]*disabled', dom)
    assert len(re.findall(r'<path class="a"', dom)) == 2


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("fill", [filled, filled_by_a_benchmark])
@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here")
@pytest.mark.skipif(AXE is None, reason="LLMDYNO_AXE names no axe.min.js; npm pack axe-core has it")
def test_axe_finds_nothing_serious_on_the_live_page(
    fill: Callable[[Sent], None], board: Any, tmp_path: Path, *, dark: bool
) -> None:
    assert AXE is not None
    fill(board)
    if fill is filled:
        del board.parts["end"]  # it goes on: its buttons and what comes next are shown
        board.parts["proving"] = {"line": "next, pair 2 of 3; ends about 09:44, in 94.0 s"}

    page = in_a_file(board)

    assert violations(page, Path(AXE).read_text(), tmp_path, dark=dark) == []
