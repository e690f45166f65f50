"""The confirmation: tuned ÷ baseline of each metric over the repeated pairs, with its interval."""

from llmdyno.report import drawing, ratios
from llmdyno.report.documents import Material, interval, number, part
from llmdyno.report.drawing import Drawing, Row
from llmdyno.report.plots import Plot
from llmdyno.results import titles, wording


def draw(material: Material) -> Drawing | None:
    """Draw the ratio of each metric that the confirmation measured."""
    measured = part(material.study, "confirmation", "ratio")
    rows: list[Row] = []
    for metric in measured:
        mean, bounds = number(measured, metric, "mean"), interval(measured, metric, "ci95")
        if mean is None or mean <= 0:
            continue
        rows.append(
            {
                "name": titles.title(metric),
                "ratio": mean,
                "low": bounds[0] if bounds else None,
                "high": bounds[1] if bounds else None,
                "shown": wording.with_interval(mean, bounds, wording.ratio),
            }
        )
    return ratios.draw(rows, width_px=drawing.WIDTH_PX - 70)


PLOT = Plot(
    section="confirmation",
    title="Tuned ÷ baseline, repeated pairs",
    says="Each point is the mean ratio over the pairs, each line its 95 % interval. A line that"
    " crosses 1 shows no difference.",
    draw=draw,
)
