"""How times to first token are distributed at each level."""

from functools import partial

from llmdyno.report import distributions
from llmdyno.report.plots import Plot

PLOT = Plot(
    section="distribution",
    title="TTFT, request by request",
    says="How many requests had which time to first token. Two peaks are two kinds of requests,"
    " such as those that found a slot and those that waited; a median between them describes"
    " neither.",
    draw=partial(distributions.draw, "ttft_ms"),
)
