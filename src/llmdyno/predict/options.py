"""A config on given GPUs under all levels: predicted, judged by the SLOs, and the best of many."""

import math
from collections.abc import Mapping, Sequence

import msgspec
import numpy as np

from llmdyno import workload as workloads
from llmdyno.knobs import Value
from llmdyno.predict.asked import Plan, heaviest, longest
from llmdyno.predict.asking import Typical, typical
from llmdyno.predict.calibrate import Calibration
from llmdyno.predict.copies import Level, shared_out, together
from llmdyno.predict.forecast import Forecast, Point, Setup, coarse, forecast
from llmdyno.predict.gpus import Gpu
from llmdyno.predict.grid import configs
from llmdyno.predict.judged import Verdict, judge, margins
from llmdyno.predict.keeping_up import kept_up
from llmdyno.predict.memory import Fit
from llmdyno.predict.server import (
    Server,
    gpus_of,
    memory_of,
    parts_of,
    ranks_of,
    server_of,
    stages_of,
    under_load,
)
from llmdyno.predict.shapes import Shape
from llmdyno.spec import Workload
from llmdyno.units import Lengths

_SAME = 0.005  # a share of the token rate that is no difference
_BETTER = 0.01  # what a recommendation must gain over the config before
_FRONT_OPTIONS = 150  # looked at for the front, at each level
_SIMULATED = 4  # the best by the coarse pass that are simulated, of each kind


class Site(msgspec.Struct, frozen=True, kw_only=True):
    """Where configs are compared: engine, model, GPUs, lengths.

    `workload`: where its own prompts are simulated; it may have `isl` and `osl` from here.
    """

    engine: str
    shape: Shape
    gpu: Gpu
    gpus: int
    isl: Lengths
    osl: Lengths
    workload: Workload | None = None

    @property
    def typical(self) -> Typical | None:
        """What the workload's own prompts are like."""
        return None if self.workload is None else typical(self.workload)

    @property
    def longest(self) -> int:
        """Tokens of the longest sequence."""
        own = self.typical
        return longest(self.isl) + longest(self.osl) if own is None else own.longest

    @property
    def hardware(self) -> str:
        """The GPUs in words."""
        return f"{self.gpus} x {self.gpu.name}"


class Option(msgspec.Struct, frozen=True, kw_only=True):
    """A config, and how many copies of its server run on the site's GPUs."""

    site: Site
    config: Mapping[str, Value]
    copies: int = 1

    @property
    def setup(self) -> Setup:
        """One copy as the simulation takes it: it simulates one of its parts."""
        site = self.site
        return Setup(engine=site.engine, shape=site.shape, gpu=site.gpu, config=self.config)

    def setup_at(self, level: Level) -> Setup:
        """Return the setup under a level: few users leave some batches of a pipeline empty."""
        busy = sum(count for count, _ in shared_out(level, self.parts))
        pipelines = self.copies * self.ranks
        return msgspec.structs.replace(self.setup, batches=-(-busy // pipelines))

    @property
    def gpus_each(self) -> int:
        """How many GPUs each copy of the server is spread over."""
        return gpus_of(self.setup) * parts_of(self.setup)

    @property
    def ranks(self) -> int:
        """Data-parallel ranks of each copy."""
        return ranks_of(self.setup)

    @property
    def stages(self) -> int:
        """Groups of GPUs that share the layers of each rank out."""
        return stages_of(self.setup)

    @property
    def parts(self) -> int:
        """Among how many, of all copies, the load is shared out: see server.parts_of()."""
        return self.copies * parts_of(self.setup)

    def memory(self) -> Fit:
        """Return the sum of one GPU's memory."""
        return memory_of(self.setup, self.site.longest)


class Predicted(msgspec.Struct, frozen=True, kw_only=True):
    """An option under each level of a plan, in the plan's order."""

    option: Option
    memory: Fit
    forecasts: tuple[Forecast, ...]
    verdicts: tuple[tuple[Verdict, ...], ...]
    kept_up: tuple[bool, ...]  # with the request rate; users wait for their answers

    @property
    def fits(self) -> bool:
        """Whether the server can start."""
        return self.memory.fits and all(one.fits for one in self.forecasts)

    @property
    def margin(self) -> float:
        """The least margin of the SLOs at the heaviest level; above 1: all are met."""
        return min((verdict.margin for verdict in self.verdicts[-1]), default=math.inf)

    @property
    def rank(self) -> tuple[bool, bool, float]:
        """What options are compared by: one whose queue grows, or that misses an SLO, is behind."""
        meets = self.margin > 1
        return self.kept_up[-1], meets, _worth(self) if meets else self.margin

    @property
    def token_rate(self) -> float:
        """Tokens a second of all copies at the heaviest level."""
        return self.forecasts[-1].token_rate.mean


def point_of(plan: Plan, site: Site, level: Level) -> Point:
    """Return the load of one server."""
    users, rate = level
    own = site.workload
    if own is not None and users is None and workloads.in_turns(workloads.load(own.name)):
        own = None  # no turn follows an answer there: its lengths are enough
    point = Point(
        users=users,
        request_rate=rate,
        isl=site.isl,
        osl=site.osl,
        cached_share=plan.cached,
        duration_s=plan.duration_s,
        seed=plan.seed,
        workload=own,
    )
    if site.typical is None:
        return point
    return msgspec.structs.replace(
        point,
        isl=Lengths("fixed", round(site.typical.prompt)),
        osl=Lengths("fixed", round(site.typical.answer)),
        cached_share=site.typical.cached,
    )


def predict(plan: Plan, option: Option, calibration: Calibration) -> Predicted:
    """Predict an option at every level.

    Raises:
        UsageError: a knob's value is none that the simulation can take.
    """
    parts = [
        [
            (copies, forecast(setup, point_of(plan, option.site, each), calibration))
            for copies, each in shared_out(level, option.parts)
        ]
        for level, setup in ((level, option.setup_at(level)) for level in plan.levels)
    ]
    found = tuple(together(each) for each in parts)
    osl = found[0].point.osl.typical
    return Predicted(
        option=option,
        memory=option.memory(),
        forecasts=found,
        verdicts=tuple(tuple(judge(slo, one, osl) for slo in plan.slos) for one in found),
        kept_up=tuple(kept_up(option.setup, each[0][1], calibration) for each in parts),
    )


class Dot(msgspec.Struct, frozen=True, kw_only=True):
    """One option at one level on the Pareto front, by the coarse pass."""

    option: Option
    level: Level
    token_rate: float  # of all users together
    each: float  # tokens a second that one user sees


Front = Sequence[Dot]


def simulated(
    plan: Plan, options: Sequence[Option], calibration: Calibration, most: int = _SIMULATED
) -> list[Predicted]:
    """Return the options that the coarse pass finds best, simulated at the heaviest level.

    Args:
        plan: what is asked.
        options: all that there are.
        calibration: of the predictor.
        most: options of each kind: by token rate and, under SLOs, by their margin and each latency.
    """
    seen = _coarse(plan, options, calibration, heaviest(plan))
    heavy = _at(plan, heaviest(plan))
    return [predict(heavy, option, calibration) for option in _pruned(plan, options, seen, most)]


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
    laid_out = [predict(heavy, one, calibration) for one in _laid_out(options, base)[1:]]
    found = [before, *laid_out, *simulated(plan, options, calibration)]
    candidates = [one for one in found if one.fits]
    if not candidates:
        return before, front
    chosen = max(candidates, key=lambda one: one.rank)
    alike = before.fits and before.margin > 1 and before.rank[:2] == chosen.rank[:2]
    if alike and _worth(chosen) < _worth(before) * (1 + _BETTER):
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


def _worth(one: Predicted) -> float:
    """Tokens a second; in an open loop, where all keep up, the less loaded server is better."""
    last = one.forecasts[-1]
    if last.point.request_rate is None:
        return one.token_rate
    return one.token_rate / (1 + last.e2e_ms_p50.mean / 1e5)


def distinct(plan: Plan, site: Site, base: Mapping[str, Value]) -> list[Option]:
    """Return the base on the site's GPUs, and all that differ in knobs that the predictor knows.

    Ways to lay the GPUs out are among these, unless the base sets one.
    """
    found = configs(
        site.engine,
        base,
        site.gpus,
        site.shape,
        allow_altered_output=plan.allow_altered_output,
        prefixes=plan.cached > 0 or site.workload is not None,
    )
    return [Option(site=site, config=config, copies=copies) for config, copies in found]


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
