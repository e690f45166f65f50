"""Energy: what GPUs and processors used inside a window, and what that is for each token.

GPUs have a counter (NVML, since the Volta generation); for an older one its power is integrated by
the trapezoidal rule. Processors have the kernel's counters. All of it is the whole machine's: where
the load generator runs beside the server, its share is in there too.

A source counts only if its samples say what was used from the window's begin to its end. Otherwise
there is no sum, because a sum that lacks a source would be too good.
"""

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np

from llmdyno.records.columns import Columns, Energy, Window
from llmdyno.records.entries import CpuEnergy, GpuSample
from llmdyno.results.stats import Array, Floats, significant

GAP_S_MAX = 3.0  # between two samples; what happened between them is a guess

Validity = Literal["ok", "gap", "not-covered", "counter-reset"]
_MEANINGS: dict[str, str] = {  # of each Validity that speaks against a source
    "gap": f"its samples lie more than {GAP_S_MAX:g} s apart",
    "not-covered": f"its samples leave out more than {GAP_S_MAX:g} s of the window",
    "counter-reset": "its counter went backwards",
}


def meaning(code: str) -> str:
    """Say what speaks against a source; empty: nothing."""
    return _MEANINGS.get(code, "")


def of_samples(gpus: Sequence[GpuSample], cpus: Sequence[CpuEnergy]) -> tuple[Energy, ...]:
    """Return what each GPU and each part of the processors had used, from a level's samples."""
    found = []
    for number in sorted({sample.gpu for sample in gpus}):
        own = [sample for sample in gpus if sample.gpu == number]
        t_ns = np.array([sample.t_ns for sample in own], dtype=np.int64)
        counted = [sample.energy_j for sample in own if sample.energy_j is not None]
        powers = [sample.power_w for sample in own if sample.power_w is not None]
        if len(counted) == len(own):
            joules, by = np.array(counted, dtype=np.float64), "counter"
        elif len(powers) == len(own):
            joules, by = _integrated(t_ns, np.array(powers, dtype=np.float64)), "power"
        else:
            continue
        found.append(Energy(source=f"gpu-{number}", by=by, t_ns=t_ns, joules=joules))
    for part in sorted({sample.part for sample in cpus}):
        of_part = [sample for sample in cpus if sample.part == part]
        found.append(
            Energy(
                source=part,
                by="counter",
                t_ns=np.array([sample.t_ns for sample in of_part], dtype=np.int64),
                joules=np.array([sample.energy_j for sample in of_part], dtype=np.float64),
            )
        )
    return tuple(found)


def _integrated(t_ns: Array, power_w: Floats) -> Floats:
    steps_j = np.diff(t_ns) / 1e9 * (power_w[1:] + power_w[:-1]) / 2
    return np.concatenate([np.zeros(1), np.cumsum(steps_j)])


def validity(energy: Energy, window: Window) -> Validity:
    """Tell whether a source's samples say what was used inside a window."""
    gap_ns = GAP_S_MAX * 1e9
    t_ns = energy.t_ns
    if len(t_ns) < 2 or t_ns[0] > window.start_ns + gap_ns or t_ns[-1] < window.end_ns - gap_ns:
        return "not-covered"
    # The samples that the window needs: all inside it, and the ones before and after.
    first = max(0, int(np.searchsorted(t_ns, window.start_ns, side="right")) - 1)
    last = min(len(t_ns), int(np.searchsorted(t_ns, window.end_ns)) + 1)
    if last - first < 2:
        return "not-covered"
    if np.any(np.diff(t_ns[first:last]) > gap_ns):
        return "gap"
    if np.any(np.diff(energy.joules[first:last]) < 0):
        return "counter-reset"
    return "ok"


def used_until(columns: Columns, window: Window, times_ns: Floats) -> Floats | None:
    """Return what all sources together had used by each of these times, in J; None: not known.

    Between samples, and up to GAP_S_MAX beyond the first and the last, use is taken as constant.
    """
    if not columns.energy or any(validity(one, window) != "ok" for one in columns.energy):
        return None
    of_sources = np.array([_interpolated(one, times_ns) for one in columns.energy])
    return np.asarray(of_sources.sum(axis=0), dtype=np.float64)


def _interpolated(energy: Energy, times_ns: Floats) -> Floats:
    t_ns, joules = energy.t_ns.astype(np.float64), energy.joules
    found = np.interp(times_ns, t_ns, joules)
    first_w = (joules[1] - joules[0]) / max(t_ns[1] - t_ns[0], 1.0)
    last_w = (joules[-1] - joules[-2]) / max(t_ns[-1] - t_ns[-2], 1.0)
    found = found - np.maximum(t_ns[0] - times_ns, 0) * first_w
    return np.asarray(found + np.maximum(times_ns - t_ns[-1], 0) * last_w, dtype=np.float64)


def document(columns: Columns, window: Window) -> dict[str, Any] | None:
    """Return what a level's summary says of its energy; None where nothing was sampled."""
    if not columns.energy:
        return None
    ends_ns = np.array([window.start_ns, window.end_ns], dtype=np.float64)
    total = used_until(columns, window, ends_ns)
    sources = []
    for one in columns.energy:
        valid = validity(one, window)
        used_j = float(np.diff(_interpolated(one, ends_ns))[0]) if valid == "ok" else None
        sources.append(
            {
                "source": one.source,
                "by": one.by,
                "joules": None if used_j is None else significant(used_j),
                "validity": valid,
            }
        )
    used_j = None if total is None else float(total[1] - total[0])
    return {
        "joules": None if used_j is None else significant(used_j),
        "watts_mean": None if used_j is None else significant(used_j / max(window.length_s, 1e-9)),
        "sources": sources,
    }
