"""The study document: a ledger and its runs' journals in, study.json out.

As with a run's summary there is one way from what was measured to what is said of it, this one, and
it can be gone again at any time. The document's keys are a contract; its version's history:

    llmdyno.study/1 (November 2026): the first.
    28 November 2026, added: "doubts". For an older document study_doubts.py finds them on reading.
    28 November 2026, added: "engine_args", what --engine-arg gave; an older document has none.
    28 November 2026, added: in "confirmation" "slo_ratio", "levels" (the ratios
    of each level that the pairs measured), "drift" of a ratio (a factor, first run to last).
"""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from llmdyno import store
from llmdyno.knobs import Knob, Value, default
from llmdyno.results import study_doubts
from llmdyno.results.metrics import BY_NAME
from llmdyno.results.slo import HEADLINES, Objective
from llmdyno.results.verdicts import verdict
from llmdyno.serve.stack import Stack
from llmdyno.store import JOURNAL, SUMMARY
from llmdyno.tune import paired
from llmdyno.tune.ledger import Ledger, Step
from llmdyno.tune.paired import Pair, Reader

SCHEMA = "llmdyno.study/1"


def study_document(folder: Path, ledger: Ledger, subject: Stack) -> dict[str, Any]:
    """Derive study.json as it stands; what is not measured yet is null or empty.

    It reads the ledger and the runs, and writes nothing. "bundle" is null: whoever writes one for
    the winner fills it in.

    Raises:
        StorageError: a run that the ledger names cannot be read.
    """
    return _Document(folder, ledger, subject).whole()


class _Document:
    def __init__(self, folder: Path, ledger: Ledger, subject: Stack) -> None:
        assert ledger.began is not None
        self._study = ledger.began.spec
        self._environment = ledger.began.environment
        self._engine_version = ledger.began.engine_version or subject.engine.version()
        self._folder = folder
        self._ledger = ledger
        self._subject = subject
        self._reader = Reader(self._study.slos)

    def whole(self) -> dict[str, Any]:
        baseline = self._ledger.find("baseline", 0)
        best = self._ledger.winner()
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
            "confirmation": self._confirmation(best),
            "ablation": self._ablation(),
            "bundle": None,
        }
        return {**document, "doubts": study_doubts.entries(document, self._guide())}

    def _guide(self) -> dict[str, Knob]:
        parts = (self._subject.engine, self._subject.front)
        return {knob.name: knob for one in parts for knob in one.knobs}

    def _arm(self, step: Step | None) -> dict[str, Any] | None:
        if step is None or step.state != "measured":
            return None
        return {"config": step.config, "summary": self._summary(step)}

    def _summary(self, step: Step) -> dict[str, Any]:
        document: dict[str, Any] = store.read_json(self._folder / step.run / SUMMARY)
        return document

    def _trial(self, step: Step) -> dict[str, Any]:
        failure = None
        if step.failure_class is not None:
            failure = {"class": step.failure_class, "why": step.failure_why}
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
            "run": step.run,
        }

    def _confirmation(self, best: Step | None) -> dict[str, Any]:
        pairs = self._pairs() if best is not None else []
        objective = self._study.objective
        key = objective.key
        named = {one.key: one for one in (objective, *HEADLINES, *self._of_slos())}
        ratios = {name: self._reader.ratio(pairs, one) for name, one in named.items()}
        runs = [
            {
                "pair": step.number // 2,
                "arm": self._arm_of(step),
                "run": step.run,
                "value": step.value,
                "state": step.state,
            }
            for step in self._ledger.of("confirm")
        ]
        return {
            "design": "ABBA",
            "level": None if self._study.load.is_open else self._study.level,
            "arrival": self._study.load.arrival,
            "pairs": len(pairs),
            "ratio": {one.key: ratios[one.key] for one in (objective, *HEADLINES)} if pairs else {},
            # Beside "ratio", whose keys readers know: the metrics of the SLOs.
            "slo_ratio": {one.key: ratios[one.key] for one in self._of_slos()} if pairs else {},
            "levels": self._levels(pairs, named, ratios),
            "verdict": verdict(ratios[key], maximise=objective.maximise)
            if pairs
            else "no difference",
            "decided_by": key,
            "runs": runs,
        }

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
                "ratio": {key: ratios(pairs, one, level=level) for key, one in named.items()}
                if level
                else last,
            }
            for level, users in reversed(list(enumerate(self._reader.levels(pairs))))
        ]

    def _arm_of(self, step: Step) -> str:
        return "before" if step.config == self._study.baseline else "after"

    def _pairs(self) -> list[Pair]:
        return paired.confirmed(self._folder, self._ledger.of("confirm"), self._arm_of)

    def _ablation(self) -> list[dict[str, Any]]:
        """Return by how much each changed knob's new value moves the objective, largest first.

        The token rate stands beside it, whatever the objective is.
        """
        steps = {step.number: step for step in self._ledger.of("ablation")}
        objective = self._study.objective
        of = {one.key: one for one in (objective, HEADLINES[0])}
        # With one run each there is no variance between runs. The confirmation's is used.
        confirmed = self._pairs()
        known = {name: self._reader.spread(confirmed, one) for name, one in of.items()}
        rows = []
        for number in sorted(steps):
            reverted, whole = steps[number], steps.get(number + 1)
            if number % 2 or whole is None or not reverted.state == whole.state == "measured":
                continue
            pair = Pair(self._folder / reverted.run / JOURNAL, self._folder / whole.run / JOURNAL)
            effects = {
                name: self._reader.ratio([pair], one, known=known[name]) for name, one in of.items()
            }
            rows.append(
                {
                    "knob": reverted.knob,
                    "from": self._value(reverted.knob, self._study.baseline),
                    "to": self._value(reverted.knob, whole.config),
                    "effect": {
                        name: {"ratio": effect.pop("mean"), **effect}
                        for name, effect in effects.items()
                    },
                }
            )
        return sorted(rows, key=lambda row: _size(row["effect"][objective.key]))

    def _value(self, name: str, config: Mapping[str, Value]) -> Value | None:
        if name in config:
            return config[name]
        knob = next(knob for knob in self._subject.knobs if knob.name == name)
        return default(knob, self._engine_version)


def _size(effect: Mapping[str, Any]) -> float:
    """Return by what effects are sorted, the largest first and those without a ratio last."""
    return -abs(math.log(effect["ratio"])) if effect["ratio"] else math.inf
