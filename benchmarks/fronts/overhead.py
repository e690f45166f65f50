"""What a front costs: the same engine, model and load behind each, in one run.

    python benchmarks/fronts/overhead.py native triton triton/triton-grpc --users 50 --duration 20s

A front is FRONT or FRONT/ENDPOINT, where it speaks several wire protocols. Each round starts every
front afresh, in turn, so that what disturbs the machine disturbs all. Said are the means over the
rounds and their ratio to the first front: token rate, TTFT, ITL, and the processor time that a
token took of all processes of the server, and of the client.
"""

import argparse
import os
import tempfile
from pathlib import Path
from statistics import fmean
from typing import Any

from llmdyno import plugins, units
from llmdyno.bench import run
from llmdyno.processes import ports
from llmdyno.processes import server as supervise
from llmdyno.serve.stack import Stack
from llmdyno.spec import Bench, Load, Workload

ROWS = (
    "token_rate",
    "ttft_ms_p50",
    "ttft_ms_p99",
    "itl_ms_p50",
    "server_cpu_us_per_token",
    "client_cpu_us_per_token",
)


def cpu_s(pid: int) -> float:
    """Return the processor time of a process and of what stems from it, children that ended too."""
    fields = Path(f"/proc/{pid}/stat").read_text("utf-8").rpartition(")")[2].split()
    spent_s = sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        spent_s += sum(cpu_s(int(child)) for child in task.read_text("utf-8").split())
    return spent_s


def once(front: str, model: str, load: Load, workload: Workload, folder: Path) -> dict[str, float]:
    """Serve the model behind a front, load it, and return what came of it."""
    front, _, wire = front.partition("/")
    stack = Stack(
        engine=plugins.load("engines", "openvino"), front=plugins.load("fronts", front), model=model
    )
    launch = stack.launch(
        {},
        folder=folder / "server",
        host="127.0.0.1",
        port=ports.free_port(),
        notify=lambda _: None,
    )
    with supervise.start(launch, log=folder / "log") as server:
        before_s = cpu_s(server.pid)
        outcome = run.run(
            Bench(
                url=launch.also[wire] if wire else launch.url,
                endpoint=wire or launch.endpoint,
                model=launch.model,
                metrics_url=launch.metrics_url,
                workload=workload,
                load=load,
                calibration=False,
            ),
            folder / "run",
        )
        spent_s = cpu_s(server.pid) - before_s
    level: dict[str, Any] = outcome.summary["levels"][0]
    assert not level["requests"]["failed"], level["requests"]
    return {
        "token_rate": level["token_rate"]["mean"],
        "ttft_ms_p50": level["ttft_ms"]["p50"],
        "ttft_ms_p99": level["ttft_ms"]["p99"],
        "itl_ms_p50": level["itl_ms"]["p50"],
        "server_cpu_us_per_token": spent_s * 1e6 / level["tokens"]["output"],
        "client_cpu_us_per_token": level["client"]["cpu_us_per_token"],
    }


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description="What a front costs.")
    parser.add_argument("fronts", nargs="+")
    parser.add_argument("--model", default="tiny")
    parser.add_argument("--users", type=int, default=50)
    parser.add_argument("--duration", default="20s")
    parser.add_argument("--rounds", type=int, default=3)
    asked = parser.parse_args()
    load = Load(users=(asked.users,), duration_s=units.seconds(asked.duration, "--duration"))
    workload = Workload(
        name="synthetic", isl=units.lengths("32", "isl"), osl=units.lengths("64", "osl")
    )
    found: dict[str, list[dict[str, float]]] = {front: [] for front in asked.fronts}
    with tempfile.TemporaryDirectory() as folder:
        for number in range(asked.rounds):
            for front in asked.fronts:
                place = Path(folder) / f"{front.replace('/', '-')}-{number}"
                found[front].append(once(front, asked.model, load, workload, place))
    width = max(map(len, [*found, "front"]))
    print(f"{'front':{width}}" + "".join(f"{row:>25}" for row in ROWS))
    for front, rounds in found.items():
        cells = []
        for row in ROWS:
            mean = fmean(each[row] for each in rounds)
            first = fmean(each[row] for each in found[asked.fronts[0]])
            cells.append(f"{mean:,.1f} (x{mean / first:.2f})")
        print(f"{front:{width}}" + "".join(f"{cell:>25}" for cell in cells))


if __name__ == "__main__":
    main()
