"""What a calibration says of what it did not see, by groups of points, and against another code's.

python benchmarks/predictor/out_of_fold.py [--visits] [--save SAID.npy] [--against SAID.npy]

Five folds over configs, where the runs of a point's own visit are of its machine, or with
`--visits` each visit left out as a whole, so that all runs are of other machines. Three levels of
evidence/h200-drawn-2 that stood still are also left out of a row of their own. `--save` keeps what
was said; `--against` gives the difference in error to what another code saved, with 95 % of a
paired bootstrap over configs and over visits.
"""

import argparse
import csv
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec
import numpy as np
from ranking import config_of, errors, ranks
from run import points

from llmdyno.predict.calibrate import Calibration, calibrate, point_of, setup_of
from llmdyno.predict.forecast import forecast
from llmdyno.predict.points import Measured

NEW = "h200-drawn-2"
STOOD_STILL = ("drawn2a-load2a", "drawn2b-load2a", "drawn2d-load2a")
FOLDS = 5
_DRAWS = 4000


def run_of(measured: Measured) -> str:
    """Return the name of a point's run: that of its row."""
    path, line = measured.source.rsplit(":", 1)
    with Path(path).open(encoding="utf-8") as file:
        return list(csv.DictReader(file))[int(line) - 2]["run"]


def visit_of(measured: Measured) -> str:
    """Return the visit to a machine that a point is of: its file, and of two visits in it one."""
    path = Path(measured.source.rsplit(":", 1)[0])
    of_two = run_of(measured)[:7] if path.parent.name == NEW else ""
    return f"{path.parent.name}/{path.stem} {of_two}".strip()


def known(measured: Sequence[Measured]) -> list[Measured]:
    """Return points that know their machine: each visit is one."""
    return [msgspec.structs.replace(each, machine=frozenset({visit_of(each)})) for each in measured]


def said_of(measured: Sequence[Measured], calibration: Calibration) -> np.ndarray:
    """Return of each point token rate, TTFT and TPOT, and the two ends of each interval."""
    found = [
        forecast(setup_of(each), point_of(each), calibration.on(each.machine)) for each in measured
    ]
    ranges = [(each.token_rate, each.ttft_ms_p50, each.tpot_ms_p50) for each in found]
    return np.array([[r.mean for r in each] + [e for r in each for e in r.ci80] for each in ranges])


def unseen(measured: Sequence[Measured], group: Callable[[Measured], object]) -> np.ndarray:
    """Return what is said of each point by a calibration that saw none of its group."""
    groups = [group(each) for each in measured]
    found = np.zeros((len(measured), 9))
    for own in sorted(set(groups), key=str):
        out = [place for place, each in enumerate(groups) if each == own]
        seen = [one for one, each in zip(measured, groups, strict=True) if each != own]
        found[out] = said_of([measured[place] for place in out], calibrate(seen))
    return found


def row(name: str, measured: Sequence[Measured], said: np.ndarray, truth: np.ndarray) -> str:
    """Return a line: errors, what intervals hold, tau and what the first choices lose."""
    low, high = said[:, 3::2], said[:, 4::2]
    held = 100 * ((low <= truth) & (truth <= high)).mean(axis=0)
    cells = [name, str(len(measured)), *errors(said, truth)]
    cells += [", ".join(f"{each:.0f}" for each in held), *ranks(measured, said, truth)]
    return f"| {' | '.join(cells)} |"


def less(said: np.ndarray, other: np.ndarray, truth: np.ndarray, names: Sequence[str]) -> str:
    """Return by how much the error differs from another's, with 95 % of a paired bootstrap."""
    gained = 100 * (np.abs(said[:, :3] / truth - 1) - np.abs(other[:, :3] / truth - 1))
    groups = [gained[[name == own for name in names]] for own in sorted(set(names))]
    sums = np.array([each.sum(axis=0) for each in groups])
    counts = np.array([len(each) for each in groups])
    drawn = np.random.default_rng(1).integers(0, len(groups), (_DRAWS, len(groups)))
    means = sums[drawn].sum(axis=1) / counts[drawn].sum(axis=1)[:, None]
    low, high = np.percentile(means, (2.5, 97.5), axis=0)
    return ", ".join(
        f"{gained[:, k].mean():+.1f} [{low[k]:+.1f}, {high[k]:+.1f}]" for k in range(3)
    )


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--visits", action="store_true")
    parser.add_argument("--save", type=Path)
    parser.add_argument("--against", type=Path)
    given = parser.parse_args()
    measured = known([each for each in points() if each.ttft_ms_p50 and each.tpot_ms_p50])
    truth = np.array([[m.token_rate, m.ttft_ms_p50, m.tpot_ms_p50] for m in measured])
    configs = sorted({config_of(each) for each in measured})
    fold = {config: number % FOLDS for number, config in enumerate(configs)}
    said = unseen(measured, visit_of if given.visits else lambda each: fold[config_of(each)])
    if given.save:
        np.save(given.save, said)
    other = np.load(given.against) if given.against else None
    new = np.array([NEW in each.source for each in measured])
    still = np.array([run_of(each).endswith(STOOD_STILL) for each in measured])
    print(
        "| points | levels | token rate | TTFT p50 | TPOT p50 | held, % | tau | regret | ... of 3 |"
    )
    print("|---|---|---|---|---|---|---|---|---|")
    parts = {"all": new | True, "before": ~new, NEW: new, "... without those": new & ~still}
    for name, part in parts.items():
        places = np.flatnonzero(part)
        own = [measured[place] for place in places]
        print(row(name, own, said[part], truth[part]), flush=True)
        if other is not None:
            for whose in (config_of, visit_of):
                names = [whose(each) for each in own]
                print(f"  {less(said[part], other[part], truth[part], names)} over", end=" ")
                print(f"{len(set(names))} {whose.__name__.removesuffix('_of')}s", flush=True)


if __name__ == "__main__":
    main()
