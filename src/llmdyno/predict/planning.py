"""`dyno plan`: before, after, what if; from the user's wishes to the document."""

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import msgspec

from llmdyno import plugins, units
from llmdyno.errors import UsageError
from llmdyno.knobs import Value, check, parse_settings
from llmdyno.machine.environment import this_machine_ids
from llmdyno.predict import document as made
from llmdyno.predict.asked import Plan, ordered, own_workload
from llmdyno.predict.best import best, best_few
from llmdyno.predict.calibrate import Calibration, calibrate
from llmdyno.predict.checks import check_gpus, check_longest
from llmdyno.predict.compared import Part, by_gpu, chosen, close, lead, too_small
from llmdyno.predict.gpus import Gpu, gpu_of, gpus_of_text
from llmdyno.predict.grid import groups, shares
from llmdyno.predict.judged import check_slos
from llmdyno.predict.options import Option, Predicted, Site, distinct, predict
from llmdyno.predict.points import Whose, read_points
from llmdyno.predict.prices import by_name
from llmdyno.predict.server import not_simulated, scheduling_of
from llmdyno.predict.shapes import Shape, shape_of

_RANKED = 6


class Planned(msgspec.Struct, frozen=True, kw_only=True):
    """A plan's document, and what is wrong with it."""

    document: dict[str, Any]
    does_not_fit: str = ""  # a sentence with the sum
    nothing_meets: str = ""  # a sentence with the nearest
    study: str = ""  # the file of the study that would prove it, as TOML


def make(plan: Plan, settings: Sequence[str] = ()) -> Planned:
    """Return the plan: predictions, recommendation, what would prove it.

    Args:
        plan: what is asked.
        settings: knobs of the config before, as `name=value`.

    Raises:
        UsageError: names what is unknown or cannot be.
    """
    gpus = gpus_of_text(plan.gpu)
    plan = _priced(ordered(plan), gpus)
    check_slos(plan.slos)
    shape = shape_of(plan.model)
    parts: list[Part] = []
    for engine in plan.engines:
        sites = [_site(plan, engine, shape, gpu, plan.gpus) for gpu in gpus]
        first = _laid_out(sites[0], _base(sites[0], plan, settings))
        calibration = _calibration(plan, sites[0], first.config)
        parts += [_part(plan, site, _base(site, plan, settings), calibration) for site in sites]
    _check_calibrated(plan, parts)
    return _planned(plan, parts)


def _check_calibrated(plan: Plan, parts: Sequence[Part]) -> None:
    """Refuse measured points that are all of engines that are not asked about.

    Raises:
        UsageError: names the sources.
    """
    if plan.measured and not any(part.calibration.points for part in parts):
        raise UsageError(
            f"--from {', '.join(plan.measured)}: has no level of {', '.join(plan.engines)}; name"
            " its engine by --engine."
        )


def _priced(plan: Plan, gpus: Sequence[Gpu]) -> Plan:
    """Return the plan with the price of each GPU by its full name."""
    what_if = [_changes(text).get("gpu") for text in plan.what_if]
    others = [gpu_of(name, "--what-if gpu") for name in what_if if name]
    prices = by_name(plan.price_per_h, gpus, others)
    return msgspec.structs.replace(plan, price_per_h=prices or None)


def _calibration(plan: Plan, site: Site, base: Mapping[str, Value]) -> Calibration:
    """Return an engine's calibration; rows that do not say their GPU are of the first one asked."""
    whose = Whose(gpu=site.gpu, engine=site.engine, shape=site.shape, config=base)
    measured = [one for source in plan.measured for one in read_points(source, whose)]
    own = [one for one in measured if one.engine == site.engine]
    return calibrate(own).on(this_machine_ids()) if own else calibrate(())


def _part(plan: Plan, site: Site, base: dict[str, Value], calibration: Calibration) -> Part:
    before = predict(plan, _laid_out(site, base), calibration)
    after, front = (None, ()) if plan.config_only else best(plan, base, before, calibration)
    return Part(
        plan=plan,
        site=site,
        base=base,
        before=before,
        after=after,
        front=front,
        calibration=calibration,
    )


def ranked(plan: Plan, only: Collection[str], most: int = _RANKED) -> list[dict[str, Value]]:
    """Return the configs that are predicted to beat the plan's baseline, best first.

    The engine runs on as many GPUs as the plan's baseline spreads it over, else on one.

    Args:
        plan: what is asked; its GPUs are not looked at.
        only: the knobs that may differ from the plan's baseline.
        most: how many are simulated of each kind.

    Raises:
        UsageError: names what is unknown or cannot be.
    """
    check_slos(plan.slos)
    site = _only_site(plan)
    base = _base(site, plan, ())
    options = [
        option
        for option in distinct(plan, site, base)
        if all(name in only or base.get(name) == option.config[name] for name in option.config)
    ]
    found = [dict(one.option.config) for one in best_few(plan, options, calibrate(()), most)]
    return found[: found.index(base)] if base in found else found


def forecasts(plan: Plan, configs: Sequence[Mapping[str, Value]]) -> list[dict[str, Any]]:
    """Return what is expected of configs at the heaviest level of a plan of one engine.

    Args:
        plan: what is asked, as ranked() takes it.
        configs: to predict.

    Returns:
        For each "token_rate" (tok/s), its "ci80" (which holds four of five), whether it "fits",
        the settings that are "not_simulated", and the sum of its "memory".

    Raises:
        UsageError: names what is unknown or cannot be.
    """
    site, calibration = _only_site(plan), calibrate(())
    found = []
    for config in configs:
        option = Option(site=site, config={**_base(site, plan, ()), **config})
        one = predict(plan, option, calibration)
        rate = one.forecasts[-1].token_rate
        found.append(
            {
                "config": dict(config),
                "token_rate": made.number(rate.mean),
                "ci80": [made.number(bound) for bound in rate.ci80],
                "fits": one.fits,
                "not_simulated": not_simulated(site.engine, option.config),
                "memory": one.memory.why,
            }
        )
    return found


def no_room(plan: Plan) -> Callable[[Mapping[str, Value]], str | None]:
    """Return what gives the sum for a config that does not fit, and None for one that does.

    Raises:
        UsageError: names what is unknown or cannot be.
    """
    site = _only_site(plan)
    base = _base(site, plan, ())

    def why(config: Mapping[str, Value]) -> str | None:
        memory = Option(site=site, config={**base, **config}).memory()
        return None if memory.fits else memory.why

    return why


def _only_site(plan: Plan) -> Site:
    """Return where the configs of a plan of one engine are compared."""
    (engine,) = plan.engines
    spread = plan.baseline.get(scheduling_of(engine).gpus, 1)
    gpus = spread if isinstance(spread, int) else 1
    return _site(plan, engine, shape_of(plan.model), gpu_of(plan.gpu), gpus)


def _site(plan: Plan, engine: str, shape: Shape, gpu: Gpu, gpus: int) -> Site:
    return Site(
        engine=engine,
        shape=shape,
        gpu=gpu,
        gpus=gpus,
        isl=plan.isl,
        osl=plan.osl,
        workload=own_workload(plan, plan.isl, plan.osl),
    )


def _base(site: Site, plan: Plan, settings: Sequence[str]) -> dict[str, Value]:
    """Return what the user sets of the config before; all else is as the engine has it."""
    scheduling_of(site.engine)  # it refuses an engine that the predictor does not know
    knobs = plugins.load("engines", site.engine).knobs
    config: dict[str, Value] = {**plan.baseline, **parse_settings(settings, knobs)}
    check(config, knobs)
    check_longest(site, config, knobs)
    return config


def _laid_out(site: Site, config: Mapping[str, Value]) -> Option:
    """Return a config on all GPUs of a site, in one server if these can share every layer."""
    check_gpus(site, config)
    rules = scheduling_of(site.engine).under(config)
    gpus = site.gpus // groups(rules, config)
    spread, copies = shares(rules.gpus, config, gpus, site.shape)[0]
    return Option(site=site, config={**config, **spread}, copies=copies)


def _planned(plan: Plan, parts: Sequence[Part]) -> Planned:
    best_part = lead(plan, parts)
    recommended = chosen(plan, best_part)
    shown = recommended or best_part.nearest
    rows = by_gpu(plan, parts)
    document: dict[str, Any] = {
        "schema": made.SCHEMA,
        "engine": best_part.site.engine,
        "gpu": best_part.site.gpu.name,
        "gpus": plan.gpus,
        "model": plan.model,
        "parameters": best_part.site.shape.params,
        "calibrated_on": best_part.calibration.points,
        "slo": [slo.expr for slo in plan.slos],
        "price_per_h": made.price(plan, best_part.site.gpu),
        "points": _points(plan, parts, best_part),
        "recommended": None
        if recommended is None
        else _recommended(plan, best_part, recommended, close(rows)),
        "by_gpu": rows,
        "front": [
            {
                "config": dict(dot.option.config),
                **made.load(dot.level),
                "token_rate": made.number(dot.token_rate),
                "token_rate_each": made.number(dot.each),
            }
            for dot in best_part.front
        ],
        "engines": [_engine(plan, part) for part in parts],
        "what_if": [_what_if(plan, best_part, text) for text in plan.what_if],
    }
    does_not_fit = nothing_meets = study = ""
    if not shown.fits:
        engine = best_part.site.engine
        does_not_fit = " ".join(too_small(part) for part in parts if part.site.engine == engine)
    elif plan.slos and recommended is None and not plan.config_only:
        exprs = ",".join(slo.expr for slo in plan.slos)
        sites = [part.site for part in parts]
        nothing_meets = f"--slo {exprs}: {made.nearest(plan, sites, shown)}"
        if plan.rates:
            document["capacity"] = best_part.capacity
            nothing_meets += made.more_gpus(document["capacity"])
    document["nothing_meets"] = nothing_meets
    if recommended is not None:
        study = made.toml(plan, recommended, _of_a_copy(best_part, recommended))
    return Planned(
        document=document, does_not_fit=does_not_fit, nothing_meets=nothing_meets, study=study
    )


def _points(plan: Plan, parts: Sequence[Part], best_part: Part) -> list[dict[str, Any]]:
    """Return the points of before and after: of the leading part, then of its other GPUs."""
    found = []
    others = [one for one in parts if one.site.engine == best_part.site.engine]
    for part in (best_part, *(one for one in others if one is not best_part)):
        found += made.points(plan, part.before)
        one = chosen(plan, part)
        if one is not None and one is not part.before:
            found += made.points(plan, one)
    return found


def _engine(plan: Plan, part: Part) -> dict[str, Any]:
    after = chosen(plan, part)
    return {
        "engine": part.site.engine,
        "gpu": part.site.gpu.name,
        "calibrated_on": part.calibration.points,
        "doubt": made.doubts(plan, part.before, part.calibration),
        "before": made.side(plan, part.before),
        "after": None if after is None else made.side(plan, after),
    }


def _recommended(plan: Plan, part: Part, after: Predicted, alike: str) -> dict[str, Any]:
    """Return what is recommended; `alike` is a doubt whether it is better than the next GPU."""
    found = made.side(plan, after)
    behind = made.behind(found.pop("points"))
    base = _of_a_copy(part, after)
    found |= {
        "engine": part.site.engine,
        "gpu": part.site.gpu.name,
        "doubt": ". ".join(one for one in (f"It {behind}" if behind else "", alike) if one),
        "changes": made.changes(part.before.option.config, after.option.config),
        "token_rate_ratio": made.number(after.token_rate / part.before.token_rate)
        if part.before.fits and part.before.token_rate
        else None,
        "command": made.proof(plan, after, base),
        "command_needs": made.needs_id(plan.model),
        "study_toml": made.toml(plan, after, base),
    }
    if plan.rates or plan.slos:
        found["capacity"] = part.capacity
    return found


def _of_a_copy(part: Part, after: Predicted) -> dict[str, Value]:
    """Return the baseline of a study of one copy: the config before, on a copy's GPUs.

    A study has one server. Beside a copy, the config before on all GPUs would have only the copy's
    users.
    """
    config = after.option.config
    knob = scheduling_of(part.site.engine).under(config).gpus
    return {**part.base, **({knob: config[knob]} if knob in config else {})}


_PLACES = ("gpu", "gpus", "model", "engine", "isl", "osl")


def _what_if(plan: Plan, part: Part, text: str) -> dict[str, Any]:
    """Predict the config before with some things changed: "max_num_seqs=512,gpu=h100".

    Raises:
        UsageError: names the change that is none.
    """
    given = _changes(text)
    site = part.site
    if "engine" in given:
        scheduling_of(given["engine"])
    isl = units.lengths(given["isl"], "--what-if isl") if "isl" in given else site.isl
    osl = units.lengths(given["osl"], "--what-if osl") if "osl" in given else site.osl
    site = msgspec.structs.replace(
        site,
        engine=given.get("engine", site.engine),
        shape=shape_of(given["model"], "--what-if model") if "model" in given else site.shape,
        gpu=gpu_of(given["gpu"], "--what-if gpu") if "gpu" in given else site.gpu,
        gpus=_whole(text, given["gpus"]) if "gpus" in given else site.gpus,
        isl=isl,
        osl=osl,
        workload=own_workload(plan, isl, osl),
    )
    knobs = plugins.load("engines", site.engine).knobs
    changed = [f"{name}={value}" for name, value in given.items() if name not in _PLACES]
    base = dict(part.base) if site.engine == part.site.engine else {}
    try:
        config = {**base, **parse_settings(changed, knobs)}
    except UsageError as error:  # it knows settings by --set
        said = str(error).replace("--set", "--what-if", 1)
        if "no knob" in said:
            said = f"{said.rstrip('.')}; besides knobs: {', '.join(_PLACES)}."
        raise UsageError(said) from error
    check(config, knobs)
    check_longest(site, config, knobs)
    found = predict(plan, _laid_out(site, config), part.calibration)
    return {
        "change": text,
        "gpu": site.gpu.name,
        "engine": site.engine,
        "doubt": made.doubts(plan, found, part.calibration),
        **made.side(plan, found),
    }


def _changes(text: str) -> dict[str, str]:
    """Return the changes of a what-if by name.

    Raises:
        UsageError: it has none, or one without a value.
    """
    pairs = [pair.strip().partition("=") for pair in text.split(",") if pair.strip()]
    if not pairs or not all(name and equals and value for name, equals, value in pairs):
        raise UsageError(f"--what-if {text}: write name=value, e.g. max_num_seqs=512,gpu=h100.")
    names = [name.strip() for name, _, _ in pairs]
    if len({*names}) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise UsageError(f"--what-if {text}: names {twice} twice; write --what-if for each.")
    return {name.strip(): value.strip() for name, _, value in pairs}


def _whole(text: str, value: str) -> int:
    if not value.isdecimal() or int(value) < 1:
        raise UsageError(f"--what-if {text}: gpus={value} must be a whole number from 1 on.")
    return int(value)
