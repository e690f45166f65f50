"""How it is asked: closed-loop users, or arrivals at a rate."""

import math
from typing import Annotated

import msgspec

from llmdyno.errors import UsageError, nearest
from llmdyno.flag import (
    COUNTS,
    NUMBER,
    PAUSE,
    RATES,
    SECONDS,
    TEXT,
    WHOLE,
    Flag,
)
from llmdyno.units import show_seconds

ARRIVALS = ("closed", "constant", "poisson", "gamma", "trace")
ARRIVALS_MAX = 10_000_000  # of a level; all are drawn before it begins
RAMP_S = 20.0


class Load(msgspec.Struct, frozen=True, kw_only=True):
    """How it is asked, one level after the other: closed-loop users, or arrivals at a rate."""

    users: Annotated[
        tuple[int, ...],
        Flag(COUNTS, "Users, one level each.", ("-c", "--concurrency"), heading="Load"),
    ] = (10, 50, 100)
    rates: Annotated[
        tuple[float, ...],
        Flag(
            RATES,
            "Requests per second of an open loop, one level each.",
            name="request_rate",
        ),
    ] = ()
    arrival: Annotated[
        str,
        Flag(
            TEXT,
            f"When requests are due: {', '.join(ARRIVALS)}.",
            default="closed; poisson with --request-rate",
            tune="file",
        ),
    ] = "closed"
    burstiness: Annotated[
        float | None,
        Flag(NUMBER, "Shape of gamma arrivals; below 1 is burstier than Poisson.", tune="file"),
    ] = None
    max_concurrency: Annotated[
        int | None,
        Flag(WHOLE, "Most requests in flight at once in an open loop.", tune="file"),
    ] = None
    time_scale: Annotated[
        float, Flag(NUMBER, "Speed of a trace: 2 replays it twice as fast.", tune="never")
    ] = 1.0
    ramp_s: Annotated[
        float | None,
        Flag(
            SECONDS,
            "Time over which users start, or a request rate grows.",
            default=f"{show_seconds(RAMP_S)}, at most a quarter of --duration; with a rate"
            " or --requests 0s",
        ),
    ] = None
    duration_s: Annotated[float, Flag(SECONDS, "Length of a level, ramp included.")] = 300.0
    requests: Annotated[
        int | None,
        Flag(WHOLE, "Requests of a level, instead of a duration.", ("--num-prompts",), tune="file"),
    ] = None
    interval_s: Annotated[float, Flag(SECONDS, "Time between samples of the time series.")] = 5.0
    think_s: Annotated[
        float | tuple[float, float],
        Flag(
            PAUSE,
            "Pause of a user between requests; 1s-5s is uniform.",
            name="think_time",
            tune="file",
        ),
    ] = 0.010
    timeout_s: Annotated[float, Flag(SECONDS, "Time limit of one request.", tune="file")] = 600.0
    grace_s: Annotated[
        float, Flag(SECONDS, "Wait at a level's end for requests in flight.", tune="file")
    ] = 30.0
    # A tuner's trial that fails is a result, however it fails: a study has no limits of errors.
    max_errors: Annotated[
        int | None, Flag(WHOLE, "Number of failed requests that ends the run.", tune="never")
    ] = None
    max_error_rate: Annotated[
        float | None,
        Flag(
            NUMBER,
            "Share of failed ones among the last 50 that ends the run; fewer count, too.",
            tune="never",
        ),
    ] = None

    def __post_init__(self) -> None:
        self._check_arrivals()
        if not self.users or any(count < 1 for count in self.users):
            raise UsageError(
                f"-c {','.join(map(str, self.users))}: each level needs 1 user or more."
            )
        if self.requests is not None and self.requests < 1:
            raise UsageError(f"--requests {self.requests}: must be at least 1.")
        for field, value in (("duration", self.duration_s), ("interval", self.interval_s)):
            if value <= 0:
                raise UsageError(f"--{field} {show_seconds(value)}: must be longer than 0.")
        if self.max_errors is not None and self.max_errors < 1:
            raise UsageError(f"--max-errors {self.max_errors}: must be at least 1.")
        if self.max_error_rate is not None and not 0 <= self.max_error_rate < 1:
            raise UsageError(
                f"--max-error-rate {self.max_error_rate:g}: must be at least 0 and below 1."
            )
        if self.timeout_s <= 0:
            raise UsageError("--timeout 0s: must be longer than 0.")
        if self.requests is None and self.ramp_s is not None and self.ramp_s >= self.duration_s:
            raise UsageError(
                f"--ramp {show_seconds(self.ramp_s)}: must be shorter than --duration"
                f" {show_seconds(self.duration_s)}, which includes it."
            )

    def _check_arrivals(self) -> None:
        if self.arrival not in ARRIVALS:
            raise UsageError(f"--arrival {self.arrival}: unknown.{nearest(self.arrival, ARRIVALS)}")
        if self.arrival == "trace":
            self._check_trace()
        elif self.time_scale != 1.0:
            raise UsageError(f"--time-scale {self.time_scale:g}: only with --arrival trace.")
        elif self.is_open and not self.rates:
            raise UsageError(f"--arrival {self.arrival}: needs a rate, e.g. --request-rate 2.")
        if self.rates and not self.is_open:
            raise UsageError(
                "--request-rate: needs arrivals that are not closed, e.g. --arrival poisson."
            )
        if any(not 0 < rate < math.inf for rate in self.rates):
            rates = ",".join(f"{rate:g}" for rate in self.rates)
            raise UsageError(f"--request-rate {rates}: each level needs more than 0 a second.")
        if (self.burstiness is not None) != (self.arrival == "gamma"):
            raise UsageError(
                "--burstiness: goes with --arrival gamma, and that with it, e.g. --burstiness 0.5."
            )
        fastest = max(self.rates, default=0.0)
        if self.requests is None and fastest * self.duration_s > ARRIVALS_MAX:
            raise UsageError(
                f"--request-rate {fastest:g}: makes more than {ARRIVALS_MAX:,} requests in"
                f" --duration {show_seconds(self.duration_s)}."
            )
        if self.burstiness is not None and not 0 < self.burstiness < math.inf:
            raise UsageError(f"--burstiness {self.burstiness:g}: must be more than 0.")
        if self.max_concurrency is not None and not self.is_open:
            raise UsageError(
                f"--max-concurrency {self.max_concurrency}: only with --request-rate; for users in"
                " a closed loop write -c."
            )
        if self.max_concurrency is not None and self.max_concurrency < 1:
            raise UsageError(f"--max-concurrency {self.max_concurrency}: must be at least 1.")

    def _check_trace(self) -> None:
        if self.rates:
            raise UsageError("--request-rate: a trace has its own rate; see --time-scale.")
        if self.ramp_s is not None:
            raise UsageError(f"--ramp {show_seconds(self.ramp_s)}: a trace has its own times.")
        if not 0 < self.time_scale < math.inf:
            raise UsageError(f"--time-scale {self.time_scale:g}: must be more than 0.")

    @property
    def ends_by_count(self) -> bool:
        """Whether a level ends after so many requests, not after a duration."""
        return self.requests is not None or self.arrival == "trace"

    @property
    def points(self) -> tuple[float, ...]:
        """The load of each level: requests per second of an open loop, users of a closed one."""
        if self.arrival == "trace":
            return (self.time_scale,)
        return self.rates if self.is_open else self.users

    @property
    def has_own_times(self) -> bool:
        """Whether a trace says when requests come, so that it has neither users nor a rate."""
        return self.arrival == "trace"

    @property
    def highest(self) -> float:
        """The largest load: users of a closed loop, requests per second of an open one."""
        return max(self.points)

    def alone(self, point: float) -> "Load":
        """Return this load with one of its levels alone; a trace has but one."""
        if self.has_own_times:
            return self
        if self.is_open:
            return msgspec.structs.replace(self, rates=(point,))
        return msgspec.structs.replace(self, users=(int(point),))

    @property
    def is_open(self) -> bool:
        """Whether requests come when they are due, not when a user is free."""
        return self.arrival != "closed"

    @property
    def connections(self) -> int:
        """How many connections it needs at once; 0 if that is not known."""
        return (self.max_concurrency or 0) if self.is_open else max(self.users)

    @property
    def effective_ramp_s(self) -> float:
        """The ramp that is run: `ramp_s` where the user gave it, else what suits the load."""
        if self.ramp_s is not None:
            return self.ramp_s
        if self.is_open:  # arrivals come as they come; there is no herd to spread
            return 0.0
        if self.requests is not None:  # they may be over before the last users have come
            return 0.0
        return min(RAMP_S, self.duration_s / 4)
