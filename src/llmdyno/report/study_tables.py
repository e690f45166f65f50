"""The tables of a study: its settings, trials, confirmation, ablation and quality gate."""

from collections.abc import Mapping

from llmdyno import knobs
from llmdyno.knobs import Knob
from llmdyno.report import documents, settings
from llmdyno.report.documents import Document
from llmdyno.report.tables import Cell, Column, Row, Table, bounds_cell, met_cell
from llmdyno.results import put_back, quality, stacks, titles, wording
from llmdyno.results.bottleneck import TITLES
from llmdyno.results.configs import described


def of_settings(study: Document, guide: Mapping[str, Knob]) -> list[Table]:
    """Return the settings that differ with what each gave, and folded those that do not."""
    rows = settings.of_study(study, guide)
    gave = {
        documents.text(row, "knob"): put_back.effect_of(study, row)
        for row in documents.items(study, "ablation")
    }
    own = stacks.named(documents.part(study, "best")) if stacks.replaced(study) else ""
    beside = f", told against the baseline of {own}" if own else ""
    tables: list[Table] = []
    for differs, caption in ((True, "Settings that differ"), (False, "Settings that are the same")):
        chosen = [row for row in rows if row.differs == differs]
        if not chosen:
            continue
        last: tuple[Column, ...] = (("What it gave", "text"),) if differs else ()
        tables.append(
            Table(
                caption=f"{caption} ({len(chosen)}){beside}",
                columns=(("Setting", "text"), ("Baseline", "code"), ("Tuned", "code"), *last),
                rows=tuple(
                    _setting_row(row, gave.get(row.name) if differs else "") for row in chosen
                ),
                folded=not differs,
            )
        )
    return tables


def combinations(study: Document) -> Table | None:
    """Return what came of each engine behind each front; None: the study has one."""
    rows = [
        Row(
            heads=((one.name, 1),),
            cells=(
                Cell(one.version),
                Cell(one.baseline, "number"),
                Cell(one.best, "number"),
                Cell(one.slo),
                Cell(one.trials),
                Cell(one.outcome),
            ),
        )
        for one in stacks.combinations(study)
    ]
    if not rows:
        return None
    return Table(
        caption=f"{stacks.conclusion(study)} The values are {documents.text(study, 'objective')}"
        " of single runs; only the confirmation decides.",
        columns=(
            ("Combination", "text"),
            ("Engine's version", "text"),
            ("Baseline", "number"),
            ("Best", "number"),
            ("SLOs", "text"),
            ("Trials", "text"),
            ("Outcome", "text"),
        ),
        rows=tuple(rows),
    )


def trials(study: Document) -> Table | None:
    """Return every trial with its outcome and cost, and below it what it changed."""
    several = bool(documents.items(study, "combinations"))
    rows = [
        Row(
            heads=((documents.text(trial, "id") or str(place), 1),),
            cells=(
                *((Cell(stacks.named(trial)),) if several else ()),
                _state(trial),
                Cell(wording.significant(documents.number(trial, "value")), "number"),
                met_cell(trial.get("slo_met")),
                _bottleneck(trial),
                *(
                    Cell(wording.seconds(documents.number(trial, "cost_s", step)), "number")
                    for step in ("build", "start", "measure")
                ),
            ),
            codes=_changes(stacks.baseline_of(study, trial), documents.part(trial, "config")),
        )
        for place, trial in enumerate(documents.items(study, "trials"), start=1)
    ]
    if not rows:
        return None
    return Table(
        caption="All trials, with the objective's value. Below each stands what it sets otherwise"
        f" than the baseline{' of its own engine and front' if several else ''}.",
        columns=(
            ("Trial", "text"),
            *((("Engine and front", "text"),) if several else ()),
            ("State", "text"),
            (titles.with_unit(documents.text(study, "objective")) or "Value", "number"),
            ("SLOs", "text"),
            ("Held back by", "text"),
            ("Build", "number"),
            ("Start", "number"),
            ("Measure", "number"),
        ),
        rows=tuple(rows),
    )


def _changes(base: Document, config: Document) -> tuple[str, ...]:
    """Return the settings of a config that are not the baseline's, as "name = value"."""
    told = [
        f"{name} = {knobs.show(value)}"
        for name, value in config.items()
        if name not in base or base[name] != value
    ]
    told += [f"{name} = default" for name in base if name not in config]
    return tuple(told) or ("as the baseline",)


def confirmation(study: Document) -> Table | None:
    """Return the mean ratio of each metric over the pairs."""
    measured = documents.part(study, "confirmation", "ratio")
    pairs = wording.count(documents.number(study, "confirmation", "pairs"))
    rows = [
        Row(
            heads=((titles.title(metric), 1),),
            cells=(
                *_ratio_cells(documents.part(measured, metric), "mean"),
                Cell(pairs, "number"),
            ),
        )
        for metric in measured
    ]
    if not rows:
        return None
    return Table(
        caption="Tuned ÷ baseline over the repeated pairs",
        columns=(
            ("Metric", "text"),
            ("Ratio", "number"),
            ("95 % interval", "number"),
            ("Pairs", "number"),
        ),
        rows=tuple(rows),
    )


def _ratio_cells(measured: Document, key: str) -> tuple[Cell, Cell]:
    """Return a ratio and its interval; where there is none, because a run had 0, the difference."""
    difference = documents.part(measured, "difference")
    if not difference:
        ratio = wording.ratio(documents.number(measured, key))
        return Cell(ratio, "number"), bounds_cell(documents.interval(measured, "ci95"))
    said = f"{wording.significant(documents.number(difference, 'mean'))} (difference)"
    return Cell(said, "number"), bounds_cell(documents.interval(difference, "ci95"))


def confirmation_runs(study: Document) -> Table | None:
    """Return the single runs of the pairs in the order in which they were made."""
    rows = [
        Row(
            heads=((str(place), 1),),
            cells=(
                Cell(wording.count(documents.pair_number(run)), "number"),
                Cell(documents.text(run, "arm")),
                _state(run),
                Cell(wording.significant(documents.number(run, "value")), "number"),
            ),
        )
        for place, run in enumerate(documents.confirmation_runs(study), start=1)
    ]
    if not rows:
        return None
    return Table(
        caption="The runs of the pairs, in order, with the objective's value",
        columns=(
            ("Run", "text"),
            ("Pair", "number"),
            ("Arm", "text"),
            ("State", "text"),
            (titles.with_unit(documents.text(study, "objective")) or "Value", "number"),
        ),
        rows=tuple(rows),
        folded=True,
    )


def ablation(study: Document) -> Table | None:
    """Return the effect of each single change on each metric that was measured."""
    rows = [
        Row(
            heads=((f"{documents.text(change, 'knob')}{_place(change)}", 1),),
            cells=(
                Cell(knobs.show(change.get("from")), "code"),
                Cell(knobs.show(change.get("to")), "code"),
                Cell(titles.title(metric)),
                *_ratio_cells(documents.part(change, "effect", metric), "ratio"),
            ),
        )
        for change in documents.items(study, "ablation")
        for metric in documents.part(change, "effect")
    ]
    if not rows:
        return None
    return Table(
        caption="What each change gives: the winner ÷ the winner with this setting changed back",
        columns=(
            ("Setting", "text"),
            ("From", "text"),
            ("To", "text"),
            ("Metric", "text"),
            ("Ratio", "number"),
            ("95 % interval", "number"),
        ),
        rows=tuple(rows),
    )


def interactions(study: Document) -> Table | None:
    """Return what settings do that were changed back together."""
    rows = [
        Row(
            heads=((", ".join(documents.texts(group, "knobs")), 1),),
            cells=(
                Cell(documents.text(group, "kind"), detail=documents.text(group, "why")),
                Cell(titles.title(metric)),
                *_ratio_cells(documents.part(group, "effect", metric), "ratio"),
            ),
        )
        for group in documents.items(study, "interactions")
        for metric in documents.part(group, "effect")
    ]
    if not rows:
        return None
    return Table(
        caption="What settings give together: the winner ÷ the winner with all changed back",
        columns=(
            ("Settings", "text"),
            ("Together", "text"),
            ("Metric", "text"),
            ("Ratio", "number"),
            ("95 % interval", "number"),
        ),
        rows=tuple(rows),
    )


def output(study: Document) -> Table | None:
    """Return what the quality gate found of the winner's answers, and whom it kept out."""
    found = documents.part(study, "quality")
    rows = [Row(heads=(("Winner", 1),), cells=(Cell(said),)) for said in quality.sentences(found)]
    rows += [
        Row(
            heads=((described(documents.part(one, "config")), 1),),
            cells=(Cell(" ".join(["Kept out.", *documents.texts(one, "said")]), tone="bad"),),
        )
        for one in documents.items(found, "refused")
    ]
    if not rows:
        return None
    return Table(
        caption="Answers beside the baseline's: to fixed prompts, and to lm-eval's tasks if given",
        columns=(("Config", "text"), ("What was found", "text")),
        rows=tuple(rows),
    )


def _bottleneck(trial: Document) -> Cell:
    name = documents.text(trial, "bottleneck", "name")
    why = documents.text(trial, "bottleneck", "why")
    return Cell(TITLES.get(name, name) if name else wording.ABSENT, detail=why)


def _setting_row(row: settings.Setting, gave: str | None) -> Row:
    knob = row.knob
    trades = f" It trades: {knob.trades}" if knob and knob.trades.strip("-") else ""
    cells = [
        Cell(value, "code", tone="quiet" if value.endswith("(default)") else "")
        for value in (row.before, row.after)
    ]
    if gave != "":
        said = f"{gave[0].upper()}{gave[1:]}" if gave else "not measured by itself"
        cells.append(Cell(said, tone="" if gave else "quiet"))
    return Row(
        heads=((row.name, 1),),
        cells=tuple(cells),
        says=f"{knob.does if knob else row.does}{trades}",
    )


def _state(trial: Document) -> Cell:
    state = f"{documents.text(trial, 'state') or wording.ABSENT}{_place(trial)}"
    kind = documents.text(trial, "failure", "class")
    why = documents.text(trial, "failure", "why") or documents.text(trial, "pruned", "why")
    detail = ": ".join(said for said in (kind, why) if said)
    return Cell(state, detail=detail, tone="bad" if state.startswith("failed") else "")


def _place(measured: Document) -> str:
    """Mark what was measured after the study had moved to another machine or version."""
    place = documents.number(measured, "place")
    return f" (place {place + 1:g})" if place else ""
