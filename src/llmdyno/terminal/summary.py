"""The summary for a person: the table of a run's levels, and what its numbers mean.

Everything here goes to standard error; standard output is for results.
"""

import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from llmdyno.results import documents, doubts, grouping, limit_words, titles, wording
from llmdyno.results.capacity import says_capacity
from llmdyno.results.documents import level_name
from llmdyno.results.metrics import BY_NAME, Metric, Shown
from llmdyno.results.wording import short
from llmdyno.terminal import tables
from llmdyno.terminal.plain import Paper, escape
from llmdyno.terminal.tables import Cell, Heading, show_table
from llmdyno.units import counted

_WIDE_CELLS = 130


def console() -> Paper:
    """Return the console for people: standard error."""
    return tables.console(sys.stderr)


def show_summary(summary: Mapping[str, Any], out: Paper) -> None:
    """Print the table of a run's levels, its SLOs, its doubts, and what the numbers mean."""
    whole = not out.is_terminal  # a file gets each sentence in one line, a person's are wrapped
    _show_levels(summary, out)
    for verdict in summary["slo"]:
        value = _slo_value(verdict)
        word = "[green]met[/]" if verdict["met"] else "[red]missed[/]"
        out.print(f"SLO {verdict['expr']} at {verdict['at']}: {word} ({value})")
    for level in summary["levels"]:
        if rounds := level.get("repeats"):
            rates = "  ".join(number(one["token_rate"]) for one in rounds)
            of = counted(len(rounds), "round")
            out.print(f"{level_name(level)}, tok/s in each of {of}: {rates}", soft_wrap=whole)
    for line in (*_by_model(summary), *_further(summary)):
        out.print(line, soft_wrap=whole)
    for line in filter(None, map(limit_words.line, summary["levels"])):
        out.print(escape(line), soft_wrap=whole)
    if "capacity" in summary:
        out.print(f"[bold]{says_capacity(summary)}[/]", soft_wrap=whole)
    for said in grouping.sentences(doubts.of(summary)):
        out.print(f"[yellow]![/] {escape(said)}", soft_wrap=whole)
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


def _by_model(summary: Mapping[str, Any]) -> list[str]:
    """Return a line for each model of each level that asked several at once."""
    return [
        f"{level_name(level)}, {escape(one['model'])} ({wording.share(one['share'])} of the"
        f" requests): {one['requests']['completed']:,} done, {one['requests']['failed']:,} failed,"
        f" TTFT p50 {_stat(one, 'ttft_ms', 'p50')} ms, p99 {_stat(one, 'ttft_ms', 'p99')},"
        f" {_stat(one, 'token_rate', 'mean')} tok/s"
        for level in summary["levels"]
        for one in level.get("models", ())
    ]


def _further(summary: Mapping[str, Any]) -> list[str]:
    """Return a line for each metric that most runs lack and this one has: it needs no column."""
    lines = []
    for metric in BY_NAME.values():
        values = {
            level_name(level): value
            for level in summary["levels"]
            if metric.may_lack
            and (value := documents.number(level, metric.name, "mean")) is not None
        }
        if values:
            told = "  ".join(
                # A token costs a small part of a unit: two decimals would be nothing.
                f"{name} {number(value) if value >= 10 else f'{value:.3g}'}"
                for name, value in values.items()
            )
            unit = "in the currency of --price" if metric.needs_price else metric.unit
            lines.append(f"{metric.title}, {unit}: {told}")
    return lines


def _slo_value(verdict: Mapping[str, Any]) -> str:
    of_unit = f" {titles.unit(verdict['expr'])}".rstrip()
    if (share := verdict.get("failed_share")) is not None:
        return f"{short(verdict['value'])}{of_unit}, but {100 * share:.3g} % of the requests failed"
    if verdict["value"] is not None:
        return f"{short(verdict['value'])}{of_unit}"
    at_least = verdict.get("at_least")
    return "no data" if at_least is None else f"at least {short(at_least)}{of_unit}"


_SELFTEST = (
    Heading("load"),
    Heading("requests"),
    Heading("TTFT p50"),
    Heading("p99", "TTFT p99"),
    Heading("ITL p50"),
    Heading("p99", "ITL p99"),
    Heading("lost"),
    Heading("events/s"),
    Heading("us/tok"),
)


def show_selftest(document: Mapping[str, Any], out: Paper) -> None:
    """Print how exact and how fast the client is."""
    rows = [
        [
            Cell(load["name"]),
            Cell(f"{load['requests']:,}"),
            Cell(f"{load['ttft_error_ms_p50']:.2f}"),
            Cell(f"{load['ttft_error_ms_p99']:.2f}"),
            Cell(f"{load['itl_error_ms_p50']:.2f}"),
            Cell(f"{load['itl_error_ms_p99']:.2f}"),
            Cell(str(load["tokens_lost"])),
            Cell(f"{load['events_per_s']:,.0f}"),
            Cell(f"{load['cpu_us_per_token']:.1f}"),
        ]
        for load in document["loads"]
    ]
    caption = (
        "Errors of TTFT and ITL in ms against a server of known timing,\n"
        "less that server's own lateness; lost: tokens; us/tok: CPU time."
    )
    show_table(out, _SELFTEST, rows, caption)
    late_ms = max(load["streamer_late_ms_p99"] for load in document["loads"])
    out.print(f"[dim]The server itself was late by up to {late_ms:.1f} ms (p99).[/]")
    out.print(
        f"At most {document['events_per_s_max']:,.0f} events/s on one core, by the CPU time of an"
        " event.",
        soft_wrap=True,
    )


class _Column(NamedTuple):
    heading: Heading
    cell: Callable[[Mapping[str, Any]], Cell]
    wide: bool = False  # only on a wide terminal


_BEFORE = (
    _Column(Heading("load"), lambda level: Cell(level_name(level))),
    _Column(Heading("done"), lambda level: Cell(f"{level['requests']['completed']:,}")),
    _Column(Heading("failed"), lambda level: Cell(_red_if(level["requests"]["failed"]))),
    _Column(Heading("cut"), lambda level: Cell(f"{level['requests']['cut']:,}"), wide=True),
)
_AFTER = (
    _Column(
        Heading("window"),
        lambda level: Cell("{start_s:.0f}-{end_s:.0f} s".format(**level["window"])),
        wide=True,
    ),
    _Column(
        Heading("client"),
        lambda level: Cell(_yellow_unless(level["client"]["verdict"], "valid")),
        wide=True,
    ),
)


def _columns(summary: Mapping[str, Any]) -> list[_Column]:
    """Return the columns of the table; what runs from due stands before what runs from sent."""
    rows = [row for row in BY_NAME.values() if _is_open(summary) or not row.open_loop]
    rows.sort(key=lambda row: not row.open_loop)
    return [*_BEFORE, *(_column(row, shown) for row in rows for shown in row.shown), *_AFTER]


def _column(row: Metric, shown: Shown) -> _Column:
    """Return a metric's column; alone, "p99" is called by the heading that it goes on."""
    name = row.shown[0].heading.removesuffix(f" {row.shown[0].stat}")
    alone = f"{name} {shown.stat}" if shown.heading == shown.stat else shown.heading

    def cell(level: Mapping[str, Any]) -> Cell:
        interval = _interval(level, row.name, shown.stat) if shown.interval else ""
        return Cell(_stat(level, row.name, shown.stat), interval)

    return _Column(Heading(shown.heading, alone), cell, shown.wide)


def _is_open(summary: Mapping[str, Any]) -> bool:
    return any(level["arrival"] != "closed" for level in summary["levels"])


def _show_levels(summary: Mapping[str, Any], out: Paper) -> None:
    """Print the table of the levels, with the columns for which there is room."""
    caption = (
        "Latencies in ms, inside the window, with 95 % intervals;\n"
        "failed requests are never among them."
    )
    if any(level.get("doubtful") for level in summary["levels"]):
        caption += "\n? the client had a share in it: see below."
    columns = _columns(summary)
    if out.width < _WIDE_CELLS or not tables.fits(out, *_written(columns, summary)):
        columns = [column for column in columns if not column.wide]
    show_table(out, *_written(columns, summary), caption)


def _written(
    columns: Sequence[_Column], summary: Mapping[str, Any]
) -> tuple[list[Heading], list[list[Cell]]]:
    rows = [[column.cell(level) for column in columns] for level in summary["levels"]]
    return [column.heading for column in columns], rows


def _client_line(summary: Mapping[str, Any]) -> str:
    clients = [level["client"] for level in summary["levels"]]
    # Late is what the verdict judges: how late the client looked. Old runs have the loop's lag.
    late_ms = max((c.get("late_ms_p99", c["loop_lag_ms_p99"]) for c in clients), default=0.0)
    cpu = [client["cpu_us_per_token"] for client in clients if client["cpu_us_per_token"]]
    bound = [client for client in clients if client["verdict"] != "valid"]
    word = "client-bound, see above" if bound else "valid at every level"
    costs = list(dict.fromkeys(f"{cost:.0f}" for cost in (min(cpu), max(cpu)))) if cpu else []
    cost = f", {'-'.join(costs)} us CPU a token" if costs else ""
    headrooms = [client["headroom"] for client in clients if client.get("headroom")]
    room = f", headroom {number(min(headrooms))}x" if headrooms else ""
    line = f"Client: {word} (late by {late_ms:.1f} ms p99{cost}{room})."
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
        line += f"; output tokens differ by {wording.share(max(differences), 2)} at most"
    means = [server["ttft_ms"] for server in servers if "ttft_ms" in server]
    gaps = [each["client_mean"] - each["server_mean"] for each in means if each["client_mean"]]
    if gaps:
        line += f"; TTFT means by {max(gaps, key=abs):+.1f} ms"
    told = [documents.part(server, "speculation") for server in servers]
    lengths = [documents.number(one, "acceptance_length") for one in told if one]
    if known := [length for length in lengths if length is not None]:
        line += f"; speculative decoding brings {min(known):.2f} to {max(known):.2f} tokens a step"
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
    return "not known" if share is None else wording.share(share)


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


def _interval(level: Mapping[str, Any], metric: str, stat: str) -> str:
    found = documents.interval(level, metric, "ci95" if stat == "mean" else f"{stat}_ci95")
    return "" if found is None else rf"\[{number(found[0])}, {number(found[1])}]"


def _red_if(count: int) -> str:
    return f"[red]{count:,}[/]" if count else "0"


def _yellow_unless(word: str, good: str) -> str:
    return word if word == good else f"[yellow]{word}[/]"
