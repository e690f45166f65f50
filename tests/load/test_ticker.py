"""How the client itself is doing: a tick is what has been since the one before."""

import asyncio
import time

from llmdyno.load.progress import Progress
from llmdyno.load.recorder import Recorder
from llmdyno.load.ticker import Ticker
from llmdyno.records.entries import LAG_PERIOD_S, Entry, Tick
from llmdyno.wire.exchange import Meter
from virtual_time import now_ns, run


def ticking(entries: list[Entry], progress: Progress, meter: Meter) -> Ticker:
    recorder = Recorder(
        sink=entries.append, zero_ns=0, meter=meter, progress=progress, now_ns=now_ns
    )
    return Ticker(recorder, level=2, worker=1)


def test_a_tick_says_what_is_going_on() -> None:
    entries: list[Entry] = []
    progress, meter = Progress(users=4, in_flight=3), Meter()
    meter.reads = 17

    async def main() -> None:
        ticker = ticking(entries, progress, meter)
        await asyncio.sleep(1.0)
        ticker.start(now_ns())
        await asyncio.sleep(5.0)
        ticker.tick(waiting=6)
        ticker.tick(waiting=None)

    run(main())

    first, second = entries
    assert isinstance(first, Tick)
    assert isinstance(second, Tick)
    assert (first.level, first.worker, first.t_ns) == (2, 1, 6_000_000_000)
    assert (first.users, first.in_flight, first.waiting, first.reads) == (4, 3, 6, 17)
    assert second.waiting == 0
    assert progress.elapsed_s == 5.0
    assert progress.waiting is None


def test_cpu_time_counts_from_the_start_of_the_level() -> None:
    entries: list[Entry] = []

    async def main() -> float:
        ticker = ticking(entries, Progress(), Meter())
        ticker.start(now_ns())
        begin_s = time.process_time()
        while time.process_time() - begin_s < 0.02:
            pass
        ticker.tick(waiting=None)
        return time.process_time() - begin_s

    spent_s = run(main())

    (tick,) = entries
    assert isinstance(tick, Tick)
    assert 0.02 <= tick.cpu_s <= spent_s + 0.01


def test_each_tick_has_the_lags_since_the_one_before() -> None:
    entries: list[Entry] = []

    async def main() -> None:
        ticker = ticking(entries, Progress(), Meter())
        ticker.start(now_ns())
        watching = asyncio.create_task(ticker.watch_lag())
        await asyncio.sleep(LAG_PERIOD_S * 3.5)
        ticker.tick(waiting=None)
        await asyncio.sleep(LAG_PERIOD_S)
        ticker.tick(waiting=None)
        watching.cancel()

    run(main())

    lags = [entry.loop_lags_us for entry in entries if isinstance(entry, Tick)]
    assert [len(of_tick) for of_tick in lags] == [3, 1]
    assert max(max(of_tick) for of_tick in lags) == 0  # nothing is late on this loop
