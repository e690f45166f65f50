"""The chart of one latency at each level: the median with its tail above it.

The plots of TTFT, TPOT and E2E are this chart with another metric. Points rather than bars: a tail
may be thirty times its median, and then only a logarithmic axis shows both, on which a bar's length
means nothing.
"""

import altair as alt

from llmdyno.report import drawing
from llmdyno.report.documents import Material, interval, levels, number
from llmdyno.report.drawing import Drawing, Row
from llmdyno.results import titles, wording

# Filled shapes in Vega's notation: p95 is a bar across, which its own "stroke" is not when filled.
_SHAPES = {"p50": "circle", "p95": "M-1.1,-0.2H1.1V0.2H-1.1Z", "p99": "diamond"}
_DRAWN = ("value", "low", "high", "foot", "head")
_LOGARITHMIC_FROM = 5  # times between the lowest and the highest that is drawn


def draw(metric: str, material: Material) -> Drawing | None:
    """Draw p50 with its interval, and p95 and p99 above it, for each level and run."""
    rows = _rows(metric, material)
    if not rows:
        return None
    ends = [row[end] for row in rows for end in ("value", "low", "high") if row[end] is not None]
    highest, lowest = max(ends), min(ends)
    divisor, unit = (1000, "s") if highest >= 2000 else (1, "ms")
    for row in rows:
        row |= {field: row[field] / divisor for field in _DRAWN if row[field] is not None}
    logarithmic = lowest > 0 and highest / lowest > _LOGARITHMIC_FROM
    title = f"{titles.title(metric)}, {unit}"
    if not logarithmic:
        return _layers(rows, alt.Axis(title=title), alt.Scale(zero=True), material)
    # The label of the lowest point stands below it and needs room.
    low, high = lowest / divisor / 1.8, highest / divisor * 1.25
    axis = alt.Axis(title=f"{title} (logarithmic)", values=drawing.decades(low, high), format="~g")
    scale = alt.Scale(type="log", domain=[low, high], nice=False)
    return _layers(rows, axis, scale, material)


def _layers(rows: list[Row], axis: alt.Axis, scale: alt.Scale, material: Material) -> Drawing:
    y = alt.Y("value:Q", axis=axis, scale=scale)
    base = alt.Chart(drawing.data(rows)).encode(
        x=drawing.level_axis(material),
        xOffset=drawing.run_offset(material.runs),
        color=drawing.run_colour(material.runs),
        tooltip=[
            alt.Tooltip("level:N", title="Level"),
            alt.Tooltip("run:N", title="Run"),
            alt.Tooltip("statistic:N", title="Statistic"),
            alt.Tooltip("shown:N", title="Value"),
        ],
    )
    medians = base.transform_filter("datum.statistic === 'p50'")
    tails = medians.mark_rule(strokeWidth=2, opacity=0.45).encode(
        y=alt.Y("foot:Q", axis=axis), y2="head:Q"
    )
    marks = base.mark_point(filled=True, size=90, opacity=1, strokeWidth=2).encode(
        y=y,
        shape=alt.Shape(
            "statistic:N",
            scale=alt.Scale(domain=list(_SHAPES), range=list(_SHAPES.values())),
            legend=alt.Legend(symbolFillColor="#7b8794", symbolStrokeColor="#7b8794"),
        ),
    )
    intervals = (
        medians.mark_errorbar(ticks={"size": 9})
        .encode(y=alt.Y("low:Q", axis=axis), y2="high:Q", color=alt.value(drawing.INK))
        .transform_filter("isValid(datum.high)")
    )
    labels = medians.mark_text(dy=17).encode(y=y, text="shown:N", color=alt.value(drawing.INK))
    chart = drawing.layered(
        (tails, True), (marks, True), (intervals, drawing.any_has(rows, "high")), (labels, True)
    )
    return chart.properties(width=drawing.WIDTH_PX, height=drawing.HEIGHT_PX)


def _rows(metric: str, material: Material) -> list[Row]:
    rows: list[Row] = []
    for run in material.runs:
        for name, level in levels(run.summary).items():
            found = {statistic: number(level, metric, statistic) for statistic in _SHAPES}
            present = {statistic: value for statistic, value in found.items() if value is not None}
            if "p50" not in present:
                continue
            bounds = interval(level, metric, "p50_ci95") or (None, None)
            rows += [
                {
                    "level": name,
                    "run": run.name,
                    "statistic": statistic,
                    "value": value,
                    "low": bounds[0],
                    "high": bounds[1],
                    "foot": present["p50"],
                    "head": max(present.values()),
                    "shown": wording.milliseconds(value),
                }
                for statistic, value in present.items()
            ]
    return rows
