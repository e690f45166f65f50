"""The summary for a person: the table of a run's levels, and what its numbers mean.

Everything here goes to standard error; standard output is for results.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from llmdyno.results import documents, doubts
from llmdyno.results.capacity import says_capacity
from llmdyno.results.documents import level_name
from llmdyno.results.metrics import BY_NAME, Metric, Shown

_WIDE_CELLS = 130


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
    for line in filter(None, (_server_line(summary), _prefix_line(summary))):
        out.print(f"[dim]{line}[/]", soft_wrap=whole)
    sources = {level["tokens"]["source"] for level in summary["levels"]}
    out.print(f"[dim]Tokens are counted by: {', '.join(sorted(sources))}.[/]")
    for metric in BY_NAME.values():
        if metric.explained and (_is_open(summary) or not metric.open_loop):
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


class _Column(NamedTuple):
    heading: str
    cell: Callable[[Mapping[str, Any]], str]
    wide: bool = False  # only on a wide terminal


_BEFORE = (
    _Column("load", level_name),
    _Column("done", lambda level: f"{level['requests']['completed']:,}"),
    _Column("failed", lambda level: _red_if(level["requests"]["failed"])),
    _Column("cut", lambda level: f"{level['requests']['cut']:,}", wide=True),
)
_AFTER = (
    _Column(
        "window",
        lambda level: "{start_s:.0f}-{end_s:.0f} s".format(**level["window"]),
        wide=True,
    ),
    _Column("client", lambda level: _yellow_unless(level["client"]["verdict"], "valid"), wide=True),
)


def _columns(summary: Mapping[str, Any]) -> list[_Column]:
    """Return the columns of the table; what runs from due stands before what runs from sent."""
    rows = [row for row in BY_NAME.values() if _is_open(summary) or not row.open_loop]
    rows.sort(key=lambda row: not row.open_loop)
    return [*_BEFORE, *(_column(row, shown) for row in rows for shown in row.shown), *_AFTER]


def _column(row: Metric, shown: Shown) -> _Column:
    write = _with_interval if shown.interval else _stat
    return _Column(shown.heading, lambda level: write(level, row.name, shown.stat), shown.wide)


def _is_open(summary: Mapping[str, Any]) -> bool:
    return any(level["arrival"] != "closed" for level in summary["levels"])


def _table(summary: Mapping[str, Any], *, wide: bool) -> Table:
    columns = [column for column in _columns(summary) if wide or not column.wide]
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    for column in columns:
        table.add_column(column.heading, justify="right", no_wrap=True)
    for level in summary["levels"]:
        table.add_row(*(column.cell(level) for column in columns))
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


def _prefix_line(summary: Mapping[str, Any]) -> str:
    """Say how much a prefix cache could have hit, where prompts were hashed or the server tells."""
    told = [
        (level_name(level), level["prefix"])
        for level in summary["levels"]
        if level.get("prefix", {}).get("observed_hit_rate") is not None
        or level.get("prefix", {}).get("method") == "hashes"
    ]
    if not told:
        return ""
    rates = [
        f"{name} {_percent(part['ideal_hit_rate'])} / {_percent(part['observed_hit_rate'])}"
        for name, part in told
    ]
    return f"Prefix cache, input tokens hit, ideal / by the server: {', '.join(rates)}."


def _percent(share: float | None) -> str:
    return "not known" if share is None else f"{share:.0%}"


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
    # repr() escapes control codes of the terminal, which the server's words may contain.
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
    return f"{number(documents.number(level, metric, stat))}{mark}"


def _with_interval(level: Mapping[str, Any], metric: str, stat: str) -> str:
    interval = documents.interval(level, metric, "ci95" if stat == "mean" else f"{stat}_ci95")
    shown = _stat(level, metric, stat)
    if interval is None:
        return shown
    return rf"{shown} \[{number(interval[0])}, {number(interval[1])}]"


def _red_if(count: int) -> str:
    return f"[red]{count:,}[/]" if count else "0"


def _yellow_unless(word: str, good: str) -> str:
    return word if word == good else f"[yellow]{word}[/]"
