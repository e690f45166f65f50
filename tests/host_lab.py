"""A lab for studies over hosts: lead, workers and PostgreSQL are real, what is served is not."""

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import msgspec

import postgresql
from llmdyno import store
from llmdyno.errors import StorageError
from llmdyno.tune.combined import Combined
from llmdyno.tune.database import Database
from llmdyno.tune.hosts import Hosts
from llmdyno.tune.lane import Came
from llmdyno.tune.measure import Measurement
from llmdyno.tune.narrator import Narrator
from llmdyno.tune.spec import Study
from llmdyno.tune.team import Team
from llmdyno.tune.worker import studies_at_work
from study_lab import Config, LaneLab, Start, World

LEASE_S = 6.0


class HostLab(LaneLab):
    """The same lab, with threads for workers; each dies, unheard, after so many jobs."""

    def __init__(self, folder: Path, monkeypatch: Any, server: postgresql.Server) -> None:
        super().__init__(folder, monkeypatch)
        self.server = server
        self.measured: list[str] = []  # by workers: the phases
        self.after: Callable[[Database], None] = lambda _: None  # what a worker does when it dies
        self.may_work: Callable[[str], bool] = lambda _: True  # a worker, by name
        self.by: list[str] = []  # who has measured, in order
        self.lacks: dict[str, set[str]] = {}  # engines that a worker has not, by its name
        self.engine = ""  # what is measured now
        self.stays = False  # a worker stays though the lead has ended
        self.names: tuple[str, ...] = ("a", "b")
        self.dies_when: Callable[[str], bool] = lambda _: False  # a worker, by name
        self._one = threading.Lock()
        for module in ("hosts", "offers"):
            monkeypatch.setattr(f"llmdyno.tune.{module}._LOOK_S", 0.02)
        monkeypatch.setattr("llmdyno.tune.hosts._FRESH_S", 0.0)

    def over_hosts(self, world: World, asked: Study, *, jobs: int = 99) -> dict[str, Any]:
        """Run the study as the lead of two workers."""
        with self.workers(jobs):
            return self.run(world, asked, hosts=self.hosts())

    def hosts(self) -> Hosts:
        return Hosts(Database(self.server.url), len(self.names), lease_s=LEASE_S)

    @contextmanager
    def workers(self, jobs: int) -> Iterator[None]:
        ends = threading.Event()
        threads = [
            threading.Thread(target=self._lives, args=(name, jobs, ends)) for name in self.names
        ]
        for one in threads:
            one.start()
        try:
            yield
        finally:
            ends.set()
            for one in threads:
                one.join()

    def _lives(self, *who: Any) -> None:
        database = Database(self.server.url)
        with suppress(StorageError):  # the study was removed
            self._work(database, *who)
        database.close()

    def _work(self, database: Database, name: str, jobs: int, ends: threading.Event) -> None:
        database.make_tables()
        while not (rows := studies_at_work(database)):
            if ends.wait(0.02):
                return
        team = Team(database, rows[0]["study"])
        parts = {row["study"]: Team(database, row["study"], team.study) for row in team.parts()}
        engines = {of: json.loads(part.lines(0)[0])["spec"]["engine"] for of, part in parts.items()}
        lacking = self.lacks.get(name, set())
        lacks = {of: f"it has no {one}." for of, one in engines.items() if one in lacking}
        sitting = f"{name}{time.monotonic()}"
        join = partial(team.join, name=name, boot=name, gpus=0, sitting=sitting, lacks=lacks)
        while (host := join()) is None:
            time.sleep(0.02)
        while jobs and not ends.wait(0.02) and not self.dies_when(name):
            row = team.beat(host, sitting)
            if row["refused"] is not None or (row["state"] != "trials" and not self.stays):
                break
            if not self.may_work(name) or (leased := team.lease(host, sitting)) is None:
                continue
            self.by.append(name)
            run = self.folder.parent / name / "runs" / store.new_id(leased.posted.phase)
            store.make_folder(run)  # what fails has one, too
            with self._one:
                self.measured.append(leased.posted.phase)
                self._where, self.engine = (name, 0), engines[leased.study]
                posted = leased.posted
                measurement = self._measure(
                    None, posted.config, load=posted.load, slos=(), folder=run
                )
                self._where, self.engine = ("", 0), ""
            files = {path.name: path.read_bytes() for path in run.iterdir()}
            came = msgspec.json.encode(Came(measurement=measurement)).decode()
            at = f"runs/{run.name}-{name}"
            parts[leased.study].deliver(leased.id, sitting, run=at, came=came, files=files)
            jobs -= 1
        if not jobs:
            self.after(database)


class CombinedLab(HostLab):
    """The same for a study over two engines, of which the second is twice as fast.

    What is served is known by `engine` while the world is asked.
    """

    def __init__(self, folder: Path, monkeypatch: Any, server: postgresql.Server) -> None:
        super().__init__(folder, monkeypatch, server)
        self.by_engine: list[tuple[str, Start]] = []

    def study(self, **given: Any) -> Study:
        asked = {"engine": "timed.engine,faulty.engine", "search": "itl_ms,idle", "trials": 6}
        return super().study(**asked | given)

    def run(self, world: World, asked: Study | None = None, **named: Any) -> dict[str, Any]:
        self.world = world
        narrator = Narrator(
            notify=self.told.append,
            notify_waiting=lambda _: None,
            display=lambda *_: lambda *_: None,
            enough=self.enough,
        )
        return Combined(asked or self.study(), self.folder, narrator, **named).run()

    def _measure(self, _stack: Any, config: Config, **how: Any) -> Measurement:
        if _stack is not None:  # by the lead
            self.engine = _stack.engine.name
        came = super()._measure(_stack, config, **how)
        self.by_engine.append((self.engine, self.starts[-1]))
        return came

    def two(self, start: Start) -> tuple[float, float]:
        """Be twice as fast with the second engine, and a little faster with any knob."""
        gap_ms = 20.0 if self.engine == "faulty.engine" else 40.0
        gap_ms -= 2 * bool(start.config)
        return gap_ms * (1 + 0.002 * (start.number % 2)), gap_ms
