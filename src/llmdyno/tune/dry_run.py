"""`dyno tune --dry-run`: what a study would do, what that costs, and what it expects.

Nothing is started and nothing is written. How long a server takes to be built and to start is known
from an earlier study of the same engine, front and model in this folder, or of the study itself
where it goes on; else it is a guess, and the document says so. The document's keys are a contract:

    llmdyno.dry-run/1 (November 2026): the first.
    29 November 2026, added: "lanes", the parts of the machine on which trials run at once.
    30 November 2026, added: in "budget" "pairs" and "over_minutes": what the trials leave for the
        proof, and how long it goes on after the budget's end; "money", what the study costs then.
        "confirmation" is of those pairs and earlier ones. "lanes" may be hosts, with --store.
        "machines": the lead's and the hosts, whose time until the trials end is part of "money".
"""

import math
import re
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any

import msgspec
import numpy as np

from llmdyno.errors import UsageError
from llmdyno.knobs import Value
from llmdyno.machine.devices import Devices
from llmdyno.results import pairs as statistics
from llmdyno.search.space import Space
from llmdyno.tune import commands, race
from llmdyno.tune.ablation import PAIRS
from llmdyno.tune.budgeted import kept_for_proof_s
from llmdyno.tune.combined import Combined
from llmdyno.tune.combined_study import fallen
from llmdyno.tune.crew import planned
from llmdyno.tune.earlier import known_costs
from llmdyno.tune.entries import Phase
from llmdyno.tune.foreseen import does_not_fit, expected
from llmdyno.tune.gate import SECONDS_MAX, SECONDS_MIN
from llmdyno.tune.ledger import Ledger
from llmdyno.tune.noise import spreads_before
from llmdyno.tune.pairs import have_ended, pairs_asked, pairs_needed
from llmdyno.tune.rounds import waves
from llmdyno.tune.spec import Study
from llmdyno.tune.spend import money
from llmdyno.tune.tuner import Tuner
from llmdyno.units import counted

SCHEMA = "llmdyno.dry-run/1"
_CHANGED = 3  # knobs that a winner is taken to change, for the cost of its ablation
_LOOKED_AT = 500  # points of a large space that are checked
_WHYS = 5  # kinds of refusals that are told
_MINUTE_S = 60.0
_ON_HOSTS = ("baseline", "reference", "trials")  # the phases until whose end hosts are held


def dry_run(study: Study, conductor: Tuner | Combined) -> dict[str, Any]:
    """Return the document of a study that was made and is not run.

    Args:
        study: what is tuned.
        conductor: of it.

    Raises:
        UsageError: the predictor that the study names does not know what is tuned.
    """
    if isinstance(conductor, Combined):
        tuners, left, searching = conductor.tuners, conductor.left_out, conductor.searching
    else:
        tuners, left, searching = [conductor], [], [conductor]
    sides = [_Side(tuner, searches=tuner in searching) for tuner in tuners]
    phases = list(_phases(study, sides))
    seconds = sum(phase.seconds for phase in phases)
    budget = _budget(study, sides, phases)
    # Hosts are there until the trials end, the lead until all of it does.
    of_hosts_s = sides[0].hosts * sum(one.seconds for one in phases if one.name in _ON_HOSTS)
    return {
        "schema": SCHEMA,
        "engine": study.engine,
        "front": study.front,
        "model": study.model,
        "objective": str(study.objective),
        "slo": [slo.expr for slo in study.slos],
        "compared_at": study.compared_at,
        "phases": [phase.document() for phase in phases],
        "minutes": round(seconds / _MINUTE_S, 1),
        "machines": 1 + sides[0].hosts,
        "money": money(study.price_per_h, seconds + of_hosts_s),
        "budget": budget,
        "confirmation": _confirmation(study, sides[0], phases, budget),
        "lanes": sides[0].lanes,
        "stacks": [side.document() for side in sides],
        "left_out": [{"engine": one.engine, "front": one.front, "why": one.why} for one in left],
    }


class _Phase(msgspec.Struct, frozen=True):
    """A step of the plan."""

    name: str
    runs: int
    seconds: float  # not rounded: the budget is compared with it
    what: str

    def document(self) -> dict[str, Any]:
        return {
            "phase": self.name,
            "runs": self.runs,
            "minutes": round(self.seconds / _MINUTE_S, 1),
            "what": self.what,
        }


class _Side:
    """One engine behind one front: its search, its starts, and what a run of it costs."""

    def __init__(self, tuner: Tuner, *, searches: bool) -> None:
        self.tuner, self.runner = tuner, tuner.runner
        # Whether it has a first trial to come, which a budget ends only when it is used up.
        self.searches = searches
        self.tries_first = searches and not self.runner.ledger.of("trial")
        self.study = tuner.runner.study
        self.source, self.costs = known_costs(self.runner)

    def run_s(self, phase: Phase) -> float:
        """Return how long a run of a phase takes, from its build to its end."""
        runner = self.runner
        load = runner.trial_load(confirm=phase in {"confirm", "ablation"})
        if phase in {"baseline", "best"}:
            load = runner.whole_load()
        return self.costs.step_s(load, self.study.warmup_s)

    @property
    def lanes(self) -> list[str]:
        """The parts of the machine on which trials run at once; none: one has all of it."""
        devices, at_once = self.tuner.devices, self.study.parallel
        if isinstance(devices, Devices):
            return [str(lease) for lease in devices.usual]
        return planned(at_once) if at_once > 1 else []  # hosts: none is asked whether it is there

    @property
    def hosts(self) -> int:
        """How many hosts there are beside the lead's machine."""
        over_hosts = self.study.parallel > 1 and not isinstance(self.tuner.devices, Devices)
        return self.study.parallel if over_hosts else 0

    def left(self, phase: Phase, runs: int) -> int:
        """Return how many of a phase's runs are not done yet."""
        return max(0, runs - len(self.runner.ledger.of(phase)))

    @cached_property
    def space(self) -> Space:
        """What is searched."""
        names = {knob.name for knob in self.tuner.searched}
        fixed = {k: v for k, v in self.study.baseline.items() if k not in names}
        return Space(self.tuner.searched, fixed)

    @property
    def tried_most(self) -> float:
        """How many trials there can be: the space but for the baseline, and what is given.

        Of a small space that is fewer than --trials; one with numbers between its levels has no
        such end.
        """
        if any(axis.has_more for axis in self.space.axes):
            return math.inf
        return max(0, self.space.size() - 1) + len(self.study.candidates)

    def document(self) -> dict[str, Any]:
        """Return what is searched, what is tried first, what a start costs."""
        study, stack, space = self.study, self.runner.stack, self.space
        known = self.tuner.starts
        return {
            "engine": study.engine,
            "front": study.front,
            "engine_version": stack.engine.version(),  # None: it is not installed here
            "baseline": study.baseline,
            "start_cost_s": {
                "build": round(self.costs.build_s, 1),
                "start": round(self.costs.start_s, 1),
                "known_from": self.source,
            },
            "starts": known,
            "search": {
                "sampler": study.sampler,
                "knobs": [
                    {"name": axis.knob.name, "values": list(axis.levels), "default": axis.unset}
                    for axis in space.axes
                ],
                "points": space.size(),
                "infeasible": self._infeasible(space),
            },
            "expected": expected(study, stack, [study.baseline, *known["foreseen"]]),
        }

    def _infeasible(self, space: Space) -> dict[str, Any]:
        """Return how many points cannot work, by the checks that need no server, and why."""
        study, stack = self.study, self.runner.stack
        fits = does_not_fit(study, stack)
        whys: Counter[str] = Counter()
        examples: dict[str, dict[str, Any]] = {}
        keys = _looked_at(space, study.seed)
        for key in keys:
            config = {**study.baseline, **space.config(key)}
            try:
                stack.check(config)
                why = fits(config)
            except UsageError as error:
                why = str(error)
            if why is not None:
                kind = re.sub(r"\d[\d.,]*", "#", why)  # refusals alike but for their numbers
                whys[kind] += 1
                examples.setdefault(kind, {"why": why, "config": config})
        return {
            "looked_at": len(keys),
            "refused": whys.total(),
            "whys": [{"count": count, **examples[kind]} for kind, count in whys.most_common(_WHYS)],
        }


def _looked_at(space: Space, seed: int) -> list[tuple[Value | None, ...]]:
    """Return all points of a small space; of a large one some, at random."""
    if space.size() <= _LOOKED_AT:
        return list(space.points())
    draw = np.random.default_rng(seed)
    return [space.random(draw) for _ in range(_LOOKED_AT)]


def _phases(study: Study, sides: Sequence[_Side]) -> Iterator[_Phase]:
    """Yield what a study does, step by step: how many runs, how long, and what it is for.

    A study over several stacks is taken to have a winner that costs what the dearest stack does.
    """
    first, dearest = sides[0], max(sides, key=lambda side: side.run_s("trial"))
    whole, trial = first.runner.whole_load(), first.runner.trial_load()
    levels = f"{counted(len(whole.points), 'level')} of {whole.duration_s:g} s"
    yield _phase("baseline", [(s.left("baseline", 1), s.run_s("baseline")) for s in sides], levels)
    at_once = max(1, len(first.lanes))
    if trial != whole or first.lanes:
        runs = [(side.left("reference", at_once), side.run_s("reference")) for side in sides]
        beside = f", {at_once} at once" if first.lanes else ""
        said = f"the baseline as trials are measured{beside}"
        yield _phase("reference", runs, said, at_once)
    done = sum(len(side.runner.ledger.of("trial")) for side in sides)
    trial_s = sum(side.run_s("trial") for side in sides) / len(sides)
    what = f"at {study.compared_at}, {trial.duration_s:g} s"
    what += "; less where one is ended early" if race.may_end(study, trial) else ""
    what += f"; {at_once} at once" if first.lanes else ""
    what += ", of one combination at a time" if first.lanes and study.combines else ""
    trials = int(max(0, min(study.trials, sum(s.tried_most for s in sides if s.searches)) - done))
    yield _Phase("trials", trials, _waves(study, sides, trials) * trial_s, what)
    # A trial that is still to come may be better than the winner that was proved.
    folder = commands.whole_of(first.runner.folder)
    ledgers = [side.runner.ledger for side in sides]
    none = fallen(folder, ledgers)
    full = _of_contenders(sides, "best", none)
    yield _phase("best", [(1 if trials or not full else 0, dearest.run_s("best"))], levels)
    pairs = _pairs(study, first)
    confirm_s = (first.run_s("confirm") + dearest.run_s("confirm")) / 2
    confirmed = 0 if trials else _of_contenders(sides, "confirm", none)
    ended = not trials and have_ended(study, Ledger(folder), ledgers, none)
    to_come = 0 if ended else max(0, 2 * pairs - confirmed)
    what = f"{counted(pairs, 'pair')} of baseline and winner"
    yield _phase("confirmation", [(to_come, confirm_s)], what)
    changed = min(_CHANGED, max(len(side.tuner.searched) for side in sides))
    runs_of_ablation = 0 if changed < 2 else 2 * (changed + (study.pairs or PAIRS))
    yield _phase(
        "ablation",
        [(runs_of_ablation, dearest.run_s("ablation"))],
        f"at most, if {counted(changed, 'knob')} changed",
    )
    if study.quality:
        asks_s = min(SECONDS_MAX, max(SECONDS_MIN, study.load.duration_s))
        start_s = dearest.costs.build_s + dearest.costs.start_s
        yield _phase("quality", [(2, start_s + asks_s)], "answers of baseline and winner")


def _waves(study: Study, sides: Sequence[_Side], trials: int) -> int:
    """Return how many trials' time so many trials take."""
    at_once = max(1, len(sides[0].lanes))
    if not study.combines:
        return math.ceil(trials / at_once)
    least = [max(1, len(side.study.candidates)) for side in sides if side.searches]
    return waves(trials, least, at_once)


def _of_contenders(sides: Sequence[_Side], phase: Phase, none: Collection[int]) -> int:
    """Return how many runs of a phase there are, but for those of would-be winners that are none.

    The next one begins anew.
    """
    steps = (step for side in sides for step in side.runner.ledger.of(phase))
    return sum(step.contender not in none for step in steps)


def _phase(name: str, runs: Sequence[tuple[int, float]], what: str, at_once: int = 1) -> _Phase:
    seconds = sum(math.ceil(count / at_once) * each_s for count, each_s in runs)
    return _Phase(name, sum(count for count, _ in runs), seconds, what)


def _pairs(study: Study, first: _Side) -> int:
    noise = statistics.pooled_noise(spreads_before(first.runner.ledger))
    return pairs_asked(study, noise)


def _confirmation(
    study: Study, first: _Side, phases: Sequence[_Phase], budget: Mapping[str, Any] | None
) -> dict[str, Any]:
    """Return what the pairs can find, those that were measured and those that are to come."""
    noise = statistics.pooled_noise(spreads_before(first.runner.ledger))
    pairs = pairs_asked(study, noise)
    runs, decided = {one.name: one.runs for one in phases}, study.pairs_decided
    # Without a trial there is no proof; what it would find is told all the same.
    if budget is not None and (budget["trials"] or not runs["trials"]):
        pairs -= _to_come(runs["confirmation"]) - budget["pairs"]
    return {
        "pairs": pairs,
        "pairs_most": study.pairs_most,
        "until": study.confirm_until,
        "noise": round(noise, 4),
        "detects": round(statistics.detectable(noise, pairs, decided=decided), 4),
        "pairs_for_10_percent": pairs_needed(study, noise),
    }


def _to_come(runs: int) -> int:
    """Return how many pairs end with so many runs, of which the first may end one that began."""
    return math.ceil(runs / 2)


def _budget(
    study: Study, sides: Sequence[_Side], phases: Sequence[_Phase]
) -> dict[str, Any] | None:
    """Return how much of the plan the budget has time for; None: there is none."""
    limit_s = study.limit_s
    if limit_s is None:
        return None
    takes = {one.name: one for one in phases}
    spent_s = sum(side.runner.ledger.spent_s for side in sides)
    left_s = limit_s - spent_s - takes["baseline"].seconds
    left_s -= takes["reference"].seconds if "reference" in takes else 0.0
    trial_s = sum(side.run_s("trial") for side in sides) / len(sides)
    lanes = max(1, len(sides[0].lanes))
    runs = takes["trials"].runs
    at_once = runs / _waves(study, sides, runs) if runs else lanes
    to_come = _to_come(takes["confirmation"].runs)
    least = max(0, statistics.PAIRS_MIN - (_pairs(study, sides[0]) - to_come))
    pair_s = takes["confirmation"].seconds / max(1, to_come)
    kept_s = kept_for_proof_s(study, takes["best"].seconds, pair_s)
    most, more = (
        int(max(0.0, s) / max(trial_s, 1e-9) * at_once) for s in (left_s, left_s - kept_s)
    )
    # The first trials, one a lane or a stack, take of what is kept.
    firsts = lanes * sum(side.tries_first for side in sides)
    trials = min(takes["trials"].runs, max(min(most, firsts), more))
    trials_s = _waves(study, sides, trials) * trial_s
    left_s -= trials_s + takes["best"].seconds
    # Two pairs come whatever the budget says.
    pairs = min(to_come, max(least, int(max(0.0, left_s) / max(pair_s, 1e-9))))
    proves = trials > 0 or not takes["trials"].runs
    over_s = max(0.0, pairs * pair_s - left_s) if proves else 0.0
    whole_s = sum(one.seconds for one in phases)
    machine_s = min(whole_s, max(0.0, limit_s - spent_s) + over_s)
    first_s = sum(takes[name].seconds for name in _ON_HOSTS[:2] if name in takes)
    machine_s += sides[0].hosts * (first_s + trials_s)
    return {
        "minutes": round(limit_s / _MINUTE_S, 1),
        "trials": trials,
        "enough": limit_s - spent_s >= whole_s,
        "pairs": pairs if proves else 0,
        "over_minutes": round(over_s / _MINUTE_S, 1),
        "money": money(study.price_per_h, machine_s),
    }
