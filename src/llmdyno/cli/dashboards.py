"""What `--dashboard` adds to `dyno bench` and `dyno tune`; without it nothing of it is imported."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING, Annotated

from llmdyno.cli.options import BARE, RESULTS, option
from llmdyno.cli.output import say
from llmdyno.spec import Bench

if TYPE_CHECKING:  # they bring what measures with them
    from llmdyno.dashboard.bench import BenchFeed, Show
    from llmdyno.dashboard.study import StudyFeed
    from llmdyno.tune.spec import Study

Dashboard = Annotated[
    int | None,
    option(
        "--dashboard",
        help="Show a live page on 127.0.0.1; its URL, with a token, is said once. [any free port]",
        metavar="[=PORT]",
        heading=RESULTS,
    ),
]
BARE["--dashboard"] = "0"


@contextmanager
def bench_page(
    port: int | None, spec: Bench, folder: Path, show: "Show"
) -> Iterator["tuple[Show, BenchFeed | None]"]:
    """Serve the page of a benchmark during the `with`; yield what shows its progress, and the feed.

    Without a port nothing is served, and `show` alone is called.

    Raises:
        UsageError: the port cannot be listened on.
    """
    if port is None:
        yield show, None
        return
    from llmdyno.dashboard.bench import BenchFeed
    from llmdyno.dashboard.board import Board, interrupt
    from llmdyno.store import JOURNAL

    with Board(port, {"stop": interrupt}) as board:
        say(f"Dashboard: {board.url}")
        asked = spec.kept
        about = f"{asked.endpoint}, {asked.model or 'the model it serves'}, {asked.workload.name}"
        head = {"title": asked.url, "about": f"{about}; {folder}"}
        interval_s = min(asked.load.interval_s, 5.0)
        feed = BenchFeed(board, folder / JOURNAL, head, interval_s, show)
        try:
            yield feed.show, feed
        finally:
            feed.end(f"ended; {folder}")


@contextmanager
def study_page(port: int | None, study: "Study", folder: Path) -> "Iterator[StudyFeed | None]":
    """Serve the page of a study during the `with`; yield its feed, or None without a port.

    Raises:
        UsageError: the port cannot be listened on.
    """
    if port is None:
        yield None
        return
    from llmdyno.dashboard.board import Board, interrupt
    from llmdyno.dashboard.study import StudyFeed

    enough = Event()
    actions: dict[str, Callable[[], None]] = {"stop": interrupt, "enough": enough.set}
    with Board(port, actions) as board:
        say(f"Dashboard: {board.url}")
        feed = StudyFeed(board, study, enough)
        try:
            yield feed
        finally:
            feed.end(f"ended; {folder}")
