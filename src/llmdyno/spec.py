"""What the user asks of a benchmark: workload, load, target, SLO; checked when it is made.

Each struct checks itself, so that wrong input gets one sentence before anything starts. The command
line takes its defaults from these fields.
"""

import math
from typing import Literal

import msgspec

from llmdyno.errors import UsageError, nearest
from llmdyno.results.metrics import BY_NAME
from llmdyno.results.slo import Objective, Slo
from llmdyno.units import Lengths, show_seconds
from llmdyno.wire.kserve import Tensor

ARRIVALS = ("closed", "constant", "poisson", "gamma", "trace")
ARRIVALS_MAX = 10_000_000  # of a level; all are drawn before it begins
RAMP_S = 20.0
ROUNDS_MIN = 3  # before --repeat-until may find that it has been enough
REPEATS_MAX = 10  # with --repeat-until and no --repeat
UNTIL_BUDGET_S = 600.0
SEARCH_SEEDS = 2**32  # how many Optuna knows
CHAT_OUTPUT_TOKENS = 512  # the most a chat answer may take, as in the 2024 client


class Workload(msgspec.Struct, frozen=True, kw_only=True):
    """What is asked; the workload of that name checks what else it needs (`workload.check`)."""

    name: str = "chat"  # of a workload, or of a module that has one
    dataset: str | None = None  # a file, or hf:org/name, of prompts or of a trace
    isl: Lengths | None = None  # input length in tokens, of prompts that are made
    osl: Lengths | None = None  # output length in tokens: exact, whatever the model says
    dataset_osl: bool = False  # answers exactly as long as the data set's
    unique: bool = False  # each request or session begins with a number of its own
    turns: Lengths = Lengths("uniform", 2, 6)  # of a session made of our own prompts
    system_prompt: str = ""
    seed: int = 0

    def __post_init__(self) -> None:
        if self.seed < 0:
            raise UsageError(f"--seed {self.seed}: must be at least 0.")


class Load(msgspec.Struct, frozen=True, kw_only=True):
    """How it is asked, one level after the other: closed-loop users, or arrivals at a rate."""

    users: tuple[int, ...] = (10, 50, 100)  # of a closed loop
    arrival: str = "closed"
    rates: tuple[float, ...] = ()  # of an open loop, requests per second
    burstiness: float | None = None  # of gamma: the shape; below 1 is burstier than Poisson
    time_scale: float = 1.0  # of a trace: 2 replays it twice as fast
    max_concurrency: int | None = None  # of an open loop: requests under way at once
    ramp_s: float | None = None  # None: RAMP_S, or a quarter of the duration if that is shorter
    duration_s: float = 300.0
    requests: int | None = None  # per level, instead of the duration
    interval_s: float = 5.0
    think_s: float | tuple[float, float] = 0.010  # two: uniform between them
    timeout_s: float = 600.0
    grace_s: float = 30.0
    max_errors: int | None = None  # so many failed requests end the run
    max_error_rate: float | None = None  # as does this share of the last ones

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
    def is_open(self) -> bool:
        """Whether requests come when they are due, not when a user is free."""
        return self.arrival != "closed"

    @property
    def ramp(self) -> float:
        """The ramp in seconds."""
        if self.ramp_s is not None:
            return self.ramp_s
        if self.is_open:  # arrivals come as they come; there is no herd to spread
            return 0.0
        return RAMP_S if self.requests is not None else min(RAMP_S, self.duration_s / 4)


class Study(msgspec.Struct, frozen=True, kw_only=True):
    """One tuning study: what is tuned, for what, under which load, and how long."""

    engine: str = "openvino"
    front: str = "native"
    model: str = "tiny"
    baseline: dict[str, bool | int | float | str] = {}  # empty: the engine's own defaults
    # Configs known to be good, each what it sets over the baseline: the first trials, in order.
    candidates: tuple[dict[str, bool | int | float | str], ...] = ()
    search: tuple[str, ...] = ()  # knobs; empty: all that the engine has a range for
    allow_altered_output: bool = False
    objective: Objective = Objective(metric="token_rate", stat="mean")
    slos: tuple[Slo, ...] = ()
    trials: int = 20
    budget_s: float | None = None  # no new trial starts after it
    pairs: int = 3
    workload: Workload = Workload()
    load: Load = Load(duration_s=60.0, grace_s=0.0)
    trial_duration_s: float = 30.0
    warmup_s: float = 5.0  # of load that does not count, on each fresh server
    hang_s: float = 60.0
    seed: int = 0

    def __post_init__(self) -> None:
        if self.trials < 1:
            raise UsageError(f"--trials {self.trials}: must be at least 1.")
        if self.trials < len(self.candidates):
            raise UsageError(
                f"--trials {self.trials}: the {len(self.candidates)} [[candidates]] are trials,"
                f" too; set at least {len(self.candidates)}, or leave some out."
            )
        if self.pairs < 2:
            raise UsageError(f"--pairs {self.pairs}: must be at least 2, or nothing is confirmed.")
        if self.budget_s is not None and self.budget_s <= 0:
            raise UsageError("--budget 0s: must be longer than 0.")
        if self.seed >= SEARCH_SEEDS:
            raise UsageError(f"--seed {self.seed}: must be below {SEARCH_SEEDS} for a search.")

    @property
    def level(self) -> int:
        """The number of users at which configs are compared: the largest."""
        return max(self.load.users)


class Bench(msgspec.Struct, frozen=True, kw_only=True):
    """One benchmark of one server, over all levels."""

    url: str
    ca_cert: str | None = None  # PEM file
    insecure: bool = False
    proxy: str | None = None
    endpoint: str = "auto"
    model: str = ""  # empty: the first that the server lists
    tensors: tuple[Tensor, ...] = ()  # the model's inputs, asked for where the endpoint needs them
    tokenizer: str = ""  # a tokenizer.json or its folder, if the server cannot count
    workload: Workload = Workload()
    load: Load = Load()
    slos: tuple[Slo, ...] = ()
    calibration: bool = True  # measure the client itself first
    scrape: bool = True  # read the server's own metrics, if it has any
    metrics_url: str = ""  # where they are; empty: where servers of its kind have them
    repeat: int = 1  # times all levels are run, one round after the other
    # No further round once the 95 % interval of each level's token rate is within this share of it.
    repeat_until: float | None = None
    workers: int | Literal["auto"] = 1  # processes that a level is spread over
    ray: str = ""  # address of a Ray cluster on whose machines they run
    until: bool = False  # search the highest load that meets the SLOs, from the first level's on
    until_budget_s: float = UNTIL_BUDGET_S  # no new level begins that could not end within it

    def __post_init__(self) -> None:
        self._check_repeats()
        if self.workers != "auto" and self.workers < 1:
            raise UsageError(f"--workers {self.workers}: must be at least 1, or auto.")
        if self.until:
            self._check_until()
        for slo in self.slos:
            if BY_NAME[slo.metric].open_loop and not self.load.is_open:
                raise UsageError(
                    f"--slo {slo.expr}: closed-loop users have no due times; give --request-rate,"
                    f" or leave out '_due'."
                )

    def _check_repeats(self) -> None:
        if self.repeat < 1:
            raise UsageError(f"--repeat {self.repeat}: must be at least 1.")
        if self.repeat > 1 and self.until:
            raise UsageError(
                "--until: measures loads again by itself; leave out --repeat and --repeat-until."
            )
        if self.repeat_until is not None:
            if not 0 < self.repeat_until < 1:
                raise UsageError(
                    f"--repeat-until {self.repeat_until:.4g}: write a share between 0 and 1,"
                    " such as 2%."
                )
            if self.repeat < ROUNDS_MIN:
                raise UsageError(
                    f"--repeat {self.repeat}: must be at least {ROUNDS_MIN} with --repeat-until."
                )

    def _check_until(self) -> None:
        if not self.slos:
            raise UsageError("--until: needs --slo, e.g. --slo 'ttft:p99<2s'.")
        if self.load.arrival == "trace":
            raise UsageError("--until: needs users or a rate; a trace has one load.")
        if not self.load.ends_by_count and self.until_budget_s < self.load.duration_s:
            raise UsageError(
                f"--until-budget {show_seconds(self.until_budget_s)}: must hold a level of"
                f" {show_seconds(self.load.duration_s)}, better ten."
            )

    @property
    def levels(self) -> tuple[tuple[int, float], ...]:
        """All (round, load) in the order in which they are run, if it is no search."""
        return tuple((number, load) for number in range(self.repeat) for load in self.load.points)
