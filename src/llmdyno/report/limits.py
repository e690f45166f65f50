"""The distance from the GPU's limit at each level, and what was predicted beside what was measured.

The levels' documents carry the figures, where GPU, model and config are known.
"""

from llmdyno.report import documents
from llmdyno.report.documents import Run
from llmdyno.report.tables import Cell, Row, Table
from llmdyno.results import wording


def table(runs: tuple[Run, ...]) -> Table | None:
    """Return the table of limits, or None if no level knows its own."""
    rows: list[Row] = []
    for run in runs:
        for name, level in documents.levels(run.summary).items():
            limit = documents.part(level, "limit")
            share = documents.number(limit, "share")
            if share is None:
                continue
            mbu, mfu = documents.number(limit, "mbu"), documents.number(limit, "mfu")
            which = "bandwidth" if mfu is None or (mbu or 0.0) >= mfu else "FLOP/s"
            bound = documents.text(limit, "bound_by")
            cells = (
                Cell(run.name),
                Cell(f"{share:.0%} of what this GPU's {which} allows; bound by {bound}"),
                Cell(_share(mbu), "number"),
                Cell(_share(mfu), "number"),
                _pair(level, limit, "token_rate", "mean", "token_rate"),
                _pair(level, limit, "ttft_ms", "p50", "ttft_ms_p50"),
                _pair(level, limit, "tpot_ms", "p50", "tpot_ms_p50"),
            )
            rows.append(Row(heads=((name, 1),), cells=cells))
    if not rows:
        return None
    return Table(
        caption="Distance from the GPU's limit; measured, and below it predicted from data sheets"
        " alone, with the interval that holds four of five",
        columns=(
            ("Level", "text"),
            ("Run", "text"),
            ("Distance", "text"),
            ("MBU", "number"),
            ("MFU", "number"),
            ("Tokens/s", "number"),
            ("TTFT p50, ms", "number"),
            ("TPOT p50, ms", "number"),
        ),
        rows=tuple(rows),
    )


def _share(value: float | None) -> str:
    return wording.ABSENT if value is None else f"{value:.0%}"


def _pair(
    level: documents.Document, limit: documents.Document, metric: str, stat: str, name: str
) -> Cell:
    measured = documents.number(level, metric, stat)
    mean = documents.number(limit, "predicted", name, "mean")
    bounds = documents.interval(documents.part(limit, "predicted"), name, "ci80")
    detail = f"predicted {wording.with_interval(mean, bounds)}" if mean is not None else ""
    return Cell(wording.significant(measured), "number", detail=detail)
