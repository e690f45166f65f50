"""The search: the objective's value of every trial in the order in which they were tried."""

import altair as alt

from llmdyno import knobs
from llmdyno.report import drawing
from llmdyno.report.documents import Material, items, number, part, text
from llmdyno.report.drawing import Drawing, Row
from llmdyno.report.plots import Plot
from llmdyno.results import titles, wording

# State: (shape, colour). Colours of the same set as the runs', and a shape each besides.
_STATES = {
    "measured": ("circle", "#2b7bba"),
    "pruned": ("diamond", "#8a94a6"),
    "failed": ("cross", "#d1495b"),
    "predicted-infeasible": ("triangle-down", "#a06cb0"),
}
_OTHER_STATE = ("square", "#8a94a6")


def draw(material: Material) -> Drawing | None:
    """Draw a point a trial, those without a value at the foot, and the best value so far."""
    rows = _rows(material)
    if not rows:
        return None
    states = list(dict.fromkeys(row["state"] for row in rows))
    looks_of = [_STATES.get(state, _OTHER_STATE) for state in states]
    x = alt.X(
        "number:Q",
        axis=alt.Axis(title="Trial", tickMinStep=1),
        scale=alt.Scale(domain=[0.5, len(rows) + 0.5]),
    )
    objective = text(material.study, "objective")
    y = alt.Y("value:Q", axis=alt.Axis(title=titles.with_unit(objective) or "Value"))
    base = alt.Chart(drawing.data(rows)).encode(x=x)
    best = base.mark_line(interpolate="step-after", color="#9aa4b0", strokeDash=[4, 3]).encode(
        y=alt.Y("best:Q")
    )
    looks = {
        "color": alt.Color(
            "state:N",
            scale=alt.Scale(domain=states, range=[colour for _, colour in looks_of]),
        ),
        "shape": alt.Shape(
            "state:N",
            scale=alt.Scale(domain=states, range=[shape for shape, _ in looks_of]),
        ),
        "tooltip": [
            alt.Tooltip("number:Q", title="Trial"),
            alt.Tooltip("state:N", title="State"),
            alt.Tooltip("shown:N", title=titles.with_unit(objective) or "Value"),
            alt.Tooltip("failure:N", title="Failure"),
            alt.Tooltip("config:N", title="Settings"),
        ],
    }
    valued = base.transform_filter("isValid(datum.value)")
    points = valued.mark_point(filled=True, size=80, opacity=0.95).encode(y=y, **looks)
    without = base.transform_filter("!isValid(datum.value)")
    feet = without.mark_point(filled=True, size=80).encode(
        y=alt.value(drawing.HEIGHT_PX - 8), **looks
    )
    classes = without.mark_text(angle=270, align="left", dx=10).encode(
        y=alt.value(drawing.HEIGHT_PX - 8), text="failure:N"
    )
    failed = any(row["value"] is None for row in rows)
    chart = drawing.layered(
        (best, drawing.any_has(rows, "best")),
        (points, drawing.any_has(rows, "value")),
        (feet, failed),
        (classes, failed),
    )
    return chart.properties(width=2 * drawing.WIDTH_PX + 60, height=drawing.HEIGHT_PX)


def _rows(material: Material) -> list[Row]:
    lower = titles.lower_is_better(text(material.study, "objective"))
    rows: list[Row] = []
    best: float | None = None
    for place, trial in enumerate(items(material.study, "trials"), start=1):
        value = number(trial, "value")
        state, settings = text(trial, "state"), part(trial, "config")
        # A value that misses an SLO is no best; nor is one of a pruned trial, which is unfinished.
        eligible = state == "measured" and trial.get("slo_met") is not False
        if value is not None and eligible and lower is not None:
            best = value if best is None else (min if lower else max)(best, value)
        rows.append(
            {
                "number": place,
                "value": value,
                "state": state,
                "best": best,
                "shown": wording.significant(value),
                "failure": text(trial, "failure", "class"),
                "config": ", ".join(
                    f"{name}={knobs.show(setting)}" for name, setting in settings.items()
                ),
            }
        )
    return rows


PLOT = Plot(
    section="trials",
    title="The search",
    says="The objective's value of each trial, in the order tried; the dashed line is the best so"
    " far that met the SLOs. A trial without a value stands at the foot with the class of its"
    " failure.",
    draw=draw,
    wide=True,
)
