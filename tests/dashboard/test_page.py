"""The page in a headless Chromium: what it is sent is drawn, as text, and nothing is refused."""

import contextlib
import re
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from browser import CHROMIUM
from llmdyno.dashboard.board import Board
from waiting import until

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


def filled(board: Board) -> None:
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
        point = {"run": "trial 2", "part": 1, "at": at, "rate": 30.0 + at, "ttft_p50": 12.0}
        board.add("points", {**point, "ttft_p99": None})
    board.put("end", {"said": "Better at 100 users."})


def sockets(board: Board) -> int:
    count = 0
    for one in Path(f"/proc/{board.pid}/fd").iterdir():
        with contextlib.suppress(OSError):  # it was closed meanwhile
            count += str(one.readlink()).startswith("socket:")
    return count


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here")
def test_a_study_is_drawn_and_nothing_of_it_is_markup(tmp_path: Path) -> None:
    command = [
        *(str(CHROMIUM), "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run"),
        *("--enable-logging=stderr", "--v=0", f"--user-data-dir={tmp_path / 'profile'}"),
        *("--virtual-time-budget=5000", "--dump-dom"),
    ]
    with Board(0, {"stop": lambda: None, "enough": lambda: None}) as board:
        filled(board)
        before = sockets(board)
        browser = subprocess.Popen(
            [*command, board.url], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )

        def listens() -> bool:
            """Tell whether a connection lasts, which the events' does and the page's does not."""
            time.sleep(0.1)
            first = sockets(board) > before
            time.sleep(0.1)
            return first and sockets(board) > before

        until(listens, "a browser that listens", within_s=60)
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
