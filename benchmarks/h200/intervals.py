"""Work out the ratios of token rates in evidence/full-graphs from the tables there.

    python benchmarks/h200/intervals.py

An observation is a run on a fresh server: the logarithm of its token rate. No arm is taken for
quieter than the noise inside its runs, which their 95 % intervals tell. See
llmdyno.results.stats.ratio.
"""

import csv
from pathlib import Path

import numpy as np

from llmdyno.results.stats import Arm, Spread, pooled, ratio_of_arms

EVIDENCE = Path(__file__).parents[2] / "evidence"
CAP = "64"  # max_num_seqs before the tuning


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
    rate, low, high = np.log(
        [[float(row[f"token_rate{end}"]) for row in rows] for end in ("", "_low", "_high")]
    )
    return Arm(rate, ((high - low) / (2 * 1.96)) ** 2)


def show(label: str, before: Arm, after: Arm, known: Spread | None = None) -> None:
    """Print after ÷ before with its 95 % interval."""
    ratio = ratio_of_arms(before, after, known=known)
    assert ratio.ci95 is not None
    print(f"{label:<22} {ratio.mean:.2f}x [{ratio.ci95[0]:.2f}, {ratio.ci95[1]:.2f}]")


h200 = read(EVIDENCE / "full-graphs" / "points-h200.csv")
h100 = read(EVIDENCE / "full-graphs" / "points-h100.csv")
earlier, _ = read(EVIDENCE / "h200" / "points" / "study-a.csv")
every = Arm(*(np.concatenate(both) for both in zip(h200[0], earlier, strict=True)))
show("H200:", *h200, known=pooled([h200[1], *h100]))
show("H100:", *h100)
show("H200, every baseline:", every, h200[1])
