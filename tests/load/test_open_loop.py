"""Open-loop arrivals: drawn beforehand, kept to whatever the server does, and told from due."""

import asyncio
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import virtual_time
from conftest import last_json
from llmdyno.load.arrivals import due_times_s
from llmdyno.load.open_loop import OpenLoop
from llmdyno.records.entries import Record
from llmdyno.records.journal import read_journal
from llmdyno.spec import Load
from scripted_server import Client, plain, scripted

Streamer = Callable[..., str]
Dyno = Callable[..., subprocess.CompletedProcess[str]]


async def _pause(duration_s: float) -> bool:
    await asyncio.sleep(max(0.0, duration_s))
    return True


def test_all_have_started_when_it_says_so_though_none_waited_at_first() -> None:
    async def play() -> tuple[int, int]:
        served: list[int] = []

        async def send(_slot: int, number: int, _due_ns: int) -> None:
            served.append(number)
            await asyncio.sleep(0.03)

        due_ns = [0, *[80_000_000] * 4]
        loop = OpenLoop(due_ns, send, pause=_pause, now_ns=virtual_time.now_ns, slots_max=1)
        await loop.start_all()
        started = len(served)
        await loop.finish()
        return started, loop.waiting

    # The last has its slot at once when the one before it leaves, and begins a moment later.
    started, waiting = virtual_time.run(play())

    assert started >= 4
    assert waiting == 0


def test_requests_wait_for_a_slot_in_order_and_keep_their_due_times() -> None:
    served: list[tuple[int, int, int, int]] = []

    async def play() -> OpenLoop:
        async def send(slot: int, number: int, due_ns: int) -> None:
            served.append((slot, number, due_ns, virtual_time.now_ns()))
            await asyncio.sleep(0.02)

        loop = OpenLoop([0] * 7, send, pause=_pause, now_ns=virtual_time.now_ns, slots_max=2)
        await loop.start_all()
        await loop.finish()
        return loop

    loop = virtual_time.run(play())

    assert [number for _, number, _, _ in served] == list(range(7))
    assert {slot for slot, _, _, _ in served} == {0, 1}
    assert {due_ns for _, _, due_ns, _ in served} == {0}
    assert [sent_ns // 20_000_000 for _, _, _, sent_ns in served] == [0, 0, 1, 1, 2, 2, 3]
    assert loop.waiting == 0


def test_a_rate_is_kept_whatever_the_server_takes(streamer: Streamer, dyno: Dyno) -> None:
    url = streamer("--ttft", "300ms", "--itl", "10ms")

    done = dyno(
        *("bench", "--url", url, "--model", "m", "--endpoint", "openai-chat", "--seed", "3"),
        *("--request-rate", "10,30", "--duration", "4s", "--osl", "20", "--interval", "1s"),
        *("--slo", "ttft_due:p99<2s", "--json"),
    )
    assert done.returncode == 0, done.stderr
    summary = last_json(done.stdout)

    assert [slo["at"] for slo in summary["slo"]] == ["poisson 10/s", "poisson 30/s"]
    for level, rate in zip(summary["levels"], (10.0, 30.0), strict=True):
        load = Load(arrival="poisson", rates=(rate,), duration_s=4.0)
        assert (level["arrival"], level["rate"], level["users"]) == ("poisson", rate, None)
        assert level["requests"]["completed"] == len(due_times_s(load, rate, f"3/{rate:g}"))
        assert level["requests"]["unsent"] == 0
        assert 299 <= level["ttft_ms"]["p50"] <= level["ttft_due_ms"]["p50"] < 400
        assert level["window"]["end_s"] == pytest.approx(4.0, abs=0.1)


def test_waiting_for_a_place_is_in_the_latency_from_due_only(
    streamer: Streamer, dyno: Dyno, tmp_path: Path
) -> None:
    """Two places serve 10 requests a second; 20 a second come: from sent all looks well."""
    url = streamer("--ttft", "100ms", "--itl", "10ms")

    done = dyno(
        *("bench", "--url", url, "--model", "m", "--endpoint", "openai-chat", "--requests", "40"),
        *("--request-rate", "20", "--arrival", "constant", "--max-concurrency", "2"),
        *("--osl", "11", "--out", "run", "--json"),
    )
    assert done.returncode == 0, done.stderr
    (level,) = last_json(done.stdout)["levels"]
    records = [
        entry
        for entry in read_journal(tmp_path / "run" / "journal.jsonl")
        if isinstance(entry, Record)
    ]

    assert level["requests"]["completed"] == 40
    assert {record.user for record in records} == {0, 1}
    assert np.diff(sorted(record.due_ns for record in records)) == pytest.approx(50e6, abs=10)
    assert level["whole"]["ttft_ms"]["p50"] < 200
    # The last is due at 1.95 s and sent when 38 others have had their 200 ms, two at a time.
    waited_ms = max(record.sent_ns - record.due_ns for record in records) / 1e6
    assert waited_ms >= 3800 - 1950 - 50
    for metric, least_ms in (("ttft", 100), ("e2e", 200)):
        found_ms, sent_ms = (level["whole"][f"{metric}{due}_ms"]["max"] for due in ("_due", ""))
        assert waited_ms + least_ms - 1 <= found_ms <= waited_ms + sent_ms + 1


def test_what_never_got_a_place_is_counted(streamer: Streamer, dyno: Dyno) -> None:
    url = streamer("--ttft", "500ms", "--itl", "10ms")

    done = dyno(
        *("bench", "--url", url, "--model", "m", "--endpoint", "openai-chat", "--duration", "2s"),
        *("--request-rate", "10", "--arrival", "constant", "--max-concurrency", "1"),
        *("--osl", "2", "--json"),
    )
    assert done.returncode == 0, done.stderr
    (level,) = last_json(done.stdout)["levels"]
    requests = level["requests"]

    assert requests["unsent"] > 10
    assert requests["completed"] + requests["cut"] + requests["unsent"] == 20
    assert max(row["waiting"] for row in level["samples"]) > 5
    assert "never sent" in done.stderr


def test_rounds_of_a_rate_are_pooled_and_every_request_is_sent(
    streamer: Streamer, dyno: Dyno
) -> None:
    url = streamer("--ttft", "60ms", "--itl", "5ms")

    done = dyno(
        *("bench", "--url", url, "--model", "m", "--endpoint", "openai-chat", "--requests", "20"),
        *("--request-rate", "15,25", "--max-concurrency", "2", "--repeat", "2", "--osl", "4"),
        *("--slo", "ttft_due:p99<60s", "--no-calibration", "--json"),
    )
    assert done.returncode == 0, done.stderr
    levels = last_json(done.stdout)["levels"]

    assert [level["rate"] for level in levels] == [15.0, 25.0]
    for level in levels:
        requests = level["requests"]
        assert (requests["completed"], requests["unsent"]) == (40, 0)
        assert level["whole"]["ttft_due_ms"]["n"] == level["whole"]["e2e_due_ms"]["n"] == 40
        assert len(level["repeats"]) == 2
        assert level["goodput"]["mean"] == pytest.approx(level["request_rate"]["mean"], rel=1e-3)
    assert "poisson 15/s, tok/s in each of 2 rounds" in done.stderr


def test_too_many_errors_end_an_open_loop(dyno: Dyno) -> None:
    async def refuse(client: Client) -> None:
        while True:
            await client.request()
            await client.send(plain("500 Oops", b"no"), pause_s=0)

    async def main() -> subprocess.CompletedProcess[str]:
        async with scripted(refuse) as url:
            return await asyncio.to_thread(
                dyno,
                *("bench", "--url", url, "--model", "m", "--endpoint", "openai-chat"),
                *("--request-rate", "50,60", "--duration", "60s", "--max-errors", "5"),
                *("--no-calibration", "--no-scrape", "--json"),
            )

    done = asyncio.run(main())
    (level,) = last_json(done.stdout)["levels"]  # the second one was not begun

    assert done.returncode == 3, done.stderr
    assert level["stopped"].startswith("5 requests failed")
    assert level["duration_s"] < 30


WRONG: dict[str, tuple[list[str], str]] = {
    "both": (["-c", "5", "--request-rate", "2"], "write --max-concurrency"),
    "rate": (["--request-rate", "0"], "each level needs more than 0"),
    "rate text": (["--request-rate", "fast"], "write requests per second"),
    "arrival": (["--request-rate", "2", "--arrival", "poison"], "Did you mean 'poisson'?"),
    "no rate": (["--arrival", "poisson"], "needs a rate"),
    "burstiness": (["--request-rate", "2", "--arrival", "poisson", "--burstiness", "2"], "gamma"),
    "places": (["--max-concurrency", "2"], "only with --request-rate"),
    "goodput": (["--slo", "goodput>1"], "--slo goodput>1: counts the requests that meet an SLO"),
    "due": (["--slo", "ttft_due:p99<2s"], "closed-loop users have no due times"),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_input_is_one_sentence(name: str, dyno: Dyno) -> None:
    arguments, words = WRONG[name]

    done = dyno("bench", "--url", "http://127.0.0.1:9", *arguments)

    assert done.returncode == 2, done.stderr
    assert words in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
