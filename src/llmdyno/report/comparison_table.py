"""The table of a comparison on its page: a row a level and metric, with interval and verdict."""

import msgspec

from llmdyno.report.documents import Document, text
from llmdyno.report.tables import Cell, Row, Table, Tone
from llmdyno.results import comparison_words as words
from llmdyno.results.findings import Verdict
from llmdyno.results.metrics import BY_NAME

_TONES: dict[str, Tone] = {"better": "good", "worse": "bad", "not comparable": "quiet"}


def verdict_of(comparison: Document) -> Verdict:
    """Return the sentence of a comparison's document with its tone."""
    found = text(comparison, "verdict")
    said = text(comparison, "said")
    match found:
        case "better" | "worse":
            return Verdict(sentence=said, tone=found)
        case "no difference":
            return Verdict(sentence=said, tone="same")
    return Verdict(sentence=said, tone="open")


def compared(comparison: Document) -> Table:
    """Return the rows of a comparison's document as a table."""
    found = msgspec.convert(comparison["rows"], list[words.Row])
    levels = [row.at for row in found]
    rows = [
        Row(
            heads=(
                *(((row.at, levels.count(row.at)),) if row.at not in levels[:place] else ()),
                (row.title, 1),
            ),
            cells=(
                Cell(words.value(row, "before"), "number"),
                Cell(words.value(row, "after"), "number"),
                Cell(words.difference(row), "number"),
                Cell(words.interval(row), "number"),
                Cell(
                    words.verdict(row), "text", ", ".join(row.doubts), _TONES.get(row.verdict, "")
                ),
            ),
        )
        for place, row in enumerate(found)
    ]
    lower = sorted({row.metric for row in found if BY_NAME[row.metric].better == "higher"})
    higher = ", ".join(BY_NAME[metric].short for metric in lower)
    better = f"; higher is better for {higher}, lower for the others" if higher else ""
    return Table(
        caption=f"Before and after, with 95 % intervals of the difference{better}",
        columns=(
            ("Level", "text"),
            ("Metric", "text"),
            ("Before", "number"),
            ("After", "number"),
            ("Difference", "number"),
            ("95 % interval", "number"),
            ("Verdict", "text"),
        ),
        rows=tuple(rows),
        has_groups=True,
    )
