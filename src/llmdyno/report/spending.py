"""What it cost: the study itself, and a token before and after, in money and in energy."""

from llmdyno.report import documents
from llmdyno.report.documents import Document, Run
from llmdyno.report.tables import Cell, Column, Row, Table
from llmdyno.results import findings, wording
from llmdyno.results.metrics import BY_NAME
from llmdyno.results.proportions import worded

_UNIT_COSTS = ("cost_per_million_output", "cost_per_million_total", "joules_per_token")


def table(runs: tuple[Run, ...]) -> Table | None:
    """Return what a token cost at each level in each run, or None if that is not known."""
    known = [
        row
        for row in (BY_NAME[name] for name in _UNIT_COSTS)
        if any(documents.number(level, row.name, "mean") for _, _, level in _levels(runs))
    ]
    if not known:
        return None
    several = len(runs) > 1
    run_column: tuple[Column, ...] = (("Run", "text"),) if several else ()
    return Table(
        caption="What a token cost; in brackets the 95 % interval",
        columns=(
            ("Level", "text"),
            *run_column,
            *((f"{row.title}, {row.unit}", "number") for row in known),
            ("Power, W", "number"),
        ),
        rows=tuple(
            Row(
                heads=((name, 1),),
                cells=(
                    *((Cell(run),) if several else ()),
                    *(_value(level, row.name) for row in known),
                    Cell(
                        wording.significant(documents.number(level, "energy", "watts_mean")),
                        "number",
                    ),
                ),
            )
            for name, run, level in _levels(runs)
        ),
    )


def lines(study: Document, runs: tuple[Run, ...]) -> list[str]:
    """Say in sentences what the study and a token cost, and what is not known of it."""
    said = [of_the_study(study)] if study else []
    for name, missing in (
        (_UNIT_COSTS[0], "What a token costs in money is not known: no --price was given."),
        (_UNIT_COSTS[2], "What a token costs in energy is not known: it was not measured."),
    ):
        if not any(documents.number(level, name, "mean") for _, _, level in _levels(runs)):
            said.append(missing)
        elif study:
            said += _change(study, name)
    return [one for one in said if one]


def of_the_study(study: Document) -> str:
    """Say what the study took: time, and money if a price was given."""
    trials = documents.items(study, "trials")
    parts = [documents.part(trial, "cost_s") for trial in trials]
    whole = documents.number(study, "spent_s")
    spent_s = whole or sum(
        documents.number(cost, key) or 0.0
        for cost in parts
        for key in ("build", "start", "measure")
    )
    if not spent_s:
        return ""
    price = documents.number(study, "spec", "price_per_h")
    money = f" ({wording.significant(price * spent_s / 3600)} in money)" if price else ""
    of = "The study" if whole else "The trials, without the pairs that confirm,"
    return f"{of} took {wording.seconds(spent_s)} of the machine{money}."


def _change(study: Document, name: str) -> list[str]:
    old, new = (
        documents.number(level, name, "mean") for level in findings.levels_that_decide(study)
    )
    if not old or new is None:
        return []
    row = BY_NAME[name]
    title = f"{row.title[0].lower()}{row.title[1:]}"
    if findings.stands(study):
        value = f"{wording.significant(old)} {row.unit}"
        return [f"At {findings.level_of(study)} the {title} is {value}, in one run."]
    said = worded(new / old, name)
    values = f"from {wording.significant(old)} to {wording.significant(new)} {row.unit}"
    return [f"At {findings.level_of(study)} the {title} is {said}: {values}, in one run each."]


def _levels(runs: tuple[Run, ...]) -> list[tuple[str, str, Document]]:
    return [
        (name, run.name, level)
        for name in documents.level_names(runs)
        for run in runs
        if (level := documents.levels(run.summary).get(name)) is not None
    ]


def _value(level: Document, name: str) -> Cell:
    bounds = documents.interval(level, name, "ci95")
    shown = wording.significant(documents.number(level, name, "mean"))
    return Cell(shown, "number", wording.interval(bounds) if bounds else "")
