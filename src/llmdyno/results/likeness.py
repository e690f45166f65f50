"""What makes two runs unlike, and which of their numbers cannot be compared for it.

Three grades. Unlike work or load, or another meaning of a metric: the numbers are not comparable.
An unlike machine, version, clock, window, model, endpoint or SLO: a warning, since it may be the
very thing that was changed. Settings are what a comparison is made for: they are listed.
"""

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import msgspec

from llmdyno.machine import environment
from llmdyno.results import study_doubts, wording
from llmdyno.results.documents import Document, flat, items, number, part, text, texts
from llmdyno.results.metrics import BY_NAME
from llmdyno.results.sides import Side, Start
from llmdyno.units import Lengths, counted

Kind = Literal[
    "workload",
    "load",
    "window",
    "endpoint",
    "model",
    "SLO",
    "price",
    "tool",
    "definition",
    "hardware",
    "versions",
    "clocks",
    "client",
    "settings",
]
LENGTHS_MAX = 0.02  # of the tokens of a request that was asked or answered, as for what was asked
_CHANCE = 3.0  # standard errors: lengths that are drawn differ by chance
_WINDOWS_MAX = 0.2  # of a window's length
_CLOCKS_MAX = 0.05  # of the clock of a GPU
_TEXT_MAX = 80  # a system prompt may have thousands of words
NOT_KNOWN = "not known"

# The first words of a sentence of environment.differences(), and what kind of fact it is; what is
# not here is the version of something.
_PLACES: Mapping[str, Kind] = {
    "CPU": "hardware",
    "usable cores": "hardware",
    "CPU quota in cores": "hardware",
    "memory in bytes": "hardware",
    "GPUs": "hardware",
    "GPU ids": "hardware",
    "CPU governor": "clocks",
}
# The keys of a spec by how they begin, the first that fits; what is not here is a setting.
_ASKED: tuple[tuple[str, Kind], ...] = (
    ("workload.", "workload"),
    *((f"load.{key}", "load") for key in ("users", "rates", "arrival", "burstiness", "think_s")),
    *((f"load.{key}", "load") for key in ("max_concurrency", "time_scale", "request_rate")),
    *((f"load.{key}", "window") for key in ("ramp_s", "duration_s", "requests", "grace_s")),
    ("endpoint", "endpoint"),
    ("model", "model"),
    ("slos", "SLO"),
    ("price_per_h", "price"),
    ("tool", "tool"),
    ("definitions.", "definition"),
)
# Levels have other names where these differ, and a level that both have is not touched by it.
_BY_LEVEL = ("load.users", "load.rates")
_CHANCE_ONLY = "workload.seed"  # other prompts of the same kind


class Difference(msgspec.Struct, frozen=True, kw_only=True):
    """A fact in which two runs differ."""

    kind: Kind
    name: str
    before: str
    after: str

    @property
    def warns(self) -> bool:
        """Whether it may explain what is measured, and is not what was to be compared."""
        return self.kind != "settings"

    @property
    def spoils(self) -> bool:
        """Whether no number can be compared for it."""
        known = NOT_KNOWN not in {self.before, self.after}
        is_other_work = self.kind in {"workload", "load"} and self.name != _CHANCE_ONLY
        return known and is_other_work and not self.name.startswith(_BY_LEVEL)

    @property
    def sentence(self) -> str:
        """Both values, in words."""
        return f"{self.name}: {self.before} before, {self.after} after"


def differences(before: Start, after: Start) -> list[Difference]:
    """Return every fact in which two runs differ, what spoils the most first."""
    found = [*_asked(before, after), *_places(before, after)]
    for name, old in before.levels.items():
        if name in after.levels:
            found += _of_level(name, old, after.levels[name])
    return sorted(found, key=lambda one: (not one.spoils, not one.warns))


def _asked(before: Start, after: Start) -> list[Difference]:
    specs = [_with_plain_lengths(part(start.summary, "spec")) for start in (before, after)]
    old, new = (flat(spec) for spec in specs)
    found = []
    for name in dict.fromkeys([*old, *new]):
        if old.get(name) == new.get(name):
            continue
        told = [
            _told(side.get(name), is_known=_has(spec, name))
            for side, spec in zip((old, new), specs, strict=True)
        ]
        kind: Kind = next((one for begins, one in _ASKED if name.startswith(begins)), "settings")
        if kind == "SLO":  # an SLO is several keys, of which its expression says all
            continue
        # What a version that wrote less did not write down is no difference that anybody made.
        is_ours = not (before.is_imported or after.is_imported)
        if NOT_KNOWN in told and is_ours and kind != "definition":
            kind = "settings"
        found.append(Difference(kind=kind, name=name, before=told[0], after=told[1]))
    slos = [", ".join(text(slo, "expr") for slo in items(spec, "slos")) for spec in specs]
    if slos[0] != slos[1]:
        said = [one or "none" for one in slos]
        found.append(Difference(kind="SLO", name="SLO", before=said[0], after=said[1]))
    return found


def _with_plain_lengths(spec: Document) -> Document:
    """Return a spec in which lengths are written as the command line takes them."""
    asked = part(spec, "workload")
    return {**spec, "workload": {key: lengths(value) for key, value in asked.items()}}


def lengths(value: Any) -> Any:
    """Write a value of a workload as the command line takes it if it is a length of texts."""
    try:
        return str(msgspec.convert(value, Lengths))
    except msgspec.ValidationError:
        return value


def _has(spec: Document, name: str) -> bool:
    """Tell whether a spec has a key, be it without a value."""
    *path, key = name.split(".")
    holder: Any = spec
    for step in path:
        holder = holder.get(step) if isinstance(holder, Mapping) else None
    return isinstance(holder, Mapping) and key in holder


def _told(value: str | None, *, is_known: bool) -> str:
    if value is not None:
        return textwrap.shorten(value, _TEXT_MAX, placeholder=" …")
    return "none" if is_known else NOT_KNOWN


def _places(before: Start, after: Start) -> list[Difference]:
    """Return in which facts the machines and their software differ."""
    places = [part(start.summary, "environment") for start in (before, after)]
    if places[0] == places[1]:
        return []
    if not all(places):
        said = ["known" if place else NOT_KNOWN for place in places]
        return [Difference(kind="hardware", name="machine", before=said[0], after=said[1])]
    found = []
    for sentence in environment.differences(*places):
        name, _, values = sentence.partition(": ")
        old, _, new = values.removesuffix(" after").partition(" before, ")
        kind = _PLACES.get(name, "versions")
        found.append(Difference(kind=kind, name=name, before=old, after=new))
    if len({"busy-machine" in environment.findings(place) for place in places}) > 1:
        said = [f"{(place.get('load_average') or [0.0])[0]:.1f}" for place in places]
        found.append(
            Difference(kind="hardware", name="load average", before=said[0], after=said[1])
        )
    return found


def _of_level(name: str, old: Document, new: Document) -> list[Difference]:
    """Return in what the same level of two runs differs beside its numbers."""
    found = []
    windows = [_window_s(level) for level in (old, new)]
    if windows[0] and windows[1] and abs(windows[1] / windows[0] - 1) > _WINDOWS_MAX:
        said = [wording.seconds(one) for one in windows]
        found.append(_difference("window", f"{name}, length of the window", said))
    for asked in part(old, "answered_by"):
        names = [" and ".join(sorted(part(level, "answered_by", asked))) for level in (old, new)]
        if all(names) and names[0] != names[1]:
            found.append(_difference("model", f"{name}, model that answered for {asked}", names))
    methods = [text(level, "window", "method") for level in (old, new)]
    if methods[0] != methods[1]:
        found.append(_difference("window", f"{name}, window", methods))
    verdicts = [text(level, "client", "verdict") or NOT_KNOWN for level in (old, new)]
    if verdicts[0] != verdicts[1]:
        found.append(_difference("client", f"{name}, load generator", verdicts))
    clocks = [_clock_mhz(level) for level in (old, new)]
    if clocks[0] and clocks[1] and abs(clocks[1] / clocks[0] - 1) > _CLOCKS_MAX:
        said = [f"{clock:,.0f} MHz" for clock in clocks if clock]
        found.append(_difference("clocks", f"{name}, mean clock of the GPUs", said))
    return found


def _difference(kind: Kind, name: str, values: Sequence[str]) -> Difference:
    return Difference(kind=kind, name=name, before=values[0], after=values[1])


def _window_s(level: Document) -> float | None:
    start_s, end_s = (number(level, "window", end) for end in ("start_s", "end_s"))
    return None if start_s is None or end_s is None else end_s - start_s


def _clock_mhz(level: Document) -> float | None:
    clocks = [number(gpu, "clock_mhz_mean") for gpu in items(level, "gpu")]
    known = [clock for clock in clocks if clock]
    return sum(known) / len(known) if known else None


class Obstacles(msgspec.Struct, frozen=True, kw_only=True):
    """Why numbers of a level cannot be compared: none of them, or those of a metric."""

    work: tuple[str, ...] = ()  # other work or load was asked
    load: tuple[str, ...] = ()  # it was not borne, as of a server that refuses
    of_metrics: Mapping[str, str] = {}

    def to(self, metric: str) -> str:
        """Return why a metric cannot be compared; empty: nothing is in its way."""
        whole = (*self.work, *self.load)
        return whole[0] if whole else self.of_metrics.get(metric, "")


def obstacles(before: Side, after: Side, name: str) -> Obstacles:
    """Find why the numbers of a level that both sides have are not comparable."""
    pairs = [(before.first, start) for start in after.starts]
    pairs += [(start, after.first) for start in before.starts[1:]]
    names = ("A", "B") if before.name == after.name else (before.name, after.name)
    work: list[str] = []
    load: list[str] = []
    of_metrics: dict[str, str] = {}
    for old, new in pairs:
        work += [one.sentence for one in differences(old, new) if one.spoils]
        if _bear_loads(old, new, name):
            work += _unlike_lengths(old, new, name)
            load += _unlike_loads(old, new, name, names)
        of_metrics = {**_of_metrics(old, new, name, names), **of_metrics}
    return Obstacles(
        work=tuple(dict.fromkeys(work)), load=tuple(dict.fromkeys(load)), of_metrics=of_metrics
    )


def _bear_loads(old: Start, new: Start, name: str) -> bool:
    """Tell whether both servers answer something: else that they do not is what was found."""
    return all(number(one.levels[name], "requests", "completed") for one in (old, new))


def _unlike_loads(old: Start, new: Start, name: str, names: tuple[str, str]) -> list[str]:
    levels = old.levels[name], new.levels[name]
    found = [
        said.removeprefix("the load was not the same: ").rstrip(".")
        for code, said in study_doubts.unequal(*levels, names)
        if code == "unequal-load"
    ]
    steady = [level.get("window", {}).get("steady") for level in levels]
    if {True, False} == set(steady):
        at = names[0] if steady[1] else names[1]
        found.append(f"the window of {at} holds ramp and drain, the other one does not")
    return found


def _unlike_lengths(old: Start, new: Start, name: str) -> list[str]:
    """Say whether prompts or answers differ in length by more than 2 %, and not by chance."""
    found = []
    one, other = old.lengths(name), new.lengths(name)
    for what in one.keys() & other.keys():
        first, second = one[what], other[what]
        apart = abs(second.mean - first.mean)
        chance = _CHANCE * (first.error**2 + second.error**2) ** 0.5
        if apart > LENGTHS_MAX * first.mean and apart > chance:
            said = " against ".join(wording.significant(each.mean) for each in (first, second))
            found.append(f"{what} of {said} tokens: the work was not the same")
    return sorted(found)


def _of_metrics(old: Start, new: Start, name: str, names: tuple[str, str]) -> dict[str, str]:
    """Return why single metrics of a level cannot be compared."""
    found: dict[str, str] = {}
    levels = old.levels[name], new.levels[name]
    meanings = [part(start.summary, "spec", "definitions") for start in (old, new)]
    for metric in dict.fromkeys([*meanings[0], *meanings[1]]):
        if meanings[0].get(metric) != meanings[1].get(metric):
            found[metric] = "the two tools do not mean the same by it"
    sources = [text(level, "tokens", "source") for level in levels]
    if all(sources) and sources[0] != sources[1]:
        for row in BY_NAME.values():
            if "token count" in row.rests_on:
                found[row.name] = f"tokens are counted by {sources[0]} before, {sources[1]} after"
    specs = [part(start.summary, "spec") for start in (old, new)]
    for row in BY_NAME.values():
        key = "slos" if row.needs_slo else "price_per_h"
        if (row.needs_slo or row.needs_price) and specs[0].get(key) != specs[1].get(key):
            found[row.name] = f"the {'SLOs' if row.needs_slo else 'prices'} are not the same"
    for at, level in zip(names, levels, strict=True):
        for metric in texts(level, "doubtful"):
            found[metric] = f"client-bound in {at}"
    return found


def rounds_that_differ(side: Side) -> str:
    """Say why the starts of a side are no rounds of one another; empty: they are."""
    for start in side.starts[1:]:
        unlike = [one for one in differences(side.first, start) if one.spoils]
        if unlike:
            more = f" and {counted(len(unlike) - 1, 'more fact')}" if len(unlike) > 1 else ""
            return f"{side.first.run} and {start.run} differ in {unlike[0].name}{more}"
    return ""
