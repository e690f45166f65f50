"""The distance from the GPU's limit at each level, and what was predicted beside what was measured.

The levels' documents carry the figures, where GPU, model and config are known.
"""

from llmdyno.report import documents
from llmdyno.report.documents import Run
from llmdyno.report.tables import Cell, Row, Table
from llmdyno.results import limit_words, wording


def table(runs: tuple[Run, ...]) -> Table | None:
    """Return the table of limits, or None if no level knows its own."""
    rows: list[Row] = []
    peaks = ""  # of a CPU: when they were measured
    unknown: dict[str, None] = {}  # of settings, what the predictions leave out
    for run in runs:
        for name, level in documents.levels(run.summary).items():
            limit = documents.part(level, "limit")
            if documents.number(limit, "share") is None:
                continue
            peaks = peaks or limit_words.peaks_measured(limit)
            unknown[limit_words.left_out(documents.text(limit, "not_simulated"))] = None
            cells = (
                Cell(run.name),
                Cell(limit_words.distance(limit)),
                Cell(_share(documents.number(limit, "mbu")), "number"),
                Cell(_share(documents.number(limit, "mfu")), "number"),
                *(_pair(level, limit, *named) for named in limit_words.PREDICTED),
            )
            rows.append(Row(heads=((name, 1),), cells=cells))
    if not rows:
        return None
    source = "the CPU's peaks" if peaks else "data sheets"
    beside = [f". {one}" for one in (*unknown, peaks) if one]
    return Table(
        caption=f"Distance from the machine's limit; measured, and below it predicted from {source}"
        f" alone, with the interval that holds four of five{''.join(beside)}",
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
    return wording.share(value)


def _pair(
    level: documents.Document, limit: documents.Document, metric: str, stat: str, name: str
) -> Cell:
    measured = documents.number(level, metric, stat)
    mean = documents.number(limit, "predicted", name, "mean")
    bounds = documents.interval(documents.part(limit, "predicted"), name, "ci80")
    detail = f"predicted {wording.with_interval(mean, bounds)}" if mean is not None else ""
    return Cell(wording.significant(measured), "number", detail=detail)
