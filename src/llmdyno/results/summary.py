"""The summary document: a journal in, the JSON of one run out.

There is one way from records to numbers, this one: the end of a run, `dyno report` on an old
journal and the tuner all take it. The document's keys are a contract; its version's history:

    llmdyno.summary/1 (November 2026): the first.
    28 November 2026, added: "unstreamed" and "oddities" of a level's "tokens".
    28 November 2026, added: "doubts"; in a level "steady" of its "window" and "findings" of its
        "server" (the "notes" by code), "energy", "models", "prefix", and the metrics of cost and
        energy. For an older document doubts.py finds the doubts on reading.
    29 November 2026, added: "histograms" of a level's latencies, "settled", "finishes" and
        "answered_by" of a level, "failed_share" of a verdict; "peaks" of "environment"'s "cpu", of
        an engine that computes on it; "clock_drift_uncertainty_ms" of a level's "machines".
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from llmdyno.faults import meaning
from llmdyno.records.entries import COMPLETED, LAG_PERIOD_S, OUTCOMES, LevelStarted
from llmdyno.results import (
    by_model,
    capacity,
    client_health,
    crosscheck,
    delivered,
    doubts,
    energy,
    prefixes,
    streams,
)
from llmdyno.results.delivered import Asked, asked_of, delivered_part
from llmdyno.results.facts import SOURCES, LevelFacts, by_point, read_run
from llmdyno.results.histograms import histograms
from llmdyno.results.measures import measures
from llmdyno.results.metrics import BY_NAME
from llmdyno.results.samples import samples
from llmdyno.results.settled import settled_part
from llmdyno.results.slo import Slo, verdicts
from llmdyno.results.window import steady_window, whole_level
from llmdyno.store import SCHEMAS, SUMMARY

SCHEMA = SCHEMAS[SUMMARY]
_BESIDE = frozenset({"server", "gpu", "settled"})  # of all rounds of a load point together


def summarise(journal: Path) -> dict[str, Any]:
    """Return the summary document of the run whose journal this is.

    Raises:
        StorageError: the journal cannot be read.
    """
    facts = read_run(journal)
    opened = facts.opened
    slos = msgspec.convert(opened.spec.get("slos", []), tuple[Slo, ...])
    interval_s = float(opened.spec["load"]["interval_s"])
    calibration = facts.calibration
    ceiling = calibration.events_per_s_max if calibration else None
    asked = asked_of(opened.spec)
    shared = crosscheck.shared_by_level(opened.spec, facts.levels)
    ideal = prefixes.ideal_by_level(facts.levels, shared)
    points = by_point(facts.levels)
    documents = [
        point_document(
            repeats,
            interval_s,
            slos,
            asked=asked,
            events_per_s_max=ceiling,
            input_tokens_shared=prefixes.shared_at_most(facts.levels, shared, ideal),
            alike_on_purpose=prefixes.alike_on_purpose(opened.spec),
        )
        for repeats in points
    ]
    for repeats, point in zip(points, documents, strict=True):
        known = [ideal.get(one.started.level) for one in repeats]
        point.update(prefixes.prefix_part(known, point.get("server")))
    is_search = opened.spec.get("until") and facts.levels
    searched = {"capacity": capacity.search_document(facts.levels, slos)} if is_search else {}
    document = {
        "schema": SCHEMA,
        "run": opened.run,
        "dir": str(journal.parent),
        "started": opened.started,
        "environment": opened.environment,
        "spec": opened.spec,
        **({"calibration": msgspec.structs.asdict(calibration)} if calibration else {}),
        "levels": documents,
        "slo": [verdict for document in documents for verdict in verdicts(slos, document)],
        **searched,
    }
    return {**document, "doubts": doubts.entries(document)}


def point_document(
    repeats: Sequence[LevelFacts],
    interval_s: float,
    slos: Sequence[Slo],
    *,
    asked: Asked,
    events_per_s_max: float | None = None,
    input_tokens_shared: Mapping[int, int | None],
    alike_on_purpose: bool = False,
) -> dict[str, Any]:
    """Return one load point of the document; the repeats of it are pooled.

    What belongs to one run only (window, samples, machines) is the first one's, and each one's
    headline figures stand under "repeats".
    """
    documents = [
        level_document(
            facts,
            interval_s,
            slos,
            asked=asked,
            events_per_s_max=events_per_s_max,
            input_tokens_shared=input_tokens_shared.get(facts.started.level),
            alike_on_purpose=alike_on_purpose,
        )
        for facts in repeats
    ]
    first = documents[0]
    if len(documents) == 1:
        return first
    is_open = repeats[0].started.users is None
    runs = [(facts.columns, steady_window(facts)) for facts in repeats]
    wholes = [(facts.columns, whole_level(facts)) for facts in repeats]
    whole = measures(wholes, slos, is_open=is_open)
    client = _worst_client([document["client"] for document in documents])
    stream = streams.of_rounds([document["stream"] for document in documents])
    requests = _summed([document["requests"] for document in documents])
    measured = measures(runs, slos, is_open=is_open)
    if streams.comes_whole(stream, requests["completed"]):
        measured = streams.without_token_times(measured, slos)
        whole = streams.without_token_times(whole, slos)
    spoilt = {name for document in documents for name in document["doubtful"]}
    shared = [input_tokens_shared.get(facts.started.level) for facts in repeats]
    known = None if None in shared else sum(filter(None, shared))
    return {
        **{name: value for name, value in first.items() if name not in _BESIDE},
        "duration_s": round(sum(document["duration_s"] for document in documents), 6),
        "interrupted": any(document["interrupted"] for document in documents),
        "stopped": next(filter(None, (document["stopped"] for document in documents)), ""),
        "requests": requests,
        "finishes": dict(
            sum((Counter(each["finishes"]) for each in documents), Counter()).most_common()
        ),
        "answered_by": _answered_by(documents),
        "faults": _faults(documents),
        "tokens": {
            **_summed([document["tokens"] for document in documents]),
            "source": max((facts.source for facts in repeats), key=SOURCES.index),
        },
        "stream": stream,
        "delivered": delivered.of_rounds([document["delivered"] for document in documents]),
        **measured,
        "histograms": histograms(runs, measured),
        **by_model.part(repeats, slos),
        "whole": whole,
        "client": client,
        "doubtful": [name for name in BY_NAME if name in spoilt],
        **_beside(repeats, whole, client, known, alike_on_purpose),
        "repeats": [_headlines(document) for document in documents],
    }


def _headlines(document: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a load point tells of one of its rounds."""
    return {
        "token_rate": document["token_rate"]["mean"],
        "ttft_ms_p50": document["ttft_ms"]["p50"],
        "ttft_ms_p99": document["ttft_ms"]["p99"],
        "completed": document["requests"]["completed"],
        "failed": document["requests"]["failed"],
        "window": document["window"],
        "client": document["client"]["verdict"],
    }


def _samples(facts: LevelFacts, interval_s: float, *, with_ttft: bool) -> list[dict[str, Any]]:
    """Return the time series of a level, without TTFT where it means nothing."""
    rows = samples(facts, interval_s)
    return rows if with_ttft else [{**row, "ttft_ms_p50": None} for row in rows]


def _worst_client(clients: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the client of the round in which it was worst, with the reasons of all rounds."""
    worst = max(
        clients, key=lambda client: (client["verdict"] != "valid", client["loop_lag_ms_p99"])
    )
    reasons = [
        f"round {number}: {reason}"
        for number, client in enumerate(clients, 1)
        for reason in client["reasons"]
    ]
    return {**worst, "reasons": reasons}


def _faults(documents: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return what was said of each fault, with the first example of all."""
    return {
        fault: said
        for document in reversed(documents)
        for fault, said in document["faults"].items()
    }


def _summed(parts: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Add up the counts of equal keys, and those of the tables among them."""
    summed: dict[str, Any] = {}
    for part in parts:
        for name, value in part.items():
            if isinstance(value, Mapping):
                summed[name] = dict(Counter(summed.get(name, {})) + Counter(value))
            elif isinstance(value, int):
                summed[name] = summed.get(name, 0) + value
    return summed


def level_document(
    facts: LevelFacts,
    interval_s: float,
    slos: Sequence[Slo],
    *,
    asked: Asked,
    events_per_s_max: float | None = None,
    input_tokens_shared: int | None = None,
    alike_on_purpose: bool = False,
) -> dict[str, Any]:
    """Return one level of the document."""
    columns = facts.columns
    window = steady_window(facts)
    start_ns = facts.started.start_ns
    whole = whole_level(facts)
    is_open = facts.started.users is None
    measured = measures([(columns, window)], slos, is_open=is_open)
    over_all = measures([(columns, whole)], slos, is_open=is_open)
    used = energy.document(columns, window)
    client, doubtful = client_health.client_part(
        columns,
        facts.ticks,
        measured,
        duration_s=whole.length_s,
        lag_period_s=LAG_PERIOD_S,
        workers=facts.started.workers,
        events_per_s_max=events_per_s_max,
    )
    stream = streams.stream_part(columns, client["late_ms_p50"], asked.output_tokens_mean)
    is_whole = streams.comes_whole(stream, int((columns.outcome == COMPLETED).sum()))
    if is_whole:
        measured, over_all = (streams.without_token_times(m, slos) for m in (measured, over_all))
    return {
        "users": facts.started.users,
        "arrival": facts.started.arrival,
        **_open_loop(facts.started),
        **_spread(facts),
        "duration_s": round(whole.length_s, 6),
        "interrupted": facts.ended is None or facts.ended.interrupted,
        "stopped": facts.ended.stopped if facts.ended else "",
        "requests": _requests(facts),
        "finishes": dict(facts.finishes),
        "answered_by": {asked: dict(names) for asked, names in facts.answered_by.items()},
        "faults": {
            fault: {"meaning": meaning(fault), "example": facts.examples[fault]}
            for fault in facts.errors
        },
        "tokens": _tokens(facts),
        "window": {
            "start_s": round((window.start_ns - start_ns) / 1e9, 6),
            "end_s": round((window.end_ns - start_ns) / 1e9, 6),
            "steady": window.steady,
            "method": window.method,
        },
        "stream": stream,
        "delivered": delivered_part(facts, window, asked),
        **measured,
        **({"energy": used} if used else {}),
        "histograms": histograms([(columns, window)], measured),
        **by_model.part([facts], slos),
        "whole": over_all,
        "samples": _samples(facts, interval_s, with_ttft=not is_whole),
        "client": client,
        "doubtful": doubtful,
        **_beside([facts], over_all, client, input_tokens_shared, alike_on_purpose),
    }


def _answered_by(documents: Sequence[dict[str, Any]]) -> dict[str, dict[str, int]]:
    """Return for each model that was asked how many answers named which model, over all rounds."""
    summed: dict[str, Counter[str]] = {}
    for document in documents:
        for asked, names in document["answered_by"].items():
            summed.setdefault(asked, Counter()).update(names)
    return {asked: dict(names.most_common()) for asked, names in summed.items()}


def _requests(facts: LevelFacts) -> dict[str, Any]:
    """Return what became of a level's requests."""
    outcomes = np.bincount(facts.columns.outcome, minlength=len(OUTCOMES))
    is_open = facts.started.users is None
    return {
        **{name: int(count) for name, count in zip(OUTCOMES, outcomes, strict=True)},
        "errors": dict(facts.errors),
        **({"too_long": facts.too_long} if facts.too_long else {}),
        **({"unsent": facts.ended.unsent} if is_open and facts.ended else {}),
    }


def _tokens(facts: LevelFacts) -> dict[str, Any]:
    """Return a level's tokens, and how they were counted."""
    columns = facts.columns
    prompts = columns.input_tokens[columns.input_tokens > 0]
    return {
        "input": int(prompts.sum()),
        "input_max": int(prompts.max(initial=0)),
        "output": int(columns.output_tokens.sum()),
        "source": facts.source,
        "by_source": dict(facts.by_source),
        "unstreamed": facts.unstreamed,
        "oddities": dict(facts.oddities),
    }


def _open_loop(started: LevelStarted) -> dict[str, Any]:
    """Return the keys that only the level of an open loop has."""
    if started.users is not None:
        return {}
    return {"rate": started.rate, "max_concurrency": started.max_concurrency}


def _spread(facts: LevelFacts) -> dict[str, Any]:
    """Return over how many workers a level was spread, and on which other machines."""
    hosts = [
        {
            "worker": host.worker,
            "host": host.host,
            "clock_uncertainty_ms": round(host.clock_uncertainty_ns / 1e6, 3),
            "clock_drift_ms": None
            if host.clock_drift_ns is None
            else round(host.clock_drift_ns / 1e6, 3),
            "clock_drift_uncertainty_ms": None
            if host.clock_drift_uncertainty_ns is None
            else round(host.clock_drift_uncertainty_ns / 1e6, 3),
        }
        for host in facts.hosts
    ]
    return {
        **({"workers": facts.started.workers} if facts.started.workers > 1 else {}),
        **({"machines": hosts} if hosts else {}),
    }


def _beside(
    repeats: Sequence[LevelFacts],
    over_all: Mapping[str, Any],
    client: Mapping[str, Any],
    input_tokens_shared: int | None,
    alike_on_purpose: bool,
) -> dict[str, Any]:
    """Return `server`, `gpu` and `settled` of a load point, the parts that there are."""
    rounds = [facts.columns for facts in repeats]
    outcomes = sum(np.bincount(columns.outcome, minlength=len(OUTCOMES)) for columns in rounds)
    assert isinstance(outcomes, np.ndarray), "there is a round"
    server = crosscheck.server_part(
        [facts.scrapes for facts in repeats],
        crosscheck.ClientSide(
            input_tokens=sum(int(one.input_tokens[one.input_tokens > 0].sum()) for one in rounds),
            output_tokens=sum(int(one.output_tokens.sum()) for one in rounds)
            + sum(facts.unstreamed for facts in repeats),
            requests=int(outcomes.sum()),
            cut=int(outcomes[OUTCOMES.index("cut")]),
            failed=int(outcomes[OUTCOMES.index("failed")]),
            ttft_ms_mean=over_all["ttft_ms"]["mean"],
            source=max((facts.source for facts in repeats), key=SOURCES.index),
            input_tokens_shared=input_tokens_shared,
            late_ms_p50=client["late_ms_p50"],
            alike_on_purpose=alike_on_purpose,
        ),
    )
    gpus = crosscheck.gpu_part([sample for facts in repeats for sample in facts.gpus])
    return {
        **({"server": server} if server else {}),
        **({"gpu": gpus} if gpus else {}),
        **settled_part(repeats),
    }
