"""Token rate at every interval of each level."""

from functools import partial

from llmdyno.report import over_time
from llmdyno.report.plots import Plot

PLOT = Plot(
    section="time",
    title="Token rate over time",
    says="Output tokens per second at every interval. The grey span is the window that counts.",
    draw=partial(over_time.draw, "token_rate", "tokens/s"),
)
