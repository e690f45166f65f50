"""Median time to first token at every interval of each level."""

from functools import partial

from llmdyno.report import over_time
from llmdyno.report.plots import Plot

PLOT = Plot(
    section="time",
    title="TTFT p50 over time",
    says="Median time to first token of the requests whose first token came in that interval."
    " A gap is an interval without one. The grey span is the window that counts.",
    draw=partial(over_time.draw, "ttft_ms_p50", "TTFT p50, ms"),
)
