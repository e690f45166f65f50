"""The exit status of `dyno bench`."""

from typing import Any

import pytest

from llmdyno.cli.bench import _status
from llmdyno.cli.output import EXIT_THRESHOLD_MISSED
from llmdyno.errors import DynoError
from llmdyno.results.slo import parse_slos
from llmdyno.spec import Bench

BENCH = Bench(url="http://h")
SEARCH = Bench(url="http://h", until=True, slos=parse_slos("ttft:p99<2s"))


def summary(*, completed: int = 5, met: tuple[bool, ...] = (), **more: Any) -> dict[str, Any]:
    levels = [{"requests": {"completed": 0}}, {"requests": {"completed": completed}}]
    return {"levels": levels, "slo": [{"met": each} for each in met], **more}


@pytest.mark.parametrize(
    ("spec", "document", "status"),
    [
        (BENCH, summary(), 0),
        (BENCH, summary(met=(True, True)), 0),
        (BENCH, summary(met=(True, False)), EXIT_THRESHOLD_MISSED),
        # A search misses thresholds on its way; what counts is whether some load meets them.
        (SEARCH, summary(met=(True, False), capacity={"users": 12}), 0),
        (SEARCH, summary(met=(True,), capacity={"users": None}), EXIT_THRESHOLD_MISSED),
        (SEARCH, summary(met=(True,), capacity={"rate": 2.5}), 0),
        (SEARCH, summary(met=(True,), capacity={"rate": None}), EXIT_THRESHOLD_MISSED),
    ],
)
def test_a_missed_threshold_is_a_status_of_its_own(
    spec: Bench, document: dict[str, Any], status: int
) -> None:
    assert _status(spec, document) == status


def test_a_server_that_completes_nothing_is_a_fault() -> None:
    with pytest.raises(DynoError, match="http://h: not one request was completed"):
        _status(BENCH, summary(completed=0))
