"""The three pages: which sections they have and in which order; the template only sets them.

A section without a chart, a table or a line has nothing to say and is left out.
"""

from collections.abc import Mapping, Sequence

import jinja2
import markupsafe
import msgspec

from llmdyno.knobs import Knob
from llmdyno.report import (
    comparison_table,
    definitions,
    documents,
    doubts,
    drawing,
    limits,
    plots,
    run_tables,
    side_tables,
    study_tables,
    verdict,
)
from llmdyno.report.documents import Document, Material, Run
from llmdyno.report.tables import Table
from llmdyno.report.verdict import Verdict
from llmdyno.results import titles
from llmdyno.results.capacity import says_capacity
from llmdyno.results.metrics import BY_NAME, Metric


class Figure(msgspec.Struct, frozen=True, kw_only=True):
    """A drawn chart: its name is in the id of its element and the key of its specification."""

    name: str
    title: str
    says: str
    wide: bool
    specification: drawing.Row


class Section(msgspec.Struct, frozen=True, kw_only=True):
    """A titled part of a page."""

    name: str
    title: str
    figures: Sequence[Figure] = ()
    tables: Sequence[Table | None] = ()
    lines: Sequence[str] = ()
    terms: Sequence[Metric] = ()

    def says_something(self) -> bool:
        """Tell whether there is anything under the title."""
        return bool(self.figures or any(self.tables) or self.lines or self.terms)


class Page(msgspec.Struct, frozen=True, kw_only=True):
    """All that the template sets."""

    title: str
    subtitle: str
    verdict: Verdict
    warnings: Sequence[str] = ()
    sections: Sequence[Section]
    doubts: Sequence[str]


def of_study(study: Document, guide: Mapping[str, Knob]) -> str:
    """Return the page of a study: the verdict, then everything that it rests on."""
    runs = study_runs(study)
    material = Material(runs=runs, study=study)
    return set_page(
        Page(
            title="Tuning study",
            subtitle=_study_subtitle(study, runs),
            verdict=verdict.of_study(study, runs),
            sections=[
                Section(
                    name="combinations",
                    title="Engines and fronts",
                    tables=[study_tables.combinations(study)],
                ),
                *_measured(material),
                Section(
                    name="settings", title="Settings", tables=study_tables.of_settings(study, guide)
                ),
                Section(
                    name="trials",
                    title="Trials",
                    figures=figures(material, "trials"),
                    tables=[study_tables.trials(study)],
                ),
                Section(
                    name="confirmation",
                    title="Confirmation",
                    figures=figures(material, "confirmation"),
                    tables=[
                        study_tables.confirmation(study),
                        study_tables.confirmation_runs(study),
                    ],
                ),
                Section(
                    name="ablation",
                    title="Ablation",
                    figures=figures(material, "ablation"),
                    tables=[study_tables.ablation(study), study_tables.interactions(study)],
                ),
                Section(name="output", title="Output", tables=[study_tables.output(study)]),
                # Without a measured run, the study itself knows what was asked and where.
                *_closing(runs or (Run(name="Study", summary=study),)),
            ],
            doubts=doubts.of_study(study, runs, guide),
        )
    )


def of_run(summary: Document) -> str:
    """Return the page of one run."""
    runs = (Run(name="Run", summary=summary),)
    return set_page(
        Page(
            title="Run",
            subtitle=_joined(documents.text(summary, "run"), _model(runs)),
            verdict=verdict.of_run(summary),
            sections=[*_measured(Material(runs=runs)), *_closing(runs)],
            doubts=doubts.of_run(*runs),
        )
    )


def of_comparison(
    before: Document,
    after: Document,
    differences: Sequence[str],
    comparison: Document | None = None,
) -> str:
    """Return the page of two runs side by side; what makes them unlike is said first."""
    runs = (Run(name="Before", summary=before), Run(name="After", summary=after))
    names = [documents.text(run.summary, "run") or run.name for run in runs]
    if comparison is not None:  # it tells settings, which were to differ, from what was not
        differences = documents.texts(comparison, "warnings")
    return set_page(
        Page(
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
                *_measured(Material(runs=runs)),
                *_closing(runs),
            ],
            doubts=doubts.of_comparison(*runs, differences, comparison),
        )
    )


def study_runs(study: Document) -> tuple[Run, ...]:
    """Return the measured runs of a study: baseline and tuned, or what there is of them."""
    sides = (("Baseline", "baseline"), ("Tuned", "best"))
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


def _measured(material: Material) -> list[Section]:
    return [
        Section(
            name="measured",
            title="Measured",
            figures=figures(material, "headline"),
            tables=[
                run_tables.by_level(material.runs),
                run_tables.by_model(material.runs),
                run_tables.errors(material.runs),
            ],
        ),
        Section(
            name="latency",
            title="Other latencies",
            figures=figures(material, "latency"),
            tables=[run_tables.later_latencies(material.runs)],
        ),
        Section(name="time", title="Over time", figures=figures(material, "time")),
    ]


def _closing(runs: tuple[Run, ...]) -> list[Section]:
    """Return what every page ends with: SLOs, the client, what was asked, where, what is meant."""
    return [
        Section(
            name="capacity",
            title="Capacity",
            lines=tuple(
                f"{run.name}: {says_capacity(run.summary)}"
                for run in runs
                if "capacity" in run.summary
            ),
        ),
        Section(name="limits", title="Distance from the limit", tables=[limits.table(runs)]),
        Section(name="slo", title="SLOs", tables=[run_tables.objectives(runs)]),
        Section(
            name="client",
            title="Load generator",
            tables=[side_tables.client(runs), side_tables.server(runs), side_tables.prefixes(runs)],
        ),
        Section(
            name="asked",
            title="What was asked",
            tables=[run_tables.facts(runs, "spec", "Specification of the run")],
        ),
        Section(
            name="environment",
            title="Environment",
            tables=[run_tables.facts(runs, "environment", "Where it ran")],
        ),
        Section(
            name="definitions",
            title="Definitions",
            terms=tuple(BY_NAME.values()),
            lines=definitions.RULES,
        ),
    ]


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


def set_page(page: Page) -> str:
    """Set the page: one self-contained document that fetches nothing."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("llmdyno.report", "page"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    sections = [section for section in page.sections if section.says_something()]
    drawn = {
        figure.name: figure.specification for section in sections for figure in section.figures
    }
    # The one text that is not escaped: it comes from vl-convert, not from a server or a user.
    bundle = drawing.javascript() if drawn else ""
    return environment.get_template("page.html.j2").render(
        page=page,
        sections=sections,
        drawn=drawn,
        bundle=markupsafe.Markup(bundle),  # noqa: S704
    )
