"""Back-off, Retry-After, limits on errors, and a level's end, whatever the server does."""

import time
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from conftest import last_json
from harness import Answer, answering, raw, run, silence, whole
from llmdyno import load
from llmdyno.load import _retry_after_s
from llmdyno.records import LevelEnded, Record, read_journal
from llmdyno.transport import Response
from scripted_server import HEAD, plain
from test_bench import Dyno, Streamer


def _gaps_s(records: list[Record]) -> list[float]:
    """Return the pauses between the end of one request and the start of the next."""
    return [
        (after.sent_ns - before.sent_ns - before.end_ns) / 1e9 for before, after in pairwise(records)
    ]


def refusal(status: str, retry_after: str) -> Answer:
    return raw(plain(status, b"", f"Retry-After: {retry_after}"))


def test_a_user_backs_off_further_with_each_failure_and_recovers() -> None:
    broken, good = raw(plain("500 Oops", b"")), whole("openai-chat")

    records = run(answering(broken, broken, broken, good, good), requests=5)
    gaps_s = _gaps_s(records)

    assert [gap > wanted for gap, wanted in zip(gaps_s, (0.1, 0.2, 0.4), strict=False)] == [True] * 3
    assert gaps_s[3] < 0.1


@pytest.mark.parametrize("status", ["429 Too Many Requests", "503 Service Unavailable"])
def test_retry_after_is_honoured(status: str) -> None:
    records = run(answering(refusal(status, "1"), whole("openai-chat")), requests=2)

    assert 1.0 <= _gaps_s(records)[0] < 2.0


def _response(retry_after: str, status: int = 429) -> Response:
    return Response(sent_ns=0, status=status, headers={"retry-after": retry_after})


def test_retry_after_may_be_a_date_and_is_capped() -> None:
    in_20_s = datetime.now(UTC) + timedelta(seconds=20)
    tomorrow = in_20_s + timedelta(days=1)
    yesterday = in_20_s - timedelta(days=1)

    assert 15 < _retry_after_s(_response(format_datetime(in_20_s, usegmt=True))) <= 20
    assert _retry_after_s(_response(format_datetime(tomorrow, usegmt=True))) == 60
    assert _retry_after_s(_response(format_datetime(yesterday, usegmt=True))) == 0
    assert _retry_after_s(_response("86400")) == load.RETRY_AFTER_MAX_S == 60
    assert _retry_after_s(_response("1.5")) == 1.5


@pytest.mark.parametrize("garbage", ["soon", "-5", "nan", "inf", "1e9", "²", "1.2.3", "", "0"])
def test_a_retry_after_that_is_garbage_is_no_pause(garbage: str) -> None:
    assert _retry_after_s(_response(garbage)) == 0


def test_retry_after_means_nothing_with_other_statuses() -> None:
    assert _retry_after_s(_response("9", 200)) == 0


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

    assert time.monotonic() - began_s < 2.5
    assert {record.user for record in records} == {0, 1, 2}


def test_so_many_requests_end_with_their_timeouts() -> None:
    began_s = time.monotonic()

    records = run(answering(silence(HEAD)), users=2, requests=4, timeout_s=0.3)

    assert time.monotonic() - began_s < 3
    assert [record.error for record in records] == ["timeout"] * 4


def test_so_many_errors_end_a_level() -> None:
    records = run(answering(raw(plain("500 Oops", b""))), users=4, duration_s=30.0, max_errors=6)

    assert sum(record.outcome == "failed" for record in records) == 6


def test_a_share_of_errors_ends_a_level_once_there_are_enough_to_judge() -> None:
    good, bad = whole("openai-chat"), raw(plain("500 Oops", b""))

    def mixed(period: int) -> list[Answer]:
        return [bad if number % period == 0 else good for number in range(400)]

    ended = run(answering(*mixed(4)), users=5, requests=90, max_error_rate=0.2)
    went_on = run(answering(*mixed(10)), users=5, requests=90, max_error_rate=0.2)

    assert 50 <= sum(record.outcome != "cut" for record in ended) < 70
    assert len(went_on) == 90


def _entries(folder: Path) -> list[Any]:
    return list(read_journal(folder / "journal.jsonl"))


def test_ending_early_is_exit_status_3_and_said_everywhere(dyno: Dyno, tmp_path: Path) -> None:
    """A server that answers is told apart from one that fails: here it dies between the two."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path)
        done = _bench_against_500(dyno, tmp_path)

    assert done.returncode == 3, done.stderr
    assert "ended early: 3 requests failed, as many as --max-errors allows" in done.stderr
    assert "Traceback" not in done.stderr
    document = last_json(done.stdout)
    (level,) = document["levels"]  # the second one was not begun
    assert level["requests"]["failed"] == 3
    assert level["stopped"].startswith("3 requests failed")
    assert level["faults"] == {"http-500": "the server answered with status 500 (Internal Server Error)"}
    ended = [entry for entry in _entries(tmp_path / "run") if isinstance(entry, LevelEnded)]
    assert ended[0].stopped == level["stopped"]
