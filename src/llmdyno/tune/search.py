"""The search: which config to try next. Optuna's TPE over the engine's own knobs, ask and tell.

The space comes from the knobs' `search` ranges. Knobs that alter the output are left out unless the
user allows them. A knob that has an effect only under another's value is proposed only then. The
search also learns from configs that the user gives. It keeps nothing on disk: a study that goes on
tells it again what its ledger knows. (Optuna's journal file waits for ever for the lock of a killed
process.)
"""

import warnings
from collections.abc import Mapping, Sequence

import msgspec
import optuna
from optuna.trial import Trial, TrialState

from llmdyno.errors import UsageError, nearest
from llmdyno.knobs import Config, Knob, Value, default, show

# Optuna proposes its first trials at random, until its model has data. Its default of ten is too
# many for a study of few trials.
STARTUP_TRIALS_MAX = 10
STARTUP_SHARE = 0.5
_REPEATS_MAX = 50


def space(
    knobs: Sequence[Knob],
    *,
    only: Sequence[str],
    allow_altered_output: bool,
    baseline: Config,
) -> list[Knob]:
    """Return the knobs that are searched; those that others depend on come first.

    A knob that has an effect only under another's value is among them if that other is searched
    too, or has the value in every trial.

    Args:
        knobs: of the engine and the front.
        only: names of those to search; empty: all that have a range to search.
        allow_altered_output: whether knobs that may change the tokens are among them.
        baseline: what every trial has for the knobs that are not searched.

    Raises:
        UsageError: a name is unknown, has no range, may change the tokens, or has no effect.
    """
    by_name = {knob.name: knob for knob in knobs}
    for name in only:
        if only.count(name) > 1:
            raise UsageError(f"--search {name}: named twice; once is enough.")
        if name not in by_name:
            raise UsageError(f"--search {name}: no such knob.{nearest(name, by_name)}")
        if not by_name[name].search:
            raise UsageError(f"--search {name}: has no range to search; set it with --set.")
        if by_name[name].alters_output and not allow_altered_output:
            raise UsageError(f"--search {name}: may change the tokens; add --allow-altered-output.")
    chosen = [
        knob
        for knob in knobs
        if knob.search
        and (knob.name in only or not only)
        and (allow_altered_output or not knob.alters_output)
    ]
    searched = {knob.name for knob in chosen}
    bites = []
    for knob in chosen:
        if knob.needs is None or knob.needs[0] in searched:
            bites.append(knob)
            continue
        other, wanted = knob.needs
        actual = baseline.get(other, default(by_name[other], None))
        if actual == wanted:
            bites.append(msgspec.structs.replace(knob, needs=None))
        elif only:
            raise UsageError(
                f"--search {knob.name}: has no effect while {other}={show(actual)}; add"
                f" --set {other}={show(wanted)} or search {other} too."
            )
    return sorted(bites, key=lambda knob: knob.needs is not None)


class Search:
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

    def ask(self, known: Sequence[Mapping[str, Value]]) -> dict[str, Value] | None:
        """Propose a config that is not among `known`; None when the space seems used up."""
        for _ in range(_REPEATS_MAX):
            trial = self._study.ask()
            config = self._config(trial)
            if config not in known:
                self._asked = trial
                return config
            self._study.tell(trial, state=TrialState.FAIL)
        return None

    def tell(self, value: float | None, constraints: Mapping[str, float]) -> None:
        """Take the result of the config that was proposed, or given, last.

        A config that cannot be served is told as a constraint that was missed, not as a failed
        trial: the sampler forgets failed trials and would ask for their like again and again.

        Args:
            value: of the objective; None: the config cannot be served.
            constraints: by SLO, how far it was missed as a share of its limit; met if ≤ 0.
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
    if knob.kind in {"bool", "choice"}:
        value: Value | None = trial.suggest_categorical(knob.name, _choices(knob))
        return value
    low, high = knob.search
    if knob.kind == "int":
        return trial.suggest_int(knob.name, int(low), int(high), log=knob.search_log)
    return trial.suggest_float(knob.name, float(low), float(high), log=knob.search_log)


def _choices(knob: Knob) -> list[Value | None]:
    # Leaving the choice to the engine is one of the choices.
    unset = [None] if default(knob, None) is None else []
    return [*knob.search, *unset]


def _may_suggest(knob: Knob, value: Value | None) -> bool:
    if knob.kind in {"bool", "choice"}:
        return value in _choices(knob)
    low, high = knob.search
    return isinstance(value, int | float) and float(low) <= value <= float(high)
