"""Time to first token at each level: the second of the two headline charts."""

from functools import partial

from llmdyno.report import percentiles
from llmdyno.report.plots import Plot

PLOT = Plot(
    section="headline",
    title="Time to first token (TTFT)",
    says="Median, p95 and p99 at each level, without failed requests. The short line with ends on"
    " the median is its 95 % interval where the run has one. Lower is better.",
    draw=partial(percentiles.draw, "ttft_ms"),
)
