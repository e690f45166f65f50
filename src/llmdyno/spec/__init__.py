"""What the user asks of a benchmark: target, workload, load, SLOs.

Each struct checks itself, so that wrong input gets one sentence before anything starts. A field
with a Flag is a flag of the command line and a key of a study's file: name, help, default and
reader stand here, and nowhere else.
"""

from llmdyno.spec.bench import PRICE_PER_H, REPEATS_MAX, ROUNDS_MIN, SLOS, UNTIL_BUDGET_S, Bench
from llmdyno.spec.load import ARRIVALS, ARRIVALS_MAX, RAMP_S, Load
from llmdyno.spec.models import Asked, draw, parse_models
from llmdyno.spec.workload import CHAT_OUTPUT_TOKENS, Workload

__all__ = [
    "ARRIVALS",
    "ARRIVALS_MAX",
    "CHAT_OUTPUT_TOKENS",
    "PRICE_PER_H",
    "RAMP_S",
    "REPEATS_MAX",
    "ROUNDS_MIN",
    "SLOS",
    "UNTIL_BUDGET_S",
    "Asked",
    "Bench",
    "Load",
    "Workload",
    "draw",
    "parse_models",
]
