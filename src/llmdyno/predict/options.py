"""A config on given GPUs under all levels: predicted, and judged by the SLOs."""

import math
from collections.abc import Mapping

import msgspec

from llmdyno import workload as workloads
from llmdyno.knobs import Value
from llmdyno.predict.asked import Plan, longest
from llmdyno.predict.asking import Typical, typical
from llmdyno.predict.calibrate import Calibration
from llmdyno.predict.copies import Level, shared_out, together
from llmdyno.predict.forecast import Forecast, Point, Setup, forecast
from llmdyno.predict.gpus import Gpu
from llmdyno.predict.grid import configs
from llmdyno.predict.judged import Verdict, judge
from llmdyno.predict.keeping_up import kept_up
from llmdyno.predict.memory import Fit
from llmdyno.predict.server import (
    gpus_of,
    memory_of,
    parts_of,
    ranks_of,
    stages_of,
)
from llmdyno.predict.shapes import Shape
from llmdyno.spec import Workload
from llmdyno.units import Lengths


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
        return self.kept_up[-1], meets, self.worth if meets else self.margin

    @property
    def worth(self) -> float:
        """Tokens a second; in an open loop, where all keep up, the less loaded server is better."""
        last = self.forecasts[-1]
        if last.point.request_rate is None:
            return self.token_rate
        return self.token_rate / (1 + last.e2e_ms_p50.mean / 1e5)

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


def predict(
    plan: Plan, option: Option, calibration: Calibration, *, ways: bool = True
) -> Predicted:
    """Predict an option at every level.

    Args:
        plan: what is asked.
        option: the config.
        calibration: of the predictor.
        ways: whether TTFT's intervals hold its other answers, see forecast().

    Raises:
        UsageError: a knob's value is none that the simulation can take.
    """
    parts = [
        [
            (copies, forecast(setup, point_of(plan, option.site, each), calibration, ways=ways))
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
