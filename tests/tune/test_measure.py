"""One measurement of one config, as a study makes it."""

import asyncio
import json
import threading
from itertools import chain, repeat
from pathlib import Path
from queue import Queue
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest

from llmdyno.load.progress import Progress
from llmdyno.serve.stack import Stack, load_stack
from llmdyno.spec import Bench, Load, Workload
from llmdyno.tune.measure import Measurement, _nothing_to_show, _put_under_load, _Watch, measure
from llmdyno.units import Lengths
from scripted_server import DONE, END, HEAD, STOP, Client, Script, chunk, framed, plain, scripted

SHORT = HEAD + framed(chunk("a") + STOP + DONE) + END


class Counted(Stack, frozen=True, kw_only=True):
    """A stack that writes down what is asked of it."""

    asked: list[str]

    def check(self, config: object) -> None:
        """Write it down; a checked config is not to be checked again."""
        self.asked.append(f"check {config}")

    def build(self, *arguments: object, **named: object) -> None:
        """Write it down; the engine of known speed needs no artifact."""
        self.asked.append("build")
        super().build(*arguments, **named)  # type: ignore[arg-type]


def measured(
    config: dict[str, object],
    folder: Path,
    said: list[str],
    duration_s: float = 1.0,
    warmup_s: float = 0.0,
) -> tuple[Measurement, Counted]:
    stack = load_stack("timed.engine", "native", "m")
    counted = Counted(engine=stack.engine, front=stack.front, model="m", asked=[])
    done = measure(
        counted,
        config,  # type: ignore[arg-type]
        workload=Workload(osl=Lengths("fixed", 4, 4)),
        load=Load(users=(1,), duration_s=duration_s, ramp_s=0.0),
        slos=(),
        hang_s=5.0,
        warmup_s=warmup_s,
        folder=folder,
        calibration=False,
        report_progress=lambda _progress, _meter: None,
        notify=said.append,
    )
    return done, counted


def test_a_port_that_somebody_took_is_no_fault_of_the_config(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its first start finds the port taken; the second, on another one, does not."""
    monkeypatch.chdir(tmp_path)
    said: list[str] = []

    done, stack = measured({"mode": "taken", "itl_ms": 5}, tmp_path / "run", said)

    assert (tmp_path / "taken").is_dir()
    assert done.failure_class is None
    assert done.summary is not None
    assert done.summary["levels"][0]["requests"]["completed"] > 3
    assert "a port was taken before the server had it; once more on another one" in said
    # However often it is started, it is built once, and not checked again.
    assert stack.asked == ["build"]
    assert done.start_s > 0
    assert done.measure_s > 1.0


def test_a_config_that_does_not_start_is_a_result_with_a_class_and_a_cost(tmp_path: Path) -> None:
    done, _ = measured({"mode": "refuses"}, tmp_path / "run", [])

    assert (done.summary, done.failure_class) == (None, "bad-config")
    assert "unrecognized arguments: --fast" in (done.failure_why or "")
    assert done.start_s > 0
    assert done.measure_s == 0.0


def test_the_benchmark_waits_for_what_the_warmup_cut(tmp_path: Path) -> None:
    config: dict[str, object] = {"itl_ms": 5}

    warmed, _ = measured(config, tmp_path / "warm", [], duration_s=0.3, warmup_s=0.2)

    assert warmed.summary is not None
    assert warmed.summary["levels"][0]["settled"]["busy"] is False


def batching() -> Script:
    """Return a server with room for all, which is slow while answers that nobody reads go on.

    Its first answer is slow, as that of a fresh server. The long one of the warm-up goes on for
    0.3 s after a short question has come meanwhile, however late that is.
    """
    taken_s = chain((0.15,), repeat(0.0))
    is_long = chain((True,), repeat(False))
    asked_meanwhile = asyncio.Event()
    busy = 0

    async def answer(client: Client, *, is_short: bool) -> None:
        nonlocal busy
        if is_short:
            if busy:
                asked_meanwhile.set()
            await asyncio.sleep(0.1 if busy else next(taken_s))
            await client.send(SHORT, pause_s=0)
            return
        busy += 1
        if next(is_long):
            await asked_meanwhile.wait()
            await asyncio.sleep(0.3)
        busy -= 1
        try:
            await client.send(SHORT, pause_s=0)
        except OSError:  # only now it is noticed that nobody reads
            raise EOFError from None

    async def script(client: Client) -> None:
        while True:
            body = json.loads(await client.request())
            if "messages" not in body:
                await client.send(plain("404 Not Found", b""), pause_s=0)
                continue
            await asyncio.shield(
                asyncio.ensure_future(answer(client, is_short=body["max_tokens"] == 1))
            )

    return script


@pytest.mark.parametrize(
    "workload",
    [Workload(name="synthetic", isl=Lengths("fixed", 8, 8)), Workload()],  # one is calibrated
    ids=["synthetic", "chat"],
)
def test_a_server_that_stays_busy_after_the_warmup_is_waited_for(
    tmp_path: Path, workload: Workload
) -> None:
    urls: Queue[str] = Queue()
    stop = threading.Event()

    async def serve() -> None:
        async with scripted(batching()) as url:
            urls.put(url)
            await asyncio.to_thread(stop.wait)

    thread = threading.Thread(target=lambda: asyncio.run(serve()))
    thread.start()
    try:
        asked = Bench(
            url=urls.get(timeout=10),
            endpoint="openai-chat",
            model="m",
            workload=msgspec.structs.replace(workload, osl=Lengths("fixed", 4, 4)),
            load=Load(users=(1,), requests=1, ramp_s=0.0, think_s=0.0),
            scrape=False,
            calibration=False,
        )
        server: Any = SimpleNamespace(failure=lambda: None)
        watch = _Watch(server, 5.0, lambda *_: None, None)
        outcome = _put_under_load(server, asked, 0.15, tmp_path, watch)
    finally:
        stop.set()
        thread.join()

    (level,) = outcome.summary["levels"]
    assert level["settled"]["busy"] is False
    assert level["settled"]["waited_s"] > 0.2
    assert level["settled"]["answered_ms"] < 90
    assert level["settled"]["idle_ms"] < 90


def test_a_server_whose_engine_is_dead_has_died_and_does_not_hang(tmp_path: Path) -> None:
    fades = {"mode": "fades", "itl_ms": 5}
    done, _ = measured(fades, tmp_path / "run", [], duration_s=6.0)  # it fades after 1.5 s

    assert (done.summary, done.failure_class) == (None, "died")
    assert "is_all_free failed" in (done.failure_why or "")


def test_requests_that_fail_are_told_with_what_the_server_says_of_most_of_them() -> None:
    said = "The prompt's 785 tokens exceed\n max_num_batched_tokens=776."
    level = {
        "users": 4,
        "arrival": "closed",
        "requests": {"completed": 1, "failed": 7, "errors": {"reset": 2, "http-400": 5}},
        "faults": {"reset": {"example": "Connection reset"}, "http-400": {"example": said}},
    }

    assert _nothing_to_show({"levels": [level]}) == (
        "7 of 8 requests failed at 4 users (reset x2, http-400 x5): The prompt's 785 tokens exceed"
        " max_num_batched_tokens=776."
    )
    level["faults"]["http-400"]["example"] = ""  # type: ignore[index]
    assert str(_nothing_to_show({"levels": [level]})).endswith("http-400 x5)")


def test_a_client_that_stood_still_does_not_blame_the_server(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The process was stopped for a minute, or the machine was suspended: nothing was read."""
    now_s = 0.0
    monkeypatch.setattr("llmdyno.tune.measure.monotonic", lambda: now_s)
    alive: Any = SimpleNamespace(failure=lambda: None)
    watch = _Watch(alive, 3.0, lambda *_: None, None)
    waiting: Any = Progress(in_flight=1)

    def said_at(*moments_s: float) -> list[str | None]:
        nonlocal now_s
        found = []
        for moment_s in moments_s:
            now_s = moment_s
            watch.look(waiting, SimpleNamespace(reads=5))  # type: ignore[arg-type]
            found.append(watch.why())
        return found

    assert said_at(0.5, 1.0, 61.0, 61.5, 62.0) == [None] * 5
    steps = said_at(*(62.0 + 0.5 * step for step in range(1, 6)))
    assert steps[:4] == [None] * 4
    assert steps[4] == "the server lives but sent nothing for 4 s"  # it hangs all the same
    assert watch.stood_s == 60.0
    watch.look(Progress(phase="done"), SimpleNamespace(reads=5))  # type: ignore[arg-type]
    said_at(90.0)  # between two levels the summary may take its time
    assert watch.stood_s == 60.0
