"""The doubts of a page: those of its runs' summaries, and those of a study or of a pair of runs.

What is doubtful about one run is found by llmdyno.results.doubts and stands in its summary. Here
are only the doubts for which one run is not enough: of a confirmation, of settings, of two runs
together.
"""

from collections.abc import Mapping, Sequence

from llmdyno.knobs import Knob
from llmdyno.report import differences, documents, settings, wording
from llmdyno.report.documents import Document, Run
from llmdyno.results import doubts, titles

_FEW_PAIRS = 5
_UNEQUAL_OUTPUT = 0.05


def of_runs(runs: tuple[Run, ...]) -> list[str]:
    """Return the doubts of each run, and then whether the runs did the same work."""
    of_each = [(run.name, doubts.of(run.summary)) for run in runs]
    found = [
        f"{name}, {doubt.sentence}" if len(runs) > 1 else doubt.sentence
        for name, of_one in of_each
        for doubt in of_one
        if doubt.at is not None
    ]
    if len(runs) == 2:
        found += _of_pair(*runs)
    # Runs of one machine give the same warnings: each is printed once.
    whole = (doubt.sentence for _, of_one in of_each for doubt in of_one if doubt.at is None)
    return found + list(dict.fromkeys(whole))


def of_study(study: Document, runs: tuple[Run, ...], guide: Mapping[str, Knob]) -> list[str]:
    """Doubt the confirmation and the winner first, and then what the runs give cause to."""
    changed = settings.changed(study, guide)
    # Where the baseline stands, there is no winner to confirm.
    found = _of_confirmation(documents.part(study, "confirmation")) if changed else []
    for name in changed:
        if name in guide and guide[name].alters_output:
            found.append(
                f"The changed setting {name} may alter the tokens themselves: compare the quality"
                " of the answers before you deploy it."
            )
    trials = documents.items(study, "trials")
    failed = [trial for trial in trials if documents.text(trial, "state") == "failed"]
    if failed:
        found.append(
            f"{len(failed)} of {len(trials)} trials failed: the search could not judge those"
            " settings."
        )
    if len(runs) == 2:
        unlike = differences.of_environments(runs[0].summary, runs[1].summary)
        found += [f"Baseline and tuned were not measured in the same place: {it}" for it in unlike]
    return found + of_runs(runs)


def of_comparison(runs: tuple[Run, ...], unlike: Sequence[str]) -> list[str]:
    """Doubt that the change alone made the difference, and then what the runs give cause to."""
    once = "Each run was made once: its intervals do not hold what changes from run to run."
    return [once, *unlike, *of_runs(runs)]


def _of_confirmation(confirmation: Document) -> list[str]:
    ratios = documents.part(confirmation, "ratio")
    if not ratios:
        return ["The winner was not confirmed by repeated pairs: its gain may be luck."]
    found: list[str] = []
    pairs = documents.number(confirmation, "pairs")
    if pairs is not None and pairs < _FEW_PAIRS:
        found.append(
            f"The verdict rests on {wording.count(pairs)} pairs (fewer than {_FEW_PAIRS}):"
            " the interval is rough."
        )
    for metric in ratios:
        bounds = documents.interval(ratios, metric, "ci95")
        name = titles.title(metric)
        if bounds is None:
            found.append(f"The ratio of {name} has no interval.")
        elif bounds[0] <= 1 <= bounds[1]:
            found.append(
                f"The interval of the ratio of {name} includes 1: no difference is shown in it."
            )
    return found


def _of_pair(before: Run, after: Run) -> list[str]:
    found: list[str] = []
    after_levels = documents.levels(after.summary)
    for name, level in documents.levels(before.summary).items():
        if name not in after_levels:
            found.append(f"{name}: measured in {before.name} only.")
            continue
        old, new = _output_each(level), _output_each(after_levels[name])
        if old and new and abs(new / old - 1) > _UNEQUAL_OUTPUT:
            found.append(
                f"{name}: answers differ in length, {wording.significant(old)} against"
                f" {wording.significant(new)} output tokens a request: the work was not the same."
            )
    known = documents.levels(before.summary)
    found += [
        f"{name}: measured in {after.name} only." for name in after_levels if name not in known
    ]
    return found


def _output_each(level: Document) -> float | None:
    tokens = documents.number(level, "tokens", "output")
    completed = documents.number(level, "requests", "completed")
    return tokens / completed if tokens is not None and completed else None
