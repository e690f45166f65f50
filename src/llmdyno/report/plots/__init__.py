"""Plots: one file a plot; a plot is on the page because its file is here.

The last line of the file binds `PLOT`. The file's name is the plot's name: part of the id of its
element in the page, and the name of its image. Plots stand in the order of their names.
"""

import importlib
import pkgutil
from collections.abc import Callable
from typing import Literal

import msgspec

from llmdyno.report.documents import Material
from llmdyno.report.drawing import Drawing

Section = Literal[
    "headline", "latency", "distribution", "time", "trials", "confirmation", "ablation"
]


class Plot(msgspec.Struct, frozen=True, kw_only=True):
    """One chart: where it stands, what it says, and how it is drawn."""

    section: Section
    title: str
    says: str  # how to read it: the caption, and the text for those who do not see the chart
    draw: Callable[[Material], Drawing | None]  # None: there is nothing to draw
    wide: bool = False  # takes the page's whole width, rather than half


def load(section: Section) -> dict[str, Plot]:
    """Return the plots of a section by name."""
    modules = sorted(module.name for module in pkgutil.iter_modules(__path__))
    plots = {name: importlib.import_module(f"{__name__}.{name}").PLOT for name in modules}
    return {name: plot for name, plot in plots.items() if plot.section == section}
