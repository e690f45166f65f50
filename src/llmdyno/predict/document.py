"""The document of `dyno plan`, llmdyno.plan/1: what is predicted, as JSON and page have it.

A point is one config at one level. `token_rate` is of all copies of the server together; a range is
{"mean", "ci80"}, the interval that holds four of five.
"""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from llmdyno.embedded.model import RECIPES
from llmdyno.engines import Scheduling
from llmdyno.knobs import Value, show
from llmdyno.predict import links
from llmdyno.predict.asked import Plan
from llmdyno.predict.calibrate import Calibration
from llmdyno.predict.forecast import Forecast, Range
from llmdyno.predict.gpus import MEASURED, Gpu
from llmdyno.predict.options import Option, Predicted, Site
from llmdyno.predict.server import (
    Setup,
    gpus_of,
    not_simulated,
    parts_of,
    scheduling_of,
    servers_of,
    stages_of,
)
from llmdyno.results import limit_words, wording
from llmdyno.spec import Workload
from llmdyno.units import counted

SCHEMA = "llmdyno.plan/1"
_DIGITS = 6
# Both figures are of one config and its load on two machines: evidence/h200-drawn-2.
_OTHER_MACHINES = (
    "No run that it was calibrated on is known to be of this machine, and one config made 1.4 to"
    " 1.8 times as many tokens a second on one machine as on another with the same GPU: the"
    " intervals hold what hosts differ by, as far as the host bounds a config; calibrate on runs of"
    " the machine that will serve, and plan there, for narrower ones"
)


def number(value: float) -> float:
    """Return a value with the digits that mean something."""
    return float(f"{float(value):.{_DIGITS}g}")


def load(level: tuple[int | None, float | None]) -> dict[str, Any]:
    """Return a level as a point has it: its users, or its request rate."""
    users, rate = level
    return {"users": users} if rate is None else {"request_rate": rate}


def _range(value: Range) -> dict[str, Any]:
    low, high = value.ci80
    return {"mean": number(value.mean), "ci80": [number(low), number(high)]}


def points(plan: Plan, predicted: Predicted) -> list[dict[str, Any]]:
    """Return the points of an option, one a level."""
    rows = zip(plan.levels, predicted.forecasts, predicted.verdicts, predicted.kept_up, strict=True)
    return [
        _point(plan, predicted, level, one)
        | {"slo": [{"expr": v.expr, "value": number(v.value), "met": v.met} for v in verdicts]}
        | ({} if level[1] is None else {"keeps_up": kept_up})
        for level, one, verdicts, kept_up in rows
    ]


def behind(points: Sequence[Mapping[str, Any]]) -> str:
    """Say with which request rate a config cannot keep up, the lowest; empty: with all it can."""
    return next(filter(None, map(limit_words.behind, points)), "")


def _point(
    plan: Plan, predicted: Predicted, level: tuple[int | None, float | None], one: Forecast
) -> dict[str, Any]:
    option = predicted.option
    fits = predicted.memory.fits and one.fits
    found: dict[str, Any] = {
        "engine": option.site.engine,
        "gpu": option.site.gpu.name,
        "config": dict(option.config),
        **load(level),
        "isl": number(one.point.isl.typical),
        "osl": number(one.point.osl.typical),
        "copies": option.copies,
        "gpus": option.gpus_each * option.copies,
        "token_rate": _range(one.token_rate),
        "ttft_ms_p50": _range(one.ttft_ms_p50),
        "ttft_ms_p99": _range(one.ttft_ms_p99),
        "tpot_ms_p50": _range(one.tpot_ms_p50),
        "e2e_ms_p50": _range(one.e2e_ms_p50),
        "bound_by": one.bound_by,
        "fits": fits,
        "running_mean": number(one.running_mean),
        "limit_share": number(one.limit_share),
        "mbu": number(one.mbu),
        "mfu": number(one.mfu),
    }
    if not fits:
        found["why"] = predicted.memory.why if not predicted.memory.fits else one.why
    elif (cost := million(plan, predicted, one.token_rate.mean)) is not None:
        found["cost_per_million_tokens"] = number(cost)
    return found


def price(plan: Plan, gpu: Gpu) -> float | None:
    """Return what one GPU costs an hour; None: nobody has said it."""
    prices = plan.price_per_h
    return prices.get(gpu.name) if isinstance(prices, Mapping) else prices


def million(plan: Plan, predicted: Predicted, token_rate: float) -> float | None:
    """Return what a million tokens cost at the rate of all copies; None: no price, no tokens."""
    option = predicted.option
    one = price(plan, option.site.gpu)
    if one is None or token_rate <= 0:
        return None
    return one * option.gpus_each * option.copies / 3600 / token_rate * 1e6


def side(plan: Plan, predicted: Predicted) -> dict[str, Any]:
    """Return a config with its memory and its points."""
    memory, option = predicted.memory, predicted.option
    return {
        "config": dict(option.config),
        "gpus_each": option.gpus_each,
        "copies": option.copies,
        "fits": predicted.fits,
        "memory": memory.why,
        "sequences_that_fit": memory.sequences,
        "cache_tokens": number(memory.cache_tokens),
        "slo_met": predicted.margin > 1 if plan.slos else None,
        "points": points(plan, predicted),
    }


def doubts(plan: Plan, predicted: Predicted, calibration: Calibration) -> str:
    """Return why an engine's prediction may be wrong; empty: nothing is known against it."""
    option, found = predicted.option, []
    site = option.site
    rules, own = _scheduling(option.setup), calibration.setups
    if not rules.measured and not any(_scheduling(each) == rules for each in own):
        found.append(
            f"No measured run of {site.engine} has tested the predictor: its scheduler is from its"
            " source, the pace of its host is taken from other engines"
        )
    gpu = site.gpu
    if not gpu.cores and not any(each.gpu == gpu for each in own):
        if gpu.name not in MEASURED:
            found.append(f"No measured run on such a GPU has tested the predictor: {gpu.name}")
        elif rules.measured and gpu.name not in rules.measured_on:
            found.append(
                f"No measured run of {site.engine} on such a GPU has tested the predictor:"
                f" {gpu.name}"
            )
    if calibration.points and not calibration.own.get(gpu.name):
        found.append(_OTHER_MACHINES)
    if _spread(option.setup) > 1 and not any(_spread(each) > 1 for each in own):
        found.append("No measured run of one server over several GPUs has tested the predictor")
    if unknown := not_simulated(site.engine, option.config):
        found.append(limit_words.left_out(unknown))
    if _spread(option.setup) > links.gpus_together(gpu.name):
        found.append(
            f"One server over {_spread(option.setup)} GPUs is on several hosts,"
            " and what goes between these is taken to be as fast as within one"
        )
    found += _of_ranks(option)
    idle = site.gpus - option.gpus_each * option.copies
    if idle > 0:
        found.append(f"{counted(idle, 'GPU')} of {site.gpus} would stand idle")
    if 0 < site.shape.context < site.longest:
        found.append(
            f"{site.shape.name} was made for {counted(site.shape.context, 'token')}, and"
            f" {counted(site.longest, 'token')} are asked of it: an engine refuses that unless it"
            " is told to stretch the model's positions"
        )
    slow = [one.e2e_ms_p50.mean / 1e3 for one in predicted.forecasts if one.fits]
    if slow and max(slow) > plan.duration_s / 2:
        found.append(
            f"A request takes {wording.significant(max(slow))} s or more, and the level"
            f" {plan.duration_s:g} s: few or none end in it; give a longer --duration"
        )
    return ". ".join(found)


def _spread(setup: Setup) -> int:
    """Return over how many GPUs one server's model lies."""
    return gpus_of(setup) * stages_of(setup)


def _of_ranks(option: Option) -> list[str]:
    """Return what is not simulated of data-parallel ranks and of pipelines."""
    found = []
    servers = servers_of(option.setup)
    parts = parts_of(option.setup)
    if parts > servers:
        several = (
            counted(parts, "rank") if option.stages == 1 else counted(parts, "batch", "batches")
        )
        found.append(
            f"{several} share {counted(servers, 'API server')}, and are"
            " predicted as if each had its own"
        )
    if option.stages > 1:
        found.append(
            "The batches of a pipeline are predicted as if they were always equally large, and one"
            " host planned one after the other: what is lost where they are not equal, and what is"
            " won where the processes of its stages share that work, is not in the numbers"
        )
    if option.ranks > 1 and option.site.shape.experts:
        found.append(
            "Ranks may share the experts of such a model out among them; each is predicted with"
            " all of them"
        )
    return found


def _scheduling(setup: Setup) -> Scheduling:
    return scheduling_of(setup.engine).under(setup.config)


def proof(plan: Plan, chosen: Predicted, base: Mapping[str, Value]) -> list[str]:
    """Return the words of the command that would prove it on the GPU."""
    site = chosen.option.site
    words = ["dyno", "tune", "--engine", site.engine, "--model", plan.model]
    rates = _study_rates(plan, chosen)
    if rates:
        words += ["--request-rate", ",".join(rates), "--objective", _latency(plan)]
    else:
        words += ["-c", ",".join(str(count) for count in study_users(plan, chosen))]
    words += [word for name, value in _prompts(site).items() for word in (f"--{name}", value)]
    if plan.slos:
        words += ["--slo", _slos_of_a_copy(plan, chosen)]
    if plan.allow_altered_output:
        words.append("--allow-altered-output")
    return words + [
        word for name, value in base.items() for word in ("--set", f"{name}={show(value)}")
    ]


def needs_id(model: str) -> str:
    """Say what `dyno tune` needs in place of a model's short name; empty: it can be served."""
    path = Path(model).expanduser()
    if path.is_dir() or model in RECIPES or (not path.is_file() and "/" in model):
        return ""
    return f"Name the model's folder or its hub id, organisation/name, in place of {model}"


def _prompts(site: Site) -> dict[str, str]:
    """Return the flags that say what is asked."""
    if site.workload is None:
        return {"isl": str(site.isl), "osl": str(site.osl)}
    own = {} if site.workload.isl is None else {"isl": str(site.isl)}
    return {"workload": site.workload.name, **own, "osl": str(site.osl)}


def study_users(plan: Plan, chosen: Predicted) -> Sequence[int]:
    """Return the users of a study, which has one server: those of the plan's busiest copy.

    For request rates with which no copy keeps up they are as many as would be under way.
    """
    if plan.rates:
        parts = parts_of(chosen.option.setup)
        return sorted({max(1, math.ceil(one.running_mean * parts)) for one in chosen.forecasts})
    return sorted({-(-users // chosen.option.copies) for users, _ in plan.levels if users})


def _study_rates(plan: Plan, chosen: Predicted) -> list[str]:
    """Return the request rates of a study: those of a copy, with which it keeps up; or none.

    Beyond them a queue grows, whatever is set.
    """
    if plan.users:
        return []
    rows = zip(plan.levels, chosen.kept_up, strict=True)
    kept = {rate / chosen.option.copies for (_, rate), keeps_up in rows if rate and keeps_up}
    return [f"{rate:.6g}" for rate in sorted(kept)]


def _latency(plan: Plan) -> str:
    """Return what a study at a rate makes better: the first latency that an SLO is on."""
    asked = (
        f"{slo.metric.removesuffix('_ms')}:{slo.stat}"
        for slo in plan.slos
        if slo.metric.endswith("_ms")
    )
    return next(asked, "ttft:p99")


def _load_lines(plan: Plan, chosen: Predicted) -> list[str]:
    rates = _study_rates(plan, chosen)
    if not rates:
        return [f"users = {list(study_users(plan, chosen))}"]
    return [f"request_rate = [{', '.join(rates)}]", f"objective = {_toml_value(_latency(plan))}"]


def _slos_of_a_copy(plan: Plan, chosen: Predicted) -> str:
    """Return the SLOs of a study, which has one server: a copy has its part of the rates of all."""
    copies = chosen.option.copies
    if plan.users:
        copies = min(copies, max(plan.users))  # the others are idle
    return ",".join(
        f"{slo.expr.partition(slo.relation)[0]}{slo.relation}{_plain(slo.limit / copies)}"
        if copies > 1 and "rate" in slo.metric
        else slo.expr
        for slo in plan.slos
    )


def _plain(value: float) -> str:
    return f"{value:.3f}".rstrip("0").rstrip(".")


def toml(plan: Plan, chosen: Predicted, base: Mapping[str, Value]) -> str:
    """Return the study's file: the base is its baseline, what is recommended its first trial."""
    site = chosen.option.site
    lines = [
        "# Predicted by dyno plan; `dyno tune study.toml` proves it on the GPU.",
        f"engine = {_toml_value(site.engine)}",
        *(f"# {sentence}." for sentence in [needs_id(plan.model)] if sentence),
        f"model = {_toml_value(plan.model)}",
        *_load_lines(plan, chosen),
        *(f"{name} = {_toml_value(value)}" for name, value in _prompts(site).items()),
    ]
    if site.workload is not None and site.workload.prefix_share is not None:
        lines.append(f"prefix_share = {_toml_value(f'{site.workload.prefix_share:.3%}')}")
    if site.workload is not None and site.workload.turns != Workload().turns:
        lines.append(f"turns = {_toml_value(str(site.workload.turns))}")
    if plan.slos:
        lines.append(f"slo = {_toml_value(_slos_of_a_copy(plan, chosen))}")
    if plan.allow_altered_output:
        lines.append("allow_altered_output = true")
    if base:
        lines += ["", "[baseline]", *_toml_table(base)]
    changed = {k: v for k, v in chosen.option.config.items() if base.get(k) != v}
    if changed:
        lines += ["", "[[candidates]]", *_toml_table(changed)]
    return "\n".join([*lines, ""])


def _toml_table(config: Mapping[str, Value]) -> list[str]:
    return [f"{name} = {_toml_value(value)}" for name, value in config.items()]


def _toml_value(value: Value) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | float):
        return repr(value)
    escaped = value.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def changes(before: Mapping[str, Value], after: Mapping[str, Value]) -> str:
    """Return a config's differences from another in words: "max_num_seqs=512"."""
    found = [f"{name}={show(value)}" for name, value in after.items() if before.get(name) != value]
    return " ".join(found) or "as before"


def nearest(plan: Plan, sites: Sequence[Site], chosen: Predicted) -> str:
    """Say how near the best config comes to SLOs that nothing meets, and at which level it does."""
    site = chosen.option.site
    engines = dict.fromkeys(one.engine for one in sites)
    hardware = dict.fromkeys(one.hardware for one in sites)
    where = f", {site.engine} on {site.hardware}" if len(sites) > 1 else ""
    verdicts = [verdict for verdict in chosen.verdicts[-1] if not verdict.met]
    values = ", ".join(
        f"{wording.significant(one.value)}{' ms' if one.expr[-1].isalpha() else ''} for {one.expr}"
        for one in verdicts
    )
    shown = " ".join(f"{name}={show(value)}" for name, value in chosen.option.config.items())
    return (
        f"no config of {', '.join(engines)} meets it on {' or '.join(hardware)}; the nearest has"
        f" {values} with {shown or 'the defaults'}{where}.{_below(plan, chosen)}"
    )


def _below(plan: Plan, chosen: Predicted) -> str:
    """Say up to which of the lower levels a config meets all SLOs; empty: at none."""
    judged = zip(plan.levels, chosen.verdicts, strict=True)
    met = [level for level, verdicts in judged if all(one.met for one in verdicts)]
    if not met:
        return ""
    users, rate = met[-1]
    return f" It is met at {f'{rate:g} requests/s' if users is None else counted(users, 'user')}."


def more_gpus(found: Mapping[str, Any]) -> str:
    """Say how many GPUs would do for the largest request rate; empty: no number would."""
    if not found["needs"]:
        return ""
    need = max(found["needs"], key=lambda one: one["request_rate"])
    return (
        f" {need['request_rate']:g} requests/s need {counted(need['replicas'], 'replica')} of it,"
        f" {counted(need['gpus'], 'GPU')} in all."
    )
