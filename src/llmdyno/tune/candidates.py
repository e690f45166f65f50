"""Configs beside one another: those that a user gives to try first, and how two of them differ."""

from collections.abc import Mapping, Sequence

from llmdyno.errors import UsageError
from llmdyno.knobs import Knob, Value, default, show
from llmdyno.results.configs import described, set_anew
from llmdyno.serve.stack import Stack
from llmdyno.tune.spec import Study


def checked_candidates(
    study: Study, stack: Stack, searched: Sequence[Knob]
) -> list[dict[str, Value]]:
    """Return a study's candidates, each over the baseline and as the search would write it.

    Args:
        study: whose candidates they are; its baseline is checked.
        stack: what is tuned.
        searched: the knobs of the search. One that a candidate sets to the engine's own default is
            left out, as the search leaves it out.

    Raises:
        UsageError: one cannot be served, may change the tokens, or is nothing new.
    """
    names = {knob.name for knob in searched}
    knobs = stack.knobs
    before = effective(study.baseline, knobs)
    seen = {"the baseline": before}
    found: list[dict[str, Value]] = []
    for number, settings in enumerate(study.candidates, 1):
        name = f"candidate {number}"
        config = {**study.baseline, **settings}
        try:
            stack.check(config)
        except UsageError as error:
            raise UsageError(f"{name}: {error}") from None
        takes_effect = effective(config, knobs)
        if not study.tries_altered_output:
            _refuse_altered_output(name, config, changed(before, takes_effect), knobs)
        for other, known in seen.items():
            if takes_effect == known:
                what = described(settings) if settings else "no knob set"
                raise UsageError(
                    f"{name}: {what} is {other} again; leave it out, or set something else."
                )
        seen[name] = takes_effect
        kept = {*takes_effect, *(study.baseline.keys() - names)}
        found.append({knob: value for knob, value in config.items() if knob in kept})
    return found


def _refuse_altered_output(
    name: str, config: Mapping[str, Value], touched: Sequence[str], knobs: Sequence[Knob]
) -> None:
    altering = {knob.name for knob in knobs if knob.alters_output}
    for knob in touched:
        if knob in altering:
            raise UsageError(
                f"{name}: {knob}={show(config.get(knob))} may change the tokens; set"
                f" allow_altered_output = true or leave {knob} out."
            )


def changed(before: Mapping[str, Value], after: Mapping[str, Value]) -> list[str]:
    """Return the knobs that two configs set differently, in the order of `after`.

    Give it what takes effect, lest a default that is written out counts as a change.
    """
    names = dict.fromkeys((*after, *before))
    return [name for name in names if before.get(name) != after.get(name)]


def effective(config: Mapping[str, Value], knobs: Sequence[Knob]) -> dict[str, Value]:
    """Return a config without the values that equal the engine's defaults."""
    defaults = {knob.name: default(knob, None) for knob in knobs}
    # A knob that the engine no longer has stays: an old study is read, too.
    return {name: value for name, value in config.items() if value != defaults.get(name)}


def same(one: Mapping[str, Value], other: Mapping[str, Value], knobs: Sequence[Knob]) -> bool:
    """Tell whether two configs are one in what takes effect."""
    return effective(one, knobs) == effective(other, knobs)


def told(config: Mapping[str, Value], baseline: Mapping[str, Value]) -> str:
    """Return a config by what it sets otherwise than the baseline, where that sets anything."""
    return (set_anew(config, baseline) or "the baseline") if baseline else described(config)
