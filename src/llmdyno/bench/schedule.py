"""The load points of a run in their order: those of the spec, or those that a search chooses."""

from collections.abc import Iterator
from pathlib import Path
from time import monotonic

from llmdyno.machine.blas import import_numpy
from llmdyno.spec import ROUNDS_MIN, Bench


def loads(spec: Bench, journal: Path) -> Iterator[tuple[int, float]]:
    """Yield the round (from 0) and the load of each level.

    The next load may depend on the journal: a search reads its last level, and `--repeat-until`
    its token rates. So the caller must write each level before it asks for the next one.

    Args:
        spec: of the run.
        journal: of the run.

    Raises:
        StorageError: the journal cannot be read.
    """
    if spec.until:
        yield from ((0, load) for load in _searched(spec, journal))
        return
    for number, (repeat, load) in enumerate(spec.levels):
        begins_round = number == repeat * len(spec.load.points)
        if begins_round and _is_known(spec, journal, repeat):
            return
        yield repeat, load


def _searched(spec: Bench, journal: Path) -> Iterator[float]:
    """Yield the loads of a search for the highest one that meets the SLOs."""
    import_numpy()
    from llmdyno.results.capacity import CapacitySearch, measured_point
    from llmdyno.results.facts import read_levels

    is_whole = not spec.load.is_open
    search = CapacitySearch(spec.load.points[0], whole=is_whole, seed=spec.workload.seed)
    level_s = 0.0 if spec.load.ends_by_count else spec.load.duration_s
    ends_s = monotonic() + spec.until_budget_s
    load = search.next_load()
    while load is not None:
        yield load
        _, levels = read_levels(journal)
        search.add(measured_point(levels[-1], spec.slos))
        load = search.next_load() if monotonic() + level_s <= ends_s else None


def _is_known(spec: Bench, journal: Path, rounds: int) -> bool:
    """Return whether so many rounds know each token rate as exactly as `--repeat-until` asks."""
    if spec.repeat_until is None or rounds < ROUNDS_MIN:
        return False
    import_numpy()
    from llmdyno.results.measures import token_rate_intervals

    return all(
        (high - low) / 2 <= spec.repeat_until * (low + high) / 2
        for low, high in token_rate_intervals(journal)
    )
