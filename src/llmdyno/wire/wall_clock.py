"""How far the wall clock, in which the kernel stamps reads, is ahead of perf_counter."""

from time import clock_gettime_ns, perf_counter_ns

_REALTIME = 0  # CLOCK_REALTIME, on every system that has clock_gettime
# Two readings of clocks lie some 100 ns apart, unless the process loses its core between them.
_TOGETHER_NS = 50_000
_READINGS_MAX = 5


def read() -> tuple[int, int]:
    """Return perf_counter's time, and the wall clock's minus that, both in ns.

    Who loses the core between the two readings would take that time for a difference of the clocks,
    and every stamp of a look would be so much too early. So they are read again until they lie
    together; on a machine that never lets them, the closest count.
    """
    closest_ns, now_ns, ahead_ns = 1 << 62, 0, 0
    for _ in range(_READINGS_MAX):
        before_ns = perf_counter_ns()
        wall_ns = clock_gettime_ns(_REALTIME)
        apart_ns = perf_counter_ns() - before_ns
        if apart_ns < closest_ns:
            closest_ns, now_ns, ahead_ns = apart_ns, before_ns, wall_ns - before_ns
        if apart_ns < _TOGETHER_NS:
            break
    return now_ns, ahead_ns
