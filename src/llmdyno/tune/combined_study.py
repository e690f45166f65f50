"""The document of a study over engines and fronts, derived from its combinations' ledgers.

It is a study's document: the baseline is the first combination's, the winner that of all, and
"engine" and "front" are the winner's. "combinations" says of each what came of it; trials, runs,
the baseline and the winner name their engine and front.
"""

from collections.abc import Sequence
from itertools import product
from pathlib import Path
from typing import Any, Literal

import msgspec

from llmdyno import store
from llmdyno.errors import UsageError
from llmdyno.results import stacks
from llmdyno.serve.stack import Stack, load_stack
from llmdyno.store import STACKS
from llmdyno.tune import commands
from llmdyno.tune.ablation import deaths
from llmdyno.tune.blame import undecided
from llmdyno.tune.combinations import words_of
from llmdyno.tune.crew import number_of
from llmdyno.tune.endings import rank, withdrawn
from llmdyno.tune.entries import Step
from llmdyno.tune.folder import stack_of
from llmdyno.tune.ledger import Ledger
from llmdyno.tune.reference import baselines_in, valued_reference_of
from llmdyno.tune.spec import Study
from llmdyno.tune.study import study_document, with_doubts, without_doubts

_SHARED = ("best", "confirm", "ablation")
_EVENTS = {"beside", "moved", "paired", "died"}
_OF_LANES = {"lane", "lanes"}  # that of the first combination: trials are told against its baseline


class _Part(msgspec.Struct, frozen=True, kw_only=True):
    """A combination and its ledger."""

    engine: str
    front: str
    ledger: Ledger

    @property
    def place(self) -> str:
        return f"{STACKS}/{self.engine}+{self.front}"

    def seen(self, step: Step, **changes: Any) -> Step:
        """Return a step as the whole study sees it."""
        run = f"{self.place}/{step.run}" if step.run else ""
        own = {"engine": self.engine, "front": self.front, "run": run}
        return msgspec.structs.replace(step, **own, **changes)


def document_of(folder: Path, ledger: Ledger) -> tuple[dict[str, Any], Stack]:
    """Derive the document of any study; return with it what was tuned, of several the winner.

    Raises:
        UsageError: an engine or a front that it names is not there any more, or nothing was begun.
        StorageError: a run or a ledger cannot be read.
    """
    if ledger.spec.combines:
        return combined_document(folder, ledger)
    stack = stack_of(ledger.spec)
    return study_document(folder, ledger, stack), stack


def fallen(folder: Path, ledgers: Sequence[Ledger]) -> set[int]:
    """Return the numbers of the would-be winners that are none, by what was measured of them.

    Args:
        folder: of the study.
        ledgers: its own one; of a study over several those of its combinations.

    Raises:
        UsageError, StorageError: as document_of().
    """
    full = [(ledger.spec, step) for ledger in ledgers for step in ledger.of("best")]
    if not full:
        return set()
    document, _ = document_of(folder, Ledger(folder))
    return {
        step.contender
        for spec, step in full
        for one in document["rejected"]
        if one["config"] == step.config
        and one.get("engine", spec.engine) == spec.engine
        and one.get("front", spec.front) == spec.front
    }


def combined_document(folder: Path, ledger: Ledger) -> tuple[dict[str, Any], Stack]:
    """Derive study.json as it stands; return with it the winner's stack, or the first's.

    Args:
        folder: of the study.
        ledger: its own one.

    Raises:
        UsageError: an engine or a front that it names is not there any more.
        StorageError: a run or a ledger cannot be read.
    """
    study = ledger.spec
    parts = [
        _Part(engine=engine, front=front, ledger=Ledger(folder / STACKS / f"{engine}+{front}"))
        for engine, front in product(study.engines, study.fronts)
    ]
    begun = [part for part in parts if part.ledger.began is not None]
    if not begun:
        raise UsageError(
            f"{folder}: nothing was measured yet; go on with: {commands.resume(folder)}"
        )
    works = [part for part in begun if valued_reference_of(part.ledger) is not None]
    subject = (works or begun)[0]
    document = _derived(folder, ledger, works, subject)
    best = document["best"]
    if best is not None:
        winner = next(p for p in works if (p.engine, p.front) == (best["engine"], best["front"]))
        if winner is not subject:
            subject = winner
            document = _derived(folder, ledger, works, subject)
    document |= {
        "engine": subject.engine,
        "engine_args": list(words_of(study, subject.engine)),
        "front": subject.front,
        "spec": msgspec.to_builtins(study),
        "combinations": [_entry(study, ledger, part, document) for part in parts],
        "spent_s": round(sum(part.ledger.spent_s for part in parts), 3),
        "withdrawn": [
            {**one, "engine": part.engine, "front": part.front}
            for part in works
            for one in withdrawn(part.ledger)
        ],
    }
    if document["lanes"] is not None:
        devices = dict.fromkeys(name for part in works for name in part.ledger.lanes)
        document["lanes"] = {**document["lanes"], "devices": sorted(devices, key=number_of)}
    said = f"{stacks.conclusion(document)} {document['outcome']['said']}"
    document["outcome"] = {**document["outcome"], "said": said}
    stack = _stack(study, subject)
    # The doubts come last: which settings have changed is told by the combinations' own baselines.
    return with_doubts(document, stack), stack


def _derived(
    folder: Path, ledger: Ledger, works: Sequence[_Part], subject: _Part
) -> dict[str, Any]:
    """Return the document of all that was measured, as one study of a stack would have it.

    Its doubts are left out.
    """
    own = subject.ledger
    assert ledger.began is not None
    whole = Ledger(folder)
    whole.began = msgspec.structs.replace(
        ledger.began,
        spec=msgspec.structs.replace(ledger.began.spec, baseline=own.spec.baseline),
        environment=own.environment,
        engine_version=own.engine_version,
    )
    first = works[0] if works else subject
    of_baseline = {"baseline", "reference"}
    whole.steps = [first.seen(step) for step in first.ledger.steps if step.phase in of_baseline]
    trials = _trials(works)
    whole.steps += [
        msgspec.structs.replace(step, number=number) for number, step in enumerate(trials)
    ]
    for part in works:
        for kept, steps in (
            (whole.steps, part.ledger.steps),
            (whole.voided, part.ledger.voided),
        ):
            kept += [
                part.seen(step, arm=_arm(step, part, first))
                for step in steps
                if step.phase in _SHARED
            ]
        known = {(event.kind, event.why, event.contender) for event in whole.events}
        whole.events += [
            event
            for event in part.ledger.events
            if event.kind in (_EVENTS | _OF_LANES if part is first else _EVENTS)
            and (event.kind != "paired" or part.ledger.has_its_pairs(event.contender))
            and (event.kind, event.why, event.contender) not in known
        ]
    whole.steps.sort(key=_turn)
    stopped = [part.ledger.stopped for part in (*works, subject)]
    whole.stopped = next((one for one in stopped if one is not None), None)
    references = [(part, valued_reference_of(part.ledger)) for part in works if part is not first]
    rivals = [part.seen(step) for part, step in references if step is not None]
    others = [step for part in works if part is not first for step in _baseline(part)]
    # Its own ledger tells of each what the baseline did after a failure; the joint one does not.
    dead = {
        contender: part.seen(step)
        for part in works
        for contender, step in deaths(part.ledger, _stack(ledger.spec, part).knobs).items()
    }
    again = [
        part.seen(step)
        for part in works
        for step in undecided(part.ledger, _stack(ledger.spec, part).knobs)
    ]
    stack = _stack(ledger.spec, subject)
    return without_doubts(
        folder, whole, stack, rivals=rivals, others=others, dead=dead, undecided=again
    )


def _turn(step: Step) -> tuple[bool, int, int]:
    """Return by what steps are sorted: the would-be winners last, pairs in the order of the runs.

    The two arms of the pairs stand in ledgers of their own.
    """
    number = step.number if step.phase == "confirm" else 0
    return step.phase == "best", step.contender, number


def _trials(works: Sequence[_Part]) -> list[Step]:
    """Return the trials of all combinations in the order in which they were begun.

    A run's folder is named by the time when it began (`store.new_id()`). Trials of a combination
    keep their order: one without a run, or measured again later, goes with those around it.
    """
    timed = []
    for part in works:
        began = ""
        for step in part.ledger.of("trial"):
            began = max(began, store.began(Path(step.run).name))
            timed.append((began, part.seen(step)))
    return [step for _, step in sorted(timed, key=lambda one: one[0])]


def _baseline(part: _Part) -> list[Step]:
    """Return what counts of a combination's baseline, as the whole study sees it."""
    ledger = part.ledger
    lanes = baselines_in(ledger, ledger.lanes) if ledger.lanes else ledger.of("reference")
    return [part.seen(step) for step in (*ledger.of("baseline"), *lanes)]


def _arm(step: Step, part: _Part, first: _Part) -> Literal["", "before", "after"]:
    """Return the arm of a step of a confirmation, which is against the first one's baseline."""
    if step.phase != "confirm":
        return ""
    is_before = part is first and step.config == first.ledger.spec.baseline
    return "before" if is_before else "after"


def _stack(study: Study, part: _Part) -> Stack:
    return load_stack(part.engine, part.front, study.model, words_of(study, part.engine))


def _entry(study: Study, ledger: Ledger, part: _Part, document: dict[str, Any]) -> dict[str, Any]:
    """Return what came of a combination."""
    own = part.ledger
    reference = valued_reference_of(own)
    trials = own.of("trial")
    measured = [step for step in trials if step.state == "measured" and step.value is not None]
    ranked = sorted(measured, key=lambda step: rank(study, step), reverse=True)
    best = reference
    if ranked and (best is None or rank(study, ranked[0]) > rank(study, best)):
        best = ranked[0]
    wins = document["best"] is not None and part.engine == document["best"]["engine"]
    wins = wins and part.front == document["best"]["front"]
    state, why = "measured", None
    if reference is None:
        state, why = _fault(ledger, part)
    return {
        "engine": part.engine,
        "front": part.front,
        "engine_version": own.engine_version if own.began is not None else None,
        "state": "best" if wins else state,
        "why": why,
        "baseline": _value(reference),
        "best": _value(best),
        "trials": sum(step.state != "predicted-infeasible" for step in trials),
        "failed": sum(step.state == "failed" for step in trials),
        "cost_s": round(own.spent_s, 3),
        "lanes": None if study.parallel == 1 else _lanes(own),
        "dir": part.place if own.began is not None else None,
    }


def _lanes(own: Ledger) -> dict[str, Any]:
    """Return which hosts have measured a combination, and which were left out of it, and why."""
    left_out = [{"device": e.devices[0], "why": e.why} for e in own.lanes_missing]
    return {"devices": list(own.lanes), "left_out": left_out}


def _fault(ledger: Ledger, part: _Part) -> tuple[str, str | None]:
    """Say why a combination has no value."""
    name = f"{part.engine}+{part.front}"
    for event in ledger.events:
        if event.kind == "left" and event.stack == name and part.ledger.began is None:
            return "left out", event.why
    for phase in ("reference", "baseline"):
        step = part.ledger.find(phase, 0)
        if step is not None and step.state == "failed":
            return "failed", f"its baseline failed ({step.failure_class}): {step.failure_why}"
    measured = part.ledger.find("baseline", 0) is not None
    return (
        ("failed", "its baseline has no value of the objective")
        if measured
        else (
            "not measured",
            None,
        )
    )


def _value(step: Step | None) -> dict[str, Any] | None:
    if step is None:
        return None
    return {"config": step.config, "value": step.value, "slo_met": step.slo_met}
