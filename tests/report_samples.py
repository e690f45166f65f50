"""Builds summary and study documents as a run and a study write them, for the tests of the report.

The numbers are made up but consistent: a level has a ramp, a window, samples that scatter around
its rate, and a tail.
"""

import random
from typing import Any

from llmdyno.knobs import Knob

GUIDE = {
    knob.name: knob
    for knob in (
        Knob(
            name="enable_prefix_caching",
            layer="engine",
            kind="bool",
            does="Keeps the KV cache of prompt prefixes that were seen before and reuses it.",
            turn="On when requests share a system prompt or a history.",
            trades="Memory for cached blocks; nothing is gained when no prefix repeats.",
            source="measured",
            defaults=(("2026.4", False),),
            search=(True, False),
        ),
        Knob(
            name="max_num_batched_tokens",
            layer="engine",
            kind="int",
            does="Tokens that one step may process, prompts and answers together.",
            turn="Up for token rate and TTFT, down for an even inter-token latency.",
            trades="Large steps make the gaps between tokens longer while prompts are read.",
            source="measured",
            defaults=(("2026.4", 256),),
            low=1,
            search=(64, 4096),
        ),
        Knob(
            name="cache_size",
            layer="engine",
            kind="int",
            does="Memory for the KV cache.",
            turn="Up when requests wait although the cores are idle.",
            trades="Memory.",
            source="measured",
            defaults=(("2026.4", None),),
            unit="GB",
        ),
        Knob(
            name="kv_precision",
            layer="engine",
            kind="choice",
            does="Number format of the KV cache.",
            turn="Down to fit more sequences.",
            trades="Answers may differ.",
            source="measured",
            defaults=(("2026.4", "f16"),),
            choices=("f16", "u8"),
            alters_output=True,
        ),
    )
}


def latencies(p50: float, *, tail: float = 3.0, count: int = 900) -> dict[str, Any]:
    return {
        "n": count,
        "mean": p50 * 1.2,
        "p50": p50,
        "p90": p50 * tail * 0.6,
        "p95": p50 * tail * 0.75,
        "p99": p50 * tail,
        "max": p50 * tail * 1.4,
        "p50_ci95": [p50 * 0.94, p50 * 1.07],
    }


def level(
    users: int, *, rate: float, ttft_ms: float, duration_s: float = 120.0, seed: int = 0
) -> dict[str, Any]:
    """Return a level without failures, whose window begins after a ramp of 20 s."""
    rng = random.Random(seed + users)
    measured: dict[str, Any] = {
        "ttft_ms": latencies(ttft_ms),
        "itl_ms": latencies(1000 * users / rate),
        "tpot_ms": latencies(1020 * users / rate, tail=1.6),
        "e2e_ms": latencies(ttft_ms + 48_000 * users / rate, tail=1.8),
        "token_rate": {"mean": rate, "ci95": [rate * 0.96, rate * 1.05]},
        "request_rate": {"mean": rate / 48, "ci95": None},
        "goodput": None,
    }
    times = [5.0 * step for step in range(1, int(duration_s / 5) + 1)]
    samples = [
        {
            "t_s": t_s,
            "users": min(users, round(users * t_s / 20)),
            "in_flight": min(users, round(users * t_s / 20)),
            "completed": round(rate / 48 * 5),
            "failed": 0,
            "token_rate": rate * min(1, t_s / 20) * rng.uniform(0.9, 1.1),
            "ttft_ms_p50": ttft_ms * min(1, t_s / 20) * rng.uniform(0.8, 1.25),
        }
        for t_s in times
    ]
    shares = [rng.random() for _ in range(20)]
    shapes = {
        name: {
            "low_ms": measured[name]["p50"] / 3,
            "high_ms": measured[name]["max"],
            "shares": [share / sum(shares) for share in shares],
        }
        for name in ("ttft_ms", "itl_ms", "tpot_ms", "e2e_ms")
    }
    completed = round(rate / 48 * duration_s)
    return {
        "users": users,
        "arrival": "closed",
        "duration_s": duration_s,
        "interrupted": False,
        "requests": {"completed": completed, "failed": 0, "cut": 0, "errors": {}},
        "tokens": {"input": completed * 550, "output": completed * 48, "source": "usage"},
        "window": {
            "start_s": 22.5,
            "end_s": duration_s,
            "steady": True,
            "method": "after the ramp, MSER-5 on the token rate",
        },
        **measured,
        "histograms": shapes,
        "whole": measured,
        "samples": samples,
        "client": {
            "cpu_s": 4.1,
            "cpu_us_per_token": 21.7,
            "loop_lag_ms_p99": 1.3,
            "tokens_per_read": 1.04,
            "verdict": "valid",
            "reasons": [],
        },
    }


def summary(levels: list[dict[str, Any]] | None = None, *, run: str = "run-1") -> dict[str, Any]:
    """Return the document of a run."""
    return {
        "schema": "llmdyno.summary/1",
        "run": run,
        "dir": f"runs/{run}",
        "started": "2026-11-23T20:44:00+00:00",
        "environment": {
            "llmdyno": "0.1.0",
            "python": "CPython 3.11.7",
            "os": "Debian GNU/Linux 12 (bookworm)",
            "kernel": "6.1.0",
            "cpu": {
                "model": "AMD EPYC 9R14",
                "cores_usable": 16,
                "cores_physical": 16,
                "quota_cores": None,
                "governor": None,
            },
            "memory_bytes": 25276514304,
            "load_average": [0.31, 0.4, 0.5],
            "gpus": [],
            "packages": {"openvino-genai": "2026.4.1.0"},
        },
        "spec": {
            "url": "http://127.0.0.1:8000",
            "endpoint": "openai-chat",
            "model": "tiny",
            "workload": {"name": "chat-system", "osl": {"shape": "fixed", "a": 48}},
            "load": {"users": [10, 50, 100], "ramp_s": 20.0, "interval_s": 5.0},
        },
        "levels": levels
        or [
            level(10, rate=420, ttft_ms=510),
            level(50, rate=510, ttft_ms=2070),
            level(100, rate=525, ttft_ms=4300),
        ],
        "slo": [{"expr": "ttft:p99<2s", "level": 100, "value": 12900.0, "met": False}],
    }


def tuned_summary() -> dict[str, Any]:
    document = summary(
        [
            level(10, rate=905, ttft_ms=96, seed=1),
            level(50, rate=1530, ttft_ms=370, seed=1),
            level(100, rate=1630, ttft_ms=910, seed=1),
        ],
        run="run-2",
    )
    document["slo"] = [{"expr": "ttft:p99<2s", "level": 100, "value": 1310.0, "met": True}]
    return document


def study() -> dict[str, Any]:
    """Return a study with everything: failed trials, a confirmation, an ablation."""
    rng = random.Random(3)
    trials: list[dict[str, Any]] = []
    for number in range(1, 25):
        config = {
            "enable_prefix_caching": number % 3 != 0,
            "max_num_batched_tokens": rng.choice([64, 256, 1024, 2048]),
        }
        failed, pruned = number in {5, 13}, number in {8, 9, 17}
        trials.append(
            {
                "id": f"t{number:02}",
                "config": config if number > 1 else {},
                "state": "failed" if failed else "pruned" if pruned else "measured",
                "failure": (
                    {"class": "out-of-memory", "why": "std::bad_alloc while loading the model"}
                    if failed
                    else None
                ),
                "cost_s": {
                    "build": 0.0,
                    "start": 3.1,
                    "measure": None if failed else 61.0,
                },
                "value": (
                    None
                    if failed
                    else rng.uniform(300, 600) * (2.6 if number % 3 and number > 1 else 1)
                ),
                "slo_met": None if failed else bool(number % 3),
            }
        )
        rate = trials[-1]["value"]
        trials[-1]["headlines"] = rate and {"token_rate": rate, "ttft_ms_p50": 2e6 / rate}
    trials.append(
        {
            "id": "t25",
            "config": {"max_num_batched_tokens": 4096, "cache_size": 64},
            "state": "predicted-infeasible",
            "failure": {"class": "does-not-fit", "why": "needs 64 GB of 24 GB"},
            "cost_s": {"build": None, "start": None, "measure": None},
            "value": None,
            "slo_met": None,
        }
    )
    return {
        "schema": "llmdyno.study/1",
        "engine": "openvino",
        "front": "native",
        "engine_version": "2026.4.1.0",
        "model": "tiny",
        "objective": "token_rate:mean",
        "slo": ["ttft:p99<2s"],
        "baseline": {"config": {}, "summary": summary()},
        "best": {
            "config": {"enable_prefix_caching": True, "max_num_batched_tokens": 2048},
            "summary": tuned_summary(),
        },
        "trials": trials,
        "confirmation": {
            "design": "ABBA",
            "pairs": 6,
            "ratio": {
                "token_rate": {"mean": 3.11, "ci95": [2.79, 3.42]},
                "ttft_ms_p50": {"mean": 0.212, "ci95": [0.19, 0.24]},
            },
            "verdict": "better",
            "level": 100,
            "decided_by": "token_rate",
            "runs": [
                {
                    "pair": pair,
                    "arm": arm,
                    "run": f"confirm-{2 * pair + place}",
                    "value": rng.gauss(525, 20) * (3.1 if arm == "after" else 1),
                    "state": "measured",
                }
                for pair in range(6)
                for place, arm in enumerate(
                    ("before", "after") if pair % 2 == 0 else ("after", "before")
                )
            ],
        },
        "ablation": [
            {
                "knob": "enable_prefix_caching",
                "from": False,
                "to": True,
                "effect": {"token_rate": {"ratio": 2.9, "ci95": [2.6, 3.2]}},
            },
            {
                "knob": "max_num_batched_tokens",
                "from": 256,
                "to": 2048,
                "effect": {"token_rate": {"ratio": 1.05, "ci95": [0.97, 1.13]}},
            },
        ],
        "bundle": "studies/s1/bundle",
    }
