"""What the user asks of `dyno plan`: model, GPUs, load, SLOs; each field with its flag."""

import math
from typing import Annotated

import msgspec

from llmdyno import workload as workloads
from llmdyno.errors import UsageError
from llmdyno.flag import (
    CONFIG,
    COUNTS,
    LENGTHS,
    NAMES,
    RATES,
    SECONDS,
    SHARE,
    TEXT,
    TEXTS,
    TRUTH,
    WHOLE,
    Flag,
)
from llmdyno.predict.prices import PRICES, Prices
from llmdyno.results.slo import Slo
from llmdyno.spec import SLOS, Load, Workload
from llmdyno.units import Lengths, percent


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """A server that does not run yet, and what it will be asked."""

    model: Annotated[
        str,
        Flag(
            TEXT,
            "Model: a well-known name or hub id, a folder with config.json, or such a file.",
            ("-m",),
            default="must be given",
            heading="Server",
        ),
    ] = ""
    gpu: Annotated[
        str,
        Flag(
            TEXT,
            "GPU, e.g. h200, several to compare, h200,h100, or cpu: this machine's processor;"
            " another one by its figures, e.g. memory=80,bandwidth=3350,bf16=989.",
            metavar="GPU[,GPU...]",
            default="must be given",
        ),
    ] = ""
    gpus: Annotated[int, Flag(WHOLE, "Number of GPUs.")] = 1
    engines: Annotated[
        tuple[str, ...],
        Flag(NAMES, "Engines to predict.", name="engine", metavar="NAME[,NAME...]"),
    ] = ("vllm",)
    isl: Annotated[Lengths, Flag(LENGTHS, "Input tokens.", heading="Load")] = Lengths("fixed", 1000)
    osl: Annotated[Lengths, Flag(LENGTHS, "Output tokens.")] = Lengths("fixed", 200)
    users: Annotated[
        tuple[int, ...],
        Flag(
            COUNTS,
            "Users, one level each.",
            ("-c", "--concurrency"),
            metavar="N[,N...]",
            default="10,50,100, without --request-rate",
        ),
    ] = ()
    rates: Annotated[
        tuple[float, ...],
        Flag(
            RATES,
            "Requests per second of an open loop, one level each.",
            name="request_rate",
            metavar="R[,R...]",
        ),
    ] = ()
    cached: Annotated[
        float, Flag(SHARE, "Share of the prompts' tokens that the prefix cache holds.")
    ] = 0.0
    workload: Annotated[
        str,
        Flag(
            TEXT,
            "Simulate this workload's own prompts, and what of them the prefix cache holds.",
            default="prompts of --isl, of which it holds --cached",
        ),
    ] = ""
    prefix_share: Annotated[
        float | None,
        Flag(
            SHARE,
            "Share of an agent's first prompt that all have in common, e.g. 75%.",
            default="75% with --workload agent",
        ),
    ] = None
    turns: Annotated[Lengths, Flag(LENGTHS, "Turns of a session of the workload: 4 or 2-6.")] = (
        Lengths("uniform", 2, 6)
    )
    duration_s: Annotated[float, Flag(SECONDS, "Length of a level.")] = 60.0
    slos: Annotated[tuple[Slo, ...], SLOS] = ()
    baseline: Annotated[
        dict[str, bool | int | float | str],
        Flag(CONFIG, "Knobs of the config before, as a table.", tune="file"),
    ] = {}
    allow_altered_output: Annotated[
        bool, Flag(TRUTH, "Also recommend knobs that may change the tokens, such as fp8.")
    ] = False
    config_only: Annotated[
        bool, Flag(TRUTH, "Predict just the config of --set; recommend nothing.")
    ] = False
    measured: Annotated[
        tuple[str, ...],
        Flag(
            TEXTS,
            "Calibrate on what was measured; may be repeated.",
            name="from",
            heading="Prediction",
            metavar="STUDY|RUN|CSV",
        ),
    ] = ()
    what_if: Annotated[
        tuple[str, ...],
        Flag(
            TEXTS,
            "Predict the config with these changes, too: knobs, gpu, gpus, model, isl, osl,"
            " engine; may be repeated.",
            metavar="NAME=VALUE[,...]",
        ),
    ] = ()
    price_per_h: Annotated[
        Prices | None,
        Flag(
            PRICES,
            "Price of one GPU an hour, e.g. 3.50/h, or of each: h200=3.5/h,h100=2.4/h; what a"
            " million tokens cost.",
            name="price",
            heading="Cost",
            metavar="PRICE/h|GPU=PRICE/h[,...]",
        ),
    ] = None
    seed: Annotated[int, Flag(WHOLE, "Seed of lengths and arrivals.", heading="Load")] = 0

    def __post_init__(self) -> None:
        if not self.model:
            raise UsageError("--model: name one, e.g. --model meta-llama/Llama-3.1-8B.")
        if not self.gpu:
            raise UsageError("--gpu: name one, e.g. --gpu h200, or cpu for this machine's.")
        if len({*self.engines}) < len(self.engines):
            raise UsageError(f"--engine {','.join(self.engines)}: names one twice.")
        if self.gpus < 1:
            raise UsageError(f"--gpus {self.gpus}: must be at least 1.")
        if self.users and self.rates:
            raise UsageError(
                "-c and --request-rate: users are a closed loop, a rate is an open one; give one."
            )
        if any(count < 1 for count in self.users):
            raise UsageError(f"-c {min(self.users)}: each level needs 1 user or more.")
        for rate in self.rates:
            if not 0 < rate < math.inf:
                raise UsageError(f"--request-rate {rate:g}: must be above 0.")
        if not 0 <= self.cached <= 1:
            raise UsageError(f"--cached {percent(self.cached)}: must be from 0% to 100%.")
        if self.workload and self.cached:
            raise UsageError(
                f"--cached {percent(self.cached)}: not together with --workload"
                f" {self.workload}, whose prompts say it themselves."
            )
        if self.prefix_share is not None and not self.workload:
            raise UsageError(
                f"--prefix-share {percent(self.prefix_share)}: only with --workload agent."
            )
        if not 0 < self.duration_s < math.inf:
            raise UsageError(f"--duration {self.duration_s:g}s: must be above 0.")

    @property
    def levels(self) -> tuple[tuple[int | None, float | None], ...]:
        """Users and request rate of each level, one of which is None."""
        if self.rates:
            return tuple((None, rate) for rate in self.rates)
        return tuple((users, None) for users in self.users or (10, 50, 100))


def own_workload(plan: Plan, isl: Lengths, osl: Lengths) -> Workload | None:
    """Return the workload whose own prompts are to be simulated, None where lengths are enough.

    Raises:
        UsageError: there is no such workload, or it cannot be asked so.
    """
    if not plan.workload:
        return None
    kind = workloads.load(plan.workload)
    if workloads.has_times(kind):
        raise UsageError(
            f"--workload {plan.workload}: has times of its own, which dyno plan does not simulate."
        )
    if workloads.in_turns(kind) and plan.rates:
        raise UsageError(f"--workload {plan.workload}: needs users, -c; a turn follows an answer.")
    found = Workload(
        name=plan.workload,
        isl=isl if "isl" in workloads.takes(kind) else None,
        osl=osl,
        turns=plan.turns,
        prefix_share=plan.prefix_share,
        seed=plan.seed,
    )
    workloads.check(found, Load(users=(1,)))
    return found


def longest(lengths: Lengths) -> int:
    """Return the longest of such lengths; where there is no bound, one of a thousand is longer."""
    if lengths.shape == "fixed":
        return round(lengths.a)
    return round(lengths.b if lengths.shape == "uniform" else lengths.a + 3 * lengths.b)


def heaviest(plan: Plan) -> tuple[int | None, float | None]:
    """Return the level at which configs are compared, as `dyno tune` does: the largest."""
    return max(plan.levels, key=lambda level: level[0] or level[1] or 0)


def ordered(plan: Plan) -> Plan:
    """Return the plan with its levels from the lightest to the heaviest."""
    return msgspec.structs.replace(
        plan, users=tuple(sorted(plan.users)), rates=tuple(sorted(plan.rates))
    )
