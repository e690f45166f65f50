"""The benchmark as a user runs it, against a server whose timing is known exactly."""

import asyncio
import json
import signal
import statistics
import subprocess
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

import waiting
from conftest import DYNO, last_json
from llmdyno.processes.presence import Served, serving
from scripted_server import DONE, END, HEAD, STOP, Client, chunk, framed, scripted

Streamer = Callable[..., str]
Dyno = Callable[..., subprocess.CompletedProcess[str]]


def _truth(url: str) -> dict[str, Any]:
    with urllib.request.urlopen(f"{url}/truth") as response:
        truth: dict[str, Any] = json.load(response)
    return truth


def _tokens_of_run(url: str, rehearsed: int) -> int:
    """Return the tokens sent so far, without those that the rehearsal read."""
    truth = _truth(url)
    sent: int = truth["tokens"] - truth["aborted_tokens"] - rehearsed
    return sent


def test_a_server_that_dyno_serve_has_started_is_measured_against_its_prediction(
    streamer: Streamer, dyno: Dyno, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "runtime"))
    url = streamer("--ttft", "10ms", "--itl", "2ms")
    served = Served(
        host="127.0.0.1",
        port=int(url.rsplit(":", 1)[1]),
        engine="openvino",
        front="native",
        model="tiny",
        names=("m",),
        config={},
    )
    with_words = msgspec.structs.replace(served, engine_args=("--more=1",))
    asked = ("bench", "--url", url, "--endpoint", "openai-chat", "--model", "m", "-c", "2")
    few = ("--requests", "4", "--osl", "8", "--ramp", "0s", "--no-calibration")
    with serving(served):
        done = dyno(*asked, *few, "--json", "--out", str(tmp_path / "run"))
    assert done.returncode == 0, done.stderr
    assert last_json(done.stdout)["environment"]["server"]["engine"] == "openvino"
    if not last_json(done.stdout)["environment"]["gpus"]:
        assert "allows; bound by" in done.stderr
    assert "allows; bound by" not in dyno(*asked, *few, "--out", str(tmp_path / "again")).stderr
    with serving(with_words):
        done = dyno(*asked, *few, "--json", "--out", str(tmp_path / "words"))
    assert last_json(done.stdout)["environment"]["server"]["engine_args"] == ["--more=1"]
    assert "allows; bound by" not in done.stderr
    with serving(msgspec.structs.replace(served, names=())):
        done = dyno(*asked, *few, "--json", "--out", str(tmp_path / "other"))
    assert "server" not in last_json(done.stdout)["environment"]


@pytest.mark.alone
@pytest.mark.parametrize("endpoint", ["openai-chat", "openai-completions"])
def test_timing_and_counts_are_the_truth(streamer: Streamer, dyno: Dyno, endpoint: str) -> None:
    url = streamer("--ttft", "100ms", "--itl", "20ms")

    done = dyno(
        *("bench", "--url", url, "--endpoint", endpoint, "--model", "m", "-c", "10,40"),
        *("--ramp", "500ms", "--requests", "60", "--osl", "32", "--json"),
    )
    assert done.returncode == 0, done.stderr
    levels = last_json(done.stdout)["levels"]

    assert [level["users"] for level in levels] == [10, 40]
    for level in levels:
        assert level["requests"] == {"completed": 60, "failed": 0, "cut": 0, "errors": {}}
        assert level["tokens"]["output"] == 60 * 32
        assert level["tokens"]["source"] == "usage"
        # What remains beside our own share is how late the streamer was, and this machine.
        assert level["ttft_ms"]["p50"] == pytest.approx(100, abs=5)
        assert level["itl_ms"]["mean"] == pytest.approx(20, rel=0.03)
        assert level["tpot_ms"]["p50"] == pytest.approx(20, rel=0.03)
        assert level["e2e_ms"]["p50"] == pytest.approx(100 + 31 * 20, rel=0.03)
    assert _tokens_of_run(url, rehearsed=32) == 2 * 60 * 32


def test_a_note_is_kept_with_the_results(streamer: Streamer, dyno: Dyno, tmp_path: Path) -> None:
    url = streamer("--ttft", "5ms", "--itl", "5ms")

    done = dyno(
        *("bench", "--url", url, "-c", "2", "--ramp", "0s", "--requests", "4", "--osl", "4"),
        *("--no-calibration", "--note", "after the driver update", "--out", "noted", "--json"),
    )
    assert done.returncode == 0, done.stderr
    assert dyno("report", "noted").returncode == 0

    assert last_json(done.stdout)["spec"]["note"] == "after the driver update"
    assert "after the driver update" in (tmp_path / "noted" / "report.html").read_text()


def test_a_duration_ends_on_time_and_nothing_is_lost(streamer: Streamer, dyno: Dyno) -> None:
    url = streamer("--ttft", "50ms", "--itl", "10ms")

    began_s = time.monotonic()
    done = dyno(
        *("bench", "--url", url, "-c", "8", "--ramp", "1s", "--duration", "4s", "--osl", "20"),
        *("--interval", "1s", "--json", "--slo", "ttft:p99<2s"),
    )
    took_s = time.monotonic() - began_s
    assert done.returncode == 0, done.stderr
    (level,) = last_json(done.stdout)["levels"]

    assert took_s < 20
    assert 3.9 <= level["duration_s"] <= 5.5
    assert 4 <= len(level["samples"]) <= 6
    assert level["requests"]["cut"] == 0
    assert level["requests"]["completed"] == sum(s["completed"] for s in level["samples"])
    # One token more: the endpoint was asked.
    assert level["tokens"]["output"] == _tokens_of_run(url, rehearsed=20) - 1
    assert level["window"]["start_s"] >= 1.0
    assert level["client"]["verdict"] in {"valid", "client-bound"}


@pytest.mark.alone
def test_requests_cut_before_a_first_token_are_counted(streamer: Streamer, dyno: Dyno) -> None:
    # A request takes 1.0 s, of which 0.9 s to its first token: at the end most have none yet.
    url = streamer("--ttft", "900ms", "--itl", "20ms")

    done = dyno(
        *("bench", "--url", url, "--endpoint", "openai-chat", "--model", "m", "-c", "8", "--json"),
        *("--ramp", "200ms", "--duration", "1800ms", "--grace", "0s", "--osl", "6"),
    )
    assert done.returncode == 0, done.stderr
    (level,) = last_json(done.stdout)["levels"]
    ttft = level["ttft_ms"]

    assert (level["requests"]["completed"], level["requests"]["cut"]) == (8, 8)
    assert ttft["censored"] == 8
    assert ttft["p99"] < 1300  # nearer to 900 on a machine with nothing else to do
    assert ttft["kaplan_meier"]["p50"] == pytest.approx(900, abs=40)
    # All eight that were cut had waited for less than 900 ms: they say nothing against it.
    assert ttft["kaplan_meier"]["p99"] == pytest.approx(ttft["max"])
    assert level["itl_ms"].keys().isdisjoint({"censored", "kaplan_meier"})
    assert "8 requests were cut before a first token" in done.stderr


def test_repeats_are_interleaved_and_pooled(streamer: Streamer, dyno: Dyno, tmp_path: Path) -> None:
    url = streamer("--ttft", "20ms", "--itl", "5ms")

    done = dyno(
        *("bench", "--url", url, "--endpoint", "openai-chat", "--model", "m", "-c", "2,4"),
        *("--ramp", "0s", "--requests", "12", "--osl", "8", "--repeat", "3", "--json"),
        *("--out", "run"),
    )
    assert done.returncode == 0, done.stderr
    summary = last_json(done.stdout)
    entries = map(json.loads, (tmp_path / "run" / "journal.jsonl").read_text().splitlines())
    order = [
        (entry["users"], entry["repeat"], entry["level"])
        for entry in entries
        if entry["type"] == "level"
    ]

    assert order == [(2, 0, 0), (4, 0, 1), (2, 1, 2), (4, 1, 3), (2, 2, 4), (4, 2, 5)]
    assert [level["users"] for level in summary["levels"]] == [2, 4]
    for level in summary["levels"]:
        rates = [one["token_rate"] for one in level["repeats"]]
        assert level["requests"]["completed"] == 36
        assert level["tokens"]["output"] == 36 * 8
        assert level["tokens"]["by_source"] == {"usage": 36 * 8}
        assert level["whole"]["ttft_ms"]["n"] == 36
        assert len(rates) == 3
        assert level["token_rate"]["mean"] == pytest.approx(sum(rates) / 3, rel=1e-4)
        low, high = level["token_rate"]["ci95"]
        assert low <= level["token_rate"]["mean"] <= high
        assert low <= sorted(rates)[1] <= high


def test_repeats_end_once_the_token_rate_is_known(streamer: Streamer, dyno: Dyno) -> None:
    url = streamer("--ttft", "20ms", "--itl", "5ms")
    arguments = [
        *("bench", "--url", url, "--endpoint", "openai-chat", "--model", "m", "-c", "2"),
        *("--ramp", "0s", "--requests", "8", "--osl", "8", "--repeat", "5", "--json"),
    ]

    for until, share in (("99%", 0.99), ("0.0001%", 1e-6)):
        done = dyno(*arguments, "--repeat-until", until)
        assert done.returncode == 0, done.stderr
        (level,) = last_json(done.stdout)["levels"]
        rates = [one["token_rate"] for one in level["repeats"]]
        # A round in which the machine stood still takes one more; on a quiet one 3 will do.
        known = [count for count in (3, 4, 5) if _half_width(rates[:count]) <= share]
        assert len(rates) == next(iter(known), 5)


def _half_width(rates: list[float]) -> float:
    """Return half the interval of a mean, by Student's t, as a share of it."""
    t = {3: 4.303, 4: 3.182, 5: 2.776}[len(rates)]
    return float(t * statistics.stdev(rates) / len(rates) ** 0.5 / statistics.mean(rates))


def test_an_slo_that_is_missed_is_exit_status_1(streamer: Streamer, dyno: Dyno) -> None:
    url = streamer("--ttft", "50ms", "--itl", "5ms")
    arguments = ("bench", "--url", url, "-c", "2", "--requests", "6", "--ramp", "0s", "--osl", "4")

    missed = dyno(*arguments, "--slo", "ttft:p50<10ms,e2e:p99<5s", "--json")

    assert missed.returncode == 1, missed.stderr
    assert [slo["met"] for slo in last_json(missed.stdout)["slo"]] == [False, True]
    assert dyno(*arguments, "--slo", "ttft:p50<4s").returncode == 0


USERS = 3
TOKEN = HEAD + framed(chunk("a") + STOP + DONE) + END


def killed_as_a_user_asks_again(folder: Path, answers: int) -> int:
    """Run a benchmark that its server kills with a request that it has just read.

    A user asks again when the request before is finished. So as the server has read a request, all
    that it has answered are finished but for those of the other users.

    Args:
        folder: of the run.
        answers: how many requests of the level are answered.

    Returns:
        How many requests are finished then.
    """
    journal = folder / "journal.jsonl"
    asked: list[int] = []  # of each user, in the order of their first requests

    async def main() -> None:
        dead = asyncio.Event()
        started: list[asyncio.subprocess.Process] = []

        async def server(client: Client) -> None:
            user = None
            while not dead.is_set():
                await client.request()
                if _has_begun(journal):  # before that it is the rehearsal
                    if user is None:
                        user = len(asked)
                        asked.append(0)
                    asked[user] += 1
                    if sum(asked) > answers and asked[user] > 1:
                        started[0].kill()
                        dead.set()
                await client.send(TOKEN, pause_s=0)

        async with scripted(server) as url:
            words = [*DYNO, "bench", "--url", url, "--endpoint", "openai-chat", "--model", "m"]
            words += ["-c", str(USERS), "--ramp", "0s", "--duration", "600s", "--osl", "1"]
            words += ["--think-time", "0s", "--no-calibration", "--out", str(folder)]
            quiet = asyncio.subprocess.DEVNULL
            started.append(await asyncio.create_subprocess_exec(*words, stderr=quiet))
            await asyncio.wait_for(started[0].wait(), 100)

    asyncio.run(main())
    return sum(count - 1 for count in asked)


@pytest.mark.parametrize("answers", [1, 40, 333])
def test_a_finished_request_survives_kill_9(tmp_path: Path, dyno: Dyno, answers: int) -> None:
    folder = tmp_path / "run"

    finished = killed_as_a_user_asks_again(folder, answers)
    done = dyno("report", str(folder), "--json")

    assert finished > answers - USERS
    assert done.returncode == 0, done.stderr
    (level,) = last_json(done.stdout)["levels"]
    assert finished <= level["requests"]["completed"] <= finished + USERS
    assert level["interrupted"]


def _has_begun(journal: Path) -> bool:
    return journal.exists() and b'"type":"level"' in journal.read_bytes()


def _requests_in(journal: Path) -> int:
    return journal.read_bytes().count(b'"type":"request"') if journal.exists() else 0


def test_ctrl_c_keeps_what_there_is(streamer: Streamer, tmp_path: Path) -> None:
    url = streamer("--ttft", "20ms", "--itl", "5ms")
    process = subprocess.Popen(
        [
            *(*DYNO, "bench", "--url", url, "-c", "5,6", "--duration", "60s", "--osl", "8"),
            *("--no-calibration", "--json", "--out", "run"),
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=tmp_path,
    )
    journal = tmp_path / "run" / "journal.jsonl"
    waiting.until(lambda: _requests_in(journal) > 10, "ten requests")
    process.send_signal(signal.SIGINT)
    output, errors = process.communicate(timeout=20)

    assert process.returncode == 130, errors
    (level,) = last_json(output)["levels"]
    assert level["requests"]["completed"] > 10
    assert "interrupted" in errors
    assert "Traceback" not in errors


def test_a_signal_before_the_first_level_is_no_other(streamer: Streamer, tmp_path: Path) -> None:
    url = streamer("--ttft", "20ms", "--itl", "5ms")
    folder = tmp_path / "run"
    process = subprocess.Popen(
        [*DYNO, "bench", "--url", url, "-c", "5", "--duration", "60s", "--out", str(folder)],
        stderr=subprocess.PIPE,
        text=True,
    )
    waiting.until((folder / "journal.jsonl").exists, "the journal")
    process.send_signal(signal.SIGTERM)  # while the client itself is measured
    _, errors = process.communicate(timeout=20)

    assert process.returncode == 130, errors
    assert "interrupted; what was measured" in errors
    assert "Traceback" not in errors
    assert (folder / "summary.json").exists()


def test_a_full_disk_is_said_and_what_was_written_is_kept(
    streamer: Streamer, tmp_path: Path
) -> None:
    url = streamer("--ttft", "5ms", "--itl", "1ms")
    # A limit on the size of files is to a process what a full disk is: write() falls short.
    script = (
        "import resource, signal, sys; signal.signal(signal.SIGXFSZ, signal.SIG_IGN);"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (40_000, 40_000));"
        "from llmdyno.cli.app import main; sys.argv[0] = 'dyno'; main()"
    )
    done = subprocess.run(
        [
            *(DYNO[0], "-c", script, "bench", "--url", url, "-c", "4", "--ramp", "0s"),
            *("--duration", "30s", "--osl", "8", "--no-calibration"),
            *("--out", str(tmp_path / "run")),
        ],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert done.returncode == 3
    assert "cannot write" in done.stderr
    assert "kept" in done.stderr
    assert "TTFT p50" in done.stderr  # of what was measured there are the numbers all the same
    assert "`dyno report" in done.stderr
    assert "Traceback" not in done.stderr
    assert (tmp_path / "run" / "journal.jsonl").stat().st_size > 30_000


WRONG: dict[str, tuple[list[str], str]] = {
    "users": (["-c", "0"], "-c 0: each level needs 1 user or more"),
    "users text": (["-c", "ten"], "write whole numbers"),
    "duration": (["--duration", "soon"], "--duration soon: write a duration"),
    "ramp": (["--ramp", "10s", "--duration", "5s"], "--ramp 10s: must be shorter"),
    "requests": (["--requests", "0"], "--requests 0: must be at least 1"),
    "requests and duration": (
        ["--requests", "9", "--duration", "5s"],
        "--duration 5s: a level ends after --requests 9, however long that takes; leave one",
    ),
    "duration of a trace": (
        ["--arrival", "trace", "--dataset", "t.jsonl", "--duration", "5s"],
        "--duration 5s: a trace ends with its last request; leave it out, or write --requests N",
    ),
    "workers": (["--workers", "9999"], "--workers 9999: each is a process, and this machine has"),
    "rate": (["--request-rate", "1e9"], "makes more than 10,000,000 requests in --duration 5m"),
    "metrics port": (["--metrics-port", "99999"], "--metrics-port 99999: must be below 65536"),
    "junit": (["--junit", "nowhere/x.xml"], "--junit nowhere/x.xml: there is no folder nowhere"),
    "unique": (["--unique", "--workload", "synthetic", "--isl", "5"], "--unique: not for --work"),
    "repeat": (["--repeat", "0"], "--repeat 0: must be at least 1"),
    "repeat until": (["--repeat-until", "2 percent"], "write a share such as 2%"),
    "repeat until what": (
        ["--repeat-until", "2"],
        "above 0% and below 100%, such as 2%",
    ),
    "repeat too seldom": (["--repeat-until", "2%", "--repeat", "2"], "must be at least 3"),
    "tokenizer": (["--tokenizer", "nowhere.json"], "nowhere.json: cannot be read"),
    "slo metric": (["--slo", "tftt:p99<2s"], "Did you mean 'ttft'?"),
    "slo unit": (["--slo", "ttft:p99<2"], "needs a unit"),
    "slo direction": (["--slo", "token_rate<5"], "better higher; use >"),
    "endpoint": (["--endpoint", "openai-chatt"], "Did you mean 'openai-chat'?"),
    "seed": (["--seed", "-1"], "--seed -1: must be at least 0"),
    "workload": (["--workload", "chta"], "Did you mean 'chat'?"),
    "isl": (["--workload", "chat", "--isl", "5"], "--isl 5: only for --workload agent, synthetic"),
    "osl": (["--osl", "many"], "--osl many: write a number as"),
    "dataset": (["--dataset", "nowhere.jsonl"], "cannot be read: No such file"),
    "url": (["--url", "localhost:8000"], "write http://host:port"),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_input_is_one_sentence_and_nothing_starts(
    name: str, dyno: Dyno, tmp_path: Path
) -> None:
    arguments, words = WRONG[name]

    done = dyno("bench", "--url", "http://127.0.0.1:9", *arguments)

    assert done.returncode == 2, done.stderr
    assert words in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert not list(tmp_path.iterdir())


def test_nobody_there_is_exit_status_3(dyno: Dyno, tmp_path: Path) -> None:
    done = dyno("bench", "--url", "http://127.0.0.1:9")

    assert done.returncode == 3
    assert done.stderr.startswith("dyno: --url 127.0.0.1:9: ")
    assert not list(tmp_path.iterdir())


def test_an_api_key_is_sent_and_written_nowhere(
    streamer: Streamer, dyno: Dyno, tmp_path: Path
) -> None:
    url = streamer("--ttft", "5ms", "--itl", "1ms")
    secret = "sk-very-secret-4711"

    done = dyno(
        *("bench", "--url", url, "-c", "1", "--requests", "2", "--osl", "2", "--json"),
        LLMDYNO_API_KEY=secret,
    )

    assert done.returncode == 0, done.stderr
    assert secret not in done.stdout + done.stderr
    written = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert written
    assert not any(secret.encode() in path.read_bytes() for path in written)


def test_several_models_are_asked_and_told_apart(
    streamer: Streamer, dyno: Dyno, tmp_path: Path
) -> None:
    url = streamer("--ttft", "5ms", "--itl", "2ms")

    done = dyno(
        *("bench", "--url", url, "--endpoint", "openai-chat", "-m", "base:0.6,lora/a:0.4"),
        *("-c", "4", "--ramp", "0s", "--requests", "60", "--osl", "4", "--out", "r", "--json"),
    )
    assert done.returncode == 0, done.stderr
    (level,) = last_json(done.stdout)["levels"]

    assert [one["model"] for one in level["models"]] == ["base", "lora/a"]
    completed = [one["requests"]["completed"] for one in level["models"]]
    assert sum(completed) == level["requests"]["completed"] == 60
    assert completed[0] / 60 == pytest.approx(0.6, abs=0.25)
    assert sum(one["tokens"]["output"] for one in level["models"]) == level["tokens"]["output"]
    assert "lora/a (" in done.stderr
    dyno("report", "r")
    assert "Each model of a level" in (tmp_path / "r" / "report.html").read_text()
