"""Time per output token at each level: how quickly text flows once it has begun."""

from functools import partial

from llmdyno.report import percentiles
from llmdyno.report.plots import Plot

PLOT = Plot(
    section="latency",
    title="Time per output token (TPOT)",
    says="Median, p95 and p99 at each level, without failed requests. The short line with ends on"
    " the median is its 95 % interval where the run has one. Lower is better.",
    draw=partial(percentiles.draw, "tpot_ms"),
)
