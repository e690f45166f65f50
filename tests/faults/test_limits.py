"""Retry-After, limits on errors, and a level's end, whatever a real server does.

What is about time alone is in load/test_level.py, in virtual time.
"""

import asyncio
import json
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from conftest import last_json
from harness import Answer, answering, raw, run, silence
from llmdyno.records.entries import LevelEnded
from llmdyno.records.journal import read_journal
from scripted_server import HEAD, plain, scripted

Dyno = Callable[..., subprocess.CompletedProcess[str]]


def refusal(status: str, retry_after: str) -> Answer:
    return raw(plain(status, b"", f"Retry-After: {retry_after}"))


HOSTILE: dict[str, Answer] = {
    "never answers": silence(),
    "stalls": silence(HEAD),
    "refuses for an hour": refusal("429 Too Many Requests", "3600"),
    "hangs up": raw(close=True),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_level_ends_on_time(name: str) -> None:
    began_s = time.monotonic()

    records = run(answering(HOSTILE[name]), users=3, duration_s=0.6, grace_s=0.3)

    assert time.monotonic() - began_s < 4
    assert {record.user for record in records} == {0, 1, 2}


def test_ending_early_is_exit_status_3_and_said_everywhere(dyno: Dyno, tmp_path: Path) -> None:
    arguments = ("--endpoint", "openai-chat", "--model", "m", "-c", "1,2", "--max-errors", "3")

    async def main() -> subprocess.CompletedProcess[str]:
        async with scripted(answering(raw(plain("500 Oops", b"out of [/] \x1b[31m")))) as url:
            return await asyncio.to_thread(
                dyno, "bench", "--url", url, *arguments, "--out", "run", "--json"
            )

    done = asyncio.run(main())
    document = last_json(done.stdout)
    (level,) = document["levels"]  # the second one was not begun

    assert done.returncode == 3, done.stderr
    assert "ended early: 3 requests failed, as many as --max-errors allows" in done.stderr
    assert "http-500: the server answered with status 500" in done.stderr
    assert "Traceback" not in done.stderr
    assert level["requests"] == {"completed": 0, "failed": 3, "cut": 0, "errors": {"http-500": 3}}
    assert level["stopped"].startswith("3 requests failed")
    assert level["faults"]["http-500"] == {
        "meaning": "the server answered with status 500 (Internal Server Error)",
        "example": "out of [/] \x1b[31m",
    }
    assert r"(Internal Server Error), e.g. 'out of [/] \x1b[31m'." in done.stderr
    entries = read_journal(tmp_path / "run" / "journal.jsonl")
    assert [entry.stopped for entry in entries if isinstance(entry, LevelEnded)] == [
        level["stopped"]
    ]
    assert json.loads((tmp_path / "run" / "summary.json").read_text()) == document


@pytest.mark.parametrize(
    ("flag", "value"),
    [("--max-errors", "0"), ("--max-error-rate", "1"), ("--max-error-rate", "-1")],
)
def test_a_limit_that_is_none_is_wrong_usage(dyno: Dyno, flag: str, value: str) -> None:
    done = dyno("bench", "--url", "http://127.0.0.1:9", flag, value)

    assert done.returncode == 2
    assert f"{flag} {value}: must be" in done.stderr
