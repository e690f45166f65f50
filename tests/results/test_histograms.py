"""How a level's latencies are distributed."""

from pathlib import Path

import pytest

import lab
from llmdyno import store


def test_a_level_has_the_shape_of_its_latencies(tmp_path: Path) -> None:
    lab.write_run(tmp_path / "r", gap_ms=40, first_ms=200)
    (level,) = store.read_json(tmp_path / "r" / store.SUMMARY)["levels"]
    for name in ("ttft_ms", "itl_ms", "tpot_ms", "e2e_ms"):
        found = level["histograms"][name]
        assert sum(found["shares"]) == pytest.approx(1, abs=1e-4)
        assert found["low_ms"] <= level[name]["p50"] <= found["high_ms"]
        assert found["high_ms"] == level[name]["max"]
    # No two answers in a row alike: the first tokens take 198 to 202 ms, each a fifth.
    shares = [share for share in level["histograms"]["ttft_ms"]["shares"] if share]
    assert shares == pytest.approx([0.2] * 5, abs=0.02)
