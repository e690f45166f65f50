"""A plan that is calibrated: it says what the library says of the same rows."""

from pathlib import Path

import numpy as np
import pytest

from llmdyno.predict.asked import Plan
from llmdyno.predict.calibrate import calibrate, point_of, setup_of
from llmdyno.predict.forecast import forecast
from llmdyno.predict.gpus import gpu_of
from llmdyno.predict.planning import make
from llmdyno.predict.points import Measured, Whose, read_points
from llmdyno.predict.shapes import shape_of
from llmdyno.units import Lengths

EVIDENCE = Path(__file__).parents[2] / "evidence"
TABLE = str(EVIDENCE / "h200/points/points.csv")
METRICS = ("token_rate", "ttft_ms_p50", "tpot_ms_p50")


def planned(rows: list[Measured], measured: tuple[str, ...]) -> np.ndarray:
    """Return what a plan of the rows' own config says: (row, metric)."""
    first = rows[0]
    document = make(
        Plan(
            model=first.shape.name,
            gpu="h200",
            isl=Lengths("fixed", round(first.isl)),
            osl=Lengths("fixed", round(first.osl)),
            users=tuple(row.users or 0 for row in rows),
            duration_s=first.duration_s,
            baseline=dict(first.config),
            config_only=True,
            measured=measured,
        )
    ).document
    assert [point["users"] for point in document["points"]] == [row.users for row in rows]
    return np.array([[point[name]["mean"] for name in METRICS] for point in document["points"]])


@pytest.mark.parametrize("arm", ["fp8", "bf16"])
def test_a_calibrated_plan_agrees_with_the_library_and_does_rows_that_it_saw_no_harm(
    arm: str,
) -> None:
    whose = Whose(gpu=gpu_of("h200"), engine="vllm", shape=shape_of("llama-3-8b"))
    seen = read_points(TABLE, whose)
    rows = [
        row
        for row in seen
        if row.duration_s == 8
        and row.isl < 200
        and row.cached_share == 0
        and row.config.get("max_num_batched_tokens") == 4445
        and (row.config.get("quantization") == "fp8") is (arm == "fp8")
    ]
    rows = sorted(rows, key=lambda row: row.users or 0)[-3:]
    said, before = planned(rows, (TABLE,)), planned(rows, ())
    calibration = calibrate(seen)
    for row, own in zip(rows, said, strict=True):
        found = forecast(setup_of(row), point_of(row), calibration)
        library = [getattr(found, name).mean for name in METRICS]
        assert own == pytest.approx(library, rel=0.05)
    true = np.array([[getattr(row, name) for name in METRICS] for row in rows])
    errors = [np.abs(one / true - 1).mean(axis=0) for one in (said, before)]
    assert (errors[0] < errors[1] + 0.03).all()
