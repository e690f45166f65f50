"""Read a server's Prometheus page: whose it is, and its values under our names.

The names on the page tell which server it is. Every engine and front declares its names in its own
file (records/server_page.py). A page can have thousands of lines, so only the lines of the declared
names are parsed.
"""

import contextlib
import math
import re
from collections.abc import Iterator

from llmdyno import engines, fronts, plugins
from llmdyno.records.server_page import MetricsPage, Series, counter

# The server of known timing that calibrates the client.
_STREAMER = MetricsPage(
    kind="streamer",
    prefix="llmdyno_streamer_",
    series={
        "output_tokens": counter("llmdyno_streamer_tokens"),
        "requests": counter("llmdyno_streamer_completed"),
    },
)


def pages(text: bytes = b"") -> Iterator[MetricsPage]:
    """Yield the declared pages of our engines and fronts.

    Engines come before fronts, because a front may repeat its engine's metrics beside its own. A
    plug-in is imported when its turn comes, and those come first that `text` names: importing all
    of them would cost each run 0.05 s of CPU.
    """
    yield _STREAMER
    for kind, facts in (("engines", engines.facts), ("fronts", fronts.facts)):
        for name in sorted(plugins.names(kind), key=lambda name: name.encode() not in text):
            page = facts(plugins.load(kind, name)).metrics
            if page is not None:
                yield page


def recognise(page: bytes) -> MetricsPage | None:
    """Return the declaration of this page; None: no metrics, or those of an unknown server."""
    lines = b"\n" + page
    for server in pages(page):
        if b"\n" + server.prefix.encode() in lines:
            return server
    return None


def read_page(page: bytes, server: MetricsPage) -> dict[str, float]:
    """Return the values of a page under our names, in the units of records/server_page.py.

    Args:
        page: the body in Prometheus' text format.
        server: its declaration; a name that is not on the page is left out.
    """
    found = {}
    for name, series in server.series.items():
        value = _value(page, series)
        if value is not None:
            found[name] = value
    return found


def _value(page: bytes, series: Series) -> float | None:
    for name in series.names:
        values = [
            value * series.scale
            for labels, value in _lines(page, name)
            if series.label in labels and math.isfinite(value)
        ]
        if values and series.several == "least":
            return min((value for value in values if value), default=0.0)
        if values:
            return sum(values) if series.several == "sum" else max(values)
    return None


# Labels may hold braces and quotes; a time or an exemplar may follow the value.
_LINE = re.compile(r'(\{(?:[^"{}]|"(?:[^"\\]|\\.)*")*\})?[ \t]+(\S+)')


def _lines(page: bytes, name: str) -> Iterator[tuple[str, float]]:
    """Yield (labels, value) of the metric's lines; lines that cannot be read are left out."""
    needle = name.encode()
    at = page.find(needle)
    while at >= 0:
        end = page.find(b"\n", at)
        end = len(page) if end < 0 else end
        if at == 0 or page[at - 1] == ord("\n"):
            rest = page[at + len(needle) : end].decode("utf-8", "replace")
            if matched := _LINE.match(rest):
                with contextlib.suppress(ValueError):
                    yield matched[1] or "", float(matched[2])
        at = page.find(needle, end)
