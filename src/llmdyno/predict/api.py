"""An API server's event loop: how long a request and a token wait for a turn of it."""

from typing import Any

import numpy as np

_BUSY_MAX = 0.9
API_PASSES = 2  # of its event loop, that a request and its first token wait for
LATENCY_REQUESTS = 2.0  # what a request passes outside the queues, in API times: sockets, events
SURE_SHARE = 0.3  # of that: what every request passes; the rest is exponential


def api_pass_s(work_s: Any, step_s: Any) -> Any:
    """Return the time of a pass of an API server's event loop; takes arrays, too.

    In a pass it writes a token for each of its requests, which costs it `work_s`; while it does, a
    step of `step_s` makes the next ones. The nearer the two are, the longer are its passes, until
    it sends several tokens at once.
    """
    busy = np.minimum(_BUSY_MAX, work_s / np.maximum(step_s, 1e-9))
    return work_s / (1 - busy)
