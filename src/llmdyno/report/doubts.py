"""What is doubtful about the numbers on a page, each doubt in a sentence of its own.

A report that prints only what it found is an advertisement. Every bound below is a rule of thumb
and is named in the sentence that it causes, so that a reader can disagree with it.
"""

from collections.abc import Mapping, Sequence

from llmdyno.knobs import Knob
from llmdyno.machine import environment
from llmdyno.report import definitions, differences, documents, settings, wording
from llmdyno.report.documents import Document, Run
from llmdyno.results.metrics import SENT_BEFORE_MAX

_FEW_PAIRS = 5
_SHORT_WINDOW_S = 30
_FEW_REQUESTS = 100  # below this a p99 is no more than the slowest request
_UNEQUAL_OUTPUT = 0.05


def of_runs(runs: tuple[Run, ...]) -> list[str]:
    """Doubt each level of each run, and then whether the runs did the same work."""
    found: list[str] = []
    for run in runs:
        for name, level in documents.levels(run.summary).items():
            where = f"{run.name}, {name}" if len(runs) > 1 else name
            found += [f"{where}: {doubt}" for doubt in _of_level(level)]
    if len(runs) == 2:
        found += _of_pair(*runs)
    # Runs of one machine give the same warnings: each is printed once.
    return found + list(
        dict.fromkeys(
            warning
            for run in runs
            for warning in environment.warnings(documents.part(run.summary, "environment"))
        )
    )


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
        name = definitions.title(metric)
        if bounds is None:
            found.append(f"The ratio of {name} has no interval.")
        elif bounds[0] <= 1 <= bounds[1]:
            found.append(
                f"The interval of the ratio of {name} includes 1: no difference is shown in it."
            )
    return found


def _of_level(level: Document) -> list[str]:
    found: list[str] = []
    if documents.text(level, "client", "verdict") == "client-bound":
        because = "; ".join(("client-bound", *documents.texts(level, "client", "reasons")))
        spoilt = ", ".join(definitions.title(name) for name in documents.texts(level, "doubtful"))
        found.append(
            f"the load generator was the limit ({because}): the server may be better than this."
            f"{f' Doubtful: {spoilt}.' if spoilt else ''}"
        )
    if stopped := documents.text(level, "stopped"):
        found.append(f"the level was ended early: {stopped}.")
    elif level.get("interrupted") is True:
        found.append("the level was interrupted: it is shorter than asked.")
    completed = documents.number(level, "requests", "completed")
    failed = documents.number(level, "requests", "failed") or 0
    cut = documents.number(level, "requests", "cut") or 0
    if failed:
        share = failed / (failed + (completed or 0))
        classes = ", ".join(
            f"{name} {wording.count(documents.number({'n': times}, 'n'))}"
            for name, times in documents.part(level, "requests", "errors").items()
        )
        found.append(
            f"{wording.count(failed)} requests failed ({wording.significant(100 * share)} %"
            f"{f': {classes}' if classes else ''}); latencies are those of the others."
        )
    if cut:
        found.append(
            f"{wording.count(cut)} requests were cut off at the end: the slowest are missing from"
            " the end-to-end latencies."
        )
    if documents.part(level, "ttft_ms", "kaplan_meier"):
        found.append(
            f"{wording.count(documents.number(level, 'ttft_ms', 'censored'))} requests were cut"
            " before their first token; with them, by Kaplan and Meier, TTFT is"
            f" {_censored_ttft(level)}."
        )
    before, n = (documents.number(level, "ttft_ms", name) for name in ("sent_before", "n"))
    if before and n and before > SENT_BEFORE_MAX * n:
        found.append(
            f"{wording.significant(100 * before / n)} % of the times to first token (more than"
            f" {SENT_BEFORE_MAX:.0%}) are of requests sent before the window: measure for"
            " several times as long as a first token takes."
        )
    if completed is not None and completed < _FEW_REQUESTS:
        found.append(
            f"only {wording.count(completed)} requests completed (fewer than {_FEW_REQUESTS}):"
            " p99 is hardly more than the slowest one."
        )
    return found + _of_window(level) + _of_tokens(level) + _of_server(level)


def _censored_ttft(level: Document) -> str:
    values = {
        name: documents.number(level, "ttft_ms", "kaplan_meier", name) for name in ("p50", "p99")
    }
    return " and ".join(
        f"{name} {'beyond all that was seen' if value is None else wording.milliseconds(value)}"
        for name, value in values.items()
    )


def _of_window(level: Document) -> list[str]:
    start_s = documents.number(level, "window", "start_s")
    end_s = documents.number(level, "window", "end_s")
    method = documents.text(level, "window", "method")
    if start_s is None or end_s is None or method.startswith("whole"):
        return ["there is no steady window: ramp and drain count too."]
    if end_s - start_s < _SHORT_WINDOW_S:
        length = wording.seconds(end_s - start_s)
        return [f"the window is short ({length}, less than {_SHORT_WINDOW_S} s): slow swings hide."]
    return []


def _of_tokens(level: Document) -> list[str]:
    found: list[str] = []
    source = documents.text(level, "tokens", "source")
    if source == "chunks":
        found.append("tokens were counted as chunks: a chunk may hold several tokens.")
    if source == "tokenizer":
        found.append("tokens were counted with our tokenizer, not the server's.")
    return found


def _of_server(level: Document) -> list[str]:
    """Return what the cross-check with the server and the GPUs' own word found."""
    notes = list(documents.texts(level, "server", "notes"))
    for gpu in documents.items(level, "gpu"):
        notes += documents.texts(gpu, "notes")
    return [f"{note}." for note in notes]


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
