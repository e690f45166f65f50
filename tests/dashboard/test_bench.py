"""What the page shows of a benchmark."""

from pathlib import Path
from typing import Any

import pytest

from lab import RUN
from llmdyno.dashboard.bench import BenchFeed
from llmdyno.load.progress import Progress
from llmdyno.results import doubts
from llmdyno.results.crosscheck import UNREAD
from llmdyno.results.documents import level_name
from llmdyno.results.summary import summarise
from llmdyno.store import JOURNAL
from llmdyno.wire.exchange import Meter


def test_a_level_that_is_over_has_its_figures_and_its_doubts(board: Any, results: Path) -> None:
    journal = results / RUN / JOURNAL
    told: list[Progress] = []
    head = {"title": "http://h", "about": ""}
    feed = BenchFeed(board, journal, head, 5.0, lambda progress, _: told.append(progress))
    progress = Progress(load="2 users")

    feed.show(progress, Meter())
    assert "levels" not in board.parts  # nothing is derived while something is measured
    progress.phase = "done"
    feed.show(progress, Meter())

    assert told == [progress, progress]
    summary = summarise(journal)
    shown = board.parts["levels"]
    assert [one["rate"] for one in shown] == [
        level["token_rate"]["mean"] for level in summary["levels"]
    ]
    assert len(board.parts["doubts"]) >= 1 or not summary["doubts"]


def test_a_journal_that_cannot_be_read_is_the_runs_affair(board: Any, tmp_path: Path) -> None:
    feed = BenchFeed(board, tmp_path / JOURNAL, {}, 5.0, lambda *_: None)

    feed.show(Progress(phase="done"), Meter())

    assert "levels" not in board.parts
    assert board.parts["now"]["phase"] == "done"


def test_how_it_ended_is_said_once(board: Any, tmp_path: Path) -> None:
    feed = BenchFeed(board, tmp_path / JOURNAL, {}, 5.0, lambda *_: None)

    feed.end("done")
    feed.end("ended")

    assert board.parts["end"] == {"said": "done"}


def test_a_metrics_page_that_is_still_to_be_read_is_no_doubt_before_the_end(
    board: Any, results: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal = results / RUN / JOURNAL
    last = level_name(summarise(journal)["levels"][-1])
    found = [
        doubts.Doubt(code=UNREAD, level=None, at=at, metrics=(), text="unread")
        for at in ("9 users", last)
    ]
    monkeypatch.setattr(doubts, "of", lambda _: found)
    feed = BenchFeed(board, journal, {}, 5.0, lambda *_: None)

    feed.show(Progress(phase="done"), Meter())
    assert board.parts["doubts"] == ["9 users: unread"]
    feed.show_summary(summarise(journal))
    assert last in " ".join(board.parts["doubts"])
