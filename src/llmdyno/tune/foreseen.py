"""What the predictor would try first, for `--predict-on`: the best few that it simulates."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from llmdyno import workload
from llmdyno.errors import UsageError
from llmdyno.knobs import Knob, Value
from llmdyno.predict.asked import Plan
from llmdyno.predict.planning import forecasts, no_room, ranked
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
    names = {knob.name for knob in searched}
    room = max(0, min(FORESEEN_MAX, study.trials - len(candidates)))
    configs = ranked(_plan(study, stack), names)
    return kept(configs, study, stack, searched, candidates)[:room]


def expected(
    study: Study, stack: Stack, configs: Sequence[Mapping[str, Value]]
) -> list[dict[str, Any]]:
    """Return what the predictor expects of configs on the study's GPU; without one nothing.

    Returns:
        For each what predict.planning.forecasts() does.

    Raises:
        UsageError: as foreseen() does.
    """
    if not study.predict_on:
        return []
    own = _own(stack)
    found = forecasts(_plan(study, stack), [own(config) for config in configs])
    return [{**one, "config": dict(config)} for one, config in zip(found, configs, strict=True)]


def does_not_fit(study: Study, stack: Stack) -> Callable[[Mapping[str, Value]], str | None]:
    """Return what tells by the memory arithmetic that a config cannot start: the sum, or None."""
    if not study.predict_on:
        return lambda _: None
    own, why = _own(stack), no_room(_plan(study, stack))
    return lambda config: why(own(config))


def _own(stack: Stack) -> Callable[[Mapping[str, Value]], dict[str, Value]]:
    """Return what leaves only the engine's knobs of a config: the predictor knows no front."""
    names = {knob.name for knob in stack.engine.knobs}
    return lambda config: {name: value for name, value in config.items() if name in names}


def _simulated(study: Study) -> dict[str, Any]:
    """Return what says the study's prompts to the predictor; nothing where it knows only lengths.

    A data set, a trace and sessions at a rate it does not simulate.
    """
    asked = study.workload
    kind = workload.load(asked.name)
    at_rate = workload.in_turns(kind) and study.load.is_open
    if asked.dataset or workload.has_times(kind) or at_rate:
        return {}
    return {"workload": asked.name, "turns": asked.turns, "prefix_share": asked.prefix_share}


def _plan(study: Study, stack: Stack) -> Plan:
    """Return a study as the predictor takes it."""
    load = study.load
    usual = workload.usual_isl(workload.load(study.workload.name))
    return Plan(
        **_simulated(study),
        model=study.model,
        gpu=study.predict_on,
        engines=(study.engine,),
        isl=study.workload.isl or usual or _PROMPT,
        osl=study.workload.osl or _ANSWER,
        users=() if load.is_open else (int(study.level),),
        rates=(study.level,) if load.rates else (),
        duration_s=study.trial_duration_s,
        slos=study.slos,
        baseline=_own(stack)(study.baseline),
        allow_altered_output=study.tries_altered_output,
        seed=study.seed,
    )
