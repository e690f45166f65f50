"""End-to-end latency at each level: what a whole answer takes."""

from functools import partial

from llmdyno.report import percentiles
from llmdyno.report.plots import Plot

PLOT = Plot(
    section="latency",
    title="End-to-end latency (E2E)",
    says="Median, p95 and p99 at each level, without failed requests. The short line with ends on"
    " the median is its 95 % interval where the run has one. Lower is better.",
    draw=partial(percentiles.draw, "e2e_ms"),
)
