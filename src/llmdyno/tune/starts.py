"""What a search knows before its first question: the baseline, and earlier studies."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Protocol

from llmdyno import store
from llmdyno.errors import StorageError, UsageError
from llmdyno.knobs import Knob, Value
from llmdyno.results import prefixes, wording
from llmdyno.results.bottleneck import bottleneck
from llmdyno.serve.stack import Stack
from llmdyno.tune.candidates import effective
from llmdyno.tune.entries import Step
from llmdyno.tune.ledger import Ledger
from llmdyno.tune.runner import Runner
from llmdyno.tune.spec import Study
from llmdyno.tune.steps import excess
from llmdyno.tune.summaries import last_level

_BEST_OF_EACH = 3  # configs taken from an earlier study
_SHARE = 0.5  # of the trials, that earlier studies may take
_REPEATED_MIN = 0.1  # from this share of the input tokens on, a prefix cache is tried first


class Beginning(Protocol):
    """What is told of the baseline before it proposes anything."""

    def start(
        self, config: Mapping[str, Value], value: float, constraints: Mapping[str, float]
    ) -> None:
        """Take the baseline and its result."""


def begin(search: Beginning, runner: Runner, reference: Step) -> None:
    """Tell a search of the baseline, and which way the guide would turn each knob.

    Args:
        search: that asks nothing yet.
        runner: of the study.
        reference: the baseline, measured as a trial is.
    """
    study = runner.study
    if reference.value is not None:
        search.start(reference.config, reference.value, excess(study, runner.folder, reference))
    hint = getattr(search, "hint", None)
    level = last_level(runner.folder, reference)
    if hint is None or level is None:
        return
    found = bottleneck(level)
    turns = _turned(runner.stack, found.name)
    if turns:
        runner.say(f"The baseline's bottleneck is its {found.title}: {found.why}.")
        hint(turns)


def suggested(
    runner: Runner,
    reference: Step,
    searched: Sequence[Knob],
    candidates: Sequence[Mapping[str, Value]],
) -> tuple[list[dict[str, Value]], str]:
    """Return what the reference run says to try first, and why.

    Where prompts repeat and the server computes them again, the engine's prefix cache comes first.

    Args:
        runner: of the study.
        reference: the baseline, measured as a trial is.
        searched: the knobs of the search.
        candidates: configs that are tried anyway.
    """
    study, stack = runner.study, runner.stack
    level = last_level(runner.folder, reference) or {}
    again = prefixes.computed_again(level) or 0.0
    if again < _REPEATED_MIN:
        return [], ""
    turned = [{name: turn} for name, turn in _turned(stack, "repeats").items()]
    room = max(0, study.trials - len(candidates))
    found = kept(turned, study, stack, searched, candidates)[:room]
    return found, f"{wording.share(again)} of the input tokens repeat and are computed again"


def _turned(stack: Stack, name: str) -> dict[str, Value]:
    """Return which way the guide turns knobs when a load has a trait, such as a bottleneck."""
    return {knob.name: turn for knob in stack.knobs for when, turn in knob.when if when == name}


def learnt(
    study: Study,
    stack: Stack,
    searched: Sequence[Knob],
    candidates: Sequence[Mapping[str, Value]],
    *,
    going_on: bool,
) -> list[dict[str, Value]]:
    """Return the best configs of the studies that are to be learnt from, best first.

    What cannot be served here, may change the tokens or is no searched knob is left out.

    Args:
        study: that learns.
        stack: what is tuned.
        searched: the knobs of the search.
        candidates: configs that are tried anyway.
        going_on: the study began before; an earlier one that is gone meanwhile is left out.

    Raises:
        UsageError: a study is not there, or is of another engine.
    """
    room = max(0, min(round(study.trials * _SHARE), study.trials - len(candidates)))
    earlier = (
        config for name in study.learn_from for config in _best_of(study, name, going_on=going_on)
    )
    return kept(earlier, study, stack, searched, candidates)[:room]


def kept(
    configs: Iterable[Mapping[str, Value]],
    study: Study,
    stack: Stack,
    searched: Sequence[Knob],
    candidates: Sequence[Mapping[str, Value]],
) -> list[dict[str, Value]]:
    """Return what a study can begin with of some configs: their searched knobs over its baseline.

    What cannot be served, lies outside of what the user lets be tried, or has the effect of the
    baseline, of a candidate or of one before it, is left out.
    """
    by_name = {knob.name: knob for knob in searched}
    names = by_name.keys()
    fixed = {name: value for name, value in study.baseline.items() if name not in names}
    seen = [effective(config, stack.knobs) for config in (study.baseline, *candidates)]
    found: list[dict[str, Value]] = []
    for config in configs:
        whole = {**study.baseline, **{k: v for k, v in config.items() if k in names}}
        wanted = effective(whole, stack.knobs)
        try:
            stack.check(whole)
        except UsageError:
            continue
        if not all(by_name[k].may_try(value) for k, value in wanted.items() if k in names):
            continue
        if wanted not in seen:
            seen.append(wanted)
            found.append({**wanted, **fixed})
    return found


def _best_of(study: Study, name: str, *, going_on: bool) -> list[dict[str, Value]]:
    """Return the best configs of an earlier study: its winner, then its trials by value."""
    try:
        folder = Path(name) if Path(name).is_dir() else store.find(name)
        ledger = Ledger(folder)
    except (UsageError, StorageError):
        if going_on:
            return []
        raise
    if ledger.began is None:
        if going_on:
            return []
        raise UsageError(f"--learn-from {name}: holds no study; `dyno runs` lists them.")
    earlier = ledger.began.spec
    if earlier.engine != study.engine:
        raise UsageError(
            f"--learn-from {name}: is a study of {earlier.engine}; its knobs are not those of"
            f" {study.engine}."
        )
    sign = 1.0 if earlier.objective.maximise else -1.0
    trials = [
        step
        for step in ledger.of("trial")
        if step.state == "measured" and step.value is not None and step.slo_met is not False
    ]
    trials.sort(key=lambda step: sign * (step.value or 0.0), reverse=True)
    winner = ledger.winner()
    first = [winner] if winner is not None else []
    configs = [step.config for step in (*first, *trials)]
    unique = [config for n, config in enumerate(configs) if config not in configs[:n]]
    return unique[:_BEST_OF_EACH]
