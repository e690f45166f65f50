"""How many configs a minute of CPU time: the coarse pass, one simulated, and a whole plan.

python benchmarks/predictor/speed.py
"""

import time
from collections.abc import Callable

from llmdyno.predict.asked import Plan
from llmdyno.predict.calibrate import prior
from llmdyno.predict.forecast import Point, Setup, coarse, forecast
from llmdyno.predict.gpus import gpu_of
from llmdyno.predict.grid import configs
from llmdyno.predict.planning import make
from llmdyno.predict.shapes import shape_of
from llmdyno.units import Lengths

LLAMA, H200 = "meta-llama/Meta-Llama-3-8B", "h200"
POINT = Point(users=50, isl=Lengths("fixed", 1000), osl=Lengths("fixed", 200))
SIMULATED = 6
AT_LEAST_S = 2.0


def per_minute(count: int, run: Callable[[], object]) -> float:
    """Return how many of so many a minute of CPU time takes, all threads together."""
    began_s, runs = time.process_time(), 0
    while (took_s := time.process_time() - began_s) < AT_LEAST_S:
        run()
        runs += 1
    return 60 * runs * count / took_s


def main() -> None:
    """Print a table."""
    shape, gpu = shape_of(LLAMA), gpu_of(H200)
    print("| engine | configs | coarse pass | forecasts | whole plan, 3 levels |")
    print("|---|---|---|---|---|")
    for engine in ("vllm", "sglang", "lmdeploy", "tensorrt-llm"):
        own = configs(engine, {}, 1, shape, allow_altered_output=True, prefixes=False)
        setups = [Setup(engine, shape, gpu, config=config) for config, _ in own]
        few = setups[:: max(1, len(setups) // SIMULATED)][:SIMULATED]
        plan = Plan(model=LLAMA, gpu=H200, engines=(engine,), allow_altered_output=True)
        cells = [
            per_minute(len(setups), lambda own=setups: coarse(own, POINT, prior())),
            per_minute(len(few), lambda own=few: [forecast(one, POINT, prior()) for one in own]),
            per_minute(len(setups), lambda plan=plan: make(plan)),
        ]
        said = " | ".join(f"{cell:,.0f}" for cell in cells)
        print(f"| {engine} | {len(setups):,} | {said} |", flush=True)


if __name__ == "__main__":
    main()
