"""A plan in the terminal: before and after in numbers, what bounds them, what would prove it."""

import shlex
from collections.abc import Mapping, Sequence
from typing import Any, TextIO

from llmdyno.knobs import show
from llmdyno.results import wording
from llmdyno.terminal.tables import Cell, Heading, console, line, show_table, wrapped
from llmdyno.units import counted

Document = Mapping[str, Any]


def show_plan(document: Document, stream: TextIO) -> None:
    """Print before and after with intervals, what bounds them, and what would prove it."""
    points = document["calibrated_on"]
    known = (
        f"calibrated on {counted(points, 'measured point')}"
        if points
        else "from data sheets alone; --from RUN would narrow the intervals"
    )
    first = document["points"][0]
    stream.write(
        wrapped(
            f"Predicted, not measured: {document['model']}"
            f" ({wording.significant(document['parameters'] / 1e9)} billion parameters) on"
            f" {document['gpus']} x {document['gpu']}, {first['isl']:g} tokens in,"
            f" {first['osl']:g} out; {known}. Intervals hold four of five.",
            stream,
        )
    )
    for engine in document["engines"]:
        _show_side(document, f"{engine['engine']}, before", engine["before"], stream)
        if engine["doubt"]:
            stream.write(wrapped(f"{engine['doubt']}.", stream))
        after = engine["after"]
        if after is not None and after["config"] != engine["before"]["config"]:
            _show_side(document, f"{engine['engine']}, after", after, stream)
    for changed in document["what_if"]:
        title = f"{changed['engine']} on {changed['gpu']}, if {changed['change']}"
        _show_side(document, title, changed, stream)
    _show_recommended(document, stream)
    stream.flush()


def config_in_words(config: Mapping[str, Any]) -> str:
    """Write a config as one would set it."""
    return " ".join(f"{name}={show(value)}" for name, value in config.items()) or "the defaults"


def _show_side(document: Document, title: str, side: Document, stream: TextIO) -> None:
    stream.write("\n" + line(f"{title}: {config_in_words(side['config'])}", stream))
    if side["copies"] > 1:
        each = counted(side["gpus_each"], "GPU")
        stream.write(line(f"{counted(side['copies'], 'copy', 'copies')} of {each} each", stream))
    if not side["fits"]:
        stream.write(line(f"does not fit: {_why(side)}", stream))
        return
    stream.write(wrapped(f"Memory: {side['memory']}.", stream))
    points = side["points"]
    headings = [
        Heading("load"),
        Heading("token rate"),
        Heading("TTFT p50"),
        Heading("TPOT p50"),
        Heading("bound by"),
    ]
    if document["price_per_h"] is not None:
        headings.append(Heading("per 1M", "per million tokens"))
    show_table(console(stream), headings, [_row(document, point) for point in points])
    for point in points:
        missed = [one["expr"] for one in point["slo"] if not one["met"]]
        if missed:
            stream.write(line(f"{load(point)}: misses {', '.join(missed)}", stream))


def _why(side: Document) -> str:
    return str(next((point["why"] for point in side["points"] if "why" in point), side["memory"]))


def load(point: Document) -> str:
    """Write a point's load: "50 users", "2.5/s"."""
    return counted(point["users"], "user") if "users" in point else f"{point['request_rate']:g}/s"


def _row(document: Document, point: Document) -> Sequence[Cell]:
    rate, ttft, tpot = (point[name] for name in ("token_rate", "ttft_ms_p50", "tpot_ms_p50"))
    cells = [
        Cell(load(point)),
        Cell(f"{wording.significant(rate['mean'])} tok/s", _interval(rate)),
        Cell(wording.milliseconds(ttft["mean"]), _interval(ttft, milliseconds=True)),
        Cell(wording.milliseconds(tpot["mean"]), _interval(tpot, milliseconds=True)),
        Cell(point["bound_by"], f"{point['limit_share']:.0%} of limit"),
    ]
    if document["price_per_h"] is not None:
        cells.append(Cell(wording.significant(point.get("cost_per_million_tokens"))))
    return cells


def _interval(value: Document, *, milliseconds: bool = False) -> str:
    low, high = value["ci80"]
    # rich takes square brackets for its markup unless they are escaped.
    bounds = (float(low), float(high))
    written = (
        wording.milliseconds_interval(bounds, float(value["mean"]))
        if milliseconds
        else wording.interval(bounds)
    )
    return written.replace("[", "\\[")


def _show_recommended(document: Document, stream: TextIO) -> None:
    found = document["recommended"]
    if found is None:
        return
    ratio = found["token_rate_ratio"]
    if found["changes"] == "as before":
        words = f"Recommended: {found['engine']} as before; no other config is better by 1 %."
    else:
        times = f", {wording.ratio(ratio)} the token rate" if ratio else ""
        words = f"Recommended: {found['engine']} with {found['changes']}{times}."
    stream.write("\n" + line(words, stream))
    capacity = found.get("capacity")
    if capacity:
        within = " within the SLOs" if document["slo"] else ""
        rate = wording.significant(capacity["request_rate_each"])
        stream.write(line(f"One copy takes {rate} requests/s{within}.", stream))
        stream.writelines(
            line(
                f"{need['request_rate']:g} requests/s need"
                f" {counted(need['replicas'], 'replica')},"
                f" {counted(need['gpus'], 'GPU')} in all.",
                stream,
            )
            for need in capacity["needs"]
        )
    stream.write(line(f"Prove it: {shlex.join(found['command'])}", stream))
