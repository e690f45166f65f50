"""Latency against load: what a first token takes at the rate that the server delivers."""

import altair as alt

from llmdyno.report import drawing
from llmdyno.report.documents import Material, levels, number
from llmdyno.report.drawing import Drawing, Row
from llmdyno.report.plots import Plot
from llmdyno.results import wording

_LOGARITHMIC_FROM = 5  # times between the shortest and the longest


def draw(material: Material) -> Drawing | None:
    """Draw a line a run through its levels; None where no run has two."""
    rows = _rows(material)
    if not any(sum(row["run"] == run.name for row in rows) > 1 for run in material.runs):
        return None
    lowest, highest = (end(row["ms"] for row in rows) for end in (min, max))
    divisor, unit = (1000, "s") if highest >= 2000 else (1, "ms")
    for row in rows:
        row["y"] = row["ms"] / divisor
    title = f"TTFT p50, {unit}"
    y = alt.Y("y:Q", axis=alt.Axis(title=title), scale=alt.Scale(zero=True))
    if lowest > 0 and highest / lowest > _LOGARITHMIC_FROM:
        low, high = lowest / divisor / 1.5, highest / divisor * 1.8
        axis = alt.Axis(
            title=f"{title} (logarithmic)", values=drawing.decades(low, high), format="~g"
        )
        y = alt.Y("y:Q", axis=axis, scale=alt.Scale(type="log", domain=[low, high], nice=False))
    base = alt.Chart(drawing.data(rows)).encode(
        x=alt.X("rate:Q", axis=alt.Axis(title="Output tokens/s, all users together")),
        y=y,
        color=drawing.run_colour(material.runs),
        tooltip=[
            alt.Tooltip("level:N", title="Level"),
            alt.Tooltip("run:N", title="Run"),
            alt.Tooltip("shown:N", title="TTFT p50"),
            alt.Tooltip("rate:Q", title="tok/s", format=",.3~r"),
        ],
    )
    lines = base.mark_line(strokeWidth=1.6).encode(
        order="place:Q", strokeDash=drawing.run_dash(material.runs)
    )
    points = base.mark_point(filled=True, size=70, opacity=1)
    labels = base.mark_text(dy=-11).encode(text="short:N", color=alt.value(drawing.INK))
    chart = drawing.layered((lines, True), (points, True), (labels, True))
    return chart.properties(width=drawing.WIDTH_PX, height=drawing.HEIGHT_PX)


def _rows(material: Material) -> list[Row]:
    rows: list[Row] = []
    for run in material.runs:
        for place, (name, level) in enumerate(levels(run.summary).items()):
            ms, rate = number(level, "ttft_ms", "p50"), number(level, "token_rate", "mean")
            if ms is None or rate is None:
                continue
            rows.append(
                {
                    "run": run.name,
                    "level": name,
                    "short": name.removesuffix(" users").removesuffix(" user"),
                    "place": place,
                    "ms": ms,
                    "rate": rate,
                    "shown": wording.milliseconds(ms),
                }
            )
    return rows


PLOT = Plot(
    section="latency",
    title="Latency against load",
    says="The median time to first token at the token rate that was reached; the figure at a point"
    " is its level. To the right and down is better. Where a line turns upwards, the server is"
    " full.",
    draw=draw,
)
