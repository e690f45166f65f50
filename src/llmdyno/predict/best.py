"""The best of many configs: pruned by the coarse pass, simulated, ranked; and the Pareto front."""

import math
from collections.abc import Mapping, Sequence

import msgspec
import numpy as np

from llmdyno.knobs import Value
from llmdyno.predict.asked import Plan, heaviest
from llmdyno.predict.calibrate import Calibration
from llmdyno.predict.copies import Level, shared_out
from llmdyno.predict.forecast import coarse
from llmdyno.predict.judged import margins
from llmdyno.predict.options import Option, Predicted, distinct, point_of, predict
from llmdyno.predict.server import Server, server_of, under_load

_SAME = 0.005  # a share of the token rate that is no difference
_BETTER = 0.01  # what a recommendation must gain over the config before
_FRONT_OPTIONS = 150  # looked at for the front, at each level
_SIMULATED = 4  # the best by the coarse pass that are simulated, of each kind


class Dot(msgspec.Struct, frozen=True, kw_only=True):
    """One option at one level on the Pareto front, by the coarse pass."""

    option: Option
    level: Level
    token_rate: float  # of all users together
    each: float  # tokens a second that one user sees


Front = Sequence[Dot]


def simulated(
    plan: Plan,
    options: Sequence[Option],
    calibration: Calibration,
    most: int = _SIMULATED,
    but: Option | None = None,
) -> list[Predicted]:
    """Return the options that the coarse pass finds best, simulated at the heaviest level.

    Args:
        plan: what is asked.
        options: all that there are.
        calibration: of the predictor.
        most: options of each kind: by token rate and, under SLOs, by their margin and each latency.
        but: that has been simulated already, and is left out.
    """
    seen = _coarse(plan, options, calibration, heaviest(plan))
    heavy = _at(plan, heaviest(plan))
    found = [option for option in _pruned(plan, options, seen, most) if option != but]
    return [predict(heavy, option, calibration, ways=False) for option in found]


def best_few(
    plan: Plan, options: Sequence[Option], calibration: Calibration, most: int
) -> list[Predicted]:
    """Return options that fit, simulated at the heaviest level: the best first, by their rank.

    Args:
        plan: what is asked.
        options: all that there are.
        calibration: of the predictor.
        most: how many of each kind the coarse pass gives.
    """
    found = simulated(plan, options, calibration, most)
    return sorted((one for one in found if one.fits), key=lambda one: one.rank, reverse=True)


def best(
    plan: Plan, base: Mapping[str, Value], before: Predicted, calibration: Calibration
) -> tuple[Predicted, Front]:
    """Return the best option under the SLOs (the one before, if none is better) and the front.

    Where no option meets the SLOs it is the one that comes nearest; one that cannot keep up with
    the request rate is taken where none can. The best by the coarse pass are simulated.

    Args:
        plan: what is asked.
        base: what the user sets; without more of it, GPUs may be laid out in other ways.
        before: the base on the GPUs as they are laid out by themselves.
        calibration: of the predictor.
    """
    options = distinct(plan, before.option.site, base)
    front = _front(plan, options, calibration)
    heavy = _at(plan, heaviest(plan))
    laid_out = [
        predict(heavy, one, calibration, ways=False) for one in _laid_out(options, base)[1:]
    ]
    found = [before, *laid_out, *simulated(plan, options, calibration, but=before.option)]
    candidates = [one for one in found if one.fits]
    if not candidates:
        return before, front
    chosen = max(candidates, key=lambda one: one.rank)
    alike = before.fits and before.margin > 1 and before.rank[:2] == chosen.rank[:2]
    if alike and chosen.worth < before.worth * (1 + _BETTER):
        chosen = before
    if chosen is not before:
        chosen = predict(plan, chosen.option, calibration)
    return chosen, front


def _laid_out(options: Sequence[Option], base: Mapping[str, Value]) -> list[Option]:
    """Return the options that are the base on GPUs laid out one way or another, each once."""
    found = {
        one.copies: one
        for one in options
        if len(one.config) == len(options[0].config) and base.items() <= one.config.items()
    }
    return list(found.values())


def _at(plan: Plan, level: Level) -> Plan:
    """Return the plan with this level alone."""
    users, rate = level
    return msgspec.structs.replace(
        plan,
        users=() if users is None else (users,),
        rates=() if rate is None else (rate,),
    )


class _Coarse(msgspec.Struct, frozen=True):
    """What the coarse pass says of each option at a level; nan: it cannot start."""

    worth: np.ndarray  # tokens a second; in an open loop, how far the load is from the most
    token_rate: np.ndarray
    ttft_s: np.ndarray
    tpot_s: np.ndarray


def _coarse(
    plan: Plan,
    options: Sequence[Option],
    calibration: Calibration,
    level: Level,
) -> _Coarse:
    found = _Coarse(*(np.full(len(options), np.nan) for _ in range(4)))
    for parts_of_load in {option.parts for option in options}:
        places = [place for place, one in enumerate(options) if one.parts == parts_of_load]
        setups = [options[place].setup_at(level) for place in places]
        site = options[places[0]].site
        parts = [
            (count, coarse(setups, point_of(plan, site, each), calibration))
            for count, each in shared_out(level, parts_of_load)
        ]
        answer = parts[0][1]  # of the busiest copies
        found.token_rate[places] = sum(count * each.token_rate for count, each in parts)
        # In an open loop all that keep up have one rate: the less used one is better.
        spare = 1 / np.maximum(answer.used, 1e-9)
        found.worth[places] = found.token_rate[places] if level[1] is None else spare
        found.ttft_s[places], found.tpot_s[places] = answer.ttft_s, answer.tpot_s
    return found


def _pruned(plan: Plan, options: Sequence[Option], found: _Coarse, most: int) -> list[Option]:
    """Return the options that the coarse pass finds best; of equals those with fewest changes.

    Of those that are one server under this load, a cap that nobody reaches apart, it is the first.
    """
    kept = [place for place in range(len(options)) if np.isfinite(found.worth[place])]

    def order(column: np.ndarray, sign: int) -> list[int]:
        return sorted(
            kept,
            key=lambda place: (
                sign * round(math.log(max(float(column[place]), 1e-9)) / _SAME),
                len(options[place].config),
            ),
        )

    orders = [order(found.worth, -1)]
    if plan.slos:
        osl = options[0].site.osl.typical
        margin = margins(plan.slos, found.token_rate, found.ttft_s, found.tpot_s, osl)
        orders += [order(margin, -1), order(found.ttft_s, 1), order(found.tpot_s, 1)]
    users = heaviest(plan)[0]
    chosen: dict[int, None] = {}
    for places in orders:
        unlike: dict[tuple[Server, int], int] = {}
        for place in places:
            one = options[place]
            each = None if users is None else -(-users // one.parts)
            runs = under_load(server_of(one.setup_at((users, None))), each, one.site.longest)
            unlike.setdefault((runs, one.copies), place)
            if len(unlike) == most:
                break
        chosen |= dict.fromkeys(unlike.values())
    return [options[place] for place in chosen]


def _front(plan: Plan, options: Sequence[Option], calibration: Calibration) -> Front:
    """Return the options and levels of which none has more tokens a second, in all and a user."""
    some = options[:: max(1, len(options) // _FRONT_OPTIONS)]
    seen: list[Dot] = []
    for level in plan.levels:
        found = _coarse(plan, some, calibration, level)
        for option, rate, tpot_s in zip(some, found.token_rate, found.tpot_s, strict=True):
            if np.isfinite(rate) and tpot_s > 0:
                dot = Dot(
                    option=option, level=level, token_rate=float(rate), each=1 / float(tpot_s)
                )
                seen.append(dot)
    front: list[Dot] = []
    for dot in sorted(seen, key=lambda dot: (-dot.each, -dot.token_rate)):
        if not front or dot.token_rate > front[-1].token_rate * (1 + _SAME):
            front.append(dot)
    return front
