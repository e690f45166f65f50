"""The ablation: what each changed setting gives to the token rate, the others kept."""

from llmdyno import knobs
from llmdyno.report import drawing, ratios, wording
from llmdyno.report.documents import Material, interval, items, number, part, text
from llmdyno.report.drawing import Drawing, Row
from llmdyno.report.plots import Plot


def draw(material: Material) -> Drawing | None:
    """Draw the ratio of token rates of each knob's change."""
    rows: list[Row] = []
    for change in items(material.study, "ablation"):
        rate = part(change, "effect", "token_rate")
        mean, bounds = number(rate, "ratio"), interval(rate, "ci95")
        if mean is None or mean <= 0:
            continue
        before, after = knobs.show(change.get("from")), knobs.show(change.get("to"))
        rows.append(
            {
                "name": f"{text(change, 'knob')}: {before} → {after}",
                "ratio": mean,
                "low": bounds[0] if bounds else None,
                "high": bounds[1] if bounds else None,
                "shown": wording.with_interval(mean, bounds, wording.ratio),
            }
        )
    return ratios.draw(rows, width_px=2 * drawing.WIDTH_PX - 160)


PLOT = Plot(
    section="ablation",
    title="Token rate by single change",
    says="The token rate of the winner ÷ that of the winner with this one setting changed back,"
    " with its 95 % interval. A line that crosses 1 shows no difference.",
    draw=draw,
    wide=True,
)
