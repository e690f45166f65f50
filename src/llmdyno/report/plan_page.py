"""The page of a plan: the two headline charts, marked as predicted, the Pareto front, the numbers.

The charts are those of a run's page: a config before or after stands as a run whose levels were
predicted.
"""

import shlex
from collections.abc import Mapping, Sequence
from typing import Any

import altair as alt

from llmdyno import knobs
from llmdyno.report import drawing, html, pages, percentiles
from llmdyno.report.documents import Document, Material, Run
from llmdyno.report.drawing import Drawing
from llmdyno.report.plots import token_rate_by_users
from llmdyno.report.tables import Cell, Row, Table
from llmdyno.results import documents, limit_words, wording
from llmdyno.results.findings import Verdict
from llmdyno.units import counted

_INTERVAL = " The thin line is the interval that holds four of five such predictions."


def of_plan(plan: Document) -> str:
    """Return the HTML page of a plan's document, llmdyno.plan/1."""
    engine = next(
        one
        for one in plan["engines"]
        if (one["engine"], one["gpu"]) == (plan["engine"], plan["gpu"])
    )
    several = len(plan["by_gpu"]) > 1
    gpus = ", ".join(row["gpu"] for row in plan["by_gpu"]) if several else plan["gpu"]
    material = Material(runs=tuple(_runs(engine)))
    recommended = plan["recommended"]
    calibrated = plan["calibrated_on"]
    known = f"calibrated on {calibrated:,} measured points" if calibrated else "from data sheets"
    where = f" ({plan['gpu']})" if several else ""
    lines = [f"Memory of one GPU{where}: {engine['before']['memory']}."]
    if recommended is not None:
        lines += [
            *_needs(recommended),
            f"What would prove it: {shlex.join(recommended['command'])}",
            *([f"{needs}."] if (needs := recommended["command_needs"]) else []),
        ]
    return html.set_page(
        pages.Page(
            title="Plan",
            subtitle=" · ".join((plan["engine"], plan["model"], f"{plan['gpus']} x {gpus}", known)),
            verdict=Verdict(sentence=_sentence(plan), tone="open"),
            sections=[
                pages.Section(
                    name="predicted",
                    title="Predicted",
                    figures=[one for one in _figures(plan, material) if one is not None],
                    tables=[*([_gpus(plan)] if several else []), _table(plan)],
                    lines=lines,
                )
            ],
            doubts=[
                "Everything on this page is predicted; nothing was measured for it.",
                *_doubts(plan),
                *([f"{recommended['doubt']}."] if recommended and recommended["doubt"] else []),
            ],
        )
    )


def _sentence(plan: Document) -> str:
    recommended = plan["recommended"]
    if recommended is None:
        missed = plan["nothing_meets"]
        return f"Predicted: {missed}" if missed else "Predicted, not measured."
    where = ""
    if len(plan["by_gpu"]) > 1:
        cost = plan["by_gpu"][0].get("cost_per_million_tokens")
        least = (
            "" if cost is None else f" costs least, {wording.significant(cost)} a million tokens"
        )
        where = f"{recommended['gpu']}{least}; "
    if recommended["changes"] == "as before":
        return f"Predicted: {where}no config is better than the one before by 1 %."
    ratio = recommended["token_rate_ratio"]
    times = f" with {wording.ratio(ratio)} the token rate" if ratio else ""
    return f"Predicted: {where}{recommended['changes']}{times}."


def _doubts(plan: Document) -> list[str]:
    """Return what is doubtful of engines and what-ifs, each sentence once."""
    said = [one["doubt"] for one in (*plan["engines"], *plan["what_if"]) if one["doubt"]]
    return [f"{one}." for one in dict.fromkeys(". ".join(said).split(". ")) if one]


def _needs(recommended: Mapping[str, Any]) -> list[str]:
    capacity = recommended.get("capacity")
    if not capacity:
        return []
    rate = wording.significant(capacity["request_rate_each"])
    return [
        f"One copy of the server takes {rate} requests/s.",
        *(
            f"{need['request_rate']:g} requests/s need {need['replicas']} replicas,"
            f" {need['gpus']} GPUs in all."
            for need in capacity["needs"]
        ),
    ]


def _runs(engine: Document) -> list[Run]:
    """Return before and after as runs whose levels were predicted."""
    sides = [("Before (predicted)", engine["before"])]
    after = engine["after"]
    if after is not None and after["config"] != engine["before"]["config"]:
        sides.append(("After (predicted)", after))
    return [
        Run(name=name, summary={"levels": [_level(point) for point in side["points"]]})
        for name, side in sides
        if side["fits"]
    ]


def _level(point: Document) -> dict[str, Any]:
    ttft = point["ttft_ms_p50"]
    load = (
        {"users": point["users"], "arrival": "closed"}
        if "users" in point
        else {"users": None, "arrival": "poisson", "rate": point["request_rate"]}
    )
    return load | {
        "token_rate": {"mean": point["token_rate"]["mean"], "ci95": point["token_rate"]["ci80"]},
        "ttft_ms": {
            "p50": ttft["mean"],
            "p50_ci95": ttft["ci80"],
            "p99": max(ttft["mean"], point["ttft_ms_p99"]["mean"]),
        },
    }


def _figures(plan: Document, material: Material) -> list[pages.Figure | None]:
    return [
        _figure(
            "token_rate",
            "Token rate, predicted",
            f"Output tokens per second, all users together, at each level.{_INTERVAL}",
            token_rate_by_users.draw(material) if material.runs else None,
        ),
        _figure(
            "ttft",
            "Time to first token, predicted",
            f"The median of each level, and its p99.{_INTERVAL}",
            percentiles.draw("ttft_ms", material) if material.runs else None,
        ),
        _figure(
            "pareto",
            "Pareto front, predicted",
            "Configs and loads of which none has both more tokens per second in all and more for"
            " each user. The quick estimate that chose what to simulate, not the simulation; point"
            " at a dot for its settings.",
            _front(plan["front"]),
            wide=True,
        ),
    ]


def _figure(
    name: str, title: str, says: str, chart: Drawing | None, *, wide: bool = False
) -> pages.Figure | None:
    if chart is None:
        return None
    specification = drawing.specification(chart, f"{title}. {says}")
    return pages.Figure(name=name, title=title, says=says, wide=wide, specification=specification)


def _front(front: Sequence[Document]) -> Drawing | None:
    if not front:
        return None
    rows = [
        {
            "rate": one["token_rate"],
            "each": one["token_rate_each"],
            "config": _in_words(one["config"]),
            "shown": f"{wording.significant(one['token_rate'])} tokens/s,"
            f" {wording.significant(one['token_rate_each'])} for each user",
            "load": documents.level_name(
                one if "users" in one else {"rate": one["request_rate"], "arrival": "poisson"}
            ),
        }
        for one in front
    ]
    base = alt.Chart(drawing.data(rows)).encode(
        x=alt.X(
            "each:Q",
            axis=alt.Axis(title="Output tokens/s of each user, 1 / TPOT"),
            scale=alt.Scale(zero=False),
        ),
        y=alt.Y("rate:Q", axis=alt.Axis(title="Output tokens/s"), scale=alt.Scale(zero=False)),
        tooltip=[
            alt.Tooltip("load:N", title="Level"),
            alt.Tooltip("config:N", title="Config"),
            alt.Tooltip("shown:N", title="Predicted"),
        ],
    )
    colour = drawing.ONE_RUN[0]
    line = base.mark_line(color=colour, opacity=0.4, interpolate="step-before")
    dots = base.mark_point(filled=True, size=90, opacity=1, color=colour)
    chart = drawing.layered((line, len(rows) > 1), (dots, True))
    return chart.properties(width=2 * drawing.WIDTH_PX, height=drawing.HEIGHT_PX)


def _in_words(config: Mapping[str, Any]) -> str:
    return " ".join(f"{name}={knobs.show(value)}" for name, value in config.items()) or "defaults"


def _standing(row: Document) -> str:
    """Return what keeps a GPU back, or what it says of the SLO."""
    if not row["fits"]:
        return "does not fit"
    return limit_words.behind(row) or {True: "met", False: "missed", None: ""}[row["slo_met"]]


def _gpus(plan: Document) -> Table:
    """Return the best of each GPU at the heaviest level, in the document's order."""
    rows = tuple(
        Row(
            heads=((row["gpu"], 1),),
            cells=(
                Cell(row["engine"]),
                _config(row),
                _cell(row["token_rate"], wording.significant),
                _cell(row["ttft_ms_p50"], wording.milliseconds),
                _cell(row["tpot_ms_p50"], wording.milliseconds),
                Cell(_standing(row)),
                Cell(wording.significant(_an_hour(row)), "number"),
                Cell(wording.significant(row.get("cost_per_million_tokens")), "number"),
            ),
        )
        for row in plan["by_gpu"]
    )
    level = documents.level_name(_level(plan["by_gpu"][0]))
    return Table(
        caption=f"The best of each GPU at {level}",
        columns=(
            ("GPU", "text"),
            ("Engine", "text"),
            ("Config", "code"),
            ("Tokens/s", "number"),
            ("TTFT p50", "number"),
            ("TPOT p50", "number"),
            ("SLO", "text"),
            ("An hour", "number"),
            ("Per million tokens", "number"),
        ),
        rows=rows,
    )


def _an_hour(row: Document) -> float | None:
    return None if row["price_per_h"] is None else float(row["price_per_h"] * row["gpus"])


def _table(plan: Document) -> Table:
    """Return every point in numbers, those of each what-if, too."""
    points = [point for one in plan["engines"] for side in _sides(one) for point in side["points"]]
    points += [point for changed in plan["what_if"] for point in changed["points"]]
    rows = tuple(
        Row(
            heads=((documents.level_name(_level(point)), 1),),
            cells=(
                Cell(f"{point['engine']}, {point['gpu']}"),
                _config(point),
                _cell(point["token_rate"], wording.significant),
                _cell(point["ttft_ms_p50"], wording.milliseconds),
                _cell(point["tpot_ms_p50"], wording.milliseconds),
                Cell(point["bound_by"] if point["fits"] else "does not fit"),
                Cell(wording.share(point["limit_share"]), "number"),
                Cell(wording.share(point["mbu"]), "number"),
                Cell(wording.share(point["mfu"]), "number"),
                Cell(wording.significant(point.get("cost_per_million_tokens")), "number"),
            ),
        )
        for point in points
    )
    return Table(
        caption="What is predicted, with the interval that holds four of five",
        columns=(
            ("Level", "text"),
            ("Engine and GPU", "text"),
            ("Config", "code"),
            ("Tokens/s", "number"),
            ("TTFT p50", "number"),
            ("TPOT p50", "number"),
            ("Bound by", "text"),
            ("Of the limit", "number"),
            ("MBU", "number"),
            ("MFU", "number"),
            ("Per million tokens", "number"),
        ),
        rows=rows,
    )


def _config(point: Document) -> Cell:
    """Return a point's config, with how many copies of its server there are."""
    copies = "" if point["copies"] == 1 else counted(point["copies"], "copy", "copies")
    return Cell(_in_words(point["config"]), "code", detail=copies)


def _sides(engine: Document) -> list[Document]:
    before, after = engine["before"], engine["after"]
    return [before] if after is None or after["config"] == before["config"] else [before, after]


def _cell(value: Document, write: Any) -> Cell:
    if not value["mean"]:  # it does not fit
        return Cell("-", "number")
    low, high = value["ci80"]
    return Cell(write(value["mean"]), "number", detail=f"{write(low)} to {write(high)}")
