"""NVIDIA's AIConfigurator on the same points: mean error (median) in %, as a row of ranking.py's.

python -m venv AIC && AIC/bin/pip install aiconfigurator
python benchmarks/predictor/aic.py AIC/bin/python

It estimates a batch of so many sequences, so only closed loops can be asked, and a cap on sequences
is the batch: it knows no users who wait outside. Its tables are of vLLM 0.24 on H200 and H100.
"""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

CHILD = """
import json, sys
from aiconfigurator.cli.api import cli_estimate

for asked in json.load(sys.stdin):
    try:
        one = cli_estimate("meta-llama/Meta-Llama-3.1-8B", **asked)
        print(json.dumps([one.ttft, one.tpot]), flush=True)
    except Exception as error:  # it has many kinds; the row counts what it could not answer
        print(json.dumps(str(error)[:200]), flush=True)
"""


def asked(measured: Any) -> dict[str, Any]:
    """Return a point as arguments of cli_estimate."""
    fp8 = measured.config.get("quantization") == "fp8"
    sequences = int(measured.config.get("max_num_seqs", 1024))
    prompt = round(measured.isl)
    cached = min(prompt - 1, round(prompt * (measured.cached_share or 0.0)))
    return {
        "system_name": "h100_sxm" if "H100" in measured.gpu.name else "h200_sxm",
        "backend_name": "vllm",
        "isl": prompt,
        "osl": round(measured.osl),
        "prefix": cached,
        "batch_size": min(measured.users, sequences),
        "ctx_tokens": int(measured.config.get("max_num_batched_tokens", 8192)),
        "gemm_quant_mode": "fp8" if fp8 else "bfloat16",
        "kvcache_quant_mode": "fp8" if fp8 else "bfloat16",
    }


def main() -> None:
    """Print a line of errors, and what could not be estimated."""
    # What reads the points stands in this repository, not where AIConfigurator is installed.
    import numpy as np
    from ranking import errors
    from run import points

    python = Path(sys.argv[1])
    measured = [m for m in points() if m.users and m.ttft_ms_p50 and m.tpot_ms_p50]
    done = subprocess.run(
        [python, "-W", "ignore", "-c", CHILD],
        input=json.dumps([asked(each) for each in measured]),
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    lines = [line for line in done.stdout.splitlines() if line[:1] in '["']
    answers = [json.loads(line) for line in lines]
    assert len(answers) == len(measured), "an answer a point"
    said, truth = [], []
    for each, answer in zip(measured, answers, strict=True):
        if isinstance(answer, str):
            print(f"not estimated: {each.source}: {answer}", file=sys.stderr)
            continue
        ttft_ms, tpot_ms = answer
        batch = min(each.users or 0, int(each.config.get("max_num_seqs", 1024)))
        rate = batch * each.osl / (ttft_ms + (each.osl - 1) * tpot_ms) * 1e3
        said.append([rate, ttft_ms, tpot_ms])
        truth.append([each.token_rate, each.ttft_ms_p50, each.tpot_ms_p50])
    cells = [str(len(said)), *errors(np.array(said), np.array(truth))]
    print(f"| AIConfigurator, closed loops | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
