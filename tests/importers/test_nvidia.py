"""What the two tools of NVIDIA share."""

from pathlib import Path

from importers.tool_samples import altered
from llmdyno.importers import import_file


def test_a_latency_in_nanoseconds_becomes_milliseconds(tmp_path: Path) -> None:
    path = altered(tmp_path, "aiperf.json", request_latency={"unit": "ns", "avg": 5e9, "p50": 4e9})

    (imported,) = import_file(path)["levels"]

    assert (imported["e2e_ms"]["mean"], imported["e2e_ms"]["p50"]) == (5_000, 4_000)
