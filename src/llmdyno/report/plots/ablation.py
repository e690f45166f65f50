"""The ablation: what each changed setting gives to the objective, the others kept."""

from llmdyno import knobs
from llmdyno.report import drawing, ratios
from llmdyno.report.documents import Material, interval, items, number, part, text
from llmdyno.report.drawing import Drawing, Row
from llmdyno.report.plots import Plot
from llmdyno.results import titles, wording


def draw(material: Material) -> Drawing | None:
    """Draw the ratio of the objective's values of each knob's change."""
    rows: list[Row] = []
    decided_by = text(part(material.study, "confirmation"), "decided_by")
    for change in items(material.study, "ablation"):
        # Of an objective that was 0 there is no ratio; older studies know the token rate only.
        known = number(change, "effect", decided_by, "ratio") is not None
        metric = decided_by if known else "token_rate"
        effect = part(change, "effect", metric)
        mean, bounds = number(effect, "ratio"), interval(effect, "ci95")
        if mean is None or mean <= 0:
            continue
        of = "" if metric == "token_rate" else f"{titles.title(metric)}, "
        before, after = knobs.show(change.get("from")), knobs.show(change.get("to"))
        rows.append(
            {
                "name": f"{of}{text(change, 'knob')}: {before} → {after}",
                "ratio": mean,
                "low": bounds[0] if bounds else None,
                "high": bounds[1] if bounds else None,
                "shown": wording.with_interval(mean, bounds, wording.ratio),
            }
        )
    return ratios.draw(rows, width_px=2 * drawing.WIDTH_PX - 160)


PLOT = Plot(
    section="ablation",
    title="The effect of each single change",
    says="The token rate (or the objective that is named) of the winner ÷ that of the winner with"
    " this one setting changed back, with its 95 % interval. A line that crosses 1 shows no"
    " difference.",
    draw=draw,
    wide=True,
)
