"""A lab for studies: `measure` is a function of config, phase and count, so a study takes a moment.

The ledger, the runs' journals, study.json and the bundle are real; only the servers are not there.
"""

import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import msgspec

import lab
from llmdyno import store
from llmdyno.cli import flags
from llmdyno.errors import DynoError
from llmdyno.knobs import Value
from llmdyno.quality.answers import Answers, Said
from llmdyno.spec import Load
from llmdyno.tune import lane
from llmdyno.tune.entries import Step
from llmdyno.tune.ledger import Ledger
from llmdyno.tune.measure import Measurement
from llmdyno.tune.narrator import Narrator
from llmdyno.tune.spec import Study
from llmdyno.tune.tuner import Tuner

Config = Mapping[str, Value]
ENGINE = "faulty.engine"
LEVEL_S = 8
LENGTH = 20  # of an answer, in tokens


class Start(msgspec.Struct, frozen=True):
    """One start of a server: what is served, how often one was started, and in which phase."""

    config: Config
    number: int  # 1: the first
    phase: str
    device: str = ""  # what part of the machine it has; empty: all
    beside: int = 0  # how many others ran when it started
    levels: int = 1  # of its load
    level_s: float = LEVEL_S  # how long each of them is to last


# Returns the gap between tokens and the time to the first, in ms, and maybe that every so manieth
# request fails; or the class of a failure.
World = Callable[[Start], tuple[float, float] | tuple[float, float, int] | str]


def fast(start: Start) -> tuple[float, float]:
    """Be 1.9 times as fast with fast=true, as itl_ms says, and never quite the same twice."""
    gap_ms = float(start.config.get("itl_ms", 20)) / (1.9 if start.config.get("fast") else 1.0)
    return gap_ms * (1 + 0.002 * (start.number % 2)), gap_ms


def flat(_: Start) -> tuple[float, float]:
    """Be the same whatever is set, so that nothing is better and nothing is to be confirmed."""
    return 20.0, 20.0


def answers(differs_at: int) -> Answers:
    """Return answers to eight prompts of which each differs at a token; past the end: at none."""
    tokens = tuple("X" if at == differs_at else f"t{at}" for at in range(LENGTH))
    one = [Said(text=" ".join(tokens), tokens=tokens, logprobs=(-0.5,) * LENGTH)] * 8
    return Answers(
        endpoint="openai-chat",
        model="m",
        tokens_max=LENGTH,
        prompts=["p"] * 8,
        alone=one,
        again=one,
        loaded=one,
        concurrency=2,
    )


class StudyLab:
    """A study in a folder of its own, over a world that is a function.

    Args:
        folder: of the study.
        monkeypatch: replaces what starts servers.
    """

    def __init__(self, folder: Path, monkeypatch: Any) -> None:
        self.folder = folder
        self.starts: list[Start] = []
        self.told: list[str] = []
        self._where = ("", 0)
        self.world: World = fast
        self.enough: Callable[[], bool] = lambda: False  # a person has had enough trials
        monkeypatch.setenv("XDG_RUNTIME_DIR", str(folder.parent / "runtime"))
        monkeypatch.setattr("llmdyno.tune.runner.measure", self._measure)

    def study(self, **given: Any) -> Study:
        """Return what is studied: one searched knob, one trial, two pairs, unless it is given."""
        return flags.study_spec(
            {
                "engine": ENGINE,
                "model": "m",
                "users": "2",
                "search": "fast",
                "trials": 1,
                "pairs": 2,
                "duration": f"{LEVEL_S}s",
                "trial_duration": f"{LEVEL_S}s",
                "interval": "1s",
                "quality": False,  # it would start a server; test_gate.py is about it
                **given,
            }
        )

    def run(self, world: World, asked: Study | None = None, **named: Any) -> dict[str, Any]:
        """Run or go on with the study in a world, and return its document."""
        self.world, self.starts = world, []
        narrator = Narrator(
            notify=self.told.append,
            notify_waiting=lambda _: None,
            display=lambda *_: lambda *_: None,
            enough=self.enough,
        )
        return Tuner(asked or self.study(), self.folder, narrator, **named).run()

    def fails(self, world: World, asked: Study | None = None, **named: Any) -> DynoError:
        """Run the study, which must end with a fault; return that."""
        try:
            self.run(world, asked, **named)
        except DynoError as error:
            return error
        raise AssertionError("the study did not fail")

    @property
    def document(self) -> dict[str, Any]:
        """The study's document as it is on disk."""
        found: dict[str, Any] = store.read_json(self.folder / store.STUDY)
        return found

    @property
    def steps(self) -> list[Step]:
        """The steps in the ledger that count."""
        return Ledger(self.folder).steps

    def bundled(self) -> str:
        """Return the README of the bundle."""
        return (self.folder / store.BUNDLE / "README.md").read_text()

    def _measure(
        self, _stack: Any, config: Config, *, load: Load, slos: Any, folder: Path, **_: Any
    ) -> Measurement:
        phase = folder.name.split("-")[2]
        of_load = len(load.points), load.duration_s
        start = Start(dict(config), len(self.starts) + 1, phase, *self._where, *of_load)
        self.starts.append(start)
        came = self.world(start)
        if isinstance(came, str):
            return Measurement(failure_class=came, failure_why=f"it says {came}.")
        template = _run(self.folder.parent / "like", (*came, 0)[:3], slos)
        store.make_folder(folder)
        for name, content in template.items():
            (folder / name).write_bytes(content)
        return Measurement(summary=store.read_json(folder / store.SUMMARY), measure_s=1.0)


class LaneLab(StudyLab):
    """The same with several trials at once, whose processes are not there either.

    What runs in a lane comes to what the world says of its start. "lost" is the end of a process
    that has no result.

    Args:
        folder: of the study.
        monkeypatch: replaces the processes, and the machine's cores: there are eight.
    """

    def __init__(self, folder: Path, monkeypatch: Any) -> None:
        super().__init__(folder, monkeypatch)
        self.running: list[LaneChild] = []
        # How many looks each start lasts; it may raise what ends the study in the middle.
        self.looks: Callable[[Start], int] = lambda _: 1
        self._stands: Callable[[Start], bool] = lambda _: False
        monkeypatch.setattr("llmdyno.tune.lanes.start_lane", self._child)
        monkeypatch.setattr("llmdyno.tune.lanes._LOOK_S", 0.0)
        monkeypatch.setattr("llmdyno.machine.devices._cores", lambda: list(range(8)))

    def study(self, **given: Any) -> Study:
        """Return what is studied: two trials at once, of three knobs."""
        asked = {"search": "fast,itl_ms,idle", "trials": 6, "parallel": 2, "race": False}
        return super().study(**asked | given)

    def stand(self, stands: Callable[[Start], bool]) -> None:
        """Let dyno be stopped for 15 s in some of the starts, which the world has measured."""
        self._stands = stands

    def in_lanes(self, phase: str = "trial") -> list[Start]:
        """Return what was started beside others, in order."""
        return [start for start in self.starts if start.device and start.phase == phase]

    def _child(self, run: Path, environment: Mapping[str, str]) -> "LaneChild":
        order = msgspec.json.decode((run / lane.ORDER).read_bytes(), type=lane.Order)
        gpus = environment["CUDA_VISIBLE_DEVICES"]
        device = f"GPU {gpus}" if gpus else f"cores {order.cores[0]}-{order.cores[-1]}"
        self._where = (device, len(self.running))
        try:
            measurement = self._measure(
                None, order.config, load=order.load, slos=order.study.slos, folder=run
            )
        finally:
            self._where = ("", 0)
        if self._stands(self.starts[-1]):
            measurement = msgspec.structs.replace(measurement, stood_s=15.0)
        if measurement.failure_class != "lost":
            came = lane.Came(measurement=measurement)
            (run / lane.CAME).write_bytes(msgspec.json.encode(came))
        child = LaneChild(self, self.starts[-1])
        self.running.append(child)
        return child


class LaneChild:
    """A process of a lane that ends after so many looks at it."""

    pid = 2**30  # nobody has it

    def __init__(self, of: LaneLab, start: Start) -> None:
        self._lab, self._start = of, start
        self._looked = 0

    def ended(self) -> bool:
        self._looked += 1
        return self._looked > self._lab.looks(self._start)

    def succeeded(self) -> bool:
        return False

    def failure(self) -> str:
        return "signal 9"

    def stop(self) -> None:
        self._lab.running.remove(self)


_RUNS: dict[Any, dict[str, bytes]] = {}  # runs alike are written once


def _run(folder: Path, came: tuple[float, ...], slos: Any) -> dict[str, bytes]:
    """Return the files of a run, by name."""
    key = (came, slos)
    if key not in _RUNS:
        gap_ms, first_ms, failed_every = came
        lab.write_run(
            folder,
            gap_ms=gap_ms,
            first_ms=first_ms,
            level_s=LEVEL_S,
            slos=slos,
            failed_every=int(failed_every),
        )
        _RUNS[key] = {path.name: path.read_bytes() for path in folder.iterdir()}
        shutil.rmtree(folder)
    return _RUNS[key]
