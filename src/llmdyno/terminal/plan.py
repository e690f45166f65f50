"""A plan in the terminal: before and after in numbers, what bounds them, what would prove it."""

import shlex
from collections.abc import Mapping, Sequence
from typing import Any, TextIO

from llmdyno.knobs import show
from llmdyno.results import limit_words, wording
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
    first, rows = document["points"][0], document["by_gpu"]
    several = len(rows) > 1
    names = ", ".join(dict.fromkeys(one["gpu"] for one in document["engines"]))
    stream.write(
        wrapped(
            f"Predicted, not measured: {document['model']}"
            f" ({wording.significant(document['parameters'] / 1e9)} billion parameters) on"
            f" {document['gpus']} x {names}, {first['isl']:g} tokens in,"
            f" {first['osl']:g} out; {known}. Intervals hold four of five.",
            stream,
        )
    )
    for engine in document["engines"]:
        if engine["gpu"] != document["gpu"]:
            continue  # its line in the table of GPUs has the best that it can do
        name = f"{engine['engine']} on {engine['gpu']}" if several else engine["engine"]
        _show_side(f"{name}, before", engine["before"], stream)
        if engine["doubt"]:
            stream.write(wrapped(f"{engine['doubt']}.", stream))
        after = engine["after"]
        if after is not None and after["config"] != engine["before"]["config"]:
            _show_side(f"{name}, after", after, stream)
    if several:
        _show_gpus(document, rows, stream)
    doubts = [engine["doubt"] for engine in document["engines"]]
    for changed in document["what_if"]:
        title = f"{changed['engine']} on {changed['gpu']}, if {changed['change']}"
        _show_side(title, changed, stream)
        if changed["doubt"] and changed["doubt"] not in doubts:
            stream.write(wrapped(f"{changed['doubt']}.", stream))
    _show_recommended(document, stream)
    stream.flush()


def config_in_words(config: Mapping[str, Any]) -> str:
    """Write a config as one would set it."""
    return " ".join(f"{name}={show(value)}" for name, value in config.items()) or "the defaults"


def _show_side(title: str, side: Document, stream: TextIO) -> None:
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
    priced = any("cost_per_million_tokens" in point for point in points)
    if priced:
        headings.append(Heading("per 1M", "per million tokens"))
    show_table(console(stream), headings, [_row(point, priced=priced) for point in points])
    for point in points:
        missed = [one["expr"] for one in point["slo"] if not one["met"]]
        if missed:
            stream.write(line(f"{load(point)}: misses {', '.join(missed)}", stream))
        if behind := limit_words.behind(point):
            stream.write(line(behind, stream))


def _why(side: Document) -> str:
    return str(next((point["why"] for point in side["points"] if "why" in point), side["memory"]))


def load(point: Document) -> str:
    """Write a point's load: "50 users", "2.5/s"."""
    return counted(point["users"], "user") if "users" in point else f"{point['request_rate']:g}/s"


def _show_gpus(document: Document, rows: Sequence[Document], stream: TextIO) -> None:
    """Print the best of each GPU at the heaviest level, in the document's order."""
    priced = document["price_per_h"] is not None
    order = "the cheapest first" if priced else "the fastest first; --price would say the cheapest"
    within = ", those that meet the SLO before those that do not" if document["slo"] else ""
    stream.write("\n" + wrapped(f"GPUs at {load(rows[0])}, {order}{within}:", stream))
    able = [row for row in rows if row["fits"]]
    headings = [
        Heading("GPU"),
        Heading("token rate"),
        Heading("TTFT p50"),
        Heading("TPOT p50"),
        *([Heading("SLO")] if document["slo"] else []),
        *([Heading("an hour"), Heading("per 1M", "per million tokens")] if priced else []),
    ]
    show_table(console(stream), headings, [_gpu_row(document, row) for row in able])
    for row in able:
        if behind := limit_words.behind(row):
            stream.write(line(f"{row['gpu']} {behind}.", stream))
        stream.writelines(
            line(f"{row['gpu']}: {_need(need)}.", stream)
            for need in (row.get("capacity") or {}).get("needs", [])
        )
    others = [one for one in document["engines"] if one["gpu"] != document["gpu"]]
    stream.writelines(
        wrapped(f"{doubt}.", stream)
        for doubt in dict.fromkeys(one["doubt"] for one in others if one["doubt"])
    )
    for row in rows:
        if not row["fits"]:
            stream.write(wrapped(f"{row['gpu']} does not fit: {row['why']}.", stream))


def _gpu_row(document: Document, row: Document) -> Sequence[Cell]:
    rate, ttft, tpot = (row[name] for name in ("token_rate", "ttft_ms_p50", "tpot_ms_p50"))
    cells = [
        Cell(row["gpu"], row["engine"]),
        Cell(f"{wording.significant(rate['mean'])} tok/s", _interval(rate)),
        Cell(wording.milliseconds(ttft["mean"]), _interval(ttft, milliseconds=True)),
        Cell(wording.milliseconds(tpot["mean"]), _interval(tpot, milliseconds=True)),
    ]
    if document["slo"]:
        cells.append(Cell("met" if row["slo_met"] else "missed"))
    if document["price_per_h"] is not None:
        cells.append(Cell(wording.significant(row["price_per_h"] * row["gpus"])))
        cells.append(Cell(wording.significant(row.get("cost_per_million_tokens"))))
    return cells


def _need(need: Document) -> str:
    """Write what a request rate needs."""
    gpus = counted(need["gpus"], "GPU")
    cost = f", {wording.significant(need['price_per_h'])} an hour" if "price_per_h" in need else ""
    replicas = counted(need["replicas"], "replica")
    return f"{need['request_rate']:g} requests/s need {replicas}, {gpus} in all{cost}"


def _row(point: Document, *, priced: bool) -> Sequence[Cell]:
    rate, ttft, tpot = (point[name] for name in ("token_rate", "ttft_ms_p50", "tpot_ms_p50"))
    cells = [
        Cell(load(point)),
        Cell(f"{wording.significant(rate['mean'])} tok/s", _interval(rate)),
        Cell(wording.milliseconds(ttft["mean"]), _interval(ttft, milliseconds=True)),
        Cell(wording.milliseconds(tpot["mean"]), _interval(tpot, milliseconds=True)),
        Cell(point["bound_by"], f"{wording.share(point['limit_share'])} of limit"),
    ]
    if priced:
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
    ratio, name = found["token_rate_ratio"], found["engine"]
    if len(document["by_gpu"]) > 1:
        name += f" on {found['gpu']}"
    if found["changes"] == "as before":
        words = f"Recommended: {name} as before; no other config is better by 1 %."
    else:
        times = f", {wording.ratio(ratio)} the token rate" if ratio else ""
        words = f"Recommended: {name} with {found['changes']}{times}."
    stream.write("\n" + line(words, stream))
    if found["doubt"]:
        stream.write(wrapped(f"{found['doubt']}.", stream))
    capacity = found.get("capacity")
    if capacity:
        within = " within the SLOs" if document["slo"] else ""
        rate = wording.significant(capacity["request_rate_each"])
        stream.write(line(f"One copy takes {rate} requests/s{within}.", stream))
        stream.writelines(line(f"{_need(need)}.", stream) for need in capacity["needs"])
    stream.write(line(f"Prove it: {shlex.join(found['command'])}", stream))
    if found["command_needs"]:
        stream.write(wrapped(f"{found['command_needs']}.", stream))
