"""What a front costs before one engine on a GPU, which is started once.

    python benchmarks/h200/front_costs.py MODEL OUT --set load_format=dummy --users 100
    python benchmarks/h200/front_costs.py NAME OUT --url http://127.0.0.1:8000

The engine is started behind no front, or is the one that runs at --url. The fronts are put before
it as benchmarks/fronts/attached.py says, all at once: those without a load take nothing. Each is
loaded in turn, there and back again (A B C C B A), so that what drifts disturbs all alike. All get
the same texts over completions: Triton's protocol knows no chat template. An arm is FRONT, or
FRONT:KNOB=VALUE. What does not start is said and left out.

Said are the means over the rounds and their ratio to the engine alone, and the processor time that
each token took in the front's own processes. OUT gets the runs and fronts.json.
"""

import argparse
import contextlib
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from statistics import fmean
from typing import Any

from llmdyno import units
from llmdyno.bench import run
from llmdyno.engines import Launch
from llmdyno.errors import DynoError
from llmdyno.knobs import parse_settings
from llmdyno.processes import ports
from llmdyno.processes import server as supervise
from llmdyno.serve.stack import Stack, load_stack
from llmdyno.spec import Bench, Load, Workload

ATTACHED = "fronts.attached"
ARMS = ("bentoml", "triton", "triton:postprocessing_instance_count=8")
ROWS = ("token_rate", "ttft_ms_p50", "ttft_ms_p99", "tpot_ms_p50", "itl_ms_p99", "front_cpu_us")


def started(stack: Stack, settings: list[str], folder: Path) -> supervise.Server:
    """Start a stack and wait until it has made a token."""
    config = parse_settings(settings, stack.knobs, whole=False)
    stack.check(config)
    launch = stack.launch(
        config,
        artifact=stack.build(config, notify=tell),
        folder=folder / "server",
        host="127.0.0.1",
        port=ports.free_port(),
        notify=tell,
    )
    server = supervise.start(launch, log=folder / "log")
    tell(f"{folder.name}: ready after {server.ready_s:.1f} s at {launch.url}")
    return server


def tell(line: str) -> None:
    """Say a line at once."""
    print(line, file=sys.stderr, flush=True)


def loaded(launch: Launch, pid: int | None, load: Load, osl: str, folder: Path) -> dict[str, float]:
    """Load a server and return what came of it; pid: of the front, if there is one."""
    from fronts.overhead import cpu_s  # in the folder beside this one: see main()

    triton = launch.endpoint.startswith("triton")
    before_s = cpu_s(pid) if pid else 0.0
    outcome = run.run(
        Bench(
            url=launch.url,
            endpoint=launch.endpoint if triton else "openai-completions",
            model=launch.model,
            metrics_url=launch.metrics_url,
            workload=Workload(name="chat", osl=units.lengths(osl, "osl")),
            load=load,
            calibration=False,
        ),
        folder,
    )
    spent_s = cpu_s(pid) - before_s if pid else 0.0
    level: dict[str, Any] = outcome.summary["levels"][0]
    if level["requests"]["failed"]:
        tell(f"{folder.name}: {level['requests']}")
    for doubt in level.get("doubts", ()):
        tell(f"{folder.name}: ! {doubt}")
    return {
        "token_rate": level["token_rate"]["mean"],
        "ttft_ms_p50": level["ttft_ms"]["p50"],
        "ttft_ms_p99": level["ttft_ms"]["p99"],
        "tpot_ms_p50": level["tpot_ms"]["p50"],
        "itl_ms_p99": level["itl_ms"]["p99"],
        "front_cpu_us": spent_s * 1e6 / max(1, level["tokens"]["output"]),
    }


def table(found: dict[str, list[dict[str, float]]]) -> str:
    """Return the means of each arm, with their ratios to the first one's."""
    width = max(map(len, [*found, "front"]))
    lines = [f"{'front':{width}}" + "".join(f"{row:>22}" for row in ROWS)]
    first, *_ = found.values()
    for arm, rounds in found.items():
        cells = []
        for row in ROWS:
            mean, base = (fmean(each[row] for each in some) for some in (rounds, first))
            cells.append(f"{mean:,.1f} (x{mean / base:.3f})" if base else f"{mean:,.1f}")
        lines.append(f"{arm:{width}}" + "".join(f"{cell:>22}" for cell in cells))
    return "\n".join(lines)


@contextlib.contextmanager
def serving(asked: argparse.Namespace) -> Iterator[dict[str, tuple[Launch, int | None]]]:
    """Start the engine, if need be, and the fronts before it; give each arm's launch and pid."""
    out: Path = asked.out
    with contextlib.ExitStack() as stack:
        name = asked.model
        if asked.url:
            os.environ["ATTACHED_URL"] = asked.url
        else:
            alone = load_stack(asked.engine, "native", asked.model)
            engine = stack.enter_context(started(alone, asked.settings, out / "engine"))
            os.environ["ATTACHED_URL"], name = engine.launch.url, engine.launch.model
        native = load_stack(ATTACHED, "native", name).engine.launch(
            name, {}, artifact=None, host="", port=0
        )
        arms: dict[str, tuple[Launch, int | None]] = {"native": (native, None)}
        for number, arm in enumerate(asked.arms):
            front, _, settings = arm.partition(":")
            try:
                place = out / f"front-{number}-{front}"
                served = started(
                    load_stack(ATTACHED, front, name), [*filter(None, settings.split(","))], place
                )
            except DynoError as error:
                tell(f"{arm}: left out: {error}")
                continue
            stack.enter_context(served)
            arms[arm] = served.launch, served.pid
        yield arms


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description="What a front costs before one engine.")
    parser.add_argument("model", help="a folder or hub id; with --url the name at the server")
    parser.add_argument("out", type=Path)
    parser.add_argument("--engine", default="vllm")
    parser.add_argument("--set", dest="settings", action="append", default=[])
    parser.add_argument("--url", default="", help="of a server that runs already")
    parser.add_argument("--arms", nargs="+", default=ARMS)
    parser.add_argument("--users", type=int, default=100)
    parser.add_argument("--osl", default="256")
    parser.add_argument("--duration", default="10s")
    parser.add_argument("--rounds", type=int, default=2)
    asked = parser.parse_args()
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
    load = Load(users=(asked.users,), duration_s=units.seconds(asked.duration, "--duration"))
    found: dict[str, list[dict[str, float]]] = {}
    with serving(asked) as arms:
        for number in range(asked.rounds):
            for arm in list(arms) if number % 2 == 0 else reversed(arms):
                launch, pid = arms[arm]
                place = asked.out / f"{number}-{arm.replace(':', '-').replace('=', '-')}"
                row = loaded(launch, pid, load, asked.osl, place)
                found.setdefault(arm, []).append(row)
                tell(f"{number} {arm}: " + ", ".join(f"{key} {row[key]:.1f}" for key in ROWS))
                (asked.out / "fronts.json").write_text(json.dumps(found, indent=1))
    print(table(found))


if __name__ == "__main__":
    main()
