"""What the user asks of a study: what is tuned, for what, under which load, and for how long."""

from typing import Annotated

import msgspec

from llmdyno.errors import UsageError, nearest
from llmdyno.flag import (
    CONFIG,
    CONFIGS,
    NAMES,
    ONE_OR_MORE,
    PERMISSION,
    SECONDS,
    SHARE,
    TEXT,
    TEXTS,
    TRUTH,
    WHOLE,
    Flag,
    Kind,
    parsed,
)
from llmdyno.results.slo import Objective, Slo, parse_objective
from llmdyno.search.samplers import SAMPLERS
from llmdyno.spec import PRICE_PER_H, SLOS, Load, Workload
from llmdyno.tune.spend import Spend, parse_budget, show_budget
from llmdyno.units import percent, show_seconds

BUDGET = Kind(parse_budget, show_budget)
SEARCH_SEEDS = 2**32  # how many Optuna knows
_TRIAL_S_MIN = 0.2
# The help of what takes one engine; a study adds how to say whose it is.
ENGINE_ARG = "A word for the engine's own command line, for what has no knob; may be repeated."


class Study(msgspec.Struct, frozen=True, kw_only=True):
    """One tuning study: what is tuned, for what, under which load, and how long."""

    engine: Annotated[
        str,
        Flag(
            ONE_OR_MORE,
            "Engine that computes the tokens",
            plugins="engines",
            heading="Server",
        ),
    ] = "openvino"  # several: joined by commas
    front: Annotated[
        str,
        Flag(
            ONE_OR_MORE,
            "Server in front of the engine",
            plugins="fronts",
        ),
    ] = "native"
    model: Annotated[
        str, Flag(TEXT, "Model: a built-in name (tiny, small), a path or a hub id.", ("-m",))
    ] = "tiny"
    engine_args: Annotated[
        tuple[str, ...],
        Flag(
            TEXTS,
            f"{ENGINE_ARG} Of several engines say whose: ENGINE:--FLAG=VALUE.",
            name="engine_arg",
            in_file="engine_args",
            metavar="--FLAG=VALUE",
        ),
    ] = ()
    baseline: Annotated[
        dict[str, bool | int | float | str],
        Flag(
            CONFIG,
            "Knobs of the baseline, as a table.",
            tune="file",
            default="the engine's defaults",
        ),
    ] = {}
    candidates: Annotated[
        tuple[dict[str, bool | int | float | str], ...],
        Flag(
            CONFIGS,
            "Configs to try first, each a table of knobs over the baseline's.",
            tune="file",
        ),
    ] = ()
    objective: Annotated[
        Objective,
        Flag(
            parsed(parse_objective, "METRIC[:STATISTIC]"),
            "Metric to make better, e.g. ttft:p99.",
            heading="Goal",
        ),
    ] = Objective(metric="token_rate", stat="mean")
    slos: Annotated[tuple[Slo, ...], SLOS] = ()
    allow_altered_output: Annotated[
        bool | float,
        Flag(
            PERMISSION,
            "Also try knobs that may change the tokens; with a share, such as =0.5%, those win only"
            " if at most so many tokens differ beyond the engine's own noise.",
            metavar="[=SHARE]",
        ),
    ] = False
    quality: Annotated[
        bool,
        Flag(
            TRUTH,
            "Compare the winner's answers with the baseline's, token by token.",
            heading="Answers",
        ),
    ] = True
    lm_eval: Annotated[
        tuple[str, ...],
        Flag(
            NAMES,
            "Tasks of lm-eval, or files of such, that the winner and the baseline answer after the"
            " confirmation; lm-eval is installed apart.",
            metavar="TASK[,TASK...]",
            default="none",
        ),
    ] = ()
    lm_eval_args: Annotated[
        tuple[str, ...],
        Flag(
            TEXTS,
            "A word for lm-eval's own command line, e.g. --limit=50; may be repeated.",
            name="lm_eval_arg",
            in_file="lm_eval_args",
            metavar="--FLAG=VALUE",
        ),
    ] = ()
    search: Annotated[
        tuple[str, ...],
        Flag(
            NAMES,
            "Knobs to search, each in its own range or in yours: KNOB=64..512, KNOB=1/2/4.",
            metavar="KNOB[=VALUES][,...]",
            heading="Search",
            default="all that have a range",
        ),
    ] = ()
    sampler: Annotated[
        str,
        Flag(TEXT, f"What proposes configs: {', '.join(SAMPLERS)}."),
    ] = "own"
    learn_from: Annotated[
        tuple[str, ...],
        Flag(
            NAMES,
            "Earlier studies of the same engine, on like hardware: their best configs are tried"
            " first.",
            metavar="STUDY[,STUDY...]",
        ),
    ] = ()
    predict_on: Annotated[
        str,
        Flag(
            TEXT,
            "GPU, e.g. h200: the configs that `dyno plan` predicts best there are tried first.",
            default="nothing is predicted",
        ),
    ] = ""
    trials: Annotated[int, Flag(WHOLE, "Number of configs to try.")] = 20
    trial_duration_s: Annotated[float, Flag(SECONDS, "Length of a trial, ramp included.")] = 30.0
    parallel: Annotated[
        int,
        Flag(
            WHOLE,
            "Trials that are measured at once, each on GPUs, or CPU cores, of its own; all that"
            " decides is measured alone.",
        ),
    ] = 1
    race: Annotated[
        bool,
        Flag(TRUTH, "End a trial early that can no longer win, by what it has shown so far."),
    ] = True
    patience: Annotated[
        int | None,
        Flag(
            WHOLE,
            "End the trials after so many in a row that were expected to gain less than 1 %, or,"
            " with another --sampler than own, so many that were no better.",
            default="all --trials are tried",
        ),
    ] = None
    pairs: Annotated[
        int | None,
        Flag(
            WHOLE,
            "Pairs of runs that confirm the winner, unless the budget ends before; with"
            " --confirm-until the least.",
            default="as many as find 10 % given the noise seen",
            heading="Proof",
        ),
    ] = None
    confirm_until: Annotated[
        float | None,
        Flag(
            SHARE,
            "Confirm until the interval of the objective's ratio is so narrow to either side, e.g."
            " 3%.",
        ),
    ] = None
    max_pairs: Annotated[
        int, Flag(WHOLE, "Pairs at most where their number is not given by --pairs.")
    ] = 12
    confirm_levels: Annotated[
        str,
        Flag(
            TEXT,
            "Levels that the pairs measure: last (the one that decides) or all.",
            metavar="last|all",
        ),
    ] = "last"
    budget_s: Annotated[
        float | Spend | None,
        Flag(
            BUDGET,
            "What a study may take: time (2h), machine hours (2mh) or, with --price, money ($20);"
            " over hosts, of each machine."
            " Trials leave room in it for the proof, a third at most; the winner in full and two"
            " pairs come whatever is left.",
            metavar="TIME|MACHINE-HOURS|MONEY",
            heading="Cost",
        ),
    ] = None
    price_per_h: Annotated[float | None, PRICE_PER_H] = None
    warmup_s: Annotated[
        float, Flag(SECONDS, "Load on each fresh server that does not count.", heading="Load")
    ] = 5.0
    hang_s: Annotated[
        float, Flag(SECONDS, "Silence after which a server is given up.", tune="file")
    ] = 60.0
    load: Load = Load(duration_s=60.0, grace_s=0.0)
    workload: Workload = Workload()
    seed: Annotated[
        int, Flag(WHOLE, "Seed of the search and of the prompts.", heading="Search")
    ] = 0

    def __post_init__(self) -> None:
        if self.trials < 1:
            raise UsageError(f"--trials {self.trials}: must be at least 1.")
        if self.trials < len(self.candidates):
            raise UsageError(
                f"--trials {self.trials}: the {len(self.candidates)} [[candidates]] are trials,"
                f" too; set at least {len(self.candidates)}, or leave some out."
            )
        if self.parallel < 1:
            raise UsageError(f"--parallel {self.parallel}: must be at least 1.")
        if self.patience is not None and self.patience < 1:
            raise UsageError(f"--patience {self.patience}: must be at least 1.")
        if self.sampler not in SAMPLERS:
            raise UsageError(f"--sampler {self.sampler}: unknown.{nearest(self.sampler, SAMPLERS)}")
        if self.lm_eval_args and not self.lm_eval:
            raise UsageError(
                f"--lm-eval-arg {' '.join(self.lm_eval_args)}: lm-eval has no task; name some with"
                " --lm-eval."
            )
        if self.altered_output_max is not None and self.altered_output_max > 1:
            raise UsageError(
                f"--allow-altered-output {percent(self.altered_output_max)}: must be at most 100%."
            )
        self._check_pairs()
        self._check_durations()
        if isinstance(self.budget_s, Spend):
            self.budget_s.check(self.price_per_h)
        elif self.budget_s is not None and self.budget_s <= 0:
            raise UsageError("--budget 0s: must be longer than 0.")
        if self.seed >= SEARCH_SEEDS:
            raise UsageError(f"--seed {self.seed}: must be below {SEARCH_SEEDS} for a search.")

    def _check_pairs(self) -> None:
        if self.pairs is not None and self.pairs < 2:
            raise UsageError(f"--pairs {self.pairs}: must be at least 2, or nothing is confirmed.")
        least = self.pairs_least
        if self.max_pairs < least and not self.pairs_fixed:
            raise UsageError(
                f"--max-pairs {self.max_pairs}: must be at least {least}, the number of --pairs."
                if self.confirm_until is not None
                else f"--max-pairs {self.max_pairs}: must be at least {least}, or nothing is"
                " confirmed."
            )
        if self.confirm_until is not None and not 0 < self.confirm_until < 1:
            raise UsageError(
                f"--confirm-until {percent(self.confirm_until)}: must be above 0% and below 100%."
            )
        if self.confirm_levels not in {"last", "all"}:
            raise UsageError(f"--confirm-levels {self.confirm_levels}: must be last or all.")

    def _check_durations(self) -> None:
        """Refuse what a trial's load would refuse only after the baseline, by its own name."""
        trial, least = self.trial_duration_s, self.load.ramp_s or 0.0
        if self.hang_s <= 0:
            raise UsageError(f"hang {show_seconds(self.hang_s)}: must be longer than 0.")
        if self.warmup_s < 0:
            raise UsageError(f"--warmup {show_seconds(self.warmup_s)}: must be at least 0.")
        if trial < _TRIAL_S_MIN:
            raise UsageError(
                f"--trial-duration {show_seconds(trial)}: is too short to measure anything; set at"
                f" least {show_seconds(_TRIAL_S_MIN)}."
            )
        if self.load.requests is None and trial <= least:
            raise UsageError(
                f"--trial-duration {show_seconds(trial)}: must be longer than --ramp"
                f" {show_seconds(least)}, which it includes."
            )

    @property
    def pairs_fixed(self) -> bool:
        """Whether the number of pairs is known before the first."""
        return self.pairs is not None and self.confirm_until is None

    @property
    def pairs_decided(self) -> bool:
        """Whether the noise of the first pairs decides how many there will be."""
        from llmdyno.results.pairs import DECIDED_MIN  # imports numpy, which a help does without

        return self.pairs is None and self.confirm_until is None and self.max_pairs > DECIDED_MIN

    @property
    def pairs_least(self) -> int:
        """How many pairs there will be at least, unless the budget ends before."""
        return self.pairs if self.pairs is not None else 2

    @property
    def pairs_most(self) -> int:
        """How many pairs there can be."""
        return self.pairs_least if self.pairs_fixed else self.max_pairs

    @property
    def limit_s(self) -> float | None:
        """The budget in seconds of one machine; None: there is none."""
        if isinstance(self.budget_s, Spend):
            return self.budget_s.machine_s(self.price_per_h)
        return self.budget_s

    @property
    def engines(self) -> tuple[str, ...]:
        """The engines that are compared; most studies have one."""
        return tuple(self.engine.split(","))

    @property
    def fronts(self) -> tuple[str, ...]:
        """The fronts that are compared; most studies have one."""
        return tuple(self.front.split(","))

    @property
    def combines(self) -> bool:
        """Whether it compares several engines or fronts."""
        return len(self.engines) * len(self.fronts) > 1

    @property
    def tries_altered_output(self) -> bool:
        """Whether knobs that may change the tokens are tried."""
        return self.allow_altered_output is not False

    @property
    def altered_output_max(self) -> float | None:
        """The largest share of tokens that may differ beyond the engine's noise; None: any."""
        allowed = self.allow_altered_output
        return None if isinstance(allowed, bool) else allowed

    @property
    def level(self) -> float:
        """The load at which configs are compared, the largest: users, or requests per second."""
        return self.load.highest

    @property
    def compared_at(self) -> str:
        """The load at which configs are compared, in words."""
        from llmdyno.results.verdicts import named_level  # imports numpy, which a help does without

        return named_level(self.load.arrival, None if self.load.has_own_times else self.level)
