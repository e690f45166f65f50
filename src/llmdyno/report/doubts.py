"""The doubts that a page prints: those of its runs, and those of a study or of a pair of runs.

All of them are found by llmdyno.results.doubts and results.study_doubts; here they are put in the
order of a page.
"""

from collections.abc import Mapping, Sequence

from llmdyno.knobs import Knob
from llmdyno.report.documents import Document, Run, items, text
from llmdyno.results import doubts, study_doubts
from llmdyno.results.doubts import Doubt
from llmdyno.results.grouping import sentences


def of_run(run: Run) -> list[str]:
    """Return the doubts of one run."""
    return _of_runs((run,), ())


def of_study(study: Document, runs: tuple[Run, ...], guide: Mapping[str, Knob]) -> list[str]:
    """Doubt the confirmation and the winner first, and then what the runs give cause to."""
    found = study_doubts.of(study, guide)
    whole = [doubt.sentence for doubt in found if doubt.at is None]
    return whole + _of_runs(runs, [doubt for doubt in found if doubt.at is not None])


def of_comparison(
    before: Run, after: Run, unlike: Sequence[str], comparison: Document | None = None
) -> list[str]:
    """Doubt that the change alone made the difference, and then what the runs give cause to."""
    once = ["Each run was made once: its intervals do not hold what changes from run to run."]
    if comparison is not None:
        once = [text(doubt, "text") for doubt in items(comparison, "doubts")]
    between = study_doubts.between(before.summary, after.summary, (before.name, after.name))
    return [*once, *unlike, *_of_runs((before, after), between)]


def _of_runs(runs: tuple[Run, ...], between: Sequence[Doubt]) -> list[str]:
    """Return the doubts of levels, a line a code; then those between runs, and of whole runs."""
    of_each = [(run.name, doubts.of(run.summary)) for run in runs]
    found = [
        f"{name}, {said}" if len(runs) > 1 else said
        for name, of_one in of_each
        for said in sentences([doubt for doubt in of_one if doubt.at is not None])
    ]
    # Runs of one machine give the same warnings: each is printed once.
    whole = (doubt.sentence for _, of_one in of_each for doubt in of_one if doubt.at is None)
    return [*found, *(doubt.sentence for doubt in between), *dict.fromkeys(whole)]
