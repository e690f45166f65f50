"""The study document: a ledger and its runs' journals in, study.json out.

As with a run's summary there is one way from what was measured to what is said of it, this one, and
it can be gone again at any time. The document's keys are a contract; its version's history:

    llmdyno.study/1 (November 2026): the first.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from llmdyno import deploy, store
from llmdyno.bench.run import JOURNAL, SUMMARY
from llmdyno.knobs import Value, default
from llmdyno.records.entries import Columns, Window
from llmdyno.results import stats
from llmdyno.results.metrics import BY_NAME, Metric
from llmdyno.results.summary import read_levels, significant, steady_window, token_rates
from llmdyno.serve.stack import Stack
from llmdyno.tune.ledger import Ledger, Step

SCHEMA = "llmdyno.study/1"


def study_document(folder: Path, ledger: Ledger, subject: Stack) -> dict[str, Any]:
    """Return study.json as it stands; what is not measured yet is null or empty."""
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

    def whole(self) -> dict[str, Any]:
        baseline = self._ledger.find("baseline", 0)
        best = self._ledger.winner()
        study = self._study
        document: dict[str, Any] = {
            "schema": SCHEMA,
            "study": self._folder.resolve().name,
            "dir": str(self._folder),
            "engine": study.engine,
            "engine_version": self._engine_version,
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
        document["bundle"] = self._bundle(document)
        return document

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
        ratios = {
            "token_rate": _ratio([_series(pair, _rates) for pair in pairs], stats.mean_over_time),
            "ttft_ms_p50": _ratio([_series(pair, _ttft) for pair in pairs], stats.median_over_time),
        }
        objective = self._study.objective
        key = "token_rate" if objective.metric == "token_rate" else "ttft_ms_p50"
        if f"{objective.metric}_{objective.stat}" not in {"token_rate_mean", "ttft_ms_p50"}:
            key = f"{objective.metric}_{objective.stat}"
            ratios[key] = self._ratio_of_runs(pairs)
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
            "level": self._study.level,
            "pairs": len(pairs),
            "ratio": ratios if pairs else {},
            "verdict": verdict(ratios[key], maximise=objective.maximise)
            if pairs
            else "no difference",
            "decided_by": key,
            "runs": runs,
        }

    def _arm_of(self, step: Step) -> str:
        return "before" if step.config == self._study.baseline else "after"

    def _pairs(self) -> list[tuple[Path, Path]]:
        """Return the journals (before, after) of the pairs of which both runs were measured."""
        steps = {step.number: step for step in self._ledger.of("confirm")}
        pairs = []
        for pair in range(self._study.pairs):
            two = [steps.get(2 * pair), steps.get(2 * pair + 1)]
            measured = [step for step in two if step is not None and step.state == "measured"]
            if len(measured) == 2:
                ordered = sorted(measured, key=lambda step: self._arm_of(step) == "after")
                before, after = (self._folder / step.run / JOURNAL for step in ordered)
                pairs.append((before, after))
        return pairs

    def _ratio_of_runs(self, pairs: Sequence[tuple[Path, Path]]) -> dict[str, Any]:
        """Return the ratio of another objective than the two headline ones, run by run."""
        objective = self._study.objective
        metric = BY_NAME[objective.metric]
        series = [_series(pair, _observations(metric)) for pair in pairs]
        if objective.stat == "mean":
            return _ratio(series, stats.mean_over_time)
        q = 1.0 if objective.stat == "max" else float(objective.stat[1:]) / 100
        return _ratio(series, stats.quantile_over_time(q))

    def _ablation(self) -> list[dict[str, Any]]:
        """Return by how much each changed knob's new value moves the token rate, largest first."""
        steps = {step.number: step for step in self._ledger.of("ablation")}
        # One run each says nothing of how far apart equal runs lie: those of the confirmation do.
        confirmed = [_series(pair, _rates) for pair in self._pairs()]
        known = None
        if confirmed:
            before, after = zip(*confirmed, strict=True)
            known = stats.spread(before, after, stats.mean_over_time)
        rows = []
        for number in sorted(steps):
            reverted, whole = steps[number], steps.get(number + 1)
            if number % 2 or whole is None or not reverted.state == whole.state == "measured":
                continue
            pair = (self._folder / reverted.run / JOURNAL, self._folder / whole.run / JOURNAL)
            effect = _ratio([_series(pair, _rates)], stats.mean_over_time, known)
            rows.append(
                {
                    "knob": reverted.knob,
                    "from": self._value(reverted.knob, self._study.baseline),
                    "to": self._value(reverted.knob, whole.config),
                    "effect": {"token_rate": {"ratio": effect["mean"], "ci95": effect["ci95"]}},
                }
            )
        return sorted(rows, key=lambda row: -abs(math.log(row["effect"]["token_rate"]["ratio"])))

    def _value(self, name: str, config: Mapping[str, Value]) -> Value | None:
        if name in config:
            return config[name]
        knob = next(
            knob
            for knob in (*self._subject.engine.knobs, *self._subject.front.knobs)
            if knob.name == name
        )
        return default(knob, self._engine_version)

    def _bundle(self, document: Mapping[str, Any]) -> str | None:
        """Write what serves the winner elsewhere; return its folder, None without a winner."""
        if document["best"] is None:
            return None
        folder = self._folder / "bundle"
        config = document["best"]["config"]
        deploy.write(folder, self._subject, config, study=document, notify=lambda _: None)
        return str(folder)


def verdict(ratio: Mapping[str, Any], *, maximise: bool) -> str:
    """Return "better", "worse" or "no difference" (the interval holds 1, or there is none)."""
    if ratio["ci95"] is None:
        return "no difference"
    low, high = ratio["ci95"]
    if low <= 1.0 <= high:
        return "no difference"
    return "better" if (low > 1.0) == maximise else "worse"


Observations = Callable[[Columns, Window], stats.Floats]


def _rates(columns: Columns, window: Window) -> stats.Floats:
    return token_rates(columns, window)


def _observations(metric: Metric) -> Observations:
    def observations(columns: Columns, window: Window) -> stats.Floats:
        assert metric.observe is not None, "a rate other than token_rate is no objective yet"
        values: stats.Floats = metric.observe(columns, window).values
        return values

    return observations


_ttft = _observations(BY_NAME["ttft_ms"])


def _series(pair: tuple[Path, Path], of: Observations) -> tuple[stats.Floats, stats.Floats]:
    """Return what was observed in the windows of two runs' last levels, in order of time."""
    before, after = (
        of(facts.columns, steady_window(facts))
        for facts in (read_levels(journal)[1][-1] for journal in pair)
    )
    return before, after


Pairs = Sequence[tuple[stats.Floats, stats.Floats]]
Statistic = Callable[[stats.Floats], stats.Floats]


def _ratio(pairs: Pairs, statistic: Statistic, known: stats.Spread | None = None) -> dict[str, Any]:
    """Return after ÷ before: the geometric mean over the pairs and its 95 % interval."""
    if not pairs:
        return {"mean": None, "ci95": None}
    before, after = zip(*pairs, strict=True)
    mean, ci95 = stats.ratio(before, after, statistic, known=known)
    return {"mean": significant(mean), "ci95": ci95 and [significant(bound) for bound in ci95]}
