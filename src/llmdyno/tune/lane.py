"""One trial in a process of its own, beside others: the program of a lane.

The conductor of the study starts it on a leash (`lanes.py`), with the environment that shows it its
own GPUs. It reads an order, holds itself and all that it starts to its cores, measures, and writes
what came of it. It never writes to the ledger.
"""

import os
import signal
import sys
from pathlib import Path

import msgspec

from llmdyno import store
from llmdyno.errors import InterruptError, StorageError
from llmdyno.knobs import Value
from llmdyno.spec import Load
from llmdyno.tune.folder import stack_of
from llmdyno.tune.ledger import Ledger
from llmdyno.tune.measure import Measurement, measure
from llmdyno.tune.race import race
from llmdyno.tune.spec import Study

ORDER, CAME = "order.json", "came.json"  # in the run's folder


class Order(msgspec.Struct, frozen=True, kw_only=True):
    """What a lane is to measure."""

    study: Study
    folder: str  # of the study
    run: str  # its folder within the study's
    config: dict[str, Value]
    load: Load
    cores: tuple[int, ...] = ()  # empty: all that we may use
    imports: tuple[str, ...] = ()  # where the conductor finds modules: an engine may be one
    unset: tuple[str, ...] = ()  # variables that were for the lane, and that no server inherits
    races: bool = True  # against what the ledger knows when it begins


class Came(msgspec.Struct, frozen=True, kw_only=True):
    """What came of it: a measurement, or why nothing can be written any more."""

    measurement: Measurement | None = None
    storage: str = ""


def main(argv: list[str]) -> int:
    """Measure what the order in a run's folder says; return the exit status."""
    run = Path(argv[1])
    order = msgspec.json.decode((run / ORDER).read_bytes(), type=Order)
    # The conductor stops a lane with SIGTERM; its server is to be stopped, and nothing told.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    for name in order.unset:
        os.environ.pop(name, None)
    # Not by PYTHONPATH, which the server would inherit.
    sys.path += [place for place in order.imports if place not in sys.path]
    if order.cores:
        os.sched_setaffinity(0, order.cores)
    try:
        came = Came(measurement=_measured(order, run))
    except StorageError as error:
        came = Came(storage=str(error))
    except (InterruptError, KeyboardInterrupt):
        return InterruptError.exit_status
    store.write_atomically(run / CAME, msgspec.json.encode(came))
    return 0


def _measured(order: Order, run: Path) -> Measurement:
    study, folder = order.study, Path(order.folder)
    rivals = race(study, Ledger(folder), folder, order.load) if order.races else None
    return measure(
        stack_of(study),
        order.config,
        workload=study.workload,
        load=order.load,
        slos=study.slos,
        price_per_h=study.price_per_h,
        hang_s=study.hang_s,
        warmup_s=study.warmup_s,
        folder=run,
        calibration=False,
        race=rivals,
        report_progress=lambda _progress, _meter: None,
        notify=lambda _line: None,
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv))
