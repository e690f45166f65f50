"""The chart of ratios with their intervals against 1: a forest plot.

The plots of the confirmation and of the ablation are this chart. An interval that crosses the line
at 1 shows no difference, and one sees it.
"""

from collections.abc import Sequence

import altair as alt

from llmdyno.report import drawing
from llmdyno.report.drawing import Drawing, Row

_ROW_PX = 44


def draw(rows: Sequence[Row], *, width_px: int) -> Drawing | None:
    """Draw a point a row ("name", "ratio", "low", "high", "shown") on a logarithmic axis."""
    if not rows:
        return None
    ends = [row[field] for row in rows for field in ("ratio", "low", "high") if row[field]]
    # The axis always shows 1, and leaves room for the labels of the outermost points.
    domain = [min([*ends, 1]) / 1.5, max([*ends, 1]) * 1.5]
    x = alt.X(
        "ratio:Q",
        scale=alt.Scale(type="log", domain=domain, nice=False),
        axis=alt.Axis(title="Ratio (logarithmic)", format="~g", grid=True),
    )
    base = alt.Chart(drawing.data(rows)).encode(
        y=alt.Y("name:N", sort=None, axis=alt.Axis(title=None, labelLimit=260)),
        tooltip=[alt.Tooltip("name:N", title="Of"), alt.Tooltip("shown:N", title="Ratio")],
    )
    one = (
        alt.Chart(drawing.data([{"ratio": 1}]))
        .mark_rule(color="#7b8794", strokeDash=[4, 3])
        .encode(x=x)
    )
    intervals = (
        base.transform_filter("isValid(datum.high)")
        .mark_rule(strokeWidth=2.5, color=drawing.ONE_RUN[0])
        .encode(x=alt.X("low:Q"), x2="high:Q")
    )
    points = base.mark_point(filled=True, size=90, opacity=1, color=drawing.ONE_RUN[0]).encode(x=x)
    labels = base.mark_text(dy=-12).encode(x=x, text="shown:N")
    chart = drawing.layered(
        (one, True), (intervals, drawing.any_has(rows, "high")), (points, True), (labels, True)
    )
    return chart.properties(width=width_px, height=_ROW_PX * len(rows))
