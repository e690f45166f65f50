"""How the gaps between tokens are distributed at each level."""

from functools import partial

from llmdyno.report import distributions
from llmdyno.report.plots import Plot

PLOT = Plot(
    section="distribution",
    title="Gaps between tokens (ITL)",
    says="How many output tokens came after which gap. A second peak at longer gaps is prefill that"
    " interrupts decode.",
    draw=partial(distributions.draw, "itl_ms"),
)
