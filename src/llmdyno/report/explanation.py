"""Why it is faster: what held the server back at each level, before and after."""

from llmdyno.report import documents
from llmdyno.report.documents import Run
from llmdyno.report.tables import Cell, Row, Table
from llmdyno.results.bottleneck import bottleneck


def held_back(runs: tuple[Run, ...]) -> Table | None:
    """Return the bottleneck of each level in each run, with its reason, or None."""
    sides = [documents.levels(run.summary) for run in runs]
    rows = [
        Row(
            heads=((name, 1),),
            cells=tuple(_cell(side.get(name)) for side in sides),
        )
        for name in documents.level_names(runs)
    ]
    if not rows:
        return None
    names = [run.name for run in runs] if len(runs) > 1 else ["Held back by"]
    return Table(
        caption="What held the server back",
        columns=(("Level", "text"), *((name, "text") for name in names)),
        rows=tuple(rows),
    )


def _cell(level: documents.Document | None) -> Cell:
    if level is None:
        return Cell("not measured", tone="quiet")
    found = bottleneck(level)
    return Cell(found.title, detail=found.why, tone="" if found.name else "quiet")
