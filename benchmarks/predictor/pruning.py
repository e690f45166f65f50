"""What the coarse pass prunes away: the best config it leaves against the best of all simulated.

python benchmarks/predictor/pruning.py [ENGINE[:BACKEND][@CASE]...]

For each engine and case 300 configs are drawn from those that a plan looks at, and all of them are
simulated. `dyno plan` simulates only those that the coarse pass finds best; the regret is what the
best of these has less than the best of all: tokens a second, or the margin of the SLOs where no
config meets them. A case whose chosen config misses an SLO or a rate that another one holds is
counted apart.
"""

import random
import sys

import msgspec

from llmdyno.predict.asked import Plan
from llmdyno.predict.best import simulated
from llmdyno.predict.calibrate import calibrate
from llmdyno.predict.gpus import gpu_of
from llmdyno.predict.options import Predicted, Site, distinct, predict
from llmdyno.predict.shapes import shape_of
from llmdyno.results.slo import parse_slos
from llmdyno.units import Lengths

ENGINES = ("vllm", "sglang", "lmdeploy", "lmdeploy:pytorch", "tensorrt-llm")
CONFIGS = 300
SECONDS = 20.0
SEED = 20261130


def length(tokens: int) -> Lengths:
    """Return a fixed length."""
    return Lengths("fixed", tokens)


def case(model: str, gpu: str, isl: int, osl: int, slo: str = "", **load: object) -> Plan:
    """Return a plan of one level."""
    return msgspec.structs.replace(
        Plan(model=model, gpu=gpu, isl=length(isl), osl=length(osl), allow_altered_output=True),
        duration_s=SECONDS,
        slos=parse_slos(slo) if slo else (),
        **load,
    )


CASES = (
    case("llama-3.1-8b", "h200", 1000, 200, users=(100,)),
    case("llama-3.1-8b", "l4", 500, 200, users=(40,)),
    case("qwen3-30b-a3b", "h100", 200, 400, users=(300,)),
    case("llama-3.1-8b", "h100", 2000, 100, rates=(8.0,)),
    case("llama-3.1-8b", "a100", 1000, 200, "ttft:p99<2s,tpot:p50<20ms", users=(100,)),
)


def worth(one: Predicted) -> float:
    """Return what a config is compared by, where it keeps up and meets all SLOs, or none does."""
    return one.rank[2]


def main() -> None:
    """Print a row an engine and a case."""
    print(
        "| engine | case | configs that fit | simulated by a plan | regret, % | place of its best |"
    )
    print("|---|---|---|---|---|---|")
    calibration = calibrate(())
    for asked_for in sys.argv[1:] or ENGINES:
        engine_and_backend, _, only = asked_for.partition("@")
        engine, _, backend = engine_and_backend.partition(":")
        for number, asked in enumerate(CASES, 1):
            if only and number != int(only):
                continue
            plan = msgspec.structs.replace(asked, engines=(engine,))
            site = Site(
                engine=engine,
                shape=shape_of(plan.model),
                gpu=gpu_of(plan.gpu),
                gpus=1,
                isl=plan.isl,
                osl=plan.osl,
            )
            options = distinct(plan, site, {"backend": backend} if backend else {})
            some = random.Random(SEED).sample(options, min(CONFIGS, len(options)))
            every = [one for option in some if (one := predict(plan, option, calibration)).fits]
            if not every:
                continue
            left = [one for one in simulated(plan, some, calibration) if one.fits]
            best, chosen = (max(found, key=lambda one: one.rank) for found in (every, left))
            regret = f"{100 * (1 - worth(chosen) / worth(best)):.1f}"
            if chosen.rank[:2] != best.rank[:2]:
                regret = "misses what another one holds"
            place = 1 + sum(one.rank > chosen.rank for one in every)
            cells = (engine_and_backend, number, len(every), len(left), regret, place)
            print(f"| {' | '.join(map(str, cells))} |", flush=True)


if __name__ == "__main__":
    main()
