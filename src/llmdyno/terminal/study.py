"""How a study tells a person what goes on: a line a step, a live display within it, a verdict."""

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any, TextIO

from llmdyno.load.progress import Progress
from llmdyno.results import conclusions, stacks, verdicts
from llmdyno.results.configs import described
from llmdyno.results.documents import level_name, short_loads
from llmdyno.results.findings import stands
from llmdyno.results.metrics import BY_NAME
from llmdyno.results.slo import HEADLINES, parse_objective, read_stat
from llmdyno.results.titles import title, unit
from llmdyno.results.wording import short
from llmdyno.terminal.closing import show_closing, show_findings
from llmdyno.terminal.live import Live
from llmdyno.terminal.tables import Cell, Heading, console, line, show_blocks, width_of
from llmdyno.tune.narrator import Narrator
from llmdyno.tune.outlook import Outlook, Proving, proving_sentence, sentences
from llmdyno.wire.exchange import Meter

_CLEAR_LINE = "\r\x1b[2K"


def narrator(stream: TextIO) -> Narrator:
    """Return a narrator that writes to a stream; on a terminal, waiting is redrawn in place."""
    redraws = stream.isatty()

    def notify(words: str) -> None:
        lines = "".join(line(one, stream) for one in words.split("\n"))
        stream.write(f"{_CLEAR_LINE if redraws else ''}{lines}")
        stream.flush()

    def notify_waiting(line: str) -> None:
        if redraws:
            stream.write(f"{_CLEAR_LINE}  {line[: max(20, width_of(stream) - 3)]}")
            stream.flush()

    def display(label: str, loads: Sequence[float]) -> Callable[[Progress, Meter], None]:
        if not redraws:
            return lambda _progress, _meter: None
        return Live(loads, interval_s=2.0, label=label, stream=stream, transient=True).show

    def foretell(outlook: Outlook) -> None:
        for said in sentences(outlook, datetime.now().astimezone()):
            notify(f"    {said}")

    def foretell_proof(proving: Proving) -> None:
        notify(f"    {proving_sentence(proving, datetime.now().astimezone())}")

    return Narrator(
        notify=notify,
        notify_waiting=notify_waiting,
        display=display,
        foretell=foretell,
        foretell_proof=foretell_proof,
    )


def show_study(document: Mapping[str, Any], findings: Sequence[str], stream: TextIO) -> None:
    """Print the combinations if there are several, before and after, the verdict, the findings."""
    _show_combinations(document, stream)
    before, after = document["baseline"], document["best"]
    if before is None or after is None:
        return
    objective = _beside(document)
    sides = [("before", before["summary"]["levels"]), ("after", after["summary"]["levels"])]
    if stands(document):
        sides = [("", before["summary"]["levels"])]
    rows = [
        _row(name, level, objective)
        for levels in zip(*(levels for _, levels in sides), strict=True)
        for (name, _), level in zip(sides, levels, strict=True)
    ]
    wide = max(18, 2 + len(title(objective))) if objective else 0
    beside = f"{title(objective):>{wide}}" if objective else ""
    paired = "; the verdict is that of the pairs" if verdicts.confirmed(document).pairs else ""
    of_each = " of each" if len(sides) > 1 else " of the baseline"
    stream.write("\n" + line(f"One run{of_each} at every load{paired}:", stream))
    loads, short = short_loads(before["summary"]["levels"])
    first_wide = max(6, len(loads))
    lines = [f"{loads:>{first_wide}}  {'':<7}{'TTFT p50':>12}{'p99':>12}{'token rate':>18}{beside}"]
    for at, name, first, slowest, rate, *values in rows:
        last = f"{values[0]:>{wide}}" if values else ""
        lines.append(
            f"{short[at]:>{first_wide}}  {name:<7}{first:>12}{slowest:>12}{rate:>18}{last}"
        )
    if max(map(len, lines)) <= width_of(stream):
        stream.write("\n".join([*lines, ""]))
    else:
        headings = [Heading(""), *map(Heading, ("TTFT p50", "TTFT p99", "token rate"))]
        headings += [Heading(title(objective))] if objective else []
        cells = [
            [Cell(f"{at}{f', {name}' if name else ''}"), *map(Cell, numbers)]
            for at, name, *numbers in rows
        ]
        show_blocks(console(stream), headings, cells)
    said = [line(one, stream) for one in verdict_lines(document)]
    stream.write("\n" + "".join(said) + "\n")
    show_findings(findings, stream)
    show_closing(document, stream)


def _show_combinations(document: Mapping[str, Any], stream: TextIO) -> None:
    """Print a line for each combination of a study over engines and fronts."""
    found = stacks.combinations(document)
    if not found:
        return
    unit_of = BY_NAME[parse_objective(str(document["objective"])).metric].unit
    names = ("combination", f"baseline, {unit_of}", f"best, {unit_of}", "SLOs", "trials", "")
    rows = [(one.name, one.baseline, one.best, one.slo, one.trials, one.outcome) for one in found]
    widths = [max(len(row[at]) for row in (names, *rows)) for at in range(len(names) - 1)]
    lines = []
    for row in (names, *rows):
        cells = [f"{row[0]:<{widths[0]}}"]
        cells += [f"{text:>{width}}" for text, width in zip(row[1:-1], widths[1:], strict=True)]
        lines.append("  ".join([*cells, row[-1]]).rstrip())
    if max(map(len, lines)) <= width_of(stream):
        stream.write("\n".join(["", *lines, ""]))
    else:
        headings = [Heading(name or "outcome") for name in names]
        show_blocks(console(stream), headings, [[*map(Cell, row)] for row in rows])
    stream.write(line(stacks.conclusion(document), stream))


def _row(name: str, level: Mapping[str, Any], objective: str) -> tuple[Any, ...]:
    ttft, rate = level["ttft_ms"], level["token_rate"]["mean"]
    values = [_value(level, objective)] if objective else []
    said = (_ms(ttft["p50"]), _ms(ttft["p99"]), f"{rate:,.0f} tok/s")
    return (level_name(level), name, *said, *values)


def verdict_lines(document: Mapping[str, Any]) -> list[str]:
    """Say what the confirmation found, a ratio with its interval a line."""
    found = verdicts.confirmed(document)
    if conclusions.stands_alone(document):
        return [conclusions.conclusion(document), *conclusions.remarks(document)]
    headline = f"Tuned against baseline at {found.level}: {found.word} ({found.basis})."
    if found.stays:
        headline = f"{conclusions.compared(document)} against the baseline at {found.level}:"
        headline += f" {found.word}"
        headline += f", {found.opening[0].lower()}{found.opening[1:]}" if found.is_equal else ""
        headline += f" ({found.basis}): {found.stays}."
    names = dict.fromkeys([found.decided_by, *(one.key for one in HEADLINES)])
    width = max(len(title(name)) for name in names) + 2
    ratios = {name: _ratio(found.ratios[name], unit(name)) for name in names}
    lines = [f"  {title(name):<{width}}{said}" for name, said in ratios.items()]
    mind = conclusions.unproven(document)
    told = [f"{described(document['best']['config'])} is in the bundle: {mind}"] if mind else []
    return [headline, *lines, *conclusions.remarks(document), *told]


def _beside(document: Mapping[str, Any]) -> str:
    """Return the objective, as "goodput:mean", if it is no column of the table anyhow."""
    objective = str(document["objective"])
    columns = {*(str(one) for one in HEADLINES), "ttft:p99"}
    return "" if objective in columns else objective


def _value(level: Mapping[str, Any], objective: str) -> str:
    asked = parse_objective(objective)
    value, unit = read_stat(level, asked.metric, asked.stat), BY_NAME[asked.metric].unit
    return "-" if value is None else f"{short(value)} {unit}"


def _ratio(ratio: Mapping[str, Any], of_unit: str) -> str:
    said = verdicts.told(ratio, of_unit)
    if not said:
        return "no value in some run: no ratio"
    if ratio["mean"] is None:
        return f"{said} (0 in some run: a difference, no ratio)"
    return said if ratio["ci95"] else f"{said} (one pair: no interval)"


def _ms(value: float | None) -> str:
    return "-" if value is None else f"{value:,.0f} ms"
