"""One benchmark of one server: target, workload, load, SLOs, and how often."""

from typing import Annotated, Literal

import msgspec

from llmdyno.errors import UsageError
from llmdyno.flag import (
    COUNT_OR_AUTO,
    PRICE,
    SECONDS,
    SHARE,
    TEXT,
    TEXTS,
    TRUTH,
    WHOLE,
    Flag,
    parsed,
)
from llmdyno.results.slo import Slo, parse_slos
from llmdyno.spec.load import Load
from llmdyno.spec.models import Asked, parse_models
from llmdyno.spec.workload import Workload
from llmdyno.units import percent, show_seconds
from llmdyno.wire.headers import Header, check_once, plain
from llmdyno.wire.kserve import Tensor

ROUNDS_MIN = 3  # before --repeat-until may find that it has been enough
REPEATS_MAX = 10  # with --repeat-until and no --repeat
UNTIL_BUDGET_S = 600.0

SLOS = Flag(
    parsed(parse_slos, "SLO[,SLO...]", several=True),
    "Thresholds, e.g. 'ttft:p99<2s,tpot:p95<50ms'.",
    ("--goodput",),
    name="slo",
    heading="Goal",
)


PRICE_PER_H = Flag(
    PRICE,
    "Price of the server an hour, e.g. 3.50/h: what a million tokens cost.",
    name="price",
    heading="Cost",
)


class Bench(msgspec.Struct, frozen=True, kw_only=True):
    """One benchmark of one server, over all levels."""

    url: Annotated[
        str,
        Flag(
            TEXT,
            "URL of the server, with or without a path.",
            ("--base-url", "--target"),
            metavar="URL",
            heading="Server",
        ),
    ]
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
        str,
        Flag(
            TEXT,
            "Name of the model, or of several with their shares: base:0.7,lora-a:0.3.",
            ("-m",),
            default="the first that the server lists",
        ),
    ] = ""
    tensors: tuple[Tensor, ...] = ()  # the model's inputs, asked for where they are needed
    renamed: dict[str, str] = {}  # fields of requests that this server calls otherwise; empty: not
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
    until: Annotated[bool, Flag(TRUTH, "Search the highest load that meets the SLOs.")] = False
    until_budget_s: Annotated[
        float, Flag(SECONDS, "Time in which the levels of that search end, about 20.")
    ] = UNTIL_BUDGET_S
    repeat: Annotated[
        int, Flag(WHOLE, "Rounds: how often all levels are run.", heading="Repeats")
    ] = 1
    repeat_until: Annotated[
        float | None,
        Flag(SHARE, "Stop repeating once each token rate is known to this, e.g. 2%."),
    ] = None
    workers: Annotated[
        int | Literal["auto"],
        Flag(COUNT_OR_AUTO, "Processes that share a level: a number or auto.", heading="Client"),
    ] = 1
    ray: Annotated[
        str, Flag(TEXT, "Ray cluster on whose machines they run.", metavar="ADDRESS")
    ] = ""
    calibration: Annotated[bool, Flag(TRUTH, "Measure this client first, for 2 s.")] = True
    scrape: Annotated[
        bool, Flag(TRUTH, "Cross-check with the server's own metrics, if it has any.")
    ] = True
    metrics_url: Annotated[
        str,
        Flag(
            TEXT,
            "Page of the server's metrics.",
            metavar="URL",
            default="the usual one of such a server",
        ),
    ] = ""
    ca_cert: Annotated[
        str | None,
        Flag(TEXT, "PEM file of certificates to trust.", metavar="FILE", heading="Connection"),
    ] = None
    insecure: Annotated[bool, Flag(TRUTH, "Do not check the server's certificate.")] = False
    client_cert: Annotated[
        str | None,
        Flag(TEXT, "PEM file of the certificate by which the server knows us.", metavar="FILE"),
    ] = None
    client_key: Annotated[
        str | None,
        Flag(TEXT, "PEM file of its key.", metavar="FILE", default="in the certificate's file"),
    ] = None
    proxy: Annotated[
        str | None, Flag(TEXT, "HTTP proxy; environment variables are not read.", metavar="URL")
    ] = None
    headers: Annotated[
        tuple[str, ...],
        Flag(
            TEXTS, "Header of every request; may be repeated.", name="header", metavar="NAME: VALUE"
        ),
    ] = ()
    header_env: Annotated[
        tuple[str, ...],
        Flag(
            TEXTS,
            "Header whose value is a secret in that variable; may be repeated.",
            metavar="NAME=VARIABLE",
        ),
    ] = ()
    basic_auth_env: Annotated[
        str,
        Flag(TEXT, "Environment variable that holds user:password.", metavar="VARIABLE"),
    ] = ""

    price_per_h: Annotated[float | None, PRICE_PER_H] = None
    note: Annotated[
        str,
        Flag(
            TEXT,
            "A note that is kept with the results, e.g. 'after the driver update'.",
            metavar="TEXT",
            heading="Results",
        ),
    ] = ""

    def __post_init__(self) -> None:
        parse_models(self.model)
        self._check_repeats()
        check_once(self.plain_headers)
        if self.workers != "auto" and self.workers < 1:
            raise UsageError(f"--workers {self.workers}: must be at least 1, or auto.")
        if self.until:
            self._check_until()
        if self.slos:
            self._check_slos()

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
                    f"--repeat-until {percent(self.repeat_until)}: must be above 0% and below 100%,"
                    " such as 2%."
                )
            if self.repeat < ROUNDS_MIN:
                raise UsageError(
                    f"--repeat {self.repeat}: must be at least {ROUNDS_MIN} with --repeat-until."
                )

    def _check_slos(self) -> None:
        # These import numpy, which a help does without.
        from llmdyno.results.measures import COUNTS_WHAT_MEETS_ONE, judges_requests
        from llmdyno.results.metrics import BY_NAME

        for slo in self.slos:
            if BY_NAME[slo.metric].open_loop and not self.load.is_open:
                raise UsageError(
                    f"--slo {slo.expr}: closed-loop users have no due times; give --request-rate,"
                    f" or leave out '_due'."
                )
            if BY_NAME[slo.metric].needs_price and self.price_per_h is None:
                raise UsageError(f"--slo {slo.expr}: needs a price, e.g. --price 3.50/h.")
            if BY_NAME[slo.metric].needs_slo and not judges_requests(self.slos):
                raise UsageError(f"--slo {slo.expr}: {COUNTS_WHAT_MEETS_ONE}")

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
    def models(self) -> tuple[Asked, ...]:
        """The models that are asked, with their shares of the requests."""
        return parse_models(self.model)

    @property
    def plain_headers(self) -> tuple[Header, ...]:
        """The headers of `--header`; those of variables are no part of a spec."""
        return tuple(plain(text) for text in self.headers)

    @property
    def kept(self) -> "Bench":
        """The spec as files keep it: without the values of headers, any of which may be a secret.

        It has the names alone, each with a value that says so.
        """
        names = tuple(f"{header.name}: (not kept)" for header in self.plain_headers)
        return msgspec.structs.replace(self, headers=names)

    @property
    def levels(self) -> tuple[tuple[int, float], ...]:
        """All (round, load) in the order in which they are run, if it is no search."""
        return tuple((number, load) for number in range(self.repeat) for load in self.load.points)
