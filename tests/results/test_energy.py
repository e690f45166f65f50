"""Energy inside a window: what counts, what does not, and why not."""

import numpy as np
import pytest

from llmdyno.records.columns import Columns, Energy, Window
from llmdyno.records.entries import CpuEnergy, GpuSample
from llmdyno.results import energy
from results.run_facts import SECOND, columns_of

TEN_S = Window(start_ns=10 * SECOND, end_ns=20 * SECOND, method="-")


def gpu(t_s: float, *, energy_j: float | None = None, power_w: float | None = None) -> GpuSample:
    return GpuSample(
        level=0,
        t_ns=round(t_s * SECOND),
        gpu=0,
        use=None,
        memory_mib=None,
        power_w=power_w,
        clock_mhz=None,
        temperature_c=None,
        throttle=0,
        energy_j=energy_j,
    )


def of(*sources: Energy) -> Columns:
    return Columns(**{**{name: getattr(columns_of(), name) for name in COLUMNS}, "energy": sources})


COLUMNS = [name for name in Columns.__struct_fields__ if name not in {"energy", "price_per_h"}]


def test_counters_are_summed_between_the_ends_of_the_window() -> None:
    # 300 W and 100 W, read at moments that are not the window's ends.
    samples = [gpu(t, energy_j=1e6 + 300 * t) for t in np.arange(8.5, 23, 1.0)]
    cpus = [
        CpuEnergy(level=0, t_ns=t * SECOND, part="package-0", energy_j=100.0 * t)
        for t in range(9, 23, 2)
    ]
    columns = of(*energy.of_samples(samples, cpus))

    found = energy.document(columns, TEN_S)

    assert found is not None
    assert found["joules"] == pytest.approx(4000)
    assert found["watts_mean"] == pytest.approx(400)
    assert [(each["source"], each["by"], each["validity"]) for each in found["sources"]] == [
        ("gpu-0", "counter", "ok"),
        ("package-0", "counter", "ok"),
    ]
    assert [each["joules"] for each in found["sources"]] == pytest.approx([3000, 1000])


def test_power_is_integrated_where_there_is_no_counter() -> None:
    # 100 W, rising to 300 W in the middle of the window: trapezoids are exact for straight lines.
    samples = [gpu(t, power_w=100 + 40 * max(0, t - 15)) for t in range(8, 22)]

    (source,) = energy.of_samples(samples, [])
    found = energy.document(of(source), TEN_S)

    assert source.by == "power"
    assert found is not None
    assert found["joules"] == pytest.approx(100 * 10 + 40 * 5**2 / 2)


@pytest.mark.parametrize(
    ("times_s", "joules", "validity"),
    [
        ([9, 12, 15, 18, 21], [0, 1, 2, 3, 4], "ok"),
        ([9, 12, 15.5, 18, 21], [0, 1, 2, 3, 4], "gap"),
        ([0, 5, 9, 12, 15, 18, 21, 26], range(8), "ok"),  # gaps outside do not matter
        ([12.9, 15, 17.1], [0, 1, 2], "ok"),
        ([13.1, 15, 17.1], [0, 1, 2], "not-covered"),
        ([12, 14, 16], [0, 1, 2], "not-covered"),
        ([15], [1], "not-covered"),
        ([], [], "not-covered"),
        ([9, 12, 15, 18, 21], [5, 6, 1, 2, 3], "counter-reset"),
    ],
)
def test_a_source_counts_only_if_it_saw_the_whole_window(
    times_s: list[float], joules: list[float], validity: str
) -> None:
    source = Energy(
        source="gpu-0",
        by="counter",
        t_ns=np.array([round(t * SECOND) for t in times_s], dtype=np.int64),
        joules=np.array(list(joules), dtype=np.float64),
    )

    assert energy.validity(source, TEN_S) == validity
    found = energy.document(of(source), TEN_S)
    assert found is not None
    assert (found["joules"] is None) == (validity != "ok")
    assert bool(energy.meaning(validity)) == (validity != "ok")


def test_of_a_machine_that_tells_nothing_there_is_nothing() -> None:
    assert energy.of_samples([gpu(1), gpu(2)], []) == ()
    assert energy.document(of(), TEN_S) is None
