"""Which knobs a study searches. The search itself is the wing `search`.

The space comes from the knobs' `search` ranges. Knobs that alter the output are left out unless the
user allows them. A knob that has an effect only under another's value is proposed only then. The
search also learns from configs that the user gives. It keeps nothing on disk: a study that goes on
tells it again what its ledger knows.
"""

from collections.abc import Sequence

import msgspec

from llmdyno.errors import UsageError, nearest
from llmdyno.knobs import Config, Knob, Value, default, parse_settings, show
from llmdyno.search.own import OwnSearch as Search

__all__ = ["Search", "name_of", "space"]

_LOG_FROM = 8  # a range of a knob that has none of its own is walked in ratios from so wide on


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
        only: those to search, as `--search` names them: KNOB for its own range, KNOB=LOW..HIGH or
            KNOB=VALUE/VALUE/... for the user's; empty: all that have a range to search.
        allow_altered_output: whether knobs that may change the tokens are among them.
        baseline: what every trial has for the knobs that are not searched.

    Raises:
        UsageError: a name is unknown, has no range, no value but the baseline's, may change the
            tokens, or has no effect; or the user's range is none.
    """
    asked = {name_of(each): each for each in only}
    knobs = [_narrowed(knob, asked.get(knob.name, "")) for knob in knobs]
    by_name = {knob.name: knob for knob in knobs}
    names = [name_of(each) for each in only]
    for name in names:
        if names.count(name) > 1:
            raise UsageError(f"--search {name}: named twice; once is enough.")
        if name not in by_name:
            raise UsageError(f"--search {name}: no such knob.{nearest(name, by_name)}")
        _check_named(by_name[name], baseline, allow_altered_output=allow_altered_output)
    chosen = [
        knob
        for knob in knobs
        if knob.search
        and (knob.name in names or not only)
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


def _check_named(knob: Knob, baseline: Config, *, allow_altered_output: bool) -> None:
    """Refuse a knob that is to be searched and cannot be.

    Raises:
        UsageError: it has no range, no value but the baseline's, or may change the tokens.
    """
    if not knob.search:
        raise UsageError(
            f"--search {knob.name}: has no range of its own; say which values, as in"
            f" --search {knob.name}={_example(knob)}, or set it with --set."
        )
    actual = baseline.get(knob.name, default(knob, None))
    if set(knob.search) == {actual}:
        raise UsageError(
            f"--search {knob.name}: {show(actual)} is all that there is to try, and the baseline"
            " has it; name another knob."
        )
    if knob.alters_output and not allow_altered_output:
        raise UsageError(
            f"--search {knob.name}: may change the tokens; add --allow-altered-output."
        )


def name_of(asked: str) -> str:
    """Return the name of the knob in an entry of `--search`, which may say its values, too."""
    return asked.partition("=")[0]


def _narrowed(knob: Knob, asked: str) -> Knob:
    """Return a knob with the range or the values that the user asks for.

    Raises:
        UsageError: they are none that the knob takes, or fewer than two.
    """
    _, equals, said = asked.partition("=")
    if not equals:
        return knob
    is_range = ".." in said
    words = said.split("..") if is_range else said.split("/")
    values = [_value(knob, word.strip(), asked) for word in words]
    if is_range and knob.kind not in {"int", "float"}:
        raise UsageError(f"--search {asked}: only numbers have a range; write its values with /.")
    if knob.kind in {"int", "float"} and not is_range:
        values.sort(key=float)
    if is_range and not (len(values) == 2 and float(values[0]) < float(values[1])):
        raise UsageError(f"--search {asked}: a range is LOW..HIGH, the lower number first.")
    if len(set(values)) < len(values):
        raise UsageError(f"--search {asked}: names a value twice.")
    if len(values) < 2:
        raise UsageError(f"--search {asked}: one value is no search; write --set {asked}.")
    in_ratios = knob.search_log
    if knob.kind in {"int", "float"}:
        low, high = float(values[0]), float(values[-1])
        in_ratios = low > 0 and (knob.search_log if knob.search else high / low >= _LOG_FROM)
    return msgspec.structs.replace(
        knob,
        search=tuple(values),
        search_log=in_ratios,
        narrowed="range" if is_range else "values",
    )


def _value(knob: Knob, word: str, asked: str) -> Value:
    alone = msgspec.structs.replace(knob, needs=None)
    try:
        return parse_settings([f"{knob.name}={word}"], [alone])[knob.name]
    except UsageError as error:
        raise UsageError(f"--search {asked}: {error}") from None


def _example(knob: Knob) -> str:
    if knob.kind == "choice":
        return "/".join(show(choice) for choice in knob.choices[:2])
    if knob.kind == "text":
        return "VALUE/VALUE" + (f", where each VALUE is {knob.form}" if knob.form else "")
    return "true/false" if knob.kind == "bool" else "1/2" if knob.kind == "int" else "0.5/1"
