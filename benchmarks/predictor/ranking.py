"""Does the predictor rank configs as they measured? Errors, Kendall's tau and regret, as Markdown.

python benchmarks/predictor/ranking.py [--folds 5]

A config is never predicted by a calibration that saw it: the configs are dealt into folds. Beside
it stand what is believed without any point, a pure roofline (the data sheet's bandwidth and FLOP/s,
no host), and a constant: the mean of the other configs at that load, which ranks nothing.
"""

import argparse
import itertools
from collections import defaultdict
from collections.abc import Mapping, Sequence

import msgspec
import numpy as np
from run import points
from scipy.stats import kendalltau

from llmdyno.predict.calibrate import Calibration, calibrate, point_of, prior, setup_of
from llmdyno.predict.forecast import forecast
from llmdyno.predict.points import Measured
from llmdyno.predict.steptime import NAMES

CONFIGS_MIN = 4  # of one load, or there is nothing to rank
FIRST = 3  # trials that a study gives to the predictor

_AGAIN = 500  # times that all points are measured again, in numbers drawn at random
SURE = 1.96 * 2**0.5  # deviations by which one of twenty pairs of equal runs differs

# Per point: token rate, TTFT p50, TPOT p50, and the ends of the interval of TTFT p50.
Figures = np.ndarray


def config_of(measured: Measured) -> str:
    """Return what names a config: its settings, as text."""
    return repr(sorted(measured.config.items()))


def load_of(measured: Measured) -> tuple[object, ...]:
    """Return what the configs of a ranking have in common: all but the config."""
    lengths = (round(measured.isl), round(measured.osl), round(measured.cached_share, 1))
    return (measured.gpu.name, measured.users, measured.request_rate, *lengths)


def roofline() -> Calibration:
    """Return parameters that say: the data sheet is reached, and the host takes no time."""
    ideal = {name: 1.0 if name.endswith("_share") else 1e-9 for name in NAMES}
    return msgspec.structs.replace(prior(), theta=np.array([ideal[name] for name in NAMES]))


def predicted(measured: Sequence[Measured], calibration: Calibration) -> Figures:
    """Return what is predicted of each point."""
    found = [forecast(setup_of(each), point_of(each), calibration) for each in measured]
    return np.array(
        [
            [one.token_rate.mean, one.ttft_ms_p50.mean, one.tpot_ms_p50.mean, *one.ttft_ms_p50.ci80]
            for one in found
        ]
    )


def held_out(measured: Sequence[Measured], folds: int) -> Figures:
    """Return what is predicted of each point by a calibration that did not see its config."""
    configs = sorted({config_of(each) for each in measured})
    fold = {config: number % folds for number, config in enumerate(configs)}
    found = np.zeros((len(measured), 5))
    for number in range(folds):
        out = [place for place, each in enumerate(measured) if fold[config_of(each)] == number]
        seen = [each for each in measured if fold[config_of(each)] != number]
        found[out] = predicted([measured[place] for place in out], calibrate(seen))
    return found


def ranked_unseen(measured: Sequence[Measured], truth: Figures) -> str:
    """Return tau and losses where one calibration, which saw none of its configs, ranks a load.

    The folds predict the configs of a load by several calibrations, and one that did not see a fast
    config predicts it slower than the others do.
    """
    found = np.zeros((len(measured), 5))
    for places in rankings(measured).values():
        names = {config_of(measured[place]) for place in places}
        calibration = calibrate([each for each in measured if config_of(each) not in names])
        found[places] = predicted([measured[place] for place in places], calibration)
    return " | ".join(ranks(measured, found, truth))


def constant(measured: Sequence[Measured], truth: Figures) -> Figures:
    """Return the geometric mean of the other configs at each point's load; NaN without others."""
    found = np.full((len(measured), 3), np.nan)
    for place, each in enumerate(measured):
        others = [
            other
            for other, one in enumerate(measured)
            if load_of(one) == load_of(each) and config_of(one) != config_of(each)
        ]
        if others:
            found[place] = np.exp(np.log(truth[others]).mean(axis=0))
    return found


def alike(measured: Measured) -> tuple[object, ...]:
    """Return what levels have in common that were asked the same: their inputs, roughly.

    How much of a prompt the prefix cache held is an outcome, and a chat's mean lengths differ a
    little from run to run.
    """
    lengths = (round(measured.isl, -1), round(measured.osl, -2))
    return (measured.gpu.name, measured.users, measured.request_rate, *lengths)


def again(measured: Sequence[Measured], truth: Figures) -> Figures:
    """Return what other runs of the same config under the same load gave; NaN without any.

    No predictor can be nearer than that, on average: it is the noise between runs.
    """
    found = np.full((len(measured), 3), np.nan)
    for place, each in enumerate(measured):
        others = [
            other
            for other, one in enumerate(measured)
            if other != place and alike(one) == alike(each) and config_of(one) == config_of(each)
        ]
        if others:
            found[place] = np.exp(np.log(truth[others]).mean(axis=0))
    return found


def noise(measured: Sequence[Measured], truth: Figures) -> float:
    """Return the deviation of the logarithm of the token rate between equal runs."""
    groups: dict[object, list[float]] = defaultdict(list)
    for place, each in enumerate(measured):
        groups[alike(each), config_of(each)].append(float(np.log(truth[place, 0])))
    repeated = [np.array(each) for each in groups.values() if len(each) > 1]
    squares = sum(float(((each - each.mean()) ** 2).sum()) for each in repeated)
    return float(np.sqrt(squares / sum(len(each) - 1 for each in repeated)))


def sure_tau(measured: Sequence[Measured], said: Figures, truth: Figures) -> str:
    """Return tau over the pairs that differ by more than equal runs do, and how many they are."""
    limit = SURE * noise(measured, truth)
    signs = []
    for one, other in itertools.combinations(range(len(measured)), 2):
        if alike(measured[one]) != alike(measured[other]):
            continue
        apart = float(np.log(truth[one, 0] / truth[other, 0]))
        if abs(apart) > limit:
            guessed = float(np.log(said[one, 0] / said[other, 0]))
            signs.append(float(np.sign(apart * guessed)))
    return f"{np.mean(signs):.2f} ({len(signs)} pairs)"


def tau_of_noise(measured: Sequence[Measured], truth: Figures) -> str:
    """Return tau of the measured rates against themselves, measured again: mean and deviation.

    No forecast can be expected to rank better: the second measurement differs as equal runs do.
    """
    rng, deviation = np.random.default_rng(0), noise(measured, truth)
    groups = list(rankings(measured).values())
    found = []
    for _ in range(_AGAIN):
        again_rates = truth[:, 0] * np.exp(rng.normal(0.0, deviation, len(truth)))
        taus = [kendalltau(truth[own, 0], again_rates[own]).statistic for own in groups]
        found.append(np.mean(taus))
    return f"{np.mean(found):.2f} +- {np.std(found):.2f}"


def judged_ttft(said: Figures, truth: Figures) -> str:
    """Return the error of TTFT where it has one answer, and how often the range holds both."""
    low, high = said[:, 3], said[:, 4]
    # An interval is even around its mean until an answer of another start lies outside it.
    two = np.abs(np.log(low * high / said[:, 1] ** 2)) > 0.02
    error = np.abs(said[:, 1] / truth[:, 1] - 1)[~two] * 100
    inside = ((low <= truth[:, 1]) & (truth[:, 1] <= high))[two]
    one = f"{error.mean():.1f} ({np.median(error):.1f}) of {len(error)}" if len(error) else "none"
    return f"{one}; " + (
        f"{inside.mean():.0%} of {len(inside)} in range" if len(inside) else "none"
    )


def rankings(measured: Sequence[Measured]) -> Mapping[tuple[object, ...], list[int]]:
    """Return the places of the points of each load that has enough configs."""
    groups: dict[tuple[object, ...], list[int]] = defaultdict(list)
    for place, each in enumerate(measured):
        groups[load_of(each)].append(place)
    return {load: places for load, places in groups.items() if len(places) >= CONFIGS_MIN}


def row(name: str, measured: Sequence[Measured], said: Figures, truth: Figures) -> str:
    """Return a line of the table: errors, and how the configs of a load are ranked."""
    cells = [name, str(len(measured)), *errors(said, truth), *ranks(measured, said, truth)]
    cells += [sure_tau(measured, said, truth), judged_ttft(said, truth)]
    return f"| {' | '.join(cells)} |"


def errors(said: Figures, truth: Figures) -> list[str]:
    """Return the mean error of each figure in %, and the median."""
    error = np.abs(said[:, :3] / truth - 1) * 100
    return [f"{np.nanmean(error[:, k]):.1f} ({np.nanmedian(error[:, k]):.1f})" for k in range(3)]


def ranks(measured: Sequence[Measured], said: Figures, truth: Figures) -> list[str]:
    """Return tau, its median, and what the first choice and the best of a few lose, in %."""
    taus, first, few = [], [], []
    for places in rankings(measured).values():
        rate, guess = truth[places, 0], said[places, 0]
        order = np.argsort(-guess)
        taus.append(kendalltau(guess, rate).statistic)
        first.append(1 - rate[order[0]] / rate.max())
        few.append(1 - rate[order[:FIRST]].max() / rate.max())
    losses = (f"{100 * np.mean(each):.1f} ({100 * max(each):.1f})" for each in (first, few))
    return [f"{np.mean(taus):.2f} ({np.median(taus):.2f})", *losses]


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folds", type=int, default=5)
    folds = parser.parse_args().folds
    measured = [each for each in points() if each.ttft_ms_p50 and each.tpot_ms_p50]
    truth = np.array([[m.token_rate, m.ttft_ms_p50, m.tpot_ms_p50] for m in measured])
    print(f"{len(rankings(measured))} loads with {CONFIGS_MIN} or more configs\n")
    print(
        "| calibrated on | points | token rate | TTFT p50 | TPOT p50 | tau | regret of the first"
        f" | ... of the best of {FIRST} | tau beyond noise | TTFT where it has one answer; two |\n"
        "|---|---|---|---|---|---|---|---|---|---|"
    )
    print(row("nothing", measured, predicted(measured, prior()), truth), flush=True)
    print(row("a roofline", measured, predicted(measured, roofline()), truth), flush=True)
    same = errors(constant(measured, truth), truth)
    print(f"| a constant | {len(measured)} | {' | '.join(same)} | - | - | - | - | - |", flush=True)
    runs = again(measured, truth)
    floor = f"{int(np.isfinite(runs[:, 0]).sum())} | {' | '.join(errors(runs, truth))}"
    print(f"| the same config, other runs | {floor} | - | - | - | - | - |", flush=True)
    print(f"\nequal runs differ by {noise(measured, truth):.1%} (one deviation);", flush=True)
    print(f"tau of rates against themselves, measured again: {tau_of_noise(measured, truth)}\n")
    print(row(f"other configs ({folds} folds)", measured, held_out(measured, folds), truth))
    print("\neach load ranked by a calibration that saw none of its configs: tau, regret of the")
    print(f"first, of the best of {FIRST}: {ranked_unseen(measured, truth)}")


if __name__ == "__main__":
    main()
