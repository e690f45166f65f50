"""The tables of runs: levels, errors, the client's health, SLOs, and the facts around them.

Every number of a level stands with how many requests it rests on and how many failed.
"""

from collections.abc import Callable, Mapping

import msgspec

from llmdyno.faults import meaning
from llmdyno.report import documents
from llmdyno.report.documents import Document, Run
from llmdyno.report.side_tables import client_verdict
from llmdyno.report.tables import Cell, Column, Kind, Row, Table, Tone, met_cell
from llmdyno.results import metrics, study_doubts, titles, wording
from llmdyno.results.metrics import BY_NAME, Metric

Path = tuple[Metric, str]  # a metric and the statistic of it that is shown

_SHOWN_STATISTICS = ("p50", "p95", "p99")  # of a latency


def _paths(rows: list[Metric]) -> tuple[Path, ...]:
    """Return what a table of levels shows of these metrics."""
    return tuple(
        (row, statistic)
        for row in rows
        for statistic in (_SHOWN_STATISTICS if row.observe is not None else row.statistics)
    )


def _has(runs: tuple[Run, ...], row: Metric) -> bool:
    """Tell whether any level of these runs has a metric."""
    return any(
        documents.part(level, row.name)
        for run in runs
        for level in documents.levels(run.summary).values()
    )


def by_level(runs: tuple[Run, ...], *, pairs: float = 0) -> Table:
    """Return rates and first tokens of every level, with what they rest on.

    Args:
        runs: in the order of the page.
        pairs: of a study's confirmation; its runs are others than these.
    """
    methods = {
        documents.text(level, "window", "method")
        for run in runs
        for level in documents.levels(run.summary).values()
    }
    # A method that all levels share is named once, in the caption.
    chosen = f" ({methods.pop()})" if len(methods) == 1 and methods != {""} else ""
    basis = {**_BASIS, "Window, s": _window if chosen else _window_and_method}
    of = "each" if len(runs) > 1 else "the baseline"
    single = f". One run of {of}; the pairs of the confirmation decide" if pairs else ""
    caption = f"Numbers of the window{chosen}; in brackets the 95 % interval{single}"
    first = [row for row in metrics.latencies() if row.headline]
    rates = [
        row for row in metrics.rates() if row.headline and (_has(runs, row) or not row.may_lack)
    ]
    return _of_levels(runs, _paths([*rates, *first]), caption, basis)


def later_latencies(runs: tuple[Run, ...]) -> Table:
    """Return the other metrics of every level, of those that some level has."""
    others = [row for row in BY_NAME.values() if not row.headline and _has(runs, row)]
    return _of_levels(runs, _paths(others), "The other latencies of the same window", {})


def by_model(runs: tuple[Run, ...]) -> Table:
    """Return one row for each model of every level, where several were asked at once."""
    rates = [row for row in metrics.rates() if row.headline and not row.may_lack]
    firsts = [row for row in metrics.latencies() if row.headline]
    paths = _paths([*rates, *firsts])
    rows: list[Row] = []
    for run in runs:
        for name, level in documents.levels(run.summary).items():
            for one in documents.items(level, "models"):
                share = documents.number(one, "share")
                heads = (name, *((run.name,) if len(runs) > 1 else ()))
                cells = (
                    Cell(documents.text(one, "model"), "code"),
                    Cell(wording.share(share, 1), "number"),
                    *_values(one, paths),
                    *(_count(one, outcome) for outcome in ("completed", "failed")),
                )
                rows.append(Row(heads=tuple((head, 1) for head in heads), cells=cells))
    run_column: tuple[Column, ...] = (("Run", "text"),) if len(runs) > 1 else ()
    titles: list[Column] = [(_column_title(path), "number") for path in paths]
    return Table(
        caption="Each model of a level, in the level's window",
        columns=(
            *(("Level", "text"), *run_column, ("Model", "code"), ("Requests", "number")),
            *titles,
            *(("Completed", "number"), ("Failed", "number")),
        ),
        rows=tuple(rows),
    )


def _count(document: Document, outcome: str) -> Cell:
    count = documents.number(document, "requests", outcome)
    return Cell(wording.ABSENT if count is None else wording.count(count), "number")


def _of_levels(
    runs: tuple[Run, ...],
    paths: tuple[Path, ...],
    caption: str,
    basis: Mapping[str, Callable[[Document], Cell]],
) -> Table:
    """Return one row a level and run, and a row with the ratio where both runs have the level."""
    run_column: tuple[Column, ...] = (("Run", "text"),) if len(runs) > 1 else ()
    rows: list[Row] = []
    for name in documents.level_names(runs):
        present = [
            (run.name, level)
            for run in runs
            if (level := documents.levels(run.summary).get(name)) is not None
        ]
        group = [
            Row(
                heads=((run_name, 1),) if run_column else (),
                cells=(*_values(level, paths), *(cell(level) for cell in basis.values())),
            )
            for run_name, level in present
        ]
        if len(present) == 2:
            (old_name, old), (new_name, new) = present
            why = study_doubts.unequal(old, new, (old_name, new_name))
            cells = [_ratio(old, new, path, why) for path in paths] + [Cell("")] * len(basis)
            heads = ((f"{new_name} ÷ {old_name}", 1),)
            group.append(Row(heads=heads, cells=tuple(cells), tone="quiet"))
        first = msgspec.structs.replace(group[0], heads=((name, len(group)), *group[0].heads))
        rows += [first, *group[1:]]
    titles: list[Column] = [(_column_title(path), "number") for path in paths]
    basis_kinds: dict[str, Kind] = {"Window, s": "text", "Client": "text"}
    titles += [(title, basis_kinds.get(title, "number")) for title in basis]
    return Table(
        caption=caption, columns=(("Level", "text"), *run_column, *titles), rows=tuple(rows)
    )


def errors(runs: tuple[Run, ...]) -> Table | None:
    """Return the failed requests by class, or None if none failed."""
    rows = [
        Row(
            heads=((name, 1),),
            cells=(
                *([Cell(run.name)] if len(runs) > 1 else []),
                Cell(kind, "code"),
                Cell(wording.count(documents.finite(times)), "number"),
                Cell(meaning(kind)),
            ),
        )
        for run in runs
        for name, level in documents.levels(run.summary).items()
        for kind, times in documents.part(level, "requests", "errors").items()
    ]
    if not rows:
        return None
    run_column: tuple[Column, ...] = (("Run", "text"),) if len(runs) > 1 else ()
    return Table(
        caption="Failed requests by class",
        columns=(
            ("Level", "text"),
            *run_column,
            ("Class", "text"),
            ("Requests", "number"),
            ("Meaning", "text"),
        ),
        rows=tuple(rows),
    )


def objectives(runs: tuple[Run, ...]) -> Table | None:
    """Return the SLOs of each run, with what was measured against them."""
    rows = [
        Row(
            heads=((documents.text(slo, "expr"), 1),),
            cells=(
                *([Cell(run.name)] if len(runs) > 1 else []),
                Cell(
                    documents.text(slo, "at") or documents.text(slo, "level") or wording.ABSENT,
                    "number",
                ),
                Cell(_slo_value(slo), "number"),
                met_cell(slo.get("met")),
            ),
        )
        for run in runs
        for slo in documents.items(run.summary, "slo")
    ]
    if not rows:
        return None
    run_column: tuple[Column, ...] = (("Run", "text"),) if len(runs) > 1 else ()
    return Table(
        caption="Service level objectives",
        columns=(
            ("SLO", "text"),
            *run_column,
            ("Level", "number"),
            ("Measured", "number"),
            ("Outcome", "text"),
        ),
        rows=tuple(rows),
    )


def _slo_value(slo: Document) -> str:
    unit = titles.unit(documents.text(slo, "expr"))
    unit = f" {unit}" if unit else ""
    at_least = documents.number(slo, "at_least")
    if documents.number(slo, "value") is None and at_least is not None:
        return f"≥ {wording.significant(at_least)}{unit}"
    value = wording.significant(documents.number(slo, "value"))
    value += "" if value == wording.ABSENT else unit
    if (share := documents.number(slo, "failed_share")) is not None:
        return f"{value}, but {100 * share:.3g} % of the requests failed"
    return value


def facts(runs: tuple[Run, ...], field: str, caption: str) -> Table | None:
    """Return a part of the summaries ("environment", "spec") side by side, differences marked."""
    sides = [documents.flat(documents.part(run.summary, field)) for run in runs]
    names = list(dict.fromkeys(name for side in sides for name in side))
    if not names:
        return None
    alike = all(side == sides[0] for side in sides)
    shown = sides[:1] if alike else sides
    rows = []
    for name in names:
        values = [side.get(name, wording.ABSENT) for side in shown]
        tone: Tone = "changed" if len(set(values)) > 1 else ""
        rows.append(
            Row(heads=((name, 1),), cells=tuple(Cell(value) for value in values), tone=tone)
        )
    heads = ["Value"] if alike else [run.name for run in runs]
    columns: list[Column] = [("Fact", "text")]
    columns += [(head, "text") for head in heads]
    same = " (the same in both runs)" if alike and len(runs) > 1 else ""
    return Table(caption=caption + same, columns=tuple(columns), rows=tuple(rows))


def _column_title(path: Path) -> str:
    metric, statistic = path
    title = metric.short[0].upper() + metric.short[1:]
    return f"{title}, {metric.unit}" if metric.observe is None else f"{title} {statistic}"


def _values(level: Document, paths: tuple[Path, ...]) -> tuple[Cell, ...]:
    cells = []
    doubtful = documents.texts(level, "doubtful")
    for metric, statistic in paths:
        value = documents.number(level, metric.name, statistic)
        if metric.observe is not None:
            bounds = documents.interval(level, metric.name, f"{statistic}_ci95")
            shown = wording.milliseconds(value)
            detail = ""
            if bounds is not None and value is not None:
                detail = wording.milliseconds_interval(bounds, value)
        else:
            bounds = documents.interval(level, metric.name, "ci95")
            shown = wording.significant(value)
            detail = wording.interval(bounds) if bounds else ""
        if metric.name in doubtful:  # the doubts say why
            cells.append(Cell(f"{shown} ?", "number", detail, "bad"))
        else:
            cells.append(Cell(shown, "number", detail))
    return tuple(cells)


def _ratio(old: Document, new: Document, path: Path, why: list[tuple[str, str]]) -> Cell:
    """Return the ratio of two levels, with a mark and the codes if it is not of equal loads."""
    metric, statistic = path
    before, after = (documents.number(level, metric.name, statistic) for level in (old, new))
    if not before or after is None:
        return Cell(wording.ratio(None), "number")
    shown = wording.ratio(after / before)
    if not why:
        return Cell(shown, "number")
    codes = ", ".join(dict.fromkeys(code for code, _ in why))  # the doubts say it in full
    return Cell(f"{shown} ?", "number", codes, "bad")


def _outcomes(outcome: str) -> Callable[[Document], Cell]:
    def cell(level: Document) -> Cell:
        times = documents.number(level, "requests", outcome)
        return Cell(
            wording.count(times), "number", tone="bad" if times and outcome == "failed" else ""
        )

    return cell


def _window(level: Document) -> Cell:
    start_s, end_s = (documents.number(level, "window", end) for end in ("start_s", "end_s"))
    if start_s is None or end_s is None:
        return Cell("whole level")
    return Cell(f"{wording.significant(start_s)} to {wording.significant(end_s)}")


def _window_and_method(level: Document) -> Cell:
    method = documents.text(level, "window", "method")
    return msgspec.structs.replace(_window(level), detail=method)


_BASIS: Mapping[str, Callable[[Document], Cell]] = {
    "Completed": _outcomes("completed"),
    "Failed": _outcomes("failed"),
    "Cut": _outcomes("cut"),
    "Window, s": _window,
    "Client": client_verdict,
}
