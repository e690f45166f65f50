"""The report: documents in, one self-contained HTML page out, or the same page as Markdown.

It is the last stage (records → metrics → report) and reads nothing but summary and study documents,
so a page can be made again from any folder of results, by a later version too. What a page shows
and in which order is in pages.py; a chart is a file in plots/; how it is set is in page/.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from llmdyno.knobs import Knob
from llmdyno.report import differences, documents, drawing, html, markdown, pages, plots
from llmdyno.store import SCHEMAS, STUDY, SUMMARY

SUMMARY_SCHEMA = SCHEMAS[SUMMARY]
STUDY_SCHEMA = SCHEMAS[STUDY]


def study_page(study: Mapping[str, Any], guide: Mapping[str, Knob]) -> str:
    """Return the HTML page of a study; the guide says what each knob does, by its name.

    Raises:
        StorageError: the document is not a study.
    """
    documents.require(study, STUDY_SCHEMA)
    return html.set_page(pages.of_study(study, guide))


def run_page(summary: Mapping[str, Any]) -> str:
    """Return the HTML page of one run.

    Raises:
        StorageError: the document is not a summary.
    """
    documents.require(summary, SUMMARY_SCHEMA)
    return html.set_page(pages.of_run(summary))


def compare_page(
    before: Mapping[str, Any],
    after: Mapping[str, Any],
    comparison: Mapping[str, Any] | None = None,
) -> str:
    """Return the HTML page of two runs side by side, with what makes them unlike at its head.

    Args:
        before: a summary.
        after: another one.
        comparison: of the two, from the "comparisons" of results.comparison.document(); None: there
            are no intervals of the difference, and no verdicts.

    Raises:
        StorageError: a document is not a summary.
    """
    documents.require(before, SUMMARY_SCHEMA)
    documents.require(after, SUMMARY_SCHEMA)
    unlike = differences.between(before, after)
    return html.set_page(pages.of_comparison(before, after, unlike, comparison))


def study_markdown(
    study: Mapping[str, Any], guide: Mapping[str, Knob], assets: Path, link: str
) -> str:
    """Return a study's page as Markdown; its charts are written into a folder as SVG and PNG.

    Args:
        study: the document.
        guide: what each knob does, by its name.
        assets: the folder, made if it is not there.
        link: the folder's path as the text names it.

    Raises:
        StorageError: the document is not a study, or the folder cannot be written.
    """
    documents.require(study, STUDY_SCHEMA)
    return markdown.set_page(pages.of_study(study, guide), assets, link)


def run_markdown(summary: Mapping[str, Any], assets: Path, link: str) -> str:
    """Return a run's page as Markdown, as study_markdown() does a study's.

    Raises:
        StorageError: the document is not a summary, or the folder cannot be written.
    """
    documents.require(summary, SUMMARY_SCHEMA)
    return markdown.set_page(pages.of_run(summary), assets, link)


def study_images(study: Mapping[str, Any], folder: Path) -> list[Path]:
    """Write the headline charts of a study as PNG into the folder and return their paths.

    Raises:
        StorageError: the document is not a study.
    """
    documents.require(study, STUDY_SCHEMA)
    material = documents.Material(runs=pages.study_runs(study), study=study)
    folder.mkdir(parents=True, exist_ok=True)
    paths: list[Path] = []
    for name, plot in plots.load("headline").items():
        chart = plot.draw(material)
        if chart is not None:
            path = folder / f"{name}.png"
            path.write_bytes(drawing.png(chart, plot.title))
            paths.append(path)
    return paths
