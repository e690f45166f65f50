"""The chart of one value over the time of each level, the runs overlaid, their windows shaded grey.

The plots of token rate and of TTFT over time are this chart with another field of the samples. It
shows what a mean hides: the ramp, a stall, a rate that sinks as the cache fills.
"""

import altair as alt

from llmdyno.report import drawing
from llmdyno.report.documents import Material, items, level_names, levels, number
from llmdyno.report.drawing import Drawing, Row

_HEIGHT_PX = 130


def draw(field: str, title: str, material: Material) -> Drawing | None:
    """Draw one small chart a level, one under the other, on one scale of colours."""
    charts = [_level(field, title, name, material) for name in level_names(material.runs)]
    drawn = [chart for chart in charts if chart is not None]
    if not drawn:
        return None
    stacked: Drawing = alt.vconcat(*drawn, spacing=14).resolve_scale(color="shared")
    return stacked


def _level(field: str, title: str, name: str, material: Material) -> Drawing | None:
    rows: list[Row] = []
    windows: list[Row] = []
    for run in material.runs:
        level = levels(run.summary).get(name, {})
        # A value that is not there stays in the data as a gap: a line across it would be invented.
        rows += [
            {
                "t_s": number(sample, "t_s"),
                "value": number(sample, field),
                "in_flight": number(sample, "in_flight"),
                "run": run.name,
            }
            for sample in items(level, "samples")
        ]
        start_s, end_s = number(level, "window", "start_s"), number(level, "window", "end_s")
        if start_s is not None and end_s is not None:
            windows.append(
                {
                    "start_s": start_s,
                    "end_s": end_s,
                    "shown": f"{run.name}: {start_s:g} to {end_s:g} s",
                }
            )
    if all(row["value"] is None for row in rows):
        return None
    colour = drawing.run_colour(material.runs)
    lines = alt.Chart(drawing.data(rows)).encode(
        x=alt.X("t_s:Q", axis=alt.Axis(title="Seconds since the level began")),
        y=alt.Y("value:Q", axis=alt.Axis(title=title, tickCount=4), scale=alt.Scale(zero=True)),
        color=colour,
        strokeDash=drawing.run_dash(material.runs),
    )
    points = lines.mark_point(filled=True, size=14, opacity=0.9).encode(
        strokeDash=alt.Undefined,
        tooltip=[
            alt.Tooltip("run:N", title="Run"),
            alt.Tooltip("t_s:Q", title="Second"),
            alt.Tooltip("value:Q", title=title, format=",.3~r"),
            alt.Tooltip("in_flight:Q", title="In flight"),
        ],
    )
    shades = (
        alt.Chart(drawing.data(windows))
        .mark_rect(opacity=0.1, color="#8a94a6")
        .encode(x="start_s:Q", x2="end_s:Q", tooltip=alt.Tooltip("shown:N", title="Window of"))
    )
    curves = lines.mark_line(strokeWidth=1.6)
    chart = drawing.layered((shades, bool(windows)), (curves, True), (points, True))
    return chart.properties(width=drawing.WIDTH_PX, height=_HEIGHT_PX, title=name)
