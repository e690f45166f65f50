"""Token rate at each level, a bar a run: the first of the two headline charts."""

import altair as alt

from llmdyno.report import drawing
from llmdyno.report.documents import Material, interval, levels, number
from llmdyno.report.drawing import Drawing, Row
from llmdyno.report.plots import Plot
from llmdyno.results import wording


def draw(material: Material) -> Drawing | None:
    """Draw a bar a run and level, with the interval as a line where there is one."""
    rows = _rows(material)
    if not rows:
        return None
    base = alt.Chart(drawing.data(rows)).encode(
        x=drawing.level_axis(material),
        xOffset=drawing.run_offset(material.runs),
        tooltip=[
            alt.Tooltip("level:N", title="Level"),
            alt.Tooltip("run:N", title="Run"),
            alt.Tooltip("shown:N", title="Token rate"),
        ],
    )
    axis = alt.Axis(title="Output tokens/s, all users together")
    bars = base.mark_bar(cornerRadiusTopLeft=2, cornerRadiusTopRight=2).encode(
        y=alt.Y("value:Q", axis=axis), color=drawing.run_colour(material.runs)
    )
    intervals = (
        base.mark_errorbar(ticks={"size": 8}, color=drawing.INK)
        .encode(y=alt.Y("low:Q", axis=axis), y2="high:Q")
        .transform_filter("isValid(datum.high)")
    )
    labels = base.mark_text(dy=-8).encode(y=alt.Y("top:Q", axis=axis), text="label:N")
    chart = drawing.layered(
        (bars, True), (intervals, drawing.any_has(rows, "high")), (labels, True)
    )
    return chart.properties(width=drawing.WIDTH_PX, height=drawing.HEIGHT_PX)


def _rows(material: Material) -> list[Row]:
    rows: list[Row] = []
    for run in material.runs:
        for name, level in levels(run.summary).items():
            value = number(level, "token_rate", "mean")
            if value is None:
                continue
            bounds = interval(level, "token_rate", "ci95")
            rows.append(
                {
                    "level": name,
                    "run": run.name,
                    "value": value,
                    "low": bounds[0] if bounds else None,
                    "high": bounds[1] if bounds else None,
                    "top": max(value, bounds[1] if bounds else value),
                    "label": wording.significant(value),
                    "shown": wording.with_interval(value, bounds) + " tokens/s",
                }
            )
    return rows


PLOT = Plot(
    section="headline",
    title="Token rate",
    says="Output tokens per second inside the window, all users together, at each level."
    " The thin line is the 95 % interval where the run has one. Higher is better.",
    draw=draw,
)
