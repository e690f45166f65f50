"""Every plot is found, used, and says how to read it."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import altair as alt
import pytest

from llmdyno import report
from llmdyno.report import pages, plots, study_tables
from llmdyno.report.documents import Material
from report.page_text import charts
from report_samples import GUIDE, study


def test_every_plot_is_used_and_says_how_to_read_it() -> None:
    files = {path.stem for path in Path(plots.__file__).parent.glob("[!_]*.py")}
    assert set(charts(report.study_page(study(), GUIDE))) == files
    for section in get_args(plots.Section):
        for plot in plots.load(section).values():
            assert plot.title
            assert plot.says.endswith(".")


def test_every_chart_is_valid_vega_lite() -> None:
    document = study()
    material = Material(runs=pages.study_runs(document), study=document)
    drawn = pages.figures(material, *get_args(plots.Section))
    assert len(drawn) > 8
    for figure in drawn:
        # Our look leaves a background out with null, which only the drawing itself understands.
        bare = {key: part for key, part in figure.specification.items() if key != "config"}
        alt.Chart.from_dict(json.loads(json.dumps(bare)), validate=True)


def test_what_shows_the_objectives_value_has_its_unit() -> None:
    document = study() | {"objective": "ttft:p99"}
    material = Material(runs=pages.study_runs(document), study=document)
    drawn = {figure.name: figure for figure in pages.figures(material, *get_args(plots.Section))}

    for name in ("trials", "confirmation_pairs"):
        assert '"title": "TTFT p99, ms"' in json.dumps(drawn[name].specification), name
    for table in (study_tables.trials(document), study_tables.confirmation_runs(document)):
        assert table is not None
        assert ("TTFT p99, ms", "number") in table.columns


def axes(part: Any) -> Iterator[tuple[str, Any]]:
    """Yield the field and the axis of each place of a drawing, in the layers within it, too."""
    if isinstance(part, list):
        for one in part:
            yield from axes(one)
    elif isinstance(part, dict):
        for side in ("x", "y"):
            place = part.get("encoding", {}).get(side, {})
            if place.get("axis"):
                yield place.get("field", ""), place["axis"]
        for one in part.values():
            yield from axes(one)


@pytest.mark.parametrize("arrival", ["closed", "poisson"])
def test_every_axis_has_a_name(arrival: str) -> None:
    document = study()
    for arm in ("baseline", "best"):
        for one in document[arm]["summary"]["levels"] if arrival != "closed" else ():
            one |= {"arrival": arrival, "rate": float(one["users"]), "users": None}
    material = Material(runs=pages.study_runs(document), study=document)
    found = [
        (figure.name, field, axis.get("title"))
        for figure in pages.figures(material, *get_args(plots.Section))
        for field, axis in axes(figure.specification)
    ]

    assert len(found) > 8
    # What stands beside a bar of ratios is a metric's name itself.
    assert [one for one in found if not one[2] and one[1] != "name"] == []
