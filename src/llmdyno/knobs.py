"""Knobs: what can be set, between which bounds, and what each setting does.

A knob is a row of an engine's table, not a class. Everything that speaks of settings reads the row:
the check before a start, the tuner's space, the guide of `dyno knobs`, the report's table of
settings. A config is a plain mapping from knob names to values; a knob that is not in it has the
engine's own default. What a plug-in's author may import is in `__all__`.
"""

import re
import sys
from collections.abc import Mapping, Sequence
from typing import Literal

import msgspec

from llmdyno.errors import UsageError, nearest

__all__ = (
    "Config",
    "Knob",
    "MemoryShare",
    "Value",
    "accepts",
    "at_least",
    "check",
    "check_version",
    "default",
    "parse_settings",
    "show",
)

Value = bool | int | float | str
Config = Mapping[str, Value]


class MemoryShare(msgspec.Struct, frozen=True, kw_only=True):
    """How the size of an engine's KV cache follows from a share of the GPU's memory.

    cache = share x (total - not_of) - holds
    """

    # Memory subtracted before the share applies; memory that the share includes beside the cache.
    not_of: tuple[Literal["others", "weights", "activations"], ...] = ()
    holds: tuple[Literal["others", "weights", "activations"], ...] = ()


class Knob(msgspec.Struct, frozen=True, kw_only=True):
    """One setting of an engine or a front."""

    name: str
    layer: Literal["build", "engine", "front"]
    kind: Literal["int", "float", "bool", "choice", "text"]
    does: str  # what it does, in a sentence or two
    turn: str  # when to turn it, and which way
    trades: str  # what it costs: what gets worse when it makes something better
    source: str  # where the facts come from
    # Defaults by engine version, newest first: (lowest version it holds from, value).
    # None means that the engine decides by itself. The last row's version is the first that has it.
    defaults: tuple[tuple[str, Value | None], ...]
    until: str = ""  # the first version that no longer has it; empty: the newest still does
    low: float | None = None  # bounds of what is accepted, for int and float
    high: float | None = None
    choices: tuple[Value, ...] = ()  # what is accepted, for choice
    pattern: str = ""  # what is accepted, for text: a regular expression, and what it means
    form: str = ""  # the pattern in words, to go on "must be …"
    conflicts: str = ""  # the settings or models that exclude it
    # What the tuner tries: (low, high) for int and float, values for choice and bool; empty: never.
    search: tuple[Value, ...] = ()
    narrowed: Literal["", "range", "values"] = ""  # the user said what `search` holds
    search_log: bool = False  # the tuner's steps are ratios, not differences
    search_multiple: int = 1  # the whole numbers that the tuner tries are multiples of it
    unit: str = ""
    alters_output: bool = False  # the tokens may differ: tuned only when the user allows it
    # It takes effect only when another knob has this value, e.g. ("dynamic_split_fuse", False).
    needs: tuple[str, Value] | None = None
    instead: str = ""  # the knob that has the same effect when the other knob has another value
    # The purpose that it shares with knobs of other engines, in their words; see equivalents.py.
    means: str = ""  # e.g. "sequences a step"
    but: str = ""  # how it differs from those knobs, to go on "in ENGINE: KNOB, but …"
    # Which way to turn it for a bottleneck (queue, prefill, decode, host, kv) or for prompts that
    # begin alike (repeats), where that is known: "raise" or "lower" for a number, else the value.
    # `turn` says the same in words.
    when: tuple[tuple[str, Value], ...] = ()
    memory_share: MemoryShare | None = None  # for a knob that is a share of the GPU's memory

    def takes_effect(self, knobs: "Sequence[Knob]", given: Config) -> bool:
        """Return whether it has an effect beside these settings; without one it is refused.

        Args:
            knobs: all that may be set.
            given: the other settings.
        """
        if self.needs is None:
            return True
        other, wanted = self.needs
        by_name = {one.name: one for one in knobs}
        return show(given.get(other, default(by_name[other], None))) == show(wanted)

    def tried(self, number: float) -> Value:
        """Return the value that the tuner tries next to a number; of a knob that is a number."""
        low, high = self.bounds
        if self.kind == "int":
            whole = round(number / self.search_multiple) * self.search_multiple
            return int(min(high, max(low, whole)))
        return min(high, max(low, float(f"{number:.4g}")))

    @property
    def bounds(self) -> tuple[float, float]:
        """The lowest and the highest number that are tried; of a knob that is a number."""
        return float(self.search[0]), float(self.search[-1])

    def may_try(self, value: Value) -> bool:
        """Tell whether the user lets a value be tried; without a word of theirs, each may."""
        if self.narrowed == "range" and isinstance(value, int | float):
            low, high = self.bounds
            return low <= value <= high
        return not self.narrowed or value in self.search

    def unit_of(self, value: object) -> str:
        """Return the unit behind a value: "token" behind 1, "tokens" behind 2; else empty."""
        if value != 1 or len(self.unit) <= len("ms"):  # "s" and "ms" are no plurals
            return self.unit
        if self.unit.endswith("ies"):
            return f"{self.unit.removesuffix('ies')}y"
        return self.unit.removesuffix("es" if self.unit.endswith("sses") else "s")

    @property
    def only_with(self) -> str:
        """Beside which other setting it takes effect, to go on "a knob …"."""
        if self.needs is None:
            return "that always takes effect"
        return f"that takes effect only with {self.needs[0]}={show(self.needs[1])}"


def default(knob: Knob, version: str | None) -> Value | None:
    """Return the knob's default in that engine version (None: the newest known)."""
    for lowest, value in knob.defaults:
        if version is None or at_least(version, lowest):
            return value
    return knob.defaults[-1][1]


def at_least(version: str, lowest: str) -> bool:
    """Return whether a version is `lowest` or newer.

    A release's candidates are older than itself, 1.3.0rc20 < 1.3.0, but a bound without a candidate
    means the whole line: 1.3.0rc20 is at least 1.3.
    """
    return _version_key(version, candidate=sys.maxsize) >= _version_key(lowest, candidate=0)


def check_version(config: Config, knobs: Sequence[Knob], version: str) -> None:
    """Refuse knobs that this version of the engine does not have.

    Raises:
        UsageError: names the knob and the versions that have it.
    """
    for knob in knobs:
        first = knob.defaults[-1][0]
        gone = bool(knob.until) and at_least(version, knob.until)
        if knob.name in config and (gone or not at_least(version, first)):
            ended = f" and was removed in {knob.until}" if knob.until else ""
            raise UsageError(
                f"{knob.name}={show(config[knob.name])}: version {version} does not have it;"
                f" it came with {first}{ended}."
            )


def parse_settings(
    settings: Sequence[str], knobs: Sequence[Knob], *, whole: bool = True
) -> dict[str, Value]:
    """Turn `--set name=value` texts into a config.

    Args:
        settings: the texts.
        knobs: those that may be set.
        whole: they are all of the config, so it is checked; a part is checked with the rest.

    Raises:
        UsageError: a text is not name=value, or check() refuses the result.
    """
    config: dict[str, Value] = {}
    by_name = {knob.name: knob for knob in knobs}
    for text in settings:
        name, equals, raw = text.partition("=")
        if not equals:
            raise UsageError(f"--set {text}: write knob=value, e.g. --set max_num_seqs=64.")
        if name not in by_name:
            given = dict(one.partition("=")[::2] for one in settings)
            raise UsageError(f"--set {text}: no knob '{name}'.{_nearest_knob(name, knobs, given)}")
        if name in config:
            raise UsageError(f"--set {text}: '{name}' is set twice.")
        config[name] = _from_text(by_name[name], raw)
    if whole:
        check(config, knobs)
    return config


def check(config: Config, knobs: Sequence[Knob]) -> None:
    """Refuse unknown names, wrong types, values out of bounds and knobs without effect.

    Raises:
        UsageError: one sentence that names the knob, the value and what would be right.
    """
    by_name = {knob.name: knob for knob in knobs}
    for name, value in config.items():
        if name not in by_name:
            said = _nearest_knob(name, knobs, config)
            raise UsageError(f"{name}={show(value)}: no such knob.{said}")
        knob = by_name[name]
        if not _fits(knob, value):
            # A number in quotes in a file is a text; the message shows the quotes.
            plain = isinstance(value, str) and knob.kind in {"int", "float", "bool"}
            quoted = plain and re.fullmatch(r"[\d.]+|true|false", str(value))
            shown = f'"{value}"' if quoted else show(value)
            raise UsageError(f"{name}={shown}: must be {accepts(knob)}.")
        if knob.needs is not None:
            other, wanted = knob.needs
            actual = config.get(other, default(by_name[other], None))
            if actual != wanted:
                instead = f"use {knob.instead} instead" if knob.instead else f"leave {name} out"
                raise UsageError(
                    f"{name}={show(value)} has no effect while {other}={show(actual)}:"
                    f" set {other}={show(wanted)} or {instead}."
                )


def _nearest_knob(name: str, knobs: Sequence[Knob], given: Config) -> str:
    """Return " Did you mean …?" with the knob that a wrong name means, or the list of all.

    Other places write a knob with the group that it stands in, as "kv_cache_config.dtype", or as a
    flag, "--max-num-seqs". The last part says which knob it is, the group which of several.

    Args:
        name: what was written.
        knobs: those that may be set.
        given: the other settings; a knob that they leave without effect is named only if no
            other is meant, and it is said what it needs.
    """
    known = [knob.name for knob in knobs if knob.takes_effect(knobs, given)]
    group, _, last = name.lower().lstrip("-").replace("-", "_").rpartition(".")
    words = {*re.split(r"[._]", group), *last.split("_")}
    alike = [
        one
        for one in known
        if one == last or (one.endswith(f"_{last}") and words.issuperset(one.split("_")))
    ]
    if alike:
        return f" Did you mean '{max(alike, key=len)}'?"
    for knob in knobs:
        if knob.name == last:
            if knob.instead in known:
                return f" Did you mean '{knob.instead}'?"
            return f" '{last}' is a knob {knob.only_with}."
    said = nearest(name, known)
    others = {knob.name: knob for knob in knobs if knob.name not in known}
    import difflib  # as errors.nearest does

    close = difflib.get_close_matches(name, others, n=1)
    if close and not said.startswith(" Did you mean"):
        return f" Did you mean '{close[0]}'? It is a knob {others[close[0]].only_with}."
    return said


def accepts(knob: Knob) -> str:
    """Return in words which values the knob takes, to go on "must be …"."""
    if knob.kind == "bool":
        return "true or false"
    if knob.kind == "choice":
        return "one of " + ", ".join(show(choice) for choice in knob.choices)
    if knob.kind == "text":
        return knob.form
    what = "a whole number" if knob.kind == "int" else "a number"
    unit = f" {knob.unit}" if knob.unit else ""
    if knob.low is not None and knob.high is not None:
        return f"{what} from {knob.low:,} to {knob.high:,}{unit}"
    if knob.low is not None:
        return f"{what} of at least {knob.low:,} {knob.unit_of(knob.low)}".rstrip()
    return what + unit


def show(value: Value | None) -> str:
    """Write a value as the user would type it."""
    if value is None:
        return "unset"
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:g}" if isinstance(value, float) else str(value)


def _fits(knob: Knob, value: Value) -> bool:
    if knob.kind == "bool":
        return isinstance(value, bool)
    if knob.kind == "choice":
        return any(value == choice and type(value) is type(choice) for choice in knob.choices)
    if knob.kind == "text":
        return isinstance(value, str) and re.fullmatch(knob.pattern, value) is not None
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    if knob.kind == "int" and not isinstance(value, int):
        return False
    return (knob.low is None or value >= knob.low) and (knob.high is None or value <= knob.high)


def _from_text(knob: Knob, raw: str) -> Value:
    if knob.kind == "bool" and raw.lower() in {"true", "false", "on", "off", "1", "0"}:
        return raw.lower() in {"true", "on", "1"}
    try:
        if knob.kind == "int":
            return int(raw)
        if knob.kind == "float":
            return float(raw)
    except ValueError:
        pass
    else:
        for choice in knob.choices:
            if show(choice) == raw:
                return choice
    if knob.kind in {"choice", "text"}:
        return raw
    raise UsageError(f"{knob.name}={raw}: must be {accepts(knob)}.")


def _version_key(version: str, *, candidate: int) -> tuple[tuple[int, ...], int]:
    """Return the sort key of a version; a release without a candidate counts as `candidate`."""
    numbers = [int(number) for number in re.split(r"[^\d.]", version)[0].split(".") if number]
    named = re.match(r"[\d.]*(?:rc|dev|a|b)(\d+)", version)
    return (*numbers[:4], *(0,) * (4 - len(numbers))), int(named[1]) if named else candidate
