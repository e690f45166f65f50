"""The predictor on the embedded engine of this CPU: a grid of configs, measured and predicted.

python benchmarks/predictor/embedded.py measure benchmarks/predictor/embedded.csv [--seconds 3]
python benchmarks/predictor/embedded.py errors benchmarks/predictor/embedded.csv
python benchmarks/predictor/embedded.py hits

The engine runs here, without its HTTP server, with one thread, and the clock is this process's CPU
time: a machine that does something else beside it measures nearly the same. Users wait for their
answers and ask again, as in a closed loop of `dyno bench`. The table has what was measured of the
CPU in the same minute: `errors` runs anywhere.

`hits` asks the engine prompts that begin alike, one after the other, with few tokens a step: the
steps to the first token say how many tokens its prefix cache did not hold. Beside it stands the
simulated cache.
"""

import argparse
import csv
import itertools
import json
import os
import random
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

os.environ["OPENBLAS_NUM_THREADS"] = "1"  # before numpy: the CPU is measured as the engine uses it
sys.path.append(str(Path(__file__).parents[2]))  # where this module is a plug-in, see AloneEngine

import msgspec
import numpy as np
from scipy.stats import kendalltau

from llmdyno.embedded.messages import Generate, Ids, Prompt
from llmdyno.engines import openvino
from llmdyno.knobs import Value
from llmdyno.predict import gpus
from llmdyno.predict.calibrate import Calibration, calibrate, prior
from llmdyno.predict.points import Measured, Whose, read_points
from llmdyno.predict.rules import Ask, Load
from llmdyno.predict.server import Setup, server_of
from llmdyno.predict.shapes import shape_of
from llmdyno.predict.simulation import simulate
from llmdyno.predict.steptime import StepTime

MODEL = "tiny"
FOLDS = 4
ARMS: dict[str, dict[str, Value]] = {
    "defaults": {},
    "tokens-8": {"max_num_batched_tokens": 8},
    "tokens-32": {"max_num_batched_tokens": 32},
    "tokens-96": {"max_num_batched_tokens": 96},
    "tokens-1024": {"max_num_batched_tokens": 1024},
    "tokens-4096": {"max_num_batched_tokens": 4096},
    "blocks-128": {"num_kv_blocks": 128},
    "blocks-64": {"num_kv_blocks": 64},
    "whole-256": {"dynamic_split_fuse": False, "max_num_batched_tokens": 4096},
    "whole-16": {
        "dynamic_split_fuse": False,
        "max_num_batched_tokens": 4096,
        "max_num_seqs": 16,
    },
    "whole-8": {"dynamic_split_fuse": False, "max_num_batched_tokens": 4096, "max_num_seqs": 8},
    "whole-4": {"dynamic_split_fuse": False, "max_num_batched_tokens": 1024, "max_num_seqs": 4},
}
LOADS = {"light": (4, 64, 64), "heavy": (24, 256, 64)}  # users, tokens in, tokens out
TABLE = Path(__file__).with_suffix(".csv")
STEP_TOKENS, ANSWER, BLOCK = 4, 8, 32  # of `hits`: tokens of a step, of an answer, of a block
# Of one core: products, weights near and far, bytes of a number that it computes with.
CPU = ("cpu_gflops", "cpu_near_gb_s", "cpu_far_gb_s", "cpu_number_bytes")
RAMP_S = 0.5
THINK_S = 0.01


class AloneEngine(openvino.OpenVinoEngine):
    """The embedded engine as it is driven here: nobody speaks HTTP."""

    scheduling = msgspec.structs.replace(
        openvino.SCHEDULING,
        paces={**openvino.SCHEDULING.paces, "api_s": 1e-6},
        variants={
            name: msgspec.structs.replace(one, paces={**openvino.SCHEDULING.paces, "api_s": 1e-6})
            for name, one in openvino.SCHEDULING.variants.items()
        },
    )


ENGINE = AloneEngine()


class Run:
    """A closed loop against the engine; times are seconds of CPU since it began."""

    def __init__(self, engine: Any, load: tuple[int, int, int], seconds: float) -> None:
        self.engine = engine
        self.users, self.isl, self.osl = load
        self.ends_s = RAMP_S + seconds
        self.rng = random.Random("embedded")
        self.due_s = {user: RAMP_S * user / self.users for user in range(self.users)}
        self.under_way: dict[int, dict[str, float]] = {}
        self.numbers = itertools.count()
        self.tokens = 0
        self.done: list[dict[str, float]] = []

    def measure(self) -> dict[str, float]:
        """Return token rate, TTFT p50 and TPOT p50 of what was in the window.

        Raises:
            RuntimeError: the engine refuses a request.
        """
        zero_s = time.process_time()
        while (now_s := time.process_time() - zero_s) < self.ends_s:
            if not self.under_way and min(self.due_s.values()) > now_s:
                zero_s -= min(self.due_s.values()) - now_s  # nobody asks: the time passes
                continue
            step = self.engine.step(list(self._asked(now_s)))
            if step.refused:
                raise RuntimeError(step.refused[0].message)
            self._take(step.pieces, time.process_time() - zero_s)
        ttft = [one["first_s"] - one["sent_s"] for one in self.done]
        tpot = [(one["last_s"] - one["first_s"]) / (self.osl - 1) for one in self.done]
        return {
            "token_rate": self.tokens / (self.ends_s - RAMP_S),
            "ttft_ms_p50": 1e3 * float(np.median(ttft)),
            "tpot_ms_p50": 1e3 * float(np.median(tpot)),
            "requests_completed": len(self.done),
        }

    def _asked(self, now_s: float) -> Iterator[Any]:
        from llmdyno.embedded.messages import Generate, Ids

        for user in [user for user, due_s in self.due_s.items() if due_s <= now_s]:
            number = next(self.numbers)
            self.under_way[number] = {"sent_s": self.due_s.pop(user), "user": user, "made": 0}
            prompt = Ids(self.prompt(user))
            yield Generate(id=number, prompt=prompt, max_tokens=self.osl, ignore_eos=True)

    def prompt(self, user: int) -> list[int]:  # noqa: ARG002  # another load may ask by user
        """Return the tokens of a user's next prompt."""
        return [self.rng.randrange(3, 4096) for _ in range(self.isl)]

    def _take(self, pieces: Any, now_s: float) -> None:
        for piece in pieces:
            one = self.under_way[piece.id]
            one.setdefault("first_s", now_s)
            one["made"] += piece.tokens
            self.tokens += piece.tokens * (RAMP_S <= now_s <= self.ends_s)
            if piece.finish:
                one["last_s"] = now_s
                assert one["made"] == self.osl, one
                del self.under_way[piece.id]
                self.due_s[int(one["user"])] = now_s + THINK_S
                if one["sent_s"] >= 0 and now_s >= RAMP_S:
                    self.done.append(one)


def measure(path: Path, seconds: float) -> None:
    """Measure the CPU and the grid, and write both as a table of points."""
    cpu = gpus.gpu_of("cpu")
    figures = {name: f"{each:.4g}" for name, each in zip(CPU, _figures(cpu), strict=True)}
    with path.open("w", newline="") as file:
        writer: csv.DictWriter[str] | None = None
        for arm, config in ARMS.items():
            engine = started(config)
            for load, (users, isl, osl) in LOADS.items():
                row: dict[str, object] = {
                    "arm": arm,
                    "load": load,
                    "other_knobs": json.dumps(config),
                }
                row |= {"users": users, "input_tokens_mean": isl, "output_tokens_mean": osl}
                row |= {"ramp_s": RAMP_S, "duration_s": RAMP_S + seconds}
                row |= Run(engine, (users, isl, osl), seconds).measure() | figures
                if writer is None:
                    writer = csv.DictWriter(file, fieldnames=list(row), lineterminator="\n")
                    writer.writeheader()
                writer.writerow(row)
                file.flush()
                print(row, file=sys.stderr, flush=True)
                while engine.busy():  # what the last load left is no part of the next
                    engine.step([])


def _figures(cpu: gpus.Gpu) -> tuple[float, ...]:
    speeds = (cpu.flops["bf16"], cpu.near_bytes_s, cpu.bandwidth_bytes_s)
    return (*(speed / 1e9 for speed in speeds), cpu.number_bytes)


def _measured_cpu(path: Path) -> gpus.Gpu:
    """Return the CPU that a table was measured on: one core of it."""
    with path.open(newline="") as file:
        row = next(csv.DictReader(file))
    flops, near, far, number_bytes = (float(row[name]) for name in CPU)
    return msgspec.structs.replace(
        gpus.gpu_of("cpu"),
        cores=1,
        flops={"bf16": 1e9 * flops},
        near_bytes_s=1e9 * near,
        bandwidth_bytes_s=1e9 * far,
        number_bytes=number_bytes,
    )


def started(config: Mapping[str, Value]) -> Any:
    """Return the engine with a config, in this process."""
    from llmdyno.embedded import worker
    from llmdyno.embedded.model import resolve

    model = resolve(MODEL)
    return worker.Engine(
        worker.Setup(
            socket=-1,
            parent=0,
            model=str(model.path),
            context_length=model.context_length,
            config={**config, "INFERENCE_NUM_THREADS": 1},
        )
    )


def conversations() -> list[list[int]]:
    """Return prompts in their order: of 8 agents whose three turns take turns, as tokens."""
    rng = random.Random("hits")
    shared = [rng.randrange(3, 4096) for _ in range(200)]
    own = [[rng.randrange(3, 4096) for _ in range(180)] for _ in range(8)]
    return [[*shared, *tail[: 60 * turn]] for turn in (1, 2, 3) for tail in own]


def hits() -> None:
    """Print how many tokens the engine's prefix cache held, and how many the simulated one."""
    print("| blocks | tokens of prompts | held by the engine | held in the simulation |")
    print("|---|---|---|---|")
    prompts = conversations()
    for blocks in (2000, 120, 80, 40):
        config: dict[str, Value] = {"enable_prefix_caching": True, "num_kv_blocks": blocks}
        config["max_num_batched_tokens"] = STEP_TOKENS
        asked = [Ids(prompt) for prompt in prompts]
        assert held(started(config), asked[:1]) == [(len(prompts[0]), 0)]
        found = sum(tokens for _, tokens in held(started(config), asked))
        cpu = gpus.gpu_of("h200")  # where it runs is of no consequence
        server = server_of(Setup("openvino", shape_of(MODEL), cpu, config=config))
        asks = [[Ask(len(each), 0, ANSWER, blocks=_blocks(each))] for each in prompts]
        load = Load((), [0.0], closed=True, duration_s=1e4, window_s=0.0, sessions=asks)
        time_ = StepTime(server.work, server.graphs, prior().theta.tolist())
        said_ = simulate(server.rules, time_, load).cached
        print(f"| {blocks} | {sum(map(len, prompts)):,} | {found:,} | {said_:,.0f} |", flush=True)


def held(engine: Any, prompts: Sequence[Prompt], answer: int = ANSWER) -> list[tuple[int, int]]:
    """Return of each prompt its tokens, and those that the engine did not compute.

    The prompts come one after the other. What was computed is known to STEP_TOKENS, the tokens of a
    step of this engine; so much less than it had may be said to be held.

    Args:
        engine: of `started`, with steps of STEP_TOKENS.
        prompts: texts, chats or ids.
        answer: the tokens of each answer.
    """
    found = []
    for number, prompt in enumerate(prompts):
        asked = [Generate(id=number, prompt=prompt, max_tokens=answer, ignore_eos=True)]
        steps, first, tokens = 0, 0, 0
        while asked or engine.busy():
            step = engine.step(asked)
            asked, steps = [], steps + 1
            tokens += sum(one.prompt_tokens for one in step.accepted)
            if not first and any(piece.tokens for piece in step.pieces):
                first = steps
        found.append((tokens, max(0, tokens - first * STEP_TOKENS)))
    return found


def _blocks(prompt: Sequence[int]) -> tuple[int, ...]:
    """Return a prompt's blocks; those with its answer are nobody else's."""
    ids = [hash(tuple(prompt[:end])) for end in range(BLOCK, len(prompt) + 1, BLOCK)]
    rest = (len(prompt) + ANSWER) // BLOCK - len(ids)
    return (*ids, *(hash((tuple(prompt), place)) for place in range(rest)))


def said(measured: list[Measured], calibration: Calibration) -> np.ndarray:
    """Return what is predicted of each point, with the interval of the token rate."""
    from ranking import predicted

    return predicted(measured, calibration)


def report(name: str, found: np.ndarray, truth: np.ndarray, groups: Mapping[int, list[int]]) -> str:
    """Return a line of the table: errors, and how the configs of each load are ranked."""
    from ranking import errors

    taus, losses = [], []
    for places in groups.values():
        rate, guess = truth[places, 0], found[places, 0]
        taus.append(kendalltau(guess, rate).statistic)
        losses.append(100 * (1 - rate[int(np.argmax(guess))] / rate.max()))
    cells = [name, str(len(truth)), *errors(found, truth), ", ".join(f"{tau:.2f}" for tau in taus)]
    return f"| {' | '.join([*cells, f'{np.mean(losses):.1f} ({max(losses):.1f})'])} |"


def report_errors(path: Path, *, rows: bool) -> None:
    """Print the errors before calibrating, after, and of configs that were held out."""
    cpu = _measured_cpu(path)
    print(
        f"one core: {cpu.flops['bf16'] / 1e9:.0f} GFLOP/s,"
        f" {cpu.near_bytes_s / 1e9:.0f} GB/s near, {cpu.bandwidth_bytes_s / 1e9:.0f} GB/s far\n"
    )
    whose = Whose(gpu=cpu, engine="benchmarks.predictor.embedded", shape=shape_of(MODEL))
    measured = read_points(str(path), whose)
    truth = np.array([[m.token_rate, m.ttft_ms_p50, m.tpot_ms_p50] for m in measured])
    groups: dict[int, list[int]] = {}
    for place, each in enumerate(measured):
        groups.setdefault(each.users or 0, []).append(place)
    print(
        "| calibrated on | points | token rate | TTFT p50 | TPOT p50 | tau of each load | regret |"
    )
    print("|---|---|---|---|---|---|---|")
    before = said(measured, prior())
    print(report("nothing", before, truth, groups), flush=True)
    fitted = calibrate(measured)
    print(report("all, the same points", said(measured, fitted), truth, groups), flush=True)
    held = np.zeros_like(before)
    configs = sorted({repr(sorted(each.config.items())) for each in measured})
    fold = {config: place % FOLDS for place, config in enumerate(configs)}
    of = np.array([fold[repr(sorted(each.config.items()))] for each in measured])
    for number in range(FOLDS):
        out = np.flatnonzero(of == number)
        own = calibrate([each for each, its in zip(measured, of, strict=True) if its != number])
        held[out] = said([measured[place] for place in out], own)
    print(report("other configs", held, truth, groups))
    print(
        json.dumps(
            {
                k: round(v / w, 3)
                for (k, v), w in zip(fitted.parameters.items(), prior().theta, strict=True)
            }
        )
    )
    if rows:
        for each, one, other, true in zip(measured, before, held, truth, strict=True):
            print(
                each.users,
                dict(each.config),
                *(f"{one[k]:.4g}/{other[k]:.4g} for {true[k]:.4g}" for k in range(3)),
                sep=" | ",
            )


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("command", choices=("measure", "errors", "hits"))
    parser.add_argument("table", type=Path, nargs="?", default=TABLE)
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--rows", action="store_true")
    given = parser.parse_args()
    if given.command == "measure":
        measure(given.table, given.seconds)
    elif given.command == "hits":
        hits()
    else:
        report_errors(given.table, rows=given.rows)


if __name__ == "__main__":
    main()
