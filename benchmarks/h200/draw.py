"""Draw a plan of points at random, so that nobody chose what the predictor is asked.

    python benchmarks/h200/draw.py 20261129 > benchmarks/h200/points-drawn.toml
    python benchmarks/h200/draw.py 20261130 --rounds 3 --open 2 > points-drawn-2.toml

Each round has four servers of vLLM, which all get the round's loads: three closed loops and the
open ones. Numbers are drawn evenly in their logarithm.
"""

import argparse
import json

import numpy as np

HEAD = """\
# Drawn at random by draw.py, seed {seed}: {configs} configs of vLLM, and {loads} loads.
# Written to test the predictor, not to fit it.
engine = "vllm"

[common]
max_model_len = 8192
load_format = "dummy"            # random weights: the tokens mean nothing, their speed does
dtype = "bfloat16"
gpu_memory_utilization = 0.1     # the caches' sizes are set below, so that four servers fit
"""
WARMUP = '["-c", "10,100", "--isl", "128", "--osl", "256", "--ramp", "500ms", "--duration", "3s"'
TIMES = '"--ramp", "1s", "--duration", "10s", "--grace", "4s", "--interval", "2s"]'
CLOSED = 3


def drawn(generator: np.random.Generator, low: float, high: float) -> int:
    """Return a whole number between two, evenly in the logarithm."""
    return round(float(np.exp(generator.uniform(np.log(low), np.log(high)))))


def arm(generator: np.random.Generator) -> list[str]:
    """Return the lines of one config."""
    lines = [
        f"max_num_seqs = {drawn(generator, 16, 512)}",
        f"max_num_batched_tokens = {drawn(generator, 512, 16384)}",
        f"api_server_count = {generator.choice([1, 2, 4])}",
        f"kv_cache_memory_bytes = {drawn(generator, 4, 14)}_000_000_000",
    ]
    if generator.random() < 0.4:
        lines += ['quantization = "fp8"']
    if generator.random() < 0.4:
        lines += ['kv_cache_dtype = "fp8"']
    if generator.random() < 0.4:
        lines += ['cudagraph_mode = "FULL"']
    return lines


def load(generator: np.random.Generator, *, closed: bool) -> str:
    """Return the flags of a load; an open loop asks for at most 7,200 tokens/s out, 36,000 in."""
    isl, osl = drawn(generator, 32, 3000), drawn(generator, 32, 400)
    asked = f'"-c", "{drawn(generator, 4, 250)}"'
    if not closed:
        rate = generator.uniform(0.2, 0.9) * min(8000 / osl, 40000 / isl)
        asked = f'"--request-rate", "{rate:.1f}"'
    return f'[{asked}, "--isl", "{isl}", "--osl", "{osl}", {TIMES}'


def main() -> None:
    """Print the plan."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("seed", type=int)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--open", type=int, default=1, help="open loops a round")
    asked = parser.parse_args()
    generator = np.random.default_rng(asked.seed)
    arms, loads, rounds = [], [f'warmup = {WARMUP}, "--grace", "0s", "--no-scrape"]'], []
    for number in range(1, asked.rounds + 1):
        names = [f"drawn{number}{letter}" for letter in "abcd"]
        arms += ["\n".join([f"[arms.{name}]", *arm(generator)]) for name in names]
        turns = [f"load{number}{letter}" for letter in "abcdefgh"[: CLOSED + asked.open]]
        loads += [
            f"{turn} = {load(generator, closed=place < CLOSED)}" for place, turn in enumerate(turns)
        ]
        rounds.append(f"[[rounds]]\narms = {json.dumps(names)}\nloads = {json.dumps(turns)}")
    head = HEAD.format(seed=asked.seed, configs=len(arms), loads=len(loads) - 1)
    print("\n".join([head, "\n".join(arms), "\n[loads]", *loads, "", *rounds]))


if __name__ == "__main__":
    main()
