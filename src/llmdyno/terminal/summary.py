"""The terminal: what a person sees while a benchmark runs, and the table at its end.

The live lines are drawn by hand with three escape codes, twice a second: a terminal library that
renders on a thread of its own would hold up the event loop whose stamps we are taking. Everything
here goes to standard error; standard output is for results.
"""

from collections.abc import Callable, Mapping, Sequence
from statistics import median
from time import monotonic
from typing import Any, TextIO

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from llmdyno.load.progress import Progress
from llmdyno.results import doubts
from llmdyno.results.documents import level_name
from llmdyno.results.metrics import DISTRIBUTIONS, METRICS
from llmdyno.results.summary import says_capacity
from llmdyno.wire.exchange import Meter

_BAR_CELLS = 24
_WIDE_CELLS = 130
_CLEAR_LINE = "\x1b[2K"


class Live:
    """Two lines that are redrawn in place on a terminal; a line an interval elsewhere."""

    def __init__(
        self,
        levels: Sequence[float],
        *,
        interval_s: float,
        label: str = "",
        stream: TextIO,
        transient: bool = False,
    ) -> None:
        self._levels = levels
        self._interval_s = interval_s
        self._label = f"{label}  " if label else ""
        self._stream = stream
        self._transient = transient  # leave nothing of a level that is over
        self._redraws = stream.isatty()
        self._lines_drawn = 0
        self._level = -1
        self._next_line_s = 0.0
        self._rate_from = (0.0, 0)  # time and tokens, for the rate

    def show(self, progress: Progress, meter: Meter) -> None:
        """Draw the level's state."""
        if progress.level != self._level:
            self._level = progress.level
            self._rate_from = (monotonic(), 0)
            self._next_line_s = self._interval_s
        tokens = progress.tokens + max(0, meter.reads - progress.reads)
        then_s, tokens_then = self._rate_from
        now_s = monotonic()
        rate = (tokens - tokens_then) / (now_s - then_s) if now_s > then_s else 0.0
        done = progress.phase == "done"
        if done:
            rate = progress.tokens / max(progress.elapsed_s, 1e-9)
        if self._redraws:
            lines = [self._head(progress), self._numbers(progress, rate)]
            self._redraw([] if done and self._transient else lines, keep=done)
        elif done or progress.elapsed_s >= self._next_line_s:
            self._stream.write(f"{self._head(progress)}{self._numbers(progress, rate)}\n")
            self._stream.flush()
            self._next_line_s = progress.elapsed_s + self._interval_s
        if now_s - then_s >= min(self._interval_s, 5.0):
            self._rate_from = (now_s, tokens)

    def _head(self, progress: Progress) -> str:
        share, amount = _advance(progress)
        filled = round(share * _BAR_CELLS)
        bar = "━" * filled + "─" * (_BAR_CELLS - filled) if self._redraws else ""
        place = str(progress.level + 1)
        place += f"/{len(self._levels)}" if self._levels else ""
        return f"{self._label}level {place}: {progress.load}  {bar}  {amount}  "

    @staticmethod
    def _numbers(progress: Progress, rate: float) -> str:
        ttft = f"TTFT p50 {median(progress.ttft_ms):,.0f} ms" if progress.ttft_ms else "TTFT -"
        errors = ", ".join(f"{name} x{count}" for name, count in progress.errors.items())
        waiting = progress.waiting
        place = f"users {progress.users}" if waiting is None else f"waiting {waiting}"
        return (
            f"{place}  in flight {progress.in_flight}  done {progress.completed:,}"
            f"  failed {progress.failed:,}{f' ({errors})' if errors else ''}"
            f"  ~{rate:,.0f} tok/s  {ttft}"
        )

    def _redraw(self, lines: Sequence[str], *, keep: bool) -> None:
        up = f"\x1b[{self._lines_drawn}A\x1b[J" if self._lines_drawn else ""
        width = max(20, Console(file=self._stream).width - 1)
        text = "".join(f"{_CLEAR_LINE}{line[:width]}\n" for line in lines)
        self._stream.write(f"{up}\r{text}")
        self._stream.flush()
        self._lines_drawn = 0 if keep else len(lines)


def _advance(progress: Progress) -> tuple[float, str]:
    """Return how far the level is, 0 to 1, and the same in words."""
    if progress.requests is not None:
        ended = progress.completed + progress.failed
        return min(1.0, ended / progress.requests), f"{ended:,}/{progress.requests:,} requests"
    duration_s = progress.duration_s or 1.0
    words = f"{progress.elapsed_s:.0f}/{duration_s:.0f} s"
    if progress.phase == "finishing":
        words += ", finishing"
    return min(1.0, progress.elapsed_s / duration_s), words


def console() -> Console:
    """Return the console for people: standard error."""
    return Console(stderr=True, highlight=False)


def show_summary(summary: Mapping[str, Any], out: Console) -> None:
    """Print the table of a run's levels, its SLOs, its doubts, and what the numbers mean."""
    whole = not out.is_terminal  # a file gets each sentence in one line, a person's are wrapped
    out.print(_table(summary, wide=out.width >= _WIDE_CELLS))
    for verdict in summary["slo"]:
        value = "no data" if verdict["value"] is None else f"{verdict['value']:,.4g}"
        word = "[green]met[/]" if verdict["met"] else "[red]missed[/]"
        out.print(f"SLO {verdict['expr']} at {verdict['at']}: {word} ({value})")
    for level in summary["levels"]:
        if rounds := level.get("repeats"):
            rates = "  ".join(number(one["token_rate"]) for one in rounds)
            out.print(f"{level_name(level)}, tok/s in each of {len(rounds)} rounds: {rates}")
    if "capacity" in summary:
        out.print(f"[bold]{says_capacity(summary)}[/]", soft_wrap=whole)
    for doubt in doubts.of(summary):
        out.print(f"[yellow]![/] {escape(doubt.sentence)}", soft_wrap=whole)
    for line in _meanings(summary):
        out.print(escape(line), soft_wrap=whole)
    out.print(f"[dim]{_client_line(summary)}[/]", soft_wrap=whole)
    if line := _server_line(summary):
        out.print(f"[dim]{line}[/]", soft_wrap=whole)
    sources = {level["tokens"]["source"] for level in summary["levels"]}
    out.print(f"[dim]Tokens are counted by: {', '.join(sorted(sources))}.[/]")
    is_open = any(level["arrival"] != "closed" for level in summary["levels"])
    for metric in (*METRICS[:5], *(row for row in DISTRIBUTIONS if row.open_loop and is_open)):
        out.print(f"[dim]{metric.definition}[/]", soft_wrap=whole)


def show_selftest(document: Mapping[str, Any], out: Console) -> None:
    """Print how exact and how fast the client is."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    headings = (
        "load",
        "requests",
        "TTFT p50",
        "p99",
        "ITL p50",
        "p99",
        "lost",
        "events/s",
        "us/tok",
    )
    for heading in headings:
        table.add_column(heading, justify="right", no_wrap=True)
    for load in document["loads"]:
        table.add_row(
            load["name"],
            f"{load['requests']:,}",
            f"{load['ttft_error_ms_p50']:.2f}",
            f"{load['ttft_error_ms_p99']:.2f}",
            f"{load['itl_error_ms_p50']:.2f}",
            f"{load['itl_error_ms_p99']:.2f}",
            str(load["tokens_lost"]),
            f"{load['events_per_s']:,.0f}",
            f"{load['cpu_us_per_token']:.1f}",
        )
    table.caption = (
        "Errors of TTFT and ITL in ms against a server of known timing,\n"
        "less that server's own lateness; lost: tokens; us/tok: CPU time."
    )
    out.print(table)
    late_ms = max(load["streamer_late_ms_p99"] for load in document["loads"])
    out.print(f"[dim]The server itself was late by up to {late_ms:.1f} ms (p99).[/]")
    out.print(
        f"At most {document['events_per_s_max']:,.0f} events/s on one core, by the CPU time of an"
        " event.",
        soft_wrap=True,
    )


# (heading, cell, only on a wide terminal)
_COLUMNS: tuple[tuple[str, Callable[[Mapping[str, Any]], str], bool], ...] = (
    ("load", level_name, False),
    ("done", lambda level: f"{level['requests']['completed']:,}", False),
    ("failed", lambda level: _red_if(level["requests"]["failed"]), False),
    ("cut", lambda level: f"{level['requests']['cut']:,}", True),
    ("TTFT p50", lambda level: _with_interval(level, "ttft_ms", "p50"), False),
    ("p99", lambda level: _stat(level, "ttft_ms", "p99"), False),
    ("ITL p50", lambda level: _stat(level, "itl_ms", "p50"), False),
    ("p99", lambda level: _stat(level, "itl_ms", "p99"), True),
    ("TPOT p50", lambda level: _stat(level, "tpot_ms", "p50"), True),
    ("E2E p50", lambda level: _stat(level, "e2e_ms", "p50"), True),
    ("tok/s", lambda level: _with_interval(level, "token_rate", "mean"), False),
    ("req/s", lambda level: _stat(level, "request_rate", "mean"), True),
    ("window", lambda level: "{start_s:.0f}-{end_s:.0f} s".format(**level["window"]), True),
    ("client", lambda level: _yellow_unless(level["client"]["verdict"], "valid"), True),
)


# What stands beside the latencies from sent when a level was open.
_DUE_COLUMNS: tuple[tuple[str, Callable[[Mapping[str, Any]], str], bool], ...] = (
    ("due TTFT p50", lambda level: _of_due(level, "p50"), True),
    ("due p99", lambda level: _of_due(level, "p99"), False),
)


def _of_due(level: Mapping[str, Any], stat: str) -> str:
    return number(level["ttft_due_ms"][stat]) if "ttft_due_ms" in level else "-"


def _table(summary: Mapping[str, Any], *, wide: bool) -> Table:
    columns = [column for column in _COLUMNS if wide or not column[2]]
    if any(level["arrival"] != "closed" for level in summary["levels"]):
        columns[3:3] = _DUE_COLUMNS
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    for heading, _, _ in columns:
        table.add_column(heading, justify="right", no_wrap=True)
    for level in summary["levels"]:
        table.add_row(*(cell(level) for _, cell, _ in columns))
    table.caption = (
        "Latencies in ms, inside the window, with 95 % intervals;\n"
        "failed requests are never among them."
    )
    if any(level.get("doubtful") for level in summary["levels"]):
        table.caption += "\n? the client had a share in it: see below."
    return table


def _client_line(summary: Mapping[str, Any]) -> str:
    clients = [level["client"] for level in summary["levels"]]
    lag_ms = max((client["loop_lag_ms_p99"] for client in clients), default=0.0)
    cpu = [client["cpu_us_per_token"] for client in clients if client["cpu_us_per_token"]]
    bound = [client for client in clients if client["verdict"] != "valid"]
    word = "client-bound, see above" if bound else "valid at every level"
    cost = f", {min(cpu):.0f}-{max(cpu):.0f} us CPU a token" if cpu else ""
    headrooms = [client["headroom"] for client in clients if client.get("headroom")]
    room = f", headroom {number(min(headrooms))}x" if headrooms else ""
    line = f"Client: {word} (late by {lag_ms:.1f} ms p99{cost}{room})."
    if floor := summary.get("calibration"):
        line += (
            f" Its own share, calibrated before the run: TTFT {floor['ttft_floor_ms_p50']:.2f} ms"
            f" p50, {floor['ttft_floor_ms_p99']:.2f} ms p99; ITL {floor['itl_floor_ms_p99']:.2f}"
            f" ms p99; at most {floor['events_per_s_max']:,.0f} events/s."
        )
    return line


def _server_line(summary: Mapping[str, Any]) -> str:
    """Say what the server's own metrics say, if it has any."""
    servers = [level["server"] for level in summary["levels"] if "server" in level]
    differences = [
        abs(server["tokens"]["difference"])
        for server in servers
        if server.get("tokens", {}).get("difference") is not None
    ]
    if not servers:
        return ""
    line = f"Server ({servers[0]['kind']}): its own metrics were read beside ours"
    if differences:
        line += f"; output tokens differ by {max(differences):.2%} at most"
    means = [server["ttft_ms"] for server in servers if "ttft_ms" in server]
    gaps = [each["client_mean"] - each["server_mean"] for each in means if each["client_mean"]]
    if gaps:
        line += f"; TTFT means by {max(gaps, key=abs):+.1f} ms"
    return f"{line}."


def _meanings(summary: Mapping[str, Any]) -> list[str]:
    """Say what the classes of the failed requests mean, each once."""
    # A level of another tool has no meanings.
    faults = {
        name: said for level in summary["levels"] for name, said in level.get("faults", {}).items()
    }
    return [
        f"{name}: {said['meaning']}{_example(said['example'])}." for name, said in faults.items()
    ]


def _example(said: str) -> str:
    # As Python writes it: the server's words could hold the codes of a terminal.
    return f", e.g. {said!r}" if said else ""


def number(value: float | None) -> str:
    """Write a number with three significant digits or so."""
    if value is None:
        return "-"
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:,.1f}" if abs(value) >= 10 else f"{value:.2f}"


def _stat(level: Mapping[str, Any], metric: str, stat: str) -> str:
    """Write a statistic, with a mark where the client spoilt it."""
    mark = "[yellow]?[/]" if metric in level.get("doubtful", ()) else ""
    return f"{number(level[metric][stat])}{mark}"


def _with_interval(level: Mapping[str, Any], metric: str, stat: str) -> str:
    interval = level[metric].get("ci95" if stat == "mean" else f"{stat}_ci95")
    shown = _stat(level, metric, stat)
    if interval is None:
        return shown
    return rf"{shown} \[{number(interval[0])}, {number(interval[1])}]"


def _red_if(count: int) -> str:
    return f"[red]{count:,}[/]" if count else "0"


def _yellow_unless(word: str, good: str) -> str:
    return word if word == good else f"[yellow]{word}[/]"
