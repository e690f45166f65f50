"""The parts of a plan, an engine on a GPU each, set side by side: which is best, which cheapest."""

import math
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

import msgspec

from llmdyno.knobs import Value
from llmdyno.predict import document as made
from llmdyno.predict.asked import Plan
from llmdyno.predict.best import Front
from llmdyno.predict.calibrate import Calibration
from llmdyno.predict.capacity import capacity
from llmdyno.predict.options import Option, Predicted, Site
from llmdyno.predict.server import gpus_of, scheduling_of
from llmdyno.results import wording

_GPUS_MAX = 64


class Part(msgspec.Struct, frozen=True, kw_only=True, dict=True):
    """One engine's part of a plan, on one kind of GPU."""

    plan: Plan
    site: Site
    base: Mapping[str, Value]
    before: Predicted
    after: Predicted | None
    front: Front
    calibration: Calibration

    @property
    def nearest(self) -> Predicted:
        """The best config that was found, whether or not it meets the SLOs."""
        return self.after or self.before

    @cached_property
    def capacity(self) -> dict[str, Any]:
        """What the best config takes; it is bisected, so it is asked for once."""
        return capacity(self.plan, self.nearest.option, self.calibration)


def chosen(plan: Plan, part: Part) -> Predicted | None:
    """Return what a part recommends; None: nothing, or nothing was asked."""
    after = part.after
    if after is None or not after.fits or (plan.slos and after.margin <= 1):
        return None
    return after


def lead(plan: Plan, parts: Sequence[Part]) -> Part:
    """Return the part that is recommended: of several GPUs with prices the cheapest, else the best.

    One that cannot keep up with the request rate is behind those that can; where none can, it is
    the one of which enough cost least. Where none can be recommended it is the one that comes
    nearest to the SLOs, and without any the first that fits.
    """
    several = len({part.site.gpu.name for part in parts}) > 1
    found = [part for part in parts if chosen(plan, part) is not None]
    found = [part for part in found if part.nearest.kept_up[-1]] or found
    if found:
        return min(found, key=lambda part: _order(plan, part, priced=several))
    fitting = [part for part in parts if part.nearest.fits]
    if fitting and plan.slos:
        return min(fitting, key=lambda part: _from_slos(plan, part))
    return (fitting or list(parts))[0]


def _order(plan: Plan, part: Part, *, priced: bool = True) -> tuple[float, float]:
    """Return what ranks parts that fit, and that all keep up or all do not: the lower, the better.

    It is what a million tokens cost at the heaviest level, or how fast they are; of servers that
    cannot keep up what an hour costs of as many as can, or how many GPUs they are.
    """
    one = part.nearest
    if one.kept_up[-1]:
        cost = made.million(plan, one, one.token_rate) if priced else None
        return (0.0 if cost is None else cost), -one.token_rate
    capacity = part.capacity
    if not capacity["needs"]:
        return math.inf, -one.token_rate
    need = capacity["needs"][-1]
    enough = need.get("price_per_h", need["gpus"]) if priced else need["gpus"]
    return enough, -capacity["request_rate_each"] / capacity["gpus_each"]


def _from_slos(plan: Plan, part: Part) -> tuple[bool, tuple[float, float], float]:
    """Return what ranks parts that miss an SLO: the lower, the nearer.

    The latencies of a queue that grows say nothing but how long it was let grow.
    """
    kept_up = part.nearest.kept_up[-1]
    return not kept_up, (0.0, 0.0) if kept_up else _order(plan, part), -part.nearest.margin


def by_gpu(plan: Plan, parts: Sequence[Part]) -> list[dict[str, Any]]:
    """Return the best part of each GPU at the heaviest level: those that hold the load first.

    They keep up with the request rate, and meet the SLOs before those that do not. Of these the
    cheapest is first, and without prices the fastest. Of those that cannot keep up it is the one of
    which enough cost least, and without prices are fewest. `slo_met` is None without SLOs;
    `capacity`, with request rates and several GPUs, says how many GPUs each rate needs.
    """
    names = list(dict.fromkeys(part.site.gpu.name for part in parts))
    found = []
    for name in names:
        part = lead(plan, [one for one in parts if one.site.gpu.name == name])
        one = part.nearest
        row = {
            "price_per_h": made.price(plan, part.site.gpu),
            "slo_met": one.margin > 1 if plan.slos and one.fits else None,
            **made.points(plan, one)[-1],
        }
        if plan.rates and len(names) > 1 and one.fits:
            row["capacity"] = part.capacity
        order = _order(plan, part) if one.fits else (0.0, 0.0)
        found.append((not one.fits, not one.kept_up[-1], row["slo_met"] is False, order, row))
    return [row for *_, row in sorted(found, key=lambda each: each[:4])]


def close(rows: Sequence[Mapping[str, Any]]) -> str:
    """Say that the two best GPUs are not told apart; empty: they are, or there is but one.

    `rows` are those of by_gpu(). What is uncertain of one GPU is largely so of the other, too, so
    intervals that overlap are a reason to measure both, and not to call them equal.
    """
    able = [
        row
        for row in rows
        if row["fits"] and row["slo_met"] is not False and row.get("keeps_up", True)
    ]
    if len(able) < 2:
        return ""
    first, second = able[:2]
    key = "cost_per_million_tokens"
    if key not in first or key not in second:
        return ""
    rate = first["token_rate"]
    dearest = first[key] * rate["mean"] / max(rate["ci80"][0], 1e-9)
    if second[key] > dearest:
        return ""
    return (
        f"{second['gpu']} is not told apart from {first['gpu']} by cost: a million tokens take"
        f" {wording.significant(second[key])}, and on {first['gpu']} up to"
        f" {wording.significant(dearest)} within its interval. Measure both"
    )


def too_small(part: Part) -> str:
    """Say that the model does not fit, with the sum and which spread or how many GPUs would do."""
    site, memory = part.site, part.before.memory
    why = memory.why if not memory.fits else part.before.forecasts[0].why
    knob = scheduling_of(site.engine).under(part.base).gpus
    shared_by = gpus_of(part.before.option.setup)
    for count in [2**power for power in range(1, 7) if 2**power > shared_by] if knob else []:
        larger = Option(site=site, config={**part.base, knob: count})
        if larger.gpus_each <= _GPUS_MAX and larger.memory().fits:
            would = f"{knob}={count}"
            if larger.gpus_each > site.gpus:
                more = f"--gpus {larger.gpus_each}"
                would = f"{more} with {would}" if knob in part.base else more
            return f"{site.shape.name} does not fit {site.hardware}: {why}; {would} would do."
    return f"{site.shape.name} does not fit {site.hardware}: {why}."
