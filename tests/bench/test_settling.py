"""A server that goes on with an answer on which we hung up: it is waited for, or told."""

import asyncio
import json
import threading
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import chain, count, repeat
from pathlib import Path
from queue import Queue
from typing import Any

import pytest

from llmdyno import endpoints, spec
from llmdyno.bench import rehearsal, settling
from llmdyno.bench.run import run
from llmdyno.bench.settling import Settler
from llmdyno.records.entries import Settled
from llmdyno.units import lengths
from llmdyno.wire.exchange import Response
from llmdyno.wire.target import parse_url
from scripted_server import DONE, END, HEAD, STOP, Client, chunk, framed, plain, scripted
from virtual_time import TARGET, VirtualLoop, now_ns

SHORT = HEAD + framed(chunk("a") + STOP + DONE) + END


def deaf(
    long_s: Callable[[int], float], behind: list[int] | None = None
) -> Callable[[Client], Any]:
    """Return a server with one slot that makes every answer to its end, whoever still reads it.

    An answer that takes time ends so long after the next question has begun to wait for it, however
    late that comes.

    Args:
        long_s: how long the nth long answer, from 0, still holds the slot then; 0: it ends at once.
        behind: gets the numbers of the long answers that had to wait for the slot.
    """
    slot = asyncio.Lock()
    somebody_waits = asyncio.Event()
    seen = 0

    async def answer(client: Client, body: dict[str, Any]) -> None:
        nonlocal seen
        if slot.locked():
            somebody_waits.set()
        if body["max_tokens"] == 1:
            async with slot:
                await client.send(SHORT, pause_s=0)
            return
        nth, seen = seen, seen + 1
        if slot.locked() and behind is not None:
            behind.append(nth)
        async with slot:
            somebody_waits.clear()
            await client.send(HEAD + framed(chunk("a")), pause_s=0)
            if long_s(nth):
                await somebody_waits.wait()
                await asyncio.sleep(long_s(nth))
            try:
                await client.send(framed(chunk("b") + STOP + DONE) + END, pause_s=0)
            except OSError:  # only now it is noticed that nobody reads
                raise EOFError from None

    async def script(client: Client) -> None:
        while True:
            body = json.loads(await client.request())
            if "messages" not in body:
                await client.send(plain("404 Not Found", b""), pause_s=0)
                continue
            await asyncio.shield(asyncio.ensure_future(answer(client, body)))

    return script


def settled(long_s: float, *, idle_known: bool = False) -> tuple[Settled | None, float]:
    """Hang up on a request of a deaf server and settle; return the outcome and how long it took."""
    bench = spec.Bench(url="http://x", endpoint="openai-chat", model="m")
    endpoint = endpoints.load("openai-chat")

    async def main() -> tuple[Settled | None, float]:
        async with scripted(deaf(lambda _nth: long_s)) as url:
            settler = Settler(parse_url(url))
            if idle_known:
                await settler.learn(bench, endpoint)
            asking = settling.question(bench, 9)
            body = json.loads(endpoint.body(asking)) | {"max_tokens": 5}
            target = parse_url(url)
            reader, writer = await asyncio.open_connection(target.host, target.port)
            sent = json.dumps(body).encode()
            writer.write(target.head("/v1/chat/completions", len(sent)) + sent)
            await reader.readexactly(len(HEAD))  # it has the slot
            writer.close()
            began_s = asyncio.get_running_loop().time()
            found = await settler.settle(bench, endpoint, 1)
            return found, asyncio.get_running_loop().time() - began_s

    return asyncio.run(main())


@pytest.mark.parametrize("idle_known", [False, True])
def test_the_answer_that_nobody_reads_is_waited_for(idle_known: bool) -> None:
    found, took_s = settled(0.25, idle_known=idle_known)

    assert found is not None
    assert (found.level, found.busy) == (1, False)
    assert 0.24e9 < found.waited_ns <= took_s * 1e9
    assert found.answered_ns < found.waited_ns - 0.24e9  # the last question did not wait
    assert (found.idle_ns > 0) is idle_known


def test_a_server_that_is_busy_for_too_long_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(settling, "SETTLES_S", 0.2)

    found, took_s = settled(60.0)

    assert found is not None
    assert found.busy
    assert 0.15 < took_s < 30


def test_a_server_that_answers_no_short_question_is_left_to_the_run() -> None:
    async def refusing(client: Client) -> None:
        while True:
            await client.request()
            await client.send(plain("400 Bad Request", b"{}"), pause_s=0)

    async def main() -> Settled | None:
        async with scripted(refusing) as url:
            bench = spec.Bench(url=url, endpoint="openai-chat", model="m")
            return await Settler(parse_url(url)).settle(bench, endpoints.load("openai-chat"), 0)

    assert asyncio.run(main()) is None


def settled_by(
    monkeypatch: pytest.MonkeyPatch,
    answers_ms: Iterator[float],
    *,
    noted_ms: Sequence[float] = (),
    under_way: Iterator[float | None] | None = None,
) -> Settled:
    """Settle a server that takes so long for each answer, after notes while a wait was due.

    `under_way`: the requests that its page of metrics counts, each time it is asked.
    """

    async def asked(*_: object) -> Response:
        sent_ns = now_ns()
        await asyncio.sleep(next(answers_ms) / 1e3)
        return Response(sent_ns=sent_ns, end_ns=now_ns(), status=200)

    monkeypatch.setattr(settling, "_asked", asked)
    settler = Settler(TARGET, now_ns)
    settler.is_due = True
    for took_ms in noted_ms:
        settler.note(Response(sent_ns=0, end_ns=round(took_ms * 1e6), status=200))
    bench = spec.Bench(url="http://x", endpoint="openai-chat", model="m")
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        page = () if under_way is None else (partial(_next, under_way),)
        found = runner.run(settler.settle(bench, endpoints.load("openai-chat"), 0, *page))
    assert found is not None
    return found


async def _next(values: Iterator[float | None]) -> float | None:
    return next(values)


def test_a_steadily_busy_server_is_told_by_its_own_page(monkeypatch: pytest.MonkeyPatch) -> None:
    found = settled_by(monkeypatch, repeat(50), under_way=repeat(3.0))

    assert (found.busy, found.idle_ns) == (True, -1)
    assert found.waited_ns == pytest.approx(30e9, rel=0.05)


@pytest.mark.parametrize("last", [0.0, None])  # None: the page does not say
def test_a_page_that_counts_no_request_ends_the_wait(
    monkeypatch: pytest.MonkeyPatch, last: float | None
) -> None:
    found = settled_by(monkeypatch, repeat(50), under_way=chain([2.0, 1.0], repeat(last)))

    assert (found.busy, found.idle_ns) == (False, -1)
    assert found.waited_ns < 3e9


def test_where_an_idle_answer_is_known_it_decides_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    settler = Settler(TARGET, now_ns)
    settler.note(Response(sent_ns=0, end_ns=50_000_000, status=200))

    async def asked(*_: object) -> Response:
        return Response(sent_ns=0, end_ns=51_000_000, status=200)

    monkeypatch.setattr(settling, "_asked", asked)
    bench = spec.Bench(url="http://x", endpoint="openai-chat", model="m")
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        found = runner.run(
            settler.settle(bench, endpoints.load("openai-chat"), 0, partial(_next, repeat(9.0)))
        )

    assert found is not None
    assert not found.busy


def test_without_an_idle_answer_it_is_waited_until_answers_stop_getting_quicker(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    drains = chain(range(400, 100, -10), repeat(20))

    found = settled_by(monkeypatch, drains, noted_ms=(400, 410))

    assert (found.busy, found.idle_ns) == (False, -1)
    assert found.answered_ns == pytest.approx(20e6)


def test_answers_that_get_quicker_for_too_long_are_those_of_a_busy_server(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    found = settled_by(monkeypatch, (3000 * 0.9**n for n in count()))

    assert (found.busy, found.idle_ns) == (True, -1)
    assert found.waited_ns == pytest.approx(30e9, rel=0.05)


def measured(
    folder: Path,
    long_s: Callable[[int], float],
    *,
    behind: list[int] | None = None,
    settles: bool = False,
    **load: Any,
) -> dict[str, Any]:
    """Return the summary of a run against a deaf server, which answers from another thread."""
    urls: Queue[str] = Queue()
    stop = threading.Event()

    async def serve() -> None:
        async with scripted(deaf(long_s, behind)) as url:
            urls.put(url)
            await asyncio.to_thread(stop.wait)

    thread = threading.Thread(target=lambda: asyncio.run(serve()))
    thread.start()
    try:
        url = urls.get(timeout=10)
        settler = Settler(parse_url(url))
        settler.is_due = settles
        bench = spec.Bench(
            url=url,
            endpoint="openai-chat",
            model="m",
            workload=spec.Workload(osl=lengths("2", "--osl")),
            load=spec.Load(ramp_s=0.0, think_s=0.0, **load),
            scrape=False,
            calibration=False,
        )
        return dict(run(bench, folder, settler=settler if settles else None).summary)
    finally:
        stop.set()
        thread.join()


def codes(summary: dict[str, Any]) -> set[tuple[str, str | None]]:
    return {(doubt["code"], doubt["at"]) for doubt in summary["doubts"]}


def test_the_first_request_does_not_wait_behind_the_rehearsal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rehearsal, "READS_ON_S", 0.05)
    monkeypatch.setattr(rehearsal, "READS_TO_S", 0.05)

    behind: list[int] = []

    # The rehearsal's answer, the first one, is not heard to its end.
    summary = measured(
        tmp_path / "r", lambda nth: 0 if nth else 0.5, behind=behind, users=(1,), requests=2
    )

    (level,) = summary["levels"]
    assert behind == []
    assert level["settled"]["busy"] is False
    assert level["settled"]["waited_s"] > 0.45
    assert not {code for code, _ in codes(summary)} & {"busy-at-start"}


def test_a_run_that_is_told_to_settles_first(tmp_path: Path) -> None:
    summary = measured(tmp_path / "r", lambda _nth: 0, settles=True, users=(1,), requests=1)

    assert summary["levels"][0]["settled"]["busy"] is False


def test_a_level_waits_for_what_the_one_before_it_cut(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(settling, "SETTLES_S", 0.2)

    # Of the two levels' requests, the first of each is cut at the end of its level.
    summary = measured(
        tmp_path / "r",
        lambda nth: 0 if nth == 0 else 0.5,
        users=(1, 2),
        duration_s=0.3,
        grace_s=0.0,
    )

    first, second = summary["levels"]
    assert first["requests"]["cut"] == 1
    assert "settled" not in first
    assert second["settled"]["busy"] is True
    assert ("busy-at-start", "2 users") in codes(summary)
    (doubt,) = (one for one in summary["doubts"] if one["code"] == "busy-at-start")
    assert "still busy when the level began" in doubt["text"]
    assert "ttft_ms" in doubt["metrics"]
