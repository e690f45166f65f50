"""Work out the ratios of token rates in evidence/full-graphs from the tables there.

    python benchmarks/h200/intervals.py

An observation is a run on a fresh server: the logarithm of its token rate. No arm is taken for
quieter than the noise inside its runs, which their 95 % intervals tell. See llmdyno.stats.ratio.
"""

import csv
import math
from pathlib import Path
from statistics import fmean, variance
from typing import NamedTuple

from llmdyno.stats import student_quantile

EVIDENCE = Path(__file__).parents[2] / "evidence"
CAP = "64"  # max_num_seqs before the tuning


class Arm(NamedTuple):
    """Equal runs: the logarithm of each, and its variance as the run itself tells."""

    logs: list[float]
    inside: list[float]


def read(file: Path) -> tuple[Arm, Arm]:
    """Return the runs of studies at 100 users, before and after."""
    with file.open() as lines:
        rows = [
            row
            for row in csv.DictReader(lines)
            if row["users"] == "100" and row["arm"] in {"baseline", "trial", "best", "confirm"}
        ]
    before = [row for row in rows if row["max_num_seqs"] == CAP]
    return _arm(before), _arm([row for row in rows if row not in before])


def _arm(rows: list[dict[str, str]]) -> Arm:
    inside = [
        (math.log(float(row["token_rate_high"]) / float(row["token_rate_low"])) / (2 * 1.96)) ** 2
        for row in rows
    ]
    return Arm([math.log(float(row["token_rate"])) for row in rows], inside)


def ratio(before: Arm, after: Arm, pooled: list[Arm] | None = None) -> str:
    """Return after ÷ before with its 95 % interval, by Welch's t.

    Args:
        before: the runs before.
        after: the runs after.
        pooled: arms that tell how far apart equal runs lie; None: each arm tells its own.
    """
    arms = (before, after)
    if pooled:  # arms of two runs each weigh the same
        between = [fmean(variance(arm.logs) for arm in pooled)] * 2
        freedom = float(len(pooled))
    else:
        between = [variance(arm.logs) for arm in arms]
    squares = [
        max(spread, fmean(arm.inside)) / len(arm.logs)
        for spread, arm in zip(between, arms, strict=True)
    ]
    if not pooled:
        parts = sum(
            square**2 / (len(arm.logs) - 1) for square, arm in zip(squares, arms, strict=True)
        )
        freedom = max(2.0, sum(squares) ** 2 / parts)
    mean = fmean(after.logs) - fmean(before.logs)
    half = student_quantile(freedom) * math.sqrt(sum(squares))
    low, high = math.exp(mean - half), math.exp(mean + half)
    return f"{math.exp(mean):.2f}x [{low:.2f}, {high:.2f}], {freedom:.1f} degrees of freedom"


h200 = read(EVIDENCE / "full-graphs" / "points-h200.csv")
h100 = read(EVIDENCE / "full-graphs" / "points-h100.csv")
earlier, _ = read(EVIDENCE / "h200" / "points" / "study-a.csv")
every = Arm(h200[0].logs + earlier.logs, h200[0].inside + earlier.inside)
print("H200:                 ", ratio(*h200, pooled=[h200[1], *h100]))
print("H100:                 ", ratio(*h100))
print("H200, every baseline: ", ratio(every, h200[1]))
