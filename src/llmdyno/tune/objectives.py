"""What a study makes better: whether it can be measured and confirmed, and as what.

An objective that has no way to a value is refused before anything starts. One that could have had
a value and has none is refused after the baseline: a search without a number finds nothing.
"""

from llmdyno.errors import ServerError, UsageError
from llmdyno.results.measures import COUNTS_WHAT_MEETS_ONE, judges_requests
from llmdyno.results.metrics import BY_NAME
from llmdyno.tune.spec import Study
from llmdyno.units import Lengths


def check(study: Study) -> None:
    """Refuse an objective, or an SLO, that can never have a value in this study.

    Raises:
        UsageError: names it and what would be right.
    """
    objective = study.objective
    metric = BY_NAME[objective.metric]
    flag = f"--objective {objective}"
    for text, name in ((flag, metric.name), *((f"--slo {s.expr}", s.metric) for s in study.slos)):
        if BY_NAME[name].open_loop and not study.load.is_open:
            raise UsageError(f"{text}: closed-loop users have no due times; leave out '_due'.")
        if BY_NAME[name].needs_price and study.price_per_h is None:
            raise UsageError(f"{text}: needs a price, e.g. --price 3.50/h.")
        if BY_NAME[name].needs_slo and not judges_requests(study.slos):
            raise UsageError(f"{text}: {COUNTS_WHAT_MEETS_ONE}")
    if metric.observe is None and metric.rate is None:
        raise UsageError(
            f"{flag}: cannot be confirmed, as no interval of it is known; use token_rate or"
            " another metric."
        )
    osl, most = study.workload.osl, study.workload.max_tokens
    if "later tokens" in metric.rests_on and (most == 1 or (osl and _always_one(osl))):
        limit = f"--osl {osl}" if osl else "--max-tokens 1"
        raise UsageError(
            f"{flag}: {limit} gives outputs of one token, which have none; ask for longer ones"
            " or use ttft."
        )


def _always_one(lengths: Lengths) -> bool:
    """Tell whether no output can be longer than a token."""
    if lengths.shape == "uniform":
        return round(lengths.b) == 1
    return round(lengths.a) == 1 and not lengths.b


def require_value(study: Study, value: float | None, *, of: str, flag: str) -> None:
    """Refuse to go on with a measurement that has no value of the objective.

    Args:
        study: which one.
        value: what was measured.
        of: whose it is: "the baseline".
        flag: what makes that measurement longer: "--duration".

    Raises:
        ServerError: there is no value.
    """
    if value is None:
        why = (
            f"nothing to measure it by happened in its window; give a longer {flag} or another"
            " --objective."
        )
        if "energy" in BY_NAME[study.objective.metric].rests_on:
            why = (
                "no energy counter can be read here (NVML has those of GPUs, RAPL those of CPUs,"
                " for root); give another --objective."
            )
        raise ServerError(
            "requests-failed",
            f"{of} has no value of --objective {study.objective} at {study.compared_at}: {why}"
            " What was measured is kept.",
        )
