"""What the user asks of a benchmark: target, workload, load, SLOs.

Each struct checks itself, so that wrong input gets one sentence before anything starts. A field
with a Flag is a flag of the command line and a key of a study's file: name, help, default and
reader stand here, and nowhere else.
"""

import math
from typing import Annotated, Literal

import msgspec

from llmdyno.errors import UsageError, nearest
from llmdyno.flag import (
    COUNT_OR_AUTO,
    COUNTS,
    FILE_TEXT,
    LENGTHS,
    NUMBER,
    PAUSE,
    RATES,
    SECONDS,
    SHARE,
    TEXT,
    TRUTH,
    WHOLE,
    Flag,
    parsed,
)
from llmdyno.results.slo import Slo, parse_slos
from llmdyno.units import Lengths, show_seconds
from llmdyno.wire.kserve import Tensor

ARRIVALS = ("closed", "constant", "poisson", "gamma", "trace")
ARRIVALS_MAX = 10_000_000  # of a level; all are drawn before it begins
RAMP_S = 20.0
ROUNDS_MIN = 3  # before --repeat-until may find that it has been enough
REPEATS_MAX = 10  # with --repeat-until and no --repeat
UNTIL_BUDGET_S = 600.0
CHAT_OUTPUT_TOKENS = 512  # the most a chat answer may take, as in the 2024 client

SLOS = Flag(
    parsed(parse_slos), "Thresholds, e.g. 'ttft:p99<2s,tpot:p95<50ms'.", ("--goodput",), name="slo"
)


class Workload(msgspec.Struct, frozen=True, kw_only=True):
    """What is asked; the workload of that name checks what else it needs (`workload.check`)."""

    name: Annotated[str, Flag(TEXT, "What is asked", name="workload", plugins="workload.kinds")] = (
        "chat"
    )
    dataset: Annotated[
        str | None, Flag(TEXT, "Prompts or a trace: a file or hf:ORG/NAME.", metavar="FILE")
    ] = None
    isl: Annotated[
        Lengths | None,
        Flag(LENGTHS, "Input tokens: 128, 64-256 or normal:128,32.", ("--input-len",)),
    ] = None
    osl: Annotated[
        Lengths | None,
        Flag(
            LENGTHS,
            "Output tokens, exact whatever the model says.",
            ("--output-len",),
            default=f"the model's own number, at most {CHAT_OUTPUT_TOKENS}",
        ),
    ] = None
    dataset_osl: Annotated[
        bool, Flag(TRUTH, "Make answers exactly as long as the data set's.", tune="file")
    ] = False
    unique: Annotated[
        bool,
        Flag(TRUTH, "Prefix each prompt with a number, so no prefix cache can hit.", tune="file"),
    ] = False
    turns: Annotated[
        Lengths, Flag(LENGTHS, "Turns of a session of our own prompts: 4 or 2-6.", tune="file")
    ] = Lengths("uniform", 2, 6)
    system_prompt: Annotated[
        str, Flag(FILE_TEXT, "Text file that is put before every prompt.", metavar="FILE")
    ] = ""
    seed: Annotated[int, Flag(WHOLE, "Seed of the prompts that are drawn.")] = 0

    def __post_init__(self) -> None:
        if self.seed < 0:
            raise UsageError(f"--seed {self.seed}: must be at least 0.")


class Load(msgspec.Struct, frozen=True, kw_only=True):
    """How it is asked, one level after the other: closed-loop users, or arrivals at a rate."""

    users: Annotated[
        tuple[int, ...],
        Flag(COUNTS, "Users, one level each.", ("-c", "--concurrency"), metavar="N[,N...]"),
    ] = (10, 50, 100)
    rates: Annotated[
        tuple[float, ...],
        Flag(
            RATES,
            "Requests per second of an open loop, one level each.",
            name="request_rate",
            metavar="R[,R...]",
            tune="never",
        ),
    ] = ()
    arrival: Annotated[
        str,
        Flag(
            TEXT,
            f"When requests are due: {', '.join(ARRIVALS)}.",
            default="closed; poisson with --request-rate",
            tune="never",
        ),
    ] = "closed"
    burstiness: Annotated[
        float | None,
        Flag(NUMBER, "Shape of gamma arrivals; below 1 is burstier than Poisson.", tune="never"),
    ] = None
    max_concurrency: Annotated[
        int | None,
        Flag(WHOLE, "Most requests in flight at once in an open loop.", tune="never"),
    ] = None
    time_scale: Annotated[
        float, Flag(NUMBER, "Speed of a trace: 2 replays it twice as fast.", tune="never")
    ] = 1.0
    ramp_s: Annotated[
        float | None,
        Flag(
            SECONDS,
            "Time over which users start, or a request rate grows.",
            default=f"{show_seconds(RAMP_S)}, at most a quarter of --duration; with a rate 0s",
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
        Flag(NUMBER, "Share of failed ones among the last 50 that ends the run.", tune="never"),
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
    def is_open(self) -> bool:
        """Whether requests come when they are due, not when a user is free."""
        return self.arrival != "closed"

    @property
    def effective_ramp_s(self) -> float:
        """The ramp that is run: `ramp_s` where the user gave it, else what suits the load."""
        if self.ramp_s is not None:
            return self.ramp_s
        if self.is_open:  # arrivals come as they come; there is no herd to spread
            return 0.0
        return RAMP_S if self.requests is not None else min(RAMP_S, self.duration_s / 4)


class Bench(msgspec.Struct, frozen=True, kw_only=True):
    """One benchmark of one server, over all levels."""

    url: Annotated[str, Flag(TEXT, "Base URL of the server.", ("--base-url", "--target"))]
    endpoint: Annotated[
        str,
        Flag(
            TEXT,
            "Wire protocol, or auto, which asks the server",
            ("--endpoint-type",),
            plugins="endpoints",
        ),
    ] = "auto"
    model: Annotated[
        str, Flag(TEXT, "Name of the model.", ("-m",), default="the first that the server lists")
    ] = ""
    tensors: tuple[Tensor, ...] = ()  # the model's inputs, asked for where they are needed
    tokenizer: Annotated[
        str,
        Flag(
            TEXT,
            "tokenizer.json or its folder, for servers that count no tokens.",
            metavar="FILE",
        ),
    ] = ""
    load: Load = Load()
    workload: Workload = Workload()
    slos: Annotated[tuple[Slo, ...], SLOS] = ()
    repeat: Annotated[int, Flag(WHOLE, "Rounds: how often all levels are run.")] = 1
    repeat_until: Annotated[
        float | None,
        Flag(SHARE, "Stop repeating once each token rate is known to this, e.g. 2%."),
    ] = None
    until: Annotated[bool, Flag(TRUTH, "Search the highest load that meets the SLOs.")] = False
    until_budget_s: Annotated[
        float, Flag(SECONDS, "Time in which the levels of that search end, about 20.")
    ] = UNTIL_BUDGET_S
    workers: Annotated[
        int | Literal["auto"],
        Flag(COUNT_OR_AUTO, "Processes that share a level: a number or auto."),
    ] = 1
    ray: Annotated[
        str, Flag(TEXT, "Ray cluster on whose machines they run.", metavar="ADDRESS")
    ] = ""
    calibration: Annotated[bool, Flag(TRUTH, "Measure this client first, for 2 s.")] = True
    scrape: Annotated[
        bool, Flag(TRUTH, "Cross-check with the server's own metrics, if it has any.")
    ] = True
    metrics_url: Annotated[
        str, Flag(TEXT, "Page of the server's metrics.", default="the usual one of such a server")
    ] = ""
    ca_cert: Annotated[
        str | None, Flag(TEXT, "PEM file of certificates to trust.", metavar="FILE")
    ] = None
    insecure: Annotated[bool, Flag(TRUTH, "Do not check the server's certificate.")] = False
    proxy: Annotated[
        str | None, Flag(TEXT, "HTTP proxy; environment variables are not read.", metavar="URL")
    ] = None

    note: Annotated[
        str, Flag(TEXT, "A note that is kept with the results, e.g. 'after the driver update'.")
    ] = ""

    def __post_init__(self) -> None:
        self._check_repeats()
        if self.workers != "auto" and self.workers < 1:
            raise UsageError(f"--workers {self.workers}: must be at least 1, or auto.")
        if self.until:
            self._check_until()
        from llmdyno.results.metrics import BY_NAME  # imports numpy, which a help does without

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
