"""What a live page shows of a study: its steps, the best so far, what comes next, the run."""

from collections.abc import Callable, Sequence
from datetime import datetime
from threading import Event
from typing import Any

import msgspec

from llmdyno.dashboard.board import Board
from llmdyno.dashboard.gauge import Gauge
from llmdyno.load.progress import Progress
from llmdyno.results.metrics import BY_NAME
from llmdyno.tune.candidates import told
from llmdyno.tune.endings import rank
from llmdyno.tune.entries import Step, label
from llmdyno.tune.ledger import Ledger
from llmdyno.tune.narrator import Narrator
from llmdyno.tune.outlook import Outlook, Proving, proving_sentence, sentences
from llmdyno.tune.reference import valued_reference_of
from llmdyno.tune.spec import Study
from llmdyno.tune.steps import outcome
from llmdyno.wire.exchange import Meter

_PROOF = frozenset({"best", "confirm", "ablation"})


class StudyFeed:
    """What the page shows of a study.

    Args:
        board: the page.
        study: what is tuned.
        enough: is set when a person has had enough trials.
    """

    def __init__(self, board: Board, study: Study, enough: Event) -> None:
        self._board = board
        self._study = study
        self._enough = enough
        self._ended = False
        self._ledgers: dict[str, Ledger] = {}  # by engine and front
        slos = ", ".join(slo.expr for slo in study.slos)
        board.put(
            "head",
            {
                "kind": "tune",
                "title": f"Tuning {study.model} on {study.engine}, {study.front}",
                "about": f"for {study.objective} at {study.compared_at}"
                + (f", under {slos}" if slos else ""),
            },
        )

    def narrator(self, told: Narrator) -> Narrator:
        """Return a narrator that tells another one all, and the page too."""
        board = self._board

        def notify(line: str) -> None:
            told.notify(line)
            board.add("lines", line)
            board.put("waiting", "")

        def notify_waiting(line: str) -> None:
            told.notify_waiting(line)
            board.put("waiting", line)

        def display(name: str, loads: Sequence[float]) -> Callable[[Progress, Meter], None]:
            show, gauge = told.display(name, loads), Gauge(board, self._interval_s, run=name)

            def both(progress: Progress, meter: Meter) -> None:
                show(progress, meter)
                gauge.show(progress, meter)

            return both

        def observe(ledger: Ledger) -> None:
            told.observe(ledger)
            self.show(ledger)

        def foretell(outlook: Outlook) -> None:
            told.foretell(outlook)
            lines = sentences(outlook, datetime.now().astimezone())
            board.put("outlook", {"lines": lines})

        def foretell_proof(proving: Proving) -> None:
            told.foretell_proof(proving)
            line = proving_sentence(proving, datetime.now().astimezone())
            board.put("proving", {"line": line})

        return Narrator(
            notify=notify,
            notify_waiting=notify_waiting,
            display=display,
            observe=observe,
            foretell=foretell,
            foretell_proof=foretell_proof,
            enough=lambda: told.enough() or self._enough.is_set(),
        )

    @property
    def _interval_s(self) -> float:
        return min(self._study.load.interval_s, 5.0)

    def show(self, ledger: Ledger) -> None:
        """Show the steps of a ledger, beside those of the other combinations."""
        spec = ledger.spec
        if not spec.combines:  # the ledger of several engines has no steps of its own
            self._ledgers[f"{spec.engine}+{spec.front}"] = ledger
        self._board.put("study", self._document())

    def end(self, said: str) -> None:
        """Say how it ended, unless that was said before."""
        if not self._ended:
            self._ended = True
            self._board.put("end", {"said": said})

    def _document(self) -> dict[str, Any]:
        study, ledgers = self._study, self._ledgers
        references = [valued_reference_of(ledger) for ledger in ledgers.values() if ledger.began]
        known = [step for step in references if step is not None]
        steps = [(name, step) for name, ledger in ledgers.items() for step in ledger.steps]
        trials = [s for _, s in steps if s.phase == "trial" and s.state == "measured"]
        rivals = [*known, *(step for step in trials if step.value is not None)]
        best = max(rivals, key=lambda step: rank(study, step), default=None)
        proof = any(step.phase in _PROOF for _, step in steps)
        return {
            "objective": str(study.objective),
            "unit": BY_NAME[study.objective.metric].unit,
            "maximise": study.objective.maximise,
            "trials": study.trials,
            # Of several engines one may come to its end while the others go on.
            "searching": not (
                proof or (not study.combines and any(map(_has_ended, ledgers.values())))
            ),
            "baseline": known[0].value if known else None,
            "baseline_met": known[0].slo_met if known else None,
            "steps": [
                {"stack": name, **_row(study, step), "best": step is best} for name, step in steps
            ],
        }


def _has_ended(ledger: Ledger) -> bool:
    return ledger.last_end is not None


def _row(study: Study, step: Step) -> dict[str, Any]:
    """Return a step as the page shows it."""
    whole = msgspec.structs.asdict(step)
    return {
        **{name: whole[name] for name in ("phase", "state", "value", "slo_met")},
        "label": label(step.phase, step.number),
        "config": told(step.config, study.baseline),
        "why": "" if step.state == "measured" else outcome(study, step),
        "cost_s": step.took_s,
    }
