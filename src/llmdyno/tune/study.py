"""The study document: a ledger and its runs' journals in, study.json out.

As with a run's summary there is one way from what was measured to what is said of it, this one, and
it can be gone again at any time. The document's keys are a contract; docs/documents.md says what
came to them, and when.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import msgspec

from llmdyno import store
from llmdyno.knobs import Value, default
from llmdyno.results import conclusions, study_doubts, verdicts
from llmdyno.results.bottleneck import bottleneck
from llmdyno.results.metrics import BY_NAME
from llmdyno.results.slo import HEADLINES, Objective, read_stat
from llmdyno.serve.stack import Stack
from llmdyno.store import JOURNAL, SCHEMAS, STUDY, SUMMARY
from llmdyno.tune import blame, checked, endings, pair_runs, paired, rejected
from llmdyno.tune.ablation import deaths, pairs_of
from llmdyno.tune.candidates import changed, effective, same
from llmdyno.tune.entries import Step
from llmdyno.tune.explained import Explained, of_confirmation
from llmdyno.tune.ledger import Ledger
from llmdyno.tune.noise import noise_of
from llmdyno.tune.paired import Pair, Reader
from llmdyno.tune.reference import reference_of

SCHEMA = SCHEMAS[STUDY]

# Of each trial, whatever the objective: rate against wait is what a page draws.
_TOLD = (*HEADLINES, Objective(metric="ttft_ms", stat="p99"))


def study_document(folder: Path, ledger: Ledger, subject: Stack) -> dict[str, Any]:
    """Derive study.json as it stands; what is not measured yet is null or empty.

    It reads the ledger and the runs, and writes nothing. "bundle" is null: whoever writes one for
    the winner fills it in.

    Raises:
        StorageError: a run that the ledger names cannot be read.
    """
    return with_doubts(without_doubts(folder, ledger, subject), subject)


def with_doubts(document: dict[str, Any], subject: Stack) -> dict[str, Any]:
    """Return a study's document with its doubts, which look at all else that stands in it."""
    guide = {knob.name: knob for one in (subject.engine, subject.front) for knob in one.knobs}
    return {**document, "doubts": study_doubts.entries(document, guide)}


def without_doubts(
    folder: Path,
    ledger: Ledger,
    subject: Stack,
    *,
    rivals: Sequence[Step] = (),
    others: Sequence[Step] = (),
    dead: Mapping[int, Step] | None = None,
    undecided: Collection[Step] | None = None,
) -> dict[str, Any]:
    """Derive all of study.json but its doubts, for a document that gets more before them.

    Args:
        folder: of the study.
        ledger: of the study.
        subject: what is tuned.
        rivals: the baselines of other engines as trials are measured, which may win, too.
        others: all that was measured of the baselines of other engines.
        dead: the runs of an ablation in which would-be winners died, by contender; None: the ledger
            tells.
        undecided: failures that tell nothing yet, as blame.undecided() has them; None: the same.

    Raises:
        StorageError: a run that the ledger names cannot be read.
    """
    if dead is None:
        dead = deaths(ledger, subject.knobs)
    if undecided is None:
        undecided = blame.undecided(ledger, subject.knobs)
    return _Document(folder, ledger, subject, rivals, others, dead, undecided).whole()


class _Document:
    def __init__(
        self,
        folder: Path,
        ledger: Ledger,
        subject: Stack,
        rivals: Sequence[Step],
        others: Sequence[Step],
        dead: Mapping[int, Step],
        undecided: Collection[Step],
    ) -> None:
        assert ledger.began is not None
        self._study = ledger.spec
        self._environment = ledger.environment
        self._engine_version = ledger.engine_version or subject.engine.version()
        self._folder = folder
        self._ledger = ledger
        self._subject = subject
        self._reader = Reader(self._study.slos, decided=self._study.pairs_decided)
        refused = [one.config for one in checked.read(folder).checked if one.refused]
        self._others = others
        self._dead = dead
        self._undecided = {step.run for step in undecided}
        self._left = endings.is_left(
            ledger, subject.knobs, rivals=rivals, refused=refused, undecided=self._undecided
        )

    def whole(self) -> dict[str, Any]:
        baseline = self._ledger.find("baseline", 0)
        standing, confirmation, rejected = self._standing()
        # As good as the baseline, or not even that in the mean: fewer changed settings win.
        best = None if confirmation["shown_equal"] or confirmation["no_better"] else standing
        study = self._study
        document = {
            "schema": SCHEMA,
            "study": self._folder.resolve().name,
            "dir": str(self._folder),
            "engine": study.engine,
            "engine_version": self._engine_version,
            "engine_args": list(study.engine_args),
            "front": study.front,
            "model": study.model,
            "objective": str(study.objective),
            "slo": [slo.expr for slo in study.slos],
            "environment": self._environment,
            "spec": msgspec.to_builtins(study),
            "baseline": self._arm(baseline),
            "best": self._arm(best or baseline),
            "trials": [self._trial(step) for step in self._ledger.of("trial")],
            "confirmation": confirmation,
            **self._explanation(best, confirmation),
            "quality": checked.told(
                self._folder,
                best.config if best else None,
                (best.engine, best.front) if best else ("", ""),
            ),
            "spent_s": round(self._ledger.spent_s, 3),
            "bundle": None,
            "rejected": rejected,
            "stood": pair_runs.stood(self._ledger, self._others),
            "lanes": _lanes(self._ledger),
            **endings.of(self._folder, self._ledger, confirmation, best=standing, left=self._left),
        }
        document["outcome"] = {**document["outcome"], "said": conclusions.conclusion(document)}
        return document

    def _standing(self) -> tuple[Step | None, dict[str, Any], list[dict[str, Any]]]:
        """Return who stands, its confirmation, and the would-be winners that are none.

        Of several, which a study that went on has, the one with the better verdict or ratio does.
        The winner is who stands, but for one that is shown to be equal to the baseline.
        """
        best, confirmation = None, self._confirmation(None)
        last, fallen = confirmation, []
        above = partial(verdicts.stands_above, maximise=self._study.objective.maximise)
        for step in self._ledger.of("best"):
            found = self._confirmation(step)
            died = self._dead.get(step.contender)
            why = rejected.rejection(self._ledger, step, found, died, self._undecided)
            if why is not None:
                word = rejected.word_of_rejected(found)
                found = {**found, "verdict": word, "shown_equal": False, "no_better": False}
                of = pair_runs.stack_of(step)
                fallen.append({"config": step.config, "why": why, "confirmation": found, **of})
                last = found
            elif step.state == "measured" and (best is None or above(found, confirmation)):
                best, confirmation = step, found
        if best is None:
            confirmation = last
        return best, confirmation, fallen

    def _arm(self, step: Step | None) -> dict[str, Any] | None:
        if step is None or step.state != "measured":
            return None
        return {
            "config": step.config,
            "summary": self._summary(step),
            "place": step.place,
            **pair_runs.stack_of(step),
        }

    def _summary(self, step: Step) -> dict[str, Any]:
        document: dict[str, Any] = store.read_json(self._folder / step.run / SUMMARY)
        return document

    def _trial(self, step: Step) -> dict[str, Any]:
        failure = None
        if step.failure_class is not None:
            failure = {"class": step.failure_class, "why": step.failure_why}
        level = self._last_level(step)
        told = level and {one.key: read_stat(level, one.metric, one.stat) for one in _TOLD}
        return {
            "id": step.number + 1,
            "config": step.config,
            "state": step.state,
            "failure": failure,
            "cost_s": {
                "build": step.build_s,
                "start": step.start_s,
                "measure": step.measure_s,
            },
            "value": step.value,
            "slo_met": step.slo_met,
            "pruned": {"why": step.pruned_why, "interval": step.interval and list(step.interval)}
            if step.state == "pruned"
            else None,
            "doubts": pair_runs.codes(self._folder, step),
            "bottleneck": level and msgspec.structs.asdict(bottleneck(level)),
            "headlines": told,
            "run": step.run,
            "device": step.device or None,
            "beside": step.beside,
            "place": step.place,
            **pair_runs.stack_of(step),
        }

    def _last_level(self, step: Step) -> Mapping[str, Any] | None:
        """Return the summary of a trial's last level; None: it did not work."""
        works = step.state in {"measured", "pruned"}
        if not works or not (self._folder / step.run / SUMMARY).exists():
            return None
        level: Mapping[str, Any] = self._summary(step)["levels"][-1]
        return level

    def _confirmation(self, best: Step | None) -> dict[str, Any]:
        pairs = [] if best is None else self._pairs(best.contender)
        steps = [] if best is None else self._ledger.of("confirm", best.contender)
        objective = self._study.objective
        key = objective.key
        named = {one.key: one for one in (objective, *HEADLINES, *self._of_slos())}
        ratios = {name: self._reader.ratio(pairs, one) for name, one in named.items()}
        runs = pair_runs.runs(self._folder, self._ledger, steps, self._arm_of)
        before = [] if best is None else self._baseline_before(best.contender)
        judged = verdicts.judged({"runs": runs, "baseline_before": before})
        word = self._word(best, pairs, ratios[key], judged)
        return {
            "design": "ABBA",
            "level": None if self._study.load.has_own_times else self._study.level,
            "arrival": self._study.load.arrival,
            "pairs": len(pairs),
            **pair_runs.planned(self._ledger, best, len(pairs)),
            "ratio": {one.key: ratios[one.key] for one in (objective, *HEADLINES)} if pairs else {},
            # Beside "ratio", whose keys readers know: the metrics of the SLOs.
            "slo_ratio": {one.key: ratios[one.key] for one in self._of_slos()} if pairs else {},
            "levels": self._levels(pairs, named, ratios),
            "verdict": word,
            "shown_equal": verdicts.shown_equal(word, ratios[key], judged),
            "no_better": verdicts.no_better(word, ratios[key], judged, maximise=objective.maximise),
            **pair_runs.earlier(self._ledger, pairs),
            "shift": pair_runs.shifted(self._ledger, steps, self._arm_of),
            "config": best and best.config,
            **({} if best is None else pair_runs.stack_of(best)),
            "decided_by": key,
            "runs": runs,
            "baseline_before": before,
            "starts": pair_runs.starts(self._ledger, best, self._subject.knobs),
        }

    def _baseline_before(self, contender: int) -> list[bool]:
        return pair_runs.baseline_before(self._ledger, contender, self._arm_of)

    def _word(
        self,
        best: Step | None,
        pairs: Sequence[Pair],
        ratio: Mapping[str, Any],
        runs: Sequence[Mapping[str, Any]],
    ) -> verdicts.Word:
        if best is None:
            over = endings.searched(self._ledger) and not self._left
            return "no difference" if over else "not confirmed"
        if not rejected.has_its_pairs(self._ledger, best.contender, len(pairs)):
            return "not confirmed"
        word = verdicts.verdict(ratio, maximise=self._study.objective.maximise)
        return verdicts.with_slo(word, runs)

    def _of_slos(self) -> list[Objective]:
        """Return the metrics of the SLOs, as far as they can be compared."""
        asked = [Objective(metric=slo.metric, stat=slo.stat) for slo in self._study.slos]
        rows = [(one, BY_NAME[one.metric]) for one in asked]
        return [one for one, row in rows if row.observe is not None or row.rate is not None]

    def _levels(
        self,
        pairs: Sequence[Pair],
        named: Mapping[str, Objective],
        last: Mapping[str, Mapping[str, Any]],
    ) -> list[dict[str, Any]]:
        """Return the ratios at each level where pairs were measured, in the order of the runs."""
        ratios = self._reader.ratio
        return [
            {
                "users": users,
                "rate": rate,
                "ratio": {key: ratios(pairs, one, level=level) for key, one in named.items()}
                if level
                else last,
            }
            for level, (users, rate) in reversed(
                list(enumerate(zip(self._reader.levels(pairs), self._rates(), strict=False)))
            )
        ]

    def _rates(self) -> Iterator[float | None]:
        """Yield the rates of the levels, the last first; None: they have no rate of their own."""
        load = self._study.load
        has_rates = load.is_open and not load.has_own_times
        if has_rates and self._study.confirm_levels == "all":
            yield from reversed(load.rates)
        while True:
            yield load.highest if has_rates else None

    def _arm_of(self, step: Step) -> str:
        if step.arm:
            return step.arm
        before = same(step.config, self._study.baseline, self._subject.knobs)
        return "before" if before else "after"

    def _pairs(self, contender: int) -> list[Pair]:
        return paired.confirmed(self._folder, self._ledger.of("confirm", contender), self._arm_of)

    def _explanation(
        self, best: Step | None, confirmation: Mapping[str, Any]
    ) -> dict[str, list[dict[str, Any]]]:
        """Return what each changed knob gives, and what some of them give together."""
        if best is None:
            return {"ablation": [], "interactions": []}
        objective, rate = self._study.objective, HEADLINES[0]
        of = list({one.key: one for one in (objective, rate, *self._of_slos())}.values())
        # With one pair there is no variance between runs. The confirmation's is used.
        confirmed = self._pairs(best.contender)
        known = {one.key: self._reader.spread(confirmed, one) for one in of}

        def ratio(runs: Sequence[tuple[str, str]], one: Objective) -> dict[str, Any]:
            pairs = [
                Pair(self._folder / without / JOURNAL, self._folder / whole / JOURNAL)
                for without, whole in runs
            ]
            spread = known[one.key] if len(pairs) == 1 else None
            return self._reader.ratio(pairs, one, known=spread, in_a_row=False)

        both = {True: best.config, False: self._study.baseline}
        explained = Explained(
            pairs=pairs_of(self._ledger, best.contender),
            objectives=of,
            noise=noise_of(self._ledger.of("confirm", best.contender)),
            ratio=ratio,
            value=lambda name, after: self._value(name, both[after]),
        )
        knobs = self._subject.knobs
        names = changed(effective(self._study.baseline, knobs), effective(best.config, knobs))
        ratios = confirmation["ratio"] | confirmation["slo_ratio"]
        whole = {one.key: ratios[one.key] for one in of if ratios}
        first = self._ledger.find("baseline", 0)
        # Against another engine's or front's baseline the confirmation tells of no single knob.
        one_stack = first is None or (first.engine, first.front) == (best.engine, best.front)
        single = of_confirmation(names, whole, explained) if one_stack else []
        return {
            "ablation": explained.rows() or single,
            "interactions": explained.interactions(),
        }

    def _value(self, name: str, config: Mapping[str, Value]) -> Value | None:
        if name in config:
            return config[name]
        knob = next((knob for knob in self._subject.knobs if knob.name == name), None)
        # None: the engine no longer has it.
        return None if knob is None else default(knob, self._engine_version)


def _lanes(ledger: Ledger) -> dict[str, Any] | None:
    """Return where trials ran at once, and what the baseline came to there; None: one at a time."""
    if ledger.spec.parallel == 1:
        return None
    alone, beside = ledger.find("baseline", 0), reference_of(ledger)
    return {
        "asked": ledger.spec.parallel,
        "devices": list(ledger.lanes),
        "value": beside.value if ledger.lanes and beside else None,
        "alone": alone.value if alone else None,
        "left_out": [{"device": e.devices[0], "why": e.why} for e in ledger.lanes_missing],
        "baselines": [
            {name: getattr(step, name) for name in ("device", "state", "value", "beside", "run")}
            for step in ledger.steps
            if step.phase == "reference"
        ],
    }
