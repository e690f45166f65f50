"""The three pages: which sections they have and in which order; html.py and markdown.py set them.

A section without a chart, a table or a line has nothing to say and is left out.
"""

from collections.abc import Mapping, Sequence

import msgspec

from llmdyno.knobs import Knob
from llmdyno.report import (
    answers,
    comparison_table,
    definitions,
    documents,
    doubts,
    drawing,
    explanation,
    failures,
    limits,
    method,
    plots,
    run_tables,
    setup,
    side_tables,
    spending,
    study_tables,
    untested,
    verdict,
)
from llmdyno.report.answers import Answer
from llmdyno.report.documents import Document, Material, Run
from llmdyno.report.tables import Table
from llmdyno.results import findings, study_doubts, titles, verdicts
from llmdyno.results.capacity import says_capacity
from llmdyno.results.findings import Verdict
from llmdyno.results.metrics import BY_NAME, Metric


class Figure(msgspec.Struct, frozen=True, kw_only=True):
    """A drawn chart: its name is in the id of its element and the key of its specification."""

    name: str
    title: str
    says: str
    wide: bool
    specification: drawing.Row


class Block(msgspec.Struct, frozen=True, kw_only=True):
    """Something to type, and what it does."""

    what: str
    text: str


class Section(msgspec.Struct, frozen=True, kw_only=True):
    """A titled part of a page; its parts are set in the order in which they stand here."""

    name: str
    title: str
    steps: Sequence[str] = ()  # sentences with a number
    answers: Sequence[Answer] = ()
    figures: Sequence[Figure] = ()
    tables: Sequence[Table | None] = ()
    terms: Sequence[Metric] = ()
    lines: Sequence[str] = ()
    blocks: Sequence[Block] = ()

    def says_something(self) -> bool:
        """Tell whether there is anything under the title."""
        parts = (self.steps, self.answers, self.figures, self.terms, self.lines, self.blocks)
        return any(self.tables) or any(parts)


class Page(msgspec.Struct, frozen=True, kw_only=True):
    """All that the template sets."""

    title: str
    subtitle: str
    verdict: Verdict
    warnings: Sequence[str] = ()
    sections: Sequence[Section]
    doubts: Sequence[str]


def of_study(study: Document, guide: Mapping[str, Knob]) -> Page:
    """Return the page of a study: what was found, then everything that it rests on."""
    runs = study_runs(study)
    material = Material(runs=runs, study=study)
    doubtful = doubts.of_study(study, runs, guide)
    left_out = untested.of_study(study, runs, guide)
    changed = study_doubts.changed_settings(study, guide)
    return Page(
        title="Tuning study",
        subtitle=_study_subtitle(study, runs),
        verdict=findings.verdict(study),
        sections=[
            Section(
                name="findings",
                title="Key findings",
                steps=findings.key_findings(study, changed),
            ),
            Section(
                name="answers",
                title="In ten answers",
                answers=answers.of_study(study, runs, guide, left_out, doubtful),
            ),
            _headlines(material, "Before and after" if len(runs) > 1 else "Measured"),
            Section(name="setup", title="What was run, on what", tables=[setup.table(study, runs)]),
            Section(
                name="combinations",
                title="Engines and fronts",
                tables=[study_tables.combinations(study)],
            ),
            *_of_the_change(study, material, guide),
            *_of_the_search(study, material),
            *_measured(material),
            *_side(study, runs),
            Section(name="untested", title="What was not tested", lines=left_out),
            _repeat(study),
            # Without a measured run, the study itself knows what was asked and where.
            *_closing(runs or (Run(name="Study", summary=study),), method.of_study(study)),
        ],
        doubts=doubtful,
    )


def _of_the_change(study: Document, material: Material, guide: Mapping[str, Knob]) -> list[Section]:
    """Return what changed, what each change gave, and why."""
    runs = material.runs
    faster = verdicts.confirmed(study).word == "better"
    held = "Why it is faster" if faster else "What held the server back"
    return [
        Section(
            name="settings",
            title="Settings before and after" if len(runs) > 1 else "Settings",
            tables=study_tables.of_settings(study, guide),
        ),
        Section(
            name="ablation",
            title="What each setting gave",
            figures=figures(material, "ablation"),
            tables=[study_tables.ablation(study), study_tables.interactions(study)],
        ),
        Section(
            name="why",
            title=f"{held}, and how near the limit is",
            tables=[explanation.held_back(runs), limits.table(runs)],
            lines=[findings.near_the_limit(study)] if runs and not limits.table(runs) else (),
        ),
    ]


def _of_the_search(study: Document, material: Material) -> list[Section]:
    """Return what proves the change, and what was tried."""
    return [
        Section(
            name="confirmation",
            title="Confirmation",
            figures=figures(material, "confirmation"),
            tables=[study_tables.confirmation(study), study_tables.confirmation_runs(study)],
        ),
        Section(
            name="trials",
            title="Trials",
            figures=figures(material, "trials"),
            tables=[study_tables.trials(study)],
        ),
        Section(name="output", title="Output", tables=[study_tables.output(study)]),
    ]


def of_run(summary: Document) -> Page:
    """Return the page of one run."""
    runs = (Run(name="Run", summary=summary),)
    material = Material(runs=runs)
    return Page(
        title="Run",
        subtitle=_joined(documents.text(summary, "run"), _model(runs)),
        verdict=verdict.of_run(summary),
        sections=[
            _headlines(material, "Measured"),
            Section(name="setup", title="What was run, on what", tables=[setup.table({}, runs)]),
            Section(
                name="why",
                title="What held it back",
                tables=[explanation.held_back(runs), limits.table(runs)],
            ),
            *_measured(material),
            *_side({}, runs),
            _repeat(summary),
            *_closing(runs, method.RUN),
        ],
        doubts=doubts.of_run(*runs),
    )


def of_comparison(
    before: Document,
    after: Document,
    differences: Sequence[str],
    comparison: Document | None = None,
) -> Page:
    """Return the page of two runs side by side; what makes them unlike is said first."""
    runs = (Run(name="Before", summary=before), Run(name="After", summary=after))
    names = [documents.text(run.summary, "run") or run.name for run in runs]
    if comparison is not None:  # it tells settings, which were to differ, from what was not
        differences = documents.texts(comparison, "warnings")
    material = Material(runs=runs)
    return Page(
        title="Comparison",
        subtitle=_joined(f"{names[0]} (before) against {names[1]} (after)", _model(runs)),
        verdict=(
            verdict.of_comparison(*runs)
            if comparison is None
            else comparison_table.verdict_of(comparison)
        ),
        warnings=differences,
        sections=[
            Section(
                name="compared",
                title="Compared",
                tables=[comparison_table.compared(comparison)] if comparison else (),
            ),
            _headlines(material, "Measured"),
            *_measured(material),
            *_side({}, runs),
            *_closing(runs, method.RUN),
        ],
        doubts=doubts.of_comparison(*runs, differences, comparison),
    )


def study_runs(study: Document) -> tuple[Run, ...]:
    """Return the measured runs of a study: baseline and tuned, or what there is of them."""
    sides = (("Baseline", "baseline"), ("Tuned", "best"))[: 1 if findings.stands(study) else 2]
    return tuple(
        Run(name=name, summary=summary)
        for name, key in sides
        if (summary := documents.part(study, key, "summary"))
    )


def figures(material: Material, *sections: plots.Section) -> list[Figure]:
    """Draw the plots of these sections for which there is data."""
    drawn = [
        (name, plot, plot.draw(material))
        for section in sections
        for name, plot in plots.load(section).items()
    ]
    return [
        Figure(
            name=name,
            title=plot.title,
            says=plot.says,
            wide=plot.wide,
            specification=drawing.specification(chart, f"{plot.title}. {plot.says}"),
        )
        for name, plot, chart in drawn
        if chart is not None
    ]


def _headlines(material: Material, title: str) -> Section:
    return Section(
        name="measured",
        title=title,
        figures=figures(material, "headline"),
        tables=[
            run_tables.by_level(material.runs, pairs=verdicts.confirmed(material.study).pairs),
            run_tables.by_model(material.runs),
        ]
        if material.runs
        else (),
    )


def _measured(material: Material) -> list[Section]:
    return [
        Section(
            name="latency",
            title="Latencies and load",
            figures=figures(material, "latency"),
            tables=[run_tables.later_latencies(material.runs)] if material.runs else (),
        ),
        Section(
            name="distribution",
            title="Distributions",
            figures=figures(material, "distribution"),
        ),
        Section(name="time", title="Over time", figures=figures(material, "time")),
    ]


def _side(study: Document, runs: tuple[Run, ...]) -> list[Section]:
    """Return what goes with the figures: SLOs, capacity, failures, cost, the client."""
    return [
        Section(name="slo", title="SLOs", tables=[run_tables.objectives(runs)]),
        Section(
            name="capacity",
            title="Capacity",
            lines=tuple(
                f"{run.name}: {says_capacity(run.summary)}"
                for run in runs
                if "capacity" in run.summary
            ),
        ),
        Section(
            name="failures",
            title="Failures",
            tables=[run_tables.errors(runs)],
            lines=failures.lines(study, runs),
        ),
        Section(
            name="cost",
            title="Cost and energy",
            tables=[spending.table(runs)],
            lines=spending.lines(study, runs) if runs else (),
        ),
        Section(
            name="client",
            title="Load generator",
            tables=[side_tables.client(runs), side_tables.server(runs), side_tables.prefixes(runs)],
        ),
    ]


def _repeat(document: Document) -> Section:
    """Return how it is repeated, as the document's "repeat" has it."""
    blocks = [
        Block(what=documents.text(one, "what"), text=documents.text(one, "text"))
        for one in documents.items(document, "repeat")
    ]
    return Section(name="repeat", title="How to repeat it", blocks=blocks)


def _closing(runs: tuple[Run, ...], how: Sequence[str]) -> list[Section]:
    """Return what every page ends with: the facts in full, the method, what is meant."""
    asked = run_tables.facts(runs, "spec", "Every setting of what was asked")
    where = run_tables.facts(runs, "environment", "Every fact of where it ran")
    return [
        Section(name="asked", title="What was asked", tables=[_folded(asked)]),
        Section(name="environment", title="Environment", tables=[_folded(where)]),
        Section(name="method", title="Method", lines=how),
        Section(
            name="definitions",
            title="Definitions",
            terms=tuple(BY_NAME.values()),
            lines=definitions.RULES,
        ),
    ]


def _folded(table: Table | None) -> Table | None:
    return table and msgspec.structs.replace(table, folded=True)


def _study_subtitle(study: Document, runs: tuple[Run, ...]) -> str:
    engine, front = documents.text(study, "engine"), documents.text(study, "front")
    objective = documents.text(study, "objective")
    return _joined(
        f"{engine} behind {front}" if engine and front else engine,
        documents.text(study, "model") or _model(runs),
        f"tuned for {titles.title(objective)}" if objective else "",
        *documents.texts(study, "slo"),
    )


def _model(runs: tuple[Run, ...]) -> str:
    models = {documents.text(run.summary, "spec", "model") for run in runs} - {""}
    return " against ".join(sorted(models))


def _joined(*words: str) -> str:
    return " · ".join(word for word in words if word)
