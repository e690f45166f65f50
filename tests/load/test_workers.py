"""A level spread over worker processes: the same requests, the same tokens, one journal."""

import asyncio
import json
import os
import random
import signal
import subprocess
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
import uvloop
from hypothesis import given, settings
from hypothesis import strategies as st

from conftest import DYNO, last_json
from harness import answering, raw
from llmdyno.load.level import Level
from llmdyno.load.plan import Plan
from llmdyno.load.progress import Progress
from llmdyno.load.recorder import Recorder
from llmdyno.load.workers import workers_for
from llmdyno.plugins import load
from llmdyno.records.entries import (
    Entry,
    LevelEnded,
    LevelStarted,
    Opened,
    Record,
    ShareEnded,
    Tick,
)
from llmdyno.records.journal import Journal, read_journal, worker_journal
from llmdyno.results.summary import summarise
from llmdyno.spec import Bench, Load, Workload
from llmdyno.units import Lengths
from llmdyno.wire.exchange import Meter
from llmdyno.wire.target import parse_url
from llmdyno.workload.prompts import Prompts
from llmdyno.workload.share import Share
from scripted_server import plain, scripted
from waiting import until

Streamer = Callable[..., str]
Dyno = Callable[..., subprocess.CompletedProcess[str]]

TO_STREAMER = ("--endpoint", "openai-chat", "--model", "m", "--no-calibration", "--no-scrape")


def truth(url: str) -> dict[str, Any]:
    with urllib.request.urlopen(f"{url}/truth") as response:
        told: dict[str, Any] = json.load(response)
    return told


def tokens_sent(url: str) -> int:
    """Return the tokens sent so far, also to rehearsals."""
    told = truth(url)
    sent: int = told["tokens"] - told["aborted_tokens"]
    return sent


def records(folder: Path) -> list[Record]:
    entries = read_journal(folder / "journal.jsonl")
    return [entry for entry in entries if isinstance(entry, Record)]


# What is dealt out.


@given(total=st.integers(0, 50), of=st.integers(1, 9))
def test_every_number_is_of_one_worker(total: int, of: int) -> None:
    shares = [Share(index=index, of=of) for index in range(of)]

    dealt = sorted(number for share in shares for number in share.numbers(total))

    assert dealt == list(range(total))
    for share in shares:
        assert [share.number(nth) for nth in range(share.count(total))] == [*share.numbers(total)]


WORKLOADS = {
    "chat": Workload(),
    "synthetic": Workload(name="synthetic", isl=Lengths("uniform", 4, 40), osl=None),
    "sessions": Workload(name="sessions"),
}


@pytest.mark.parametrize("name", WORKLOADS)
def test_workers_together_ask_what_one_process_asks(name: str) -> None:
    workload = WORKLOADS[name]
    alone = Prompts(workload, "5")
    expected = [alone.draw_session() for _ in range(12)]

    workers = [Prompts(workload, "5", share=Share(index=index, of=3)) for index in range(3)]
    found = [workers[number % 3].draw_session() for number in range(12)]

    assert found == expected


def plan(**given: Any) -> Plan:
    spec = Load(**given)
    return Plan(
        level=0,
        users=0 if spec.is_open else spec.users[0],
        load=spec,
        target=parse_url("http://127.0.0.1:9"),
        endpoint=load("endpoints", "openai-chat"),
        model="m",
        due_s=[number / 10 for number in range(100)] if spec.is_open else None,
    )


def test_no_worker_is_without_work() -> None:
    assert workers_for(plan(users=(3,)), 8, None, 1) == 3
    assert workers_for(plan(users=(30,), requests=5), 8, None, 1) == 5
    rate = {"arrival": "constant", "rates": (10.0,)}
    assert workers_for(plan(**rate, max_concurrency=2), 8, None, 1) == 2
    assert workers_for(plan(**rate), 8, None, 1) == 8


def test_auto_takes_what_the_load_may_need_and_the_cores_allow() -> None:
    # 1,000 users x 100 tok/s are 100,000 events a second; half a core's ceiling is 20,000.
    assert workers_for(plan(users=(1000,)), "auto", 40_000.0, 64) == 5
    assert workers_for(plan(users=(1000,)), "auto", 40_000.0, 2) == 2
    assert workers_for(plan(users=(100,)), "auto", 40_000.0, 64) == 1
    assert workers_for(plan(users=(1000,)), "auto", 40_000.0, 0) == 1


# What is merged.


class Part(msgspec.Struct, frozen=True):
    """What a test makes a request of."""

    gap_ms: int  # since the one before ended
    ttft_ms: int
    tokens: int
    outcome: str


PARTS = st.lists(
    st.builds(
        Part,
        st.integers(1, 40),
        st.integers(1, 400),
        st.integers(1, 12),
        st.sampled_from(["completed", "completed", "completed", "failed", "cut"]),
    ),
    min_size=1,
    max_size=60,
)


def entries_of(parts: list[Part], workers: int) -> list[Entry]:
    """Return a level's entries in order of time."""
    ms = 1_000_000
    found: list[Entry] = []
    end_ns = 1000 * ms
    for number, part in enumerate(parts):
        end_ns += part.gap_ms * ms + 1
        gaps = (part.ttft_ms * ms, *(5 * ms for _ in range(part.tokens - 1)))
        took_ns = sum(gaps)
        found.append(
            Record(
                level=0,
                request=number,
                user=number % 7,
                prompt=number,
                due_ns=end_ns - took_ns,
                sent_ns=end_ns - took_ns,
                end_ns=took_ns,
                outcome=part.outcome,
                error="reset" if part.outcome == "failed" else "",
                gaps_ns=gaps,
                input_tokens=9,
                output_tokens=part.tokens,
                source="usage",
                reads=part.tokens,
            )
        )
        if number % 5 < workers:
            found.append(
                Tick(
                    level=0,
                    t_ns=end_ns + 1,
                    users=3,
                    in_flight=2,
                    cpu_s=number / 100,
                    worker=number % workers,
                    loop_lags_us=(number, 3),
                )
            )
    return found


SPEC = msgspec.to_builtins(Bench(url="http://127.0.0.1:9", load=Load(interval_s=0.1)))


@given(parts=PARTS, workers=st.integers(2, 5), torn=st.booleans())
@settings(max_examples=12, deadline=None)
def test_shards_merge_to_what_one_journal_would_have_said(
    tmp_path_factory: pytest.TempPathFactory, parts: list[Part], workers: int, *, torn: bool
) -> None:
    whole = tmp_path_factory.mktemp("run") / "journal.jsonl"
    shards = tmp_path_factory.mktemp("run") / "journal.jsonl"
    entries = entries_of(parts, workers)
    opened = Opened(run="r", started="now", spec=SPEC, environment={})
    started = LevelStarted(level=0, users=7, start_ns=10**9, ramp_ns=0, workers=workers)
    end_ns = 10**9 + 10**11
    ended = LevelEnded(level=0, end_ns=end_ns, full_until_ns=end_ns // 2)
    write(whole, [opened, started, *entries, ended])
    write(shards, [opened, started, ended])
    for worker in range(workers):
        share_end = ShareEnded(
            level=0, worker=worker, end_ns=end_ns, full_until_ns=end_ns, unsent=0
        )
        own = [entry for entry in entries if owner(entry, workers) == worker]
        write(worker_journal(shards, worker), [*own, share_end])
        if torn:
            with worker_journal(shards, worker).open("ab") as file:
                file.write(b'{"type":"request","level":0,"requ')

    expected, found = summarise(whole), summarise(shards)

    assert found["levels"][0]["requests"]["completed"] == sum(
        part.outcome == "completed" for part in parts
    )
    assert {**found, "dir": ""} == {**expected, "dir": ""}


def test_a_record_counted_again_takes_the_place_of_its_workers(tmp_path: Path) -> None:
    journal = tmp_path / "journal.jsonl"
    first, second = (
        msgspec.structs.replace(entry, texts=("a", "b"), source="chunks")
        for entry in entries_of([Part(5, 9, 2, "completed"), Part(5, 9, 2, "completed")], 1)
        if isinstance(entry, Record)
    )
    counted = msgspec.structs.replace(first, texts=(), source="tokenizer", output_tokens=7)
    started = LevelStarted(level=0, users=7, start_ns=10**9, ramp_ns=0, workers=2)
    ended = LevelEnded(level=0, end_ns=10**11, full_until_ns=10**11)
    opened = Opened(run="r", started="now", spec=SPEC, environment={})
    write(worker_journal(journal, 0), [first])
    write(worker_journal(journal, 1), [second])
    write(journal, [opened, started, ended, counted])

    assert records(tmp_path) == [counted, second]


def owner(entry: Entry, workers: int) -> int:
    if isinstance(entry, Record):
        return entry.request % workers
    assert isinstance(entry, Tick)
    return entry.worker


def write(path: Path, entries: list[Entry]) -> None:
    journal = Journal(path)
    for entry in entries:
        journal.append(entry)
    journal.close()


# What is run.


def test_the_tokens_are_the_truth_and_the_prompts_the_same_with_any_number_of_workers(
    streamer: Streamer, dyno: Dyno, tmp_path: Path
) -> None:
    url = streamer("--ttft", "50ms", "--itl", "5ms")
    asked = []
    for workers in (1, 2, 4):
        before = tokens_sent(url)
        folder = tmp_path / f"run{workers}"
        done = dyno(
            *("bench", "--url", url, *TO_STREAMER, "-c", "20", "--ramp", "100ms"),
            *("--requests", "61", "--osl", "8-24", "--workers", str(workers)),
            *("--interval", "200ms", "--out", str(folder), "--json"),
        )
        assert done.returncode == 0, done.stderr
        levels = last_json(done.stdout)["levels"]

        for level in levels:
            assert level["requests"] == {"completed": 61, "failed": 0, "cut": 0, "errors": {}}
            assert level.get("workers", 1) == workers
            # A stamp is the kernel's: as late as the streamer was with its write, and no later.
            late_ms = truth(url)["late_ms"]["max"]
            assert 49 <= level["ttft_ms"]["p50"] <= 50 + late_ms + 10
            assert sum(sample["completed"] for sample in level["samples"]) == 61
        found = records(folder)
        # The rehearsal asks for as many tokens as the first request.
        rehearsed = next(one.output_tokens for one in found if one.level == one.request == 0)
        counted = sum(level["tokens"]["output"] for level in levels) + rehearsed
        assert counted == tokens_sent(url) - before
        asked.append(
            sorted((one.level, one.request, one.prompt, one.output_tokens) for one in found)
        )
        assert all(one.user % workers == one.request % workers for one in found)
        assert len(list(folder.glob("journal-*.jsonl"))) == (workers if workers > 1 else 0)

    assert asked[0] == asked[1] == asked[2]


def test_arrivals_are_due_at_the_same_moments(
    streamer: Streamer, dyno: Dyno, tmp_path: Path
) -> None:
    url = streamer("--ttft", "40ms", "--itl", "2ms")
    due = []
    for workers in (1, 3):
        folder = tmp_path / f"run{workers}"
        done = dyno(
            *("bench", "--url", url, *TO_STREAMER, "--request-rate", "60", "--duration", "1500ms"),
            *("--osl", "4", "--workers", str(workers), "--max-concurrency", "9"),
            *("--out", str(folder), "--json"),
        )
        assert done.returncode == 0, done.stderr
        started = next(
            entry
            for entry in read_journal(folder / "journal.jsonl")
            if isinstance(entry, LevelStarted)
        )
        found = records(folder)
        due.append(sorted((one.request, one.due_ns - started.start_ns) for one in found))
        assert all(one.outcome == "completed" for one in found)
        assert {one.user for one in found} <= set(range(9))

    # One that found no slot before the end has no record: that depends on the machine.
    alone, together = map(dict, due)
    shared = alone.keys() & together.keys()
    assert len(shared) > 20
    assert {number: alone[number] for number in shared} == {
        number: together[number] for number in shared
    }


def begin(url: str, folder: Path, *arguments: str, workers: int = 3) -> subprocess.Popen[str]:
    """Start a long benchmark in workers, and wait until all of them have written requests."""
    process = subprocess.Popen(
        [
            *(*DYNO, "bench", "--url", url, *TO_STREAMER, "-c", "6", "--ramp", "0s"),
            *("--duration", "60s", "--osl", "8", "--workers", str(workers)),
            # Users who began together would think together: a signal then finds nothing to cut.
            *("--think-time", "0s", "--out", str(folder), "--json", *arguments),
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    files = [folder / f"journal-{number}.jsonl" for number in range(workers)]

    def are_under_way() -> bool:
        assert process.poll() is None, process.communicate()[1]
        return all(file.exists() and b'"request"' in file.read_bytes() for file in files)

    until(are_under_way, "a request of each worker", within_s=60.0)
    until(lambda: truth(url)["in_flight"] >= 4, "requests in flight")
    return process


def children(pid: int) -> list[int]:
    """Return the pids of a process' children that are workers."""
    listed = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [
        int(child)
        for child in listed
        if b"llmdyno.load.worker" in Path(f"/proc/{child}/cmdline").read_bytes()
    ]


def assert_nothing_is_lost(level: dict[str, Any], url: str) -> None:
    """Compare with the server's count without the rehearsal; an answer's end may cross a cut."""
    completed, cut = level["requests"]["completed"], level["requests"]["cut"]
    assert 1 <= cut <= 6
    assert completed <= truth(url)["completed"] - 1 <= completed + cut


def test_ctrl_c_ends_all_workers_and_keeps_what_there_is(
    streamer: Streamer, tmp_path: Path
) -> None:
    url = streamer("--ttft", "20ms", "--itl", "5ms")
    process = begin(url, tmp_path / "run")
    workers = children(process.pid)
    process.send_signal(signal.SIGINT)
    output, errors = process.communicate(timeout=30)

    assert process.returncode == 130, errors
    assert "Traceback" not in errors
    assert len(workers) == 3
    assert not any(Path(f"/proc/{pid}").exists() for pid in workers)
    (level,) = last_json(output)["levels"]
    assert_nothing_is_lost(level, url)
    assert level["stopped"] == ""
    assert level == json.loads((tmp_path / "run" / "summary.json").read_text())["levels"][0]


def test_a_worker_that_dies_ends_the_level_with_its_name(
    streamer: Streamer, tmp_path: Path
) -> None:
    url = streamer("--ttft", "20ms", "--itl", "5ms")
    process = begin(url, tmp_path / "run")
    os.kill(random.Random(2).choice(children(process.pid)), signal.SIGKILL)
    output, errors = process.communicate(timeout=30)

    assert process.returncode == 3, errors
    assert "was killed by signal 9" in errors
    assert "Traceback" not in errors
    (level,) = last_json(output)["levels"]
    assert level["stopped"].startswith("worker ")
    assert level["requests"]["completed"] > 5


def test_workers_end_with_a_parent_that_is_killed_and_nothing_finished_is_lost(
    streamer: Streamer, dyno: Dyno, tmp_path: Path
) -> None:
    url = streamer("--ttft", "20ms", "--itl", "5ms")
    process = begin(url, tmp_path / "run")
    workers = children(process.pid)
    begun = truth(url)["completed"]
    until(lambda: truth(url)["completed"] > begun + 50, "more requests")
    process.kill()
    process.communicate()
    until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in workers), "the workers' end")

    done = dyno("report", str(tmp_path / "run"), "--json")
    assert done.returncode == 0, done.stderr
    (level,) = last_json(done.stdout)["levels"]
    assert_nothing_is_lost(level, url)  # a worker has time to write what it had in flight
    assert level["interrupted"]
    assert level["workers"] == 3


def test_limits_on_errors_are_of_all_workers_together(dyno: Dyno) -> None:
    async def main() -> subprocess.CompletedProcess[str]:
        async with scripted(answering(raw(plain("503 Service Unavailable", b"")))) as url:
            return await asyncio.to_thread(
                dyno,
                *("bench", "--url", url, *TO_STREAMER, "-c", "6", "--ramp", "0s", "--json"),
                *("--duration", "30s", "--workers", "3", "--max-errors", "8"),
            )

    done = asyncio.run(main())

    assert done.returncode == 3, done.stderr
    assert "8 requests failed, as many as --max-errors allows" in done.stderr
    (level,) = last_json(done.stdout)["levels"]
    assert 8 <= level["requests"]["failed"] < 40  # what fails until the files are read again
    assert level["duration_s"] < 10


def test_a_full_disk_of_a_worker_is_said_and_what_was_written_is_kept(
    streamer: Streamer, tmp_path: Path
) -> None:
    url = streamer("--ttft", "5ms", "--itl", "1ms")
    script = (
        "import resource, signal, sys; signal.signal(signal.SIGXFSZ, signal.SIG_IGN);"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000));"
        "from llmdyno.cli.app import main; sys.argv[0] = 'dyno'; main()"
    )
    done = subprocess.run(
        [
            *(DYNO[0], "-c", script, "bench", "--url", url, *TO_STREAMER, "-c", "4"),
            *("--ramp", "0s", "--duration", "30s", "--osl", "8", "--workers", "2"),
            *("--out", str(tmp_path / "run")),
        ],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert done.returncode == 3
    assert "worker " in done.stderr
    assert "cannot write" in done.stderr
    assert "kept" in done.stderr
    assert "Traceback" not in done.stderr
    assert len(records(tmp_path / "run")) > 50


@pytest.mark.parametrize(
    ("value", "words"),
    [("0", "--workers 0: must be at least 1"), ("two", "--workers two: write a whole number")],
)
def test_workers_that_are_none_are_wrong_usage(dyno: Dyno, value: str, words: str) -> None:
    done = dyno("bench", "--url", "http://127.0.0.1:9", "--workers", value)

    assert done.returncode == 2
    assert words in done.stderr


def test_two_thousand_streams_lose_no_token_and_stamp_none_late(
    streamer: Streamer, dyno: Dyno, tmp_path: Path
) -> None:
    """A smaller benchmarks/streams: what ten thousand do there."""
    url = streamer("--ttft", "2s", "--itl", "1s")

    done = dyno(
        *("bench", "--url", url, *TO_STREAMER, "-c", "2000", "--ramp", "1500ms", "--json"),
        *("--requests", "2000", "--osl", "3", "--workers", "2", "--interval", "500ms"),
        *("--out", "run"),
    )
    assert done.returncode == 0, done.stderr
    (level,) = last_json(done.stdout)["levels"]
    told = truth(url)

    assert max(sample["in_flight"] or 0 for sample in level["samples"]) > 1900
    assert level["requests"] == {"completed": 2000, "failed": 0, "cut": 0, "errors": {}}
    assert level["tokens"]["output"] == 6000
    assert tokens_sent(url) == 6000 + 3  # the rehearsal's
    # A stamp is the kernel's: as late as the streamer was with its write, and no later.
    stamps_s = [sum(one.gaps_ns) / 1e9 for one in records(tmp_path / "run")]
    late_ms = sorted((stamp_s - 4) * 1e3 for stamp_s in stamps_s)
    assert late_ms[-20] < told["late_ms"]["max"] + 10


def test_a_worker_that_is_stopped_before_the_start_writes_nothing_of_before() -> None:
    """A line of before would stand before its level in the merged journal."""
    entries: list[Entry] = []

    async def main() -> int:
        plan = Plan(
            level=0,
            users=2,
            load=Load(users=(2,)),
            target=parse_url("http://127.0.0.1:1"),
            endpoint=load("endpoints", "openai-chat"),
            model="m",
        )
        recorder = Recorder(
            sink=entries.append,
            zero_ns=0,
            meter=Meter(),
            progress=Progress(),
        )
        level = Level(plan, Prompts(Workload()), recorder)
        start_ns = time.perf_counter_ns() + 50_000_000
        level.interrupt()
        await level.run(start_ns)
        return start_ns

    start_ns = uvloop.run(main())

    started, tick, ended = entries
    assert isinstance(started, LevelStarted)
    assert isinstance(tick, Tick)
    assert isinstance(ended, LevelEnded)
    assert started.start_ns == start_ns
    assert min(tick.t_ns, ended.end_ns) >= start_ns


@pytest.mark.parametrize("name", ["chat", "chat-system", "sessions"])
def test_unique_prompts_are_all_unlike_and_the_same_with_any_workers(name: str) -> None:
    workload = Workload(name=name, unique=True)
    prompts = Prompts(workload)
    asked = [prompts.draw_session()[0] for _ in range(400)]  # of 253

    assert len({item.prompt.split(": ")[0] for item in asked}) == 400
    assert [item.number for item in asked] == list(range(400))
    for index in range(2):
        own = Prompts(workload, share=Share(index=index, of=2))
        assert [own.draw_session()[0] for _ in range(20)] == asked[index:40:2]
