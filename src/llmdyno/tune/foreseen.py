"""What the predictor would try first, for `--predict-on`: the best few that it simulates."""

from collections.abc import Mapping, Sequence

from llmdyno.errors import UsageError
from llmdyno.knobs import Knob, Value
from llmdyno.predict.asked import Plan
from llmdyno.predict.planning import ranked
from llmdyno.serve.stack import Stack
from llmdyno.tune.spec import Study
from llmdyno.tune.starts import kept
from llmdyno.units import Lengths

FORESEEN_MAX = 3
_RANKED_BY = ("token_rate", "request_rate", "goodput")  # more of one is more of the others
_PROMPT, _ANSWER = Lengths("fixed", 256), Lengths("fixed", 128)  # where the load does not say


def foreseen(
    study: Study,
    stack: Stack,
    searched: Sequence[Knob],
    candidates: Sequence[Mapping[str, Value]],
) -> list[dict[str, Value]]:
    """Return the configs that the predictor finds best on the study's GPU, best first.

    They only order the search: each is measured like any other trial. What cannot be served here,
    is no searched knob or is tried anyway is left out.

    Args:
        study: names the GPU; without one nothing is predicted.
        stack: what is tuned.
        searched: the knobs of the search.
        candidates: configs that are tried anyway.

    Raises:
        UsageError: the GPU, the model, the engine's scheduler, an SLO or the objective is none that
            the predictor knows.
    """
    if not study.predict_on:
        return []
    if study.objective.metric not in _RANKED_BY:
        raise UsageError(
            f"--predict-on {study.predict_on}: ranks configs by token rate, and --objective is"
            f" {study.objective.key}; leave one of the two out."
        )
    own = {knob.name for knob in stack.engine.knobs}
    load = study.load
    plan = Plan(
        model=study.model,
        gpu=study.predict_on,
        engines=(study.engine,),
        isl=study.workload.isl or _PROMPT,
        osl=study.workload.osl or _ANSWER,
        users=() if load.is_open else (study.level,),
        rates=load.rates[-1:],
        duration_s=study.trial_duration_s,
        slos=study.slos,
        baseline={name: value for name, value in study.baseline.items() if name in own},
        allow_altered_output=study.tries_altered_output,
        seed=study.seed,
    )
    names = {knob.name for knob in searched}
    room = max(0, min(FORESEEN_MAX, study.trials - len(candidates)))
    return kept(ranked(plan, names), study, stack, searched, candidates)[:room]
