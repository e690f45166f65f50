"""The chart of how one latency is distributed at each level, the runs overlaid.

The plots of TTFT and ITL are this chart with another metric. Its height is a share for each equal
ratio, so the areas of two runs are alike though one has a tail thirty times as long.
"""

import math

import altair as alt

from llmdyno.report import drawing
from llmdyno.report.documents import Document, Material, finite, level_names, levels, number, part
from llmdyno.report.drawing import Drawing, Row
from llmdyno.results import titles, wording

_HEIGHT_PX = 110


def draw(metric: str, material: Material) -> Drawing | None:
    """Draw one small chart a level, one under the other, on one axis."""
    rows = {
        name: [
            row
            for run in material.runs
            for row in _rows(levels(run.summary).get(name, {}), metric, run.name)
        ]
        for name in level_names(material.runs)
    }
    every = [row for of_level in rows.values() for row in of_level]
    if not every:
        return None
    slow = max(row["ms"] for row in every) >= 2000
    domain = [min(row["ms"] for row in every), max(row["ms"] for row in every)]
    if domain[0] == domain[1]:
        domain = [domain[0] / 1.1, domain[1] * 1.1]
    scaled = [end / 1000 for end in domain] if slow else domain
    for row in every:
        row["x"] = row["ms"] / 1000 if slow else row["ms"]
    title = f"{titles.title(metric)}, {'s' if slow else 'ms'} (logarithmic)"
    ticks = drawing.decades(*scaled)
    axis = alt.Axis(title=title, values=ticks if len(ticks) > 1 else alt.Undefined, format="~g")
    x = alt.X("x:Q", axis=axis, scale=alt.Scale(type="log", domain=scaled, nice=False))
    charts = [_level(name, of_level, x, material) for name, of_level in rows.items() if of_level]
    stacked: Drawing = alt.vconcat(*charts, spacing=14).resolve_scale(color="shared")
    return stacked


def _level(name: str, rows: list[Row], x: alt.X, material: Material) -> Drawing:
    base = alt.Chart(drawing.data(rows)).encode(
        x=x,
        y=alt.Y("density:Q", axis=alt.Axis(title="Share", labels=False, tickCount=3)),
        color=drawing.run_colour(material.runs),
        tooltip=[
            alt.Tooltip("run:N", title="Run"),
            alt.Tooltip("shown:N", title="Between"),
            alt.Tooltip("share:N", title="Share"),
        ],
    )
    areas = base.mark_area(interpolate="step-after", opacity=0.18)
    lines = base.mark_line(interpolate="step-after", strokeWidth=1.4).encode(
        strokeDash=drawing.run_dash(material.runs)
    )
    chart = drawing.layered((areas, True), (lines, True))
    return chart.properties(width=drawing.WIDTH_PX, height=_HEIGHT_PX, title=name)


def _rows(level: Document, metric: str, run: str) -> list[Row]:
    """Return a point for the lower end of each bin, and one for the upper end of the last."""
    told = part(level, "histograms", metric)
    low, high = number(told, "low_ms"), number(told, "high_ms")
    shares = [finite(one) or 0.0 for one in told.get("shares") or []]
    if not low or not high or low <= 0 or high <= low or not shares:
        return []
    ratio = (high / low) ** (1 / len(shares))
    width = math.log10(ratio)
    rows = [
        {
            "ms": low * ratio**place,
            "density": share / width,
            "share": wording.share(share, 1),
            "shown": " to ".join(
                wording.milliseconds(low * ratio ** (place + after)) for after in (0, 1)
            ),
            "run": run,
        }
        for place, share in enumerate(shares)
    ]
    return [*rows, {**rows[-1], "ms": high}]
