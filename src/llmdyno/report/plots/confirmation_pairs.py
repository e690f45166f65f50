"""The pairs of the confirmation one by one: before and after, as they were measured."""

import altair as alt

from llmdyno.report import documents, drawing
from llmdyno.report.documents import Material
from llmdyno.report.drawing import Drawing, Row
from llmdyno.report.plots import Plot
from llmdyno.results import titles, wording

_ARMS = {"before": "Baseline", "after": "Tuned"}


def draw(material: Material) -> Drawing | None:
    """Draw both values of each pair and a line between them."""
    rows = [
        {
            "pair": documents.pair_number(run),
            "arm": _ARMS.get(documents.text(run, "arm"), documents.text(run, "arm")),
            "value": documents.number(run, "value"),
            "shown": wording.significant(documents.number(run, "value")),
        }
        for run in documents.confirmation_runs(material.study)
    ]
    rows = [row for row in rows if row["value"] is not None and row["pair"] is not None]
    return _layers(rows, documents.text(material.study, "objective")) if rows else None


def _layers(rows: list[Row], objective: str) -> Drawing:
    base = alt.Chart(drawing.data(rows)).encode(
        x=alt.X("pair:O", axis=alt.Axis(title="Pair")),
        y=alt.Y(
            "value:Q",
            axis=alt.Axis(title=titles.with_unit(objective) or "Value"),
            scale=alt.Scale(zero=True),
        ),
    )
    links = base.mark_line(color="#9aa4b0", strokeWidth=1.5).encode(detail="pair:O")
    points = base.mark_point(filled=True, size=90, opacity=1).encode(
        color=alt.Color(
            "arm:N",
            scale=alt.Scale(domain=list(_ARMS.values()), range=list(drawing.TWO_RUNS)),
        ),
        tooltip=[
            alt.Tooltip("pair:O", title="Pair"),
            alt.Tooltip("arm:N", title="Run"),
            alt.Tooltip("shown:N", title=titles.with_unit(objective) or "Value"),
        ],
    )
    chart: Drawing = alt.layer(links, points)
    return chart.properties(width=drawing.WIDTH_PX, height=drawing.HEIGHT_PX - 60)


PLOT = Plot(
    section="confirmation",
    title="Pair by pair",
    says="The objective's value in both runs of each pair. Where the order of the two colours"
    " changes from pair to pair, there is no steady difference.",
    draw=draw,
)
