"""What both sides say of themselves in a run: the client, the server, its prefix cache."""

from llmdyno.report import documents
from llmdyno.report.documents import Document, Run
from llmdyno.report.tables import Cell, Column, Row, Table
from llmdyno.results import wording


def client_verdict(level: Document) -> Cell:
    """Return whether the client was fit to measure a level."""
    verdict = documents.text(level, "client", "verdict")
    return Cell(verdict or wording.ABSENT, tone="bad" if verdict == "client-bound" else "")


# What the numbers of a level rest on: the last columns of the table.


def client(runs: tuple[Run, ...]) -> Table | None:
    """Return what the load generator cost and how late it was, or None if it was not measured."""
    measures = (
        ("cpu_s", "CPU, s"),
        ("cpu_us_per_token", "CPU a token, µs"),
        ("loop_lag_ms_p99", "Loop lag p99, ms"),
        ("tokens_per_read", "Tokens a read"),
        ("headroom", "Headroom"),
    )
    rows = [
        Row(
            heads=((name, 1),),
            cells=(
                *([Cell(run.name)] if len(runs) > 1 else []),
                *(
                    Cell(wording.significant(documents.number(level, "client", key)), "number")
                    for key, _ in measures
                ),
                Cell(documents.text(level, "tokens", "source") or wording.ABSENT),
                client_verdict(level),
            ),
        )
        for run in runs
        for name, level in documents.levels(run.summary).items()
        if documents.part(level, "client")
    ]
    if not rows:
        return None
    run_column: tuple[Column, ...] = (("Run", "text"),) if len(runs) > 1 else ()
    titles: tuple[Column, ...] = tuple((title, "number") for _, title in measures)
    return Table(
        caption="The load generator: what it cost, and whether it was fast enough to be believed",
        columns=(
            ("Level", "text"),
            *run_column,
            *titles,
            ("Tokens counted by", "text"),
            ("Verdict", "text"),
        ),
        rows=tuple(rows),
    )


def server(runs: tuple[Run, ...]) -> Table | None:
    """Return what the servers' own metrics say beside ours, or None if they had none."""
    pairs = (
        ("tokens", "server", "Output tokens, server"),
        ("tokens", "client", "client"),
        ("ttft_ms", "server_mean", "TTFT mean, ms, server"),
        ("ttft_ms", "client_mean", "client"),
    )
    alone = (
        ("queue_ms_mean", "Queued, ms"),
        ("waiting_mean", "Waiting"),
        ("running_mean", "Running"),
        ("kv_use_max", "KV cache, most"),
        ("prefix_cache_hits", "Prefix hits"),
    )
    run_column: tuple[Column, ...] = (("Run", "text"),) if len(runs) > 1 else ()
    rows = []
    for run in runs:
        for name, level in documents.levels(run.summary).items():
            told = documents.part(level, "server")
            if not told:
                continue
            values = [documents.number(told, *path[:2]) for path in pairs]
            values += [documents.number(told, key) for key, _ in alone]
            cells = [Cell(run.name)] if run_column else []
            cells.append(Cell(documents.text(told, "kind")))
            cells += [Cell(wording.significant(value), "number") for value in values]
            rows.append(Row(heads=((name, 1),), cells=tuple(cells)))
    if not rows:
        return None
    titles: list[Column] = [(title, "number") for *_, title in pairs]
    titles += [(title, "number") for _, title in alone]
    return Table(
        caption="The server's own word, over the whole level, beside ours",
        columns=(("Level", "text"), *run_column, ("Server", "text"), *titles),
        rows=tuple(rows),
    )


def prefixes(runs: tuple[Run, ...]) -> Table | None:
    """Return how much a prefix cache could have hit beside how much it did, or None."""
    run_column: tuple[Column, ...] = (("Run", "text"),) if len(runs) > 1 else ()
    rows = []
    for run in runs:
        for name, level in documents.levels(run.summary).items():
            told = documents.part(level, "prefix")
            rates = [documents.number(told, f"{key}_hit_rate") for key in ("ideal", "observed")]
            if not told or (rates[1] is None and documents.text(told, "method") != "hashes"):
                continue
            cells = [Cell(run.name)] if run_column else []
            cells += [Cell(wording.significant(rate), "number") for rate in rates]
            rows.append(Row(heads=((name, 1),), cells=tuple(cells)))
    if not rows:
        return None
    return Table(
        caption="Share of the input tokens that a prefix cache could have hit, and that it did",
        columns=(
            ("Level", "text"),
            *run_column,
            ("Ideal", "number"),
            ("Observed", "number"),
        ),
        rows=tuple(rows),
    )
