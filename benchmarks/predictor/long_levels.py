"""What it costs to simulate only the first seconds of a level: against a simulation of all of it.

python benchmarks/predictor/long_levels.py
"""

import time
from collections.abc import Iterator

import msgspec
import numpy as np

from llmdyno.predict import simulated
from llmdyno.predict.calibrate import prior
from llmdyno.predict.gpus import gpu_of
from llmdyno.predict.server import Server, Setup, server_of
from llmdyno.predict.shapes import shape_of
from llmdyno.predict.simulated import Point, simulated_at
from llmdyno.units import Lengths

LEVEL_S = 300.0
CASES = (  # engine, config, tokens in, tokens out
    ("vllm", {}, 200, 200),
    ("sglang", {}, 1000, 300),
    ("vllm", {"max_num_seqs": 64}, 500, 500),
)
USERS = (10, 25, 50, 100, 200, 400)
SATURATION = (0.5, 0.8, 0.9, 0.95, 1.0, 1.1)
# Seconds of a closed loop, of an open one, of a closed loop's starts together.
ALL = (LEVEL_S, LEVEL_S, 3 * LEVEL_S)
WAYS = {"the first 30 s": (30.0, 30.0, 90.0), "as it is": (120.0, 600.0, 90.0)}
THETA = prior().theta


def levels() -> Iterator[tuple[Server, Point]]:
    """Yield servers and loads: shares of what they can serve, and users."""
    for engine, config, isl, osl in CASES:
        setup = Setup(engine, shape_of("llama-3-8b"), gpu_of("h200"), config=config)
        server = server_of(setup)
        asks = Point(
            users=min(server.rules.sequences, 256),
            isl=Lengths("fixed", isl),
            osl=Lengths("fixed", osl),
            duration_s=30.0,
        )
        rate = simulated_at(server, asks, THETA, together=False, starts=1).token_rate / osl
        for share in SATURATION:
            yield (
                server,
                msgspec.structs.replace(
                    asks, users=None, request_rate=share * rate, duration_s=LEVEL_S
                ),
            )
        for users in USERS:
            yield server, msgspec.structs.replace(asks, users=users, duration_s=LEVEL_S)


def said(server: Server, point: Point, seconds: tuple[float, float, float]) -> np.ndarray:
    """Return token rate, TTFT p50 and TPOT p50 by simulations of so many seconds."""
    simulated.CLOSED_S, simulated.OPEN_S, simulated.STARTS_S = seconds
    found = simulated_at(server, point, THETA, together=seconds != ALL and point.users is not None)
    return np.array([found.token_rate, found.ttft_ms_p50, found.tpot_ms_p50])


def main() -> None:
    """Print the table."""
    cases = list(levels())
    truth = np.array([said(server, point, ALL) for server, point in cases])
    is_open = np.array([point.users is None for _, point in cases])
    print("| levels | simulated | token rate | TTFT p50 | TPOT p50 | CPU s of all |")
    print("|---|---|---|---|---|---|")
    for name, seconds in WAYS.items():
        began_s = time.process_time()
        found = np.array([said(server, point, seconds) for server, point in cases])
        took_s = time.process_time() - began_s
        errors = 100 * np.abs(found / truth - 1)
        for kind, rows in (("open", errors[is_open]), ("closed", errors[~is_open])):
            pairs = zip(rows.mean(axis=0), rows.max(axis=0), strict=True)
            cells = " | ".join(f"{mean:.1f} ({worst:.1f})" for mean, worst in pairs)
            print(f"| {kind} | {name} | {cells} | {took_s:.1f} |")


if __name__ == "__main__":
    main()
