"""Token rate against TTFT: what each trial reached of both, and which none beats in both."""

from collections.abc import Sequence

import altair as alt

from llmdyno import knobs
from llmdyno.report import drawing
from llmdyno.report.documents import Material, items, number, part, text
from llmdyno.report.drawing import Drawing, Row
from llmdyno.report.plots import Plot
from llmdyno.results import wording

_KINDS = {"on the front": "#2b7bba", "beaten in both": "#8a94a6"}
_SHAPES = {"on the front": "circle", "beaten in both": "diamond"}
_LOGARITHMIC_FROM = 5


def draw(material: Material) -> Drawing | None:
    """Draw a point a trial, those that no other beats joined by a line."""
    rows = _rows(material)
    if len(rows) < 2:
        return None
    spread = max(row["ttft_ms"] for row in rows) / max(1e-9, min(row["ttft_ms"] for row in rows))
    wide = spread > _LOGARITHMIC_FROM and min(row["ttft_ms"] for row in rows) > 0
    low, high = (end(row["ttft_ms"] for row in rows) for end in (min, max))
    axis = alt.Axis(title="TTFT p50, ms")
    scale = alt.Scale(zero=False, padding=20)
    if wide:
        axis = alt.Axis(
            title="TTFT p50, ms (logarithmic)",
            values=drawing.decades(low / 1.3, high * 1.3),
            format="~g",
        )
        scale = alt.Scale(type="log", domain=[low / 1.3, high * 1.3], nice=False)
    base = alt.Chart(drawing.data(rows)).encode(
        x=alt.X("ttft_ms:Q", axis=axis, scale=scale),
        y=alt.Y(
            "token_rate:Q", axis=alt.Axis(title="Output tokens/s"), scale=alt.Scale(zero=False)
        ),
    )
    kinds = [kind for kind in _KINDS if any(row["kind"] == kind for row in rows)]
    front = base.transform_filter("datum.kind === 'on the front'").mark_line(
        interpolate="step-after", color="#9aa4b0", strokeDash=[4, 3]
    )
    points = base.mark_point(filled=True, size=80, opacity=0.95).encode(
        color=alt.Color(
            "kind:N", scale=alt.Scale(domain=kinds, range=[_KINDS[kind] for kind in kinds])
        ),
        shape=alt.Shape(
            "kind:N", scale=alt.Scale(domain=kinds, range=[_SHAPES[kind] for kind in kinds])
        ),
        tooltip=[
            alt.Tooltip("name:N", title="Trial"),
            alt.Tooltip("rate_shown:N", title="Token rate"),
            alt.Tooltip("ttft_shown:N", title="TTFT p50"),
            alt.Tooltip("config:N", title="Settings"),
        ],
    )
    # Those that are beaten lie close together: their names would cover one another.
    labels = base.transform_filter("datum.kind === 'on the front'").mark_text(dy=-11)
    labels = labels.encode(text="name:N")
    chart = drawing.layered((front, True), (points, True), (labels, True))
    return chart.properties(width=2 * drawing.WIDTH_PX + 60, height=drawing.HEIGHT_PX)


def front(points: Sequence[tuple[float, float]]) -> list[bool]:
    """Tell of each (rate, wait) whether no other has more rate and less wait."""
    return [
        not any(
            (other[0] >= rate and other[1] <= wait) and other != (rate, wait) for other in points
        )
        for rate, wait in points
    ]


def _rows(material: Material) -> list[Row]:
    rows: list[Row] = []
    for place, trial in enumerate(items(material.study, "trials"), start=1):
        told = part(trial, "headlines")
        rate, ttft_ms = number(told, "token_rate"), number(told, "ttft_ms_p50")
        if rate is None or ttft_ms is None:
            continue
        config = part(trial, "config")
        rows.append(
            {
                "name": text(trial, "id") or str(place),
                "token_rate": rate,
                "ttft_ms": ttft_ms,
                "rate_shown": f"{wording.significant(rate)} tok/s",
                "ttft_shown": wording.milliseconds(ttft_ms),
                "config": ", ".join(f"{name}={knobs.show(one)}" for name, one in config.items()),
            }
        )
    kept = front([(row["token_rate"], row["ttft_ms"]) for row in rows])
    for row, is_kept in zip(rows, kept, strict=True):
        row["kind"] = "on the front" if is_kept else "beaten in both"
    return rows


PLOT = Plot(
    section="trials",
    title="Token rate against TTFT",
    says="What each trial reached of both at the level of the trials; up and to the left is better."
    " No other trial beats those on the dashed line in both, which have their names.",
    draw=draw,
    wide=True,
)
