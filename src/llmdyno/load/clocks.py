"""How the clock of another machine stands to ours: what was compared before and after a level."""

from typing import NamedTuple


class Clock(NamedTuple):
    """The difference between a machine's perf_counter_ns and ours."""

    offset_ns: int  # its time minus ours
    uncertainty_ns: int


class Drift(NamedTuple):
    """How far a machine's clock moved against ours during a level."""

    ns: int
    uncertainty_ns: int  # plus or minus
