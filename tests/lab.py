"""A folder with a run and a study in it, made without a server: for those who only read results."""

import shutil
from pathlib import Path
from typing import Any

import msgspec
import pytest

from llmdyno import store
from llmdyno.cli import flags
from llmdyno.records.entries import LevelEnded, LevelStarted, Opened, Record
from llmdyno.records.journal import Journal
from llmdyno.results.slo import Slo
from llmdyno.results.summary import summarise
from llmdyno.tune.entries import Began, Phase, Step
from llmdyno.tune.ledger import Ledger
from llmdyno.tune.spec import Study

ENGINE = "timed.engine"  # beside this file
STUDY, RUN = "studies/s", "runs/r"
_LEVEL_S = 40
_MS = 1_000_000


def make(folder: Path) -> Path:
    """Make RUN, a run whose summary is still to be derived, and STUDY, a whole study."""
    write_run(folder / RUN, gap_ms=40)
    (folder / RUN / store.SUMMARY).unlink()
    write_study(folder / STUDY)
    return folder


def spec() -> Study:
    """Return what is tuned."""
    return flags.study_spec({"engine": ENGINE, "model": "m", "users": "2", "pairs": 2, "trials": 1})


def write_study(folder: Path) -> None:
    """Write the ledger of a study whose winner is twice as fast, and its runs."""
    folder.mkdir(parents=True)
    ledger = Ledger(folder)
    began = Began(study=folder.name, spec=spec(), environment={}, engine_version="1.0")
    ledger.append(began)
    before: dict[str, int] = {}
    after = {"itl_ms": 20}
    steps: list[tuple[Phase, dict[str, int]]] = [
        *(("baseline", before), ("trial", after), ("best", after)),
        *(("confirm", before), ("confirm", after), ("confirm", after), ("confirm", before)),
        *(("ablation", before), ("ablation", after)),
    ]
    numbers: dict[str, int] = {}
    for phase, config in steps:
        number = numbers.setdefault(phase, 0)
        numbers[phase] += 1
        run = f"runs/{phase}-{number}"
        write_run(folder / run, gap_ms=config.get("itl_ms", 40))
        ledger.append(
            Step(
                phase=phase,
                number=number,
                config={**config},
                state="measured",
                run=run,
                value=1.0,
                knob="itl_ms" if phase == "ablation" else "",
            )
        )


def _record(number: int, sent_ns: int, **became: Any) -> Record:
    """Return a request of one of two users, sent when it was due, and what became of it."""
    return Record(
        level=0,
        request=number,
        user=number % 2,
        prompt=number,
        due_ns=sent_ns,
        sent_ns=sent_ns,
        **became,
    )


def write_run(
    folder: Path,
    *,
    gap_ms: float,
    first_ms: float | None = None,
    level_s: int = _LEVEL_S,
    slos: tuple[Slo, ...] = (),
    failed_every: int = 0,
) -> None:
    """Write the journal and the summary of a run: two users, answers of ten tokens.

    Every so manieth request failed at once, if that is not 0; its user waited for its next turn.
    """
    folder.mkdir(parents=True)
    journal = Journal(folder / store.JOURNAL)
    journal.append(
        Opened(
            run=folder.name,
            started="2026-11-23T20:00:00+00:00",
            spec={
                "load": {"interval_s": 1.0, "duration_s": level_s},
                **({"slos": msgspec.to_builtins(slos)} if slos else {}),
            },
            environment={},
        )
    )
    journal.append(LevelStarted(level=0, users=2, start_ns=0, ramp_ns=0))
    answer_ns = round(10 * gap_ms * _MS)
    first = gap_ms if first_ms is None else first_ms
    for number in range(level_s * 1000 * _MS // answer_ns * 2):
        sent_ns = number // 2 * answer_ns
        if failed_every and number % failed_every == 0:
            fault = {"outcome": "failed", "status": 500, "error": "http_500"}
            journal.append(_record(number, sent_ns, end_ns=_MS, **fault))
            continue
        journal.append(
            _record(
                number,
                sent_ns,
                end_ns=answer_ns,
                outcome="completed",
                status=200,
                finish="stop",
                source="usage",
                input_tokens=30,
                output_tokens=10,
                reads=10,
                # No two answers alike, or there is no spread to compare.
                gaps_ns=(
                    round((first + number % 5 - 2) * _MS),
                    *[round(gap_ms * _MS) - 1000] * 9,
                ),
            )
        )
    end_ns = level_s * 1000 * _MS
    journal.append(LevelEnded(level=0, end_ns=end_ns, full_until_ns=end_ns))
    journal.close()
    store.write_json(folder / store.SUMMARY, summarise(folder / store.JOURNAL))


def snapshot(folder: Path) -> dict[str, tuple[int, bytes]]:
    """Return every name below a folder with its time and content."""
    return {
        str(path.relative_to(folder)): (
            path.lstat().st_mtime_ns,
            path.read_bytes() if path.is_file() else b"",
        )
        for path in (folder, *folder.rglob("*"))
    }


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the run and the study, made once a module."""
    return make(tmp_path_factory.mktemp("lab"))


@pytest.fixture
def results(made: Path, tmp_path: Path) -> Path:
    """A run and a study that may be changed."""
    return Path(shutil.copytree(made, tmp_path / "results"))
