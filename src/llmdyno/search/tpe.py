"""Optuna's TPE over the engine's own knobs, ask and tell.

It keeps nothing on disk: a study that goes on tells it again what its ledger knows. (Optuna's
journal file waits for ever for the lock of a killed process.)
"""

import warnings
from collections.abc import Mapping, Sequence

import optuna
from optuna.trial import Trial, TrialState

from llmdyno.knobs import Knob, Value, default

# Optuna proposes its first trials at random, until its model has data. Its default of ten is too
# many for a study of few trials.
STARTUP_TRIALS_MAX = 10
STARTUP_SHARE = 0.5
_REPEATS_MAX = 50


class TpeSearch:
    """Proposes configs and learns from their results.

    Args:
        knobs: what space() returned.
        trials: how many trials there will be in all.
        maximise: whether larger values are better.
        seed: of the sampler.
        fixed: values that every config has.
    """

    def __init__(
        self,
        knobs: Sequence[Knob],
        *,
        trials: int,
        maximise: bool,
        seed: int,
        fixed: Mapping[str, Value],
    ) -> None:
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self._knobs = [knob for knob in knobs if knob.name not in fixed]
        self._fixed = dict(fixed)
        startup = max(2, min(STARTUP_TRIALS_MAX, round(trials * STARTUP_SHARE)))
        with warnings.catch_warnings():
            # `group` is marked experimental; it is what makes conditional knobs joint.
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            sampler = optuna.samplers.TPESampler(
                seed=seed, n_startup_trials=startup, multivariate=True, group=True
            )
        self._study = optuna.create_study(
            sampler=sampler, direction="maximize" if maximise else "minimize"
        )
        self._asked: Trial | None = None
        self._startup = startup
        self.reason = ""  # why the last config was proposed, in words for a person

    def give(self, config: Mapping[str, Value]) -> None:
        """Take a config that the search did not propose; the next tell() is about it.

        The sampler learns from those of its values that it could have suggested itself; a searched
        knob that is unset or beyond its range is as if this trial did not have it.
        """
        values = {
            knob.name: value
            for knob in self._knobs
            if self._bites(knob, config)
            and _may_suggest(knob, value := config.get(knob.name, default(knob, None)))
        }
        self._study.enqueue_trial(values)
        self._asked = self._study.ask()
        for knob in self._knobs:
            if knob.name in values:
                _suggest(self._asked, knob)

    def start(
        self, config: Mapping[str, Value], value: float, constraints: Mapping[str, float]
    ) -> None:
        """Take the baseline and its result, before the first question."""
        TpeSearch.give(self, config)
        self.tell(value, constraints)

    def ask(self, known: Sequence[Mapping[str, Value]]) -> dict[str, Value] | None:
        """Propose a config that is not among `known`; None when the space seems used up."""
        for _ in range(_REPEATS_MAX):
            trial = self._study.ask()
            config = self._config(trial)
            if config not in known:
                self._asked = trial
                learning = trial.number < self._startup
                self.reason = "at random, to learn from" if learning else "what TPE's model favours"
                return config
            self._study.tell(trial, state=TrialState.FAIL)
        return None

    def tell(
        self,
        value: float | None,
        constraints: Mapping[str, float],
        error: float = 0.0,  # noqa: ARG002  # this sampler knows no errors
    ) -> None:
        """Take the result of the config that was proposed, or given, last.

        A config that cannot be served is told as a constraint that was missed, not as a failed
        trial: the sampler forgets failed trials and would ask for their like again and again.

        Args:
            value: of the objective; None: the config cannot be served.
            constraints: by SLO, how far it was missed as a share of its limit; met if ≤ 0.
            error: of the value's logarithm.
        """
        assert self._asked is not None, "ask first"
        trial, self._asked = self._asked, None
        for name, excess in {**constraints, "served": 1.0 if value is None else -1.0}.items():
            trial.set_constraint(name, excess)
        self._study.tell(trial, 0.0 if value is None else value)

    def _config(self, trial: Trial) -> dict[str, Value]:
        """Return what the trial suggests, without the values that the engine has by itself."""
        config: dict[str, Value] = dict(self._fixed)
        for knob in self._knobs:
            if not self._bites(knob, config):
                continue
            value = _suggest(trial, knob)
            if value is not None and value != default(knob, None):
                config[knob.name] = value
        return config

    def _bites(self, knob: Knob, config: Mapping[str, Value]) -> bool:
        if knob.needs is None:
            return True
        other, wanted = knob.needs
        return config.get(other, _default_of(self._knobs, other)) == wanted


def _default_of(knobs: Sequence[Knob], name: str) -> Value | None:
    return next((default(knob, None) for knob in knobs if knob.name == name), None)


def _suggest(trial: Trial, knob: Knob) -> Value | None:
    if _is_listed(knob):
        value: Value | None = trial.suggest_categorical(knob.name, _choices(knob))
        return value
    low, high = knob.search
    if knob.kind == "int":
        return trial.suggest_int(knob.name, int(low), int(high), log=knob.search_log)
    return trial.suggest_float(knob.name, float(low), float(high), log=knob.search_log)


def _is_listed(knob: Knob) -> bool:
    """Tell whether each of its values is named, so that none lies between two."""
    return knob.kind in {"bool", "choice"} or knob.narrowed == "values"


def _choices(knob: Knob) -> list[Value | None]:
    # Leaving the choice to the engine is one of the choices.
    unset = [None] if default(knob, None) is None else []
    return [*knob.search, *unset]


def _may_suggest(knob: Knob, value: Value | None) -> bool:
    if _is_listed(knob):
        return value in _choices(knob)
    low, high = knob.search
    return isinstance(value, int | float) and float(low) <= value <= float(high)
