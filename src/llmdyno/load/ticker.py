"""The state of the client itself during a level: its CPU time, its lateness, its reads.

Ticks go to the journal beside the records, so that results/client_health.py can tell whether the
client was the limit. level.py writes one each second.
"""

import asyncio
import time

from llmdyno.load.recorder import Recorder
from llmdyno.records.entries import LAG_PERIOD_S, Tick


class Ticker:
    """Writes the ticks of one level.

    Args:
        recorder: of the level.
        level: its number.
        worker: which process of the level this is, from 0.
    """

    def __init__(self, recorder: Recorder, level: int, worker: int) -> None:
        self._recorder = recorder
        self._level = level
        self._worker = worker
        self._start_ns = 0
        self._cpu_start_s = 0.0
        self._lags_us: list[int] = []  # since the last tick

    def start(self, start_ns: int) -> None:
        """Begin to count wall-clock and CPU time, from this moment of the recorder's clock."""
        self._start_ns = start_ns
        self._cpu_start_s = time.process_time()

    async def watch_lag(self) -> None:
        """Sample how late the event loop is, until the task is cancelled."""
        now_ns = self._recorder.now_ns
        while True:
            due_ns = now_ns() + round(LAG_PERIOD_S * 1e9)
            await asyncio.sleep(LAG_PERIOD_S)
            self._lags_us.append(max(0, (now_ns() - due_ns) // 1000))

    def tick(self, waiting: int | None) -> None:
        """Write a tick to the journal and update the display.

        Args:
            waiting: the number of requests that are due and wait for a slot; None: a closed loop.

        Raises:
            StorageError: the tick could not be written.
        """
        recorder, progress = self._recorder, self._recorder.progress
        now_ns = recorder.now_ns()
        lags_us, self._lags_us = tuple(self._lags_us), []
        progress.elapsed_s = (now_ns - self._start_ns) / 1e9
        progress.waiting = waiting
        recorder.sink(
            Tick(
                level=self._level,
                t_ns=recorder.since_zero(now_ns),
                users=progress.users,
                in_flight=progress.in_flight,
                waiting=waiting or 0,
                worker=self._worker,
                reads=recorder.meter.reads,
                cpu_s=round(time.process_time() - self._cpu_start_s, 6),
                loop_lags_us=lags_us,
            )
        )
