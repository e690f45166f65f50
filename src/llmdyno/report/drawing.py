"""What all charts share: the look, the colours of the runs, the axes, and how an image is made.

Colours are an orange and a blue of the Okabe-Ito set, which the colour-blind tell apart too; runs
also differ by dash or shape wherever lines cross. Text and grid have one neutral grey each, which
the page's style sheet replaces when the reader's screen is dark.
"""

import math
from collections.abc import Sequence
from contextlib import suppress
from importlib import metadata
from typing import Any

import altair as alt
import vl_convert

from llmdyno import store
from llmdyno.errors import StorageError
from llmdyno.report.documents import Material, Run, levels

Row = dict[str, Any]
Drawing = Any  # one of Altair's charts: mypy does not read Altair (pyproject.toml)

ONE_RUN = ("#2b7bba",)
TWO_RUNS = ("#e08a1e", "#2b7bba")
DASHES = ([5, 2], [1, 0])
WIDTH_PX = 455
HEIGHT_PX = 250
_FONT = "system-ui, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, 'Liberation Sans', sans-serif"
INK = "#39424e"
_GRID = "#e3e7ec"

LOOK: Row = {
    "background": None,
    "font": _FONT,
    "view": {"stroke": None},
    "axis": {
        "labelColor": INK,
        "titleColor": INK,
        "labelFontSize": 11,
        "titleFontSize": 11,
        "titleFontWeight": "normal",
        "titlePadding": 8,
        "gridColor": _GRID,
        "domainColor": "#9aa4b0",
        "tickColor": "#9aa4b0",
        "labelAngle": 0,
        "tickCount": 6,
    },
    "axisX": {"grid": False},
    "axisY": {"domain": False, "ticks": False},
    "legend": {
        "orient": "top",
        "title": None,
        "labelColor": INK,
        "labelFontSize": 12,
        "symbolSize": 90,
        "columnPadding": 18,
        "offset": 12,
    },
    "text": {"color": INK, "fontSize": 11},
    "title": {"color": INK, "fontSize": 12, "fontWeight": 600, "anchor": "start", "offset": 6},
}


def data(rows: Sequence[Row]) -> alt.InlineData:
    """Return rows as a chart's data, as many as there are: Altair limits other kinds of data.

    Altair copies the rows of a list with every layer, those of a tuple it leaves alone.
    """
    return alt.InlineData(values=tuple(rows))


def layered(*layers: tuple[alt.Chart, bool]) -> Drawing:
    """Return a chart of those layers that have data: Vega warns of a scale without any."""
    chart: Drawing = alt.layer(*(layer for layer, has_data in layers if has_data))
    return chart


def any_has(rows: Sequence[Row], field: str) -> bool:
    """Tell whether any row has a value in that field."""
    return any(row[field] is not None for row in rows)


def run_colour(runs: Sequence[Run]) -> alt.Color:
    """Return the colour encoding of the field "run"; a single run needs no legend."""
    names = [run.name for run in runs]
    return alt.Color(
        "run:N",
        scale=alt.Scale(domain=names, range=list(TWO_RUNS if len(runs) > 1 else ONE_RUN)),
        legend=alt.Legend(symbolOpacity=1) if len(runs) > 1 else None,
    )


def run_dash(runs: Sequence[Run]) -> alt.StrokeDash:
    """Return the dash encoding of the field "run"."""
    names = [run.name for run in runs]
    dashes = list(DASHES if len(runs) > 1 else DASHES[1:])
    return alt.StrokeDash(
        "run:N",
        scale=alt.Scale(domain=names, range=dashes),
        # Vega merges this legend with that of the colours, because both are of one field.
        legend=alt.Legend(symbolOpacity=1) if len(runs) > 1 else None,
    )


def level_axis(material: Material) -> alt.X:
    """Return the x axis of the field "level": the users, or the names of open-loop levels."""
    closed = all(
        level.get("arrival", "closed") == "closed"
        for run in material.runs
        for level in levels(run.summary).values()
    )
    # Labels are the level's name less its unit, which the axis's title says once.
    label = "replace(datum.label, / users?/, '')" if closed else "datum.label"
    title = "Users" if closed else "Load"
    return alt.X("level:N", sort=None, axis=alt.Axis(title=title, labelExpr=label))


def run_offset(runs: Sequence[Run]) -> alt.XOffset:
    """Return the encoding that puts the runs of one level side by side."""
    names = [run.name for run in runs]
    return alt.XOffset("run:N", scale=alt.Scale(domain=names, paddingInner=0.15, paddingOuter=0.1))


def decades(low: float, high: float) -> list[float]:
    """Return 1, 2 and 5 of each power of ten in between: the ticks of a logarithmic axis."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    ticks = [float(f"{digit}e{power}") for power in powers for digit in (1, 2, 5)]
    return [tick for tick in ticks if low <= tick <= high]


def specification(chart: Drawing, described: str) -> Row:
    """Return the chart as a Vega-Lite document in our look, with the text for those who listen.

    It is not checked against the schema of Vega-Lite, which takes as long as the rest of a page;
    the tests check it.
    """
    document: Row = chart.to_dict(validate=False)
    return document | {"config": LOOK, "description": described}


def png(chart: Drawing, described: str) -> bytes:
    """Return the chart as an image of twice its size, on white, for a README."""
    document = specification(chart, described) | {"background": "white", "padding": 16}
    return vl_convert.vegalite_to_png(document, vl_version=_vega_lite_version(), scale=2)


def still(specification: Row) -> tuple[str, bytes]:
    """Return a drawn chart as SVG and as PNG of twice its size, both on white."""
    document = specification | {"background": "white", "padding": 16}
    version = _vega_lite_version()
    svg: str = vl_convert.vegalite_to_svg(document, vl_version=version)
    return svg, vl_convert.vegalite_to_png(document, vl_version=version, scale=2)


def javascript() -> str:
    """Return the libraries that draw charts in a browser, so that a page need not fetch them.

    To bundle them takes two seconds of CPU: the bundle of each version is kept in the cache.
    """
    version = _vega_lite_version()
    kept = (
        store.cache_folder("charts")
        / f"{metadata.version('vl-convert-python')}-vega-lite-{version}.js"
    )
    with suppress(OSError):
        return kept.read_text("utf-8")
    # The type stub lacks the default of the snippet; with none, vl-convert keeps the bundle.
    bundle = vl_convert.javascript_bundle(vl_version=version)  # type: ignore[call-arg]
    with suppress(OSError, StorageError):  # without a cache the next page takes longer
        kept.parent.mkdir(parents=True, exist_ok=True)
        store.write_atomically(kept, bundle.encode())
    return bundle


def _vega_lite_version() -> str:
    """Return the version of Vega-Lite that Altair speaks, as vl-convert writes it: "6.4"."""
    return ".".join(alt.SCHEMA_VERSION.removeprefix("v").split(".")[:2])
