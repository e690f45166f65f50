"""Lists for the terminal: runs and studies, knobs, the facts of this machine."""

import re
import time
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, TextIO

from llmdyno.engines import Engine
from llmdyno.errors import UsageError, nearest
from llmdyno.fronts import Front
from llmdyno.knobs import accepts, default, show
from llmdyno.results import catalog, titles, verdicts
from llmdyno.results.documents import items, level_name, number, text
from llmdyno.results.gave import Gave
from llmdyno.results.verdicts import told
from llmdyno.serve import artifacts
from llmdyno.serve.equivalents import elsewhere
from llmdyno.terminal.tables import line, wrapped
from llmdyno.units import counted


def list_runs() -> list[dict[str, Any]]:
    """Return a row for each run and study of this folder, oldest first."""
    return rows_of(catalog.entries())


def rows_of(found: Sequence[catalog.Entry]) -> list[dict[str, Any]]:
    """Return a row for each of some runs and studies, as `dyno runs --json` prints it."""
    return [
        {
            "id": entry.id,
            "dir": str(entry.folder),
            "says": _says(entry),
            "kind": entry.kind,
            "engine": "+".join(entry.engines) or None,
            "model": entry.model or None,
            "started": entry.started.isoformat(timespec="seconds"),
            "tags": list(entry.tags),
            "bytes": entry.size_bytes,
            "running": entry.running,
        }
        for entry in found
    ]


def _says(entry: catalog.Entry) -> str:
    if entry.running:
        return "running"
    return entry.fault or _outcome(entry.kind, entry.document)


def sizes(found: Sequence[catalog.Entry]) -> str:
    """Say how many runs and studies there are, and what they take on the disk."""
    kinds = ("run", "run", "runs"), ("study", "study", "studies")
    counts = [
        counted(count, one, many)
        for kind, one, many in kinds
        if (count := sum(entry.kind == kind for entry in found))
    ]
    size = sum(entry.size_bytes for entry in found)
    unit, scale = ("GB", 1e9) if size >= 1e9 else ("MB", 1e6)
    return f"{' and '.join(counts) or 'nothing'}, {size / scale:,.1f} {unit}"


def _outcome(kind: catalog.Kind, document: Mapping[str, Any]) -> str:
    """Say in a line what came of a run or a study; what it lacks is left out."""
    if not document:
        return "not finished; `dyno report` makes what there is of it"
    if kind == "study":
        found = verdicts.confirmed(document)
        gain = f", {found.gain}" if found.gain else ""
        trials = counted(len(items(document, "trials")), "trial")
        beside = [f"; {one}" for one in (found.stays, found.pairs_moved) if one]
        return f"{trials}: {found.word or 'not confirmed'}{gain}{''.join(beside)}"
    tool = text(document, "imported", "tool")
    levels = ", ".join(_level_line(level) for level in items(document, "levels")) or "no level"
    return f"from {tool}: {levels}" if tool else levels


def _level_line(level: Mapping[str, Any]) -> str:
    """Write a level's load and its token rate, both of which an imported run may lack."""
    load = level_name(level)
    rate = number(level, "token_rate", "mean")
    return load if rate is None else f"{load} {rate:,.0f} tok/s"


def show_runs(
    rows: Sequence[Mapping[str, Any]],
    stream: TextIO,
    *,
    nothing: str = "No runs and no studies in this folder.",
) -> None:
    """Print the rows of rows_of(); `nothing` if there are none."""
    if not rows:
        stream.write(f"{nothing}\n")
    for row in rows:
        tags = f"  [{', '.join(row['tags'])}]" if row.get("tags") else ""
        stream.write(line(f"{row['id']}{tags}{_of_what(row)}  {row['says']}", stream))


def _of_what(row: Mapping[str, Any]) -> str:
    """Say when a run began and what it is of, where its name does not, as one of --out."""
    if not row.get("started") or re.match(r"\d{8}-", row["id"]):
        return ""
    began = datetime.fromisoformat(row["started"]).astimezone()
    named = [one for one in (row.get("engine"), row.get("model")) if one]
    return f"  {', '.join([f'{began:%Y-%m-%d %H:%M}', *dict.fromkeys(named)])}:"


def list_artifacts() -> list[dict[str, Any]]:
    """Return a row for each artifact, last used first."""
    rows: list[dict[str, Any]] = []
    for entry in artifacts.listed():
        if isinstance(entry, artifacts.Damaged):
            rows.append({"id": entry.id, "damaged": True})
            continue
        rows.append(
            {
                "id": entry.id,
                "engine": entry.recipe.engine,
                "engine_version": entry.recipe.engine_version,
                "model": entry.recipe.model,
                "knobs": entry.recipe.knobs,
                "bytes": entry.size_bytes,
                "built": entry.built,
                "seconds": entry.build_s,
                "last_used_s_ago": round(time.time() - artifacts.last_used_s(entry.id)),
                "dir": str(artifacts.home() / entry.id),
            }
        )
    return rows


def show_artifacts(rows: Sequence[Mapping[str, Any]], stream: TextIO) -> None:
    """Print the rows of list_artifacts()."""
    if not rows:
        stream.write("Nothing was built yet.\n")
    for row in rows:
        if row.get("damaged"):
            stream.write(line(f"{row['id']}  damaged: `dyno artifacts prune` removes it", stream))
            continue
        knobs = " ".join(f"{name}={show(value)}" for name, value in row["knobs"].items())
        said = (
            f"{row['id']}  {row['engine']} {row['engine_version']}  {row['model']}"
            f"  {knobs or 'all defaults'}  {row['bytes'] / 1e6:,.1f} MB  built {row['built']}"
            f" in {row['seconds']:.0f} s, used {_ago(row['last_used_s_ago'])} ago"
        )
        stream.write(line(said, stream))


def _ago(seconds: float) -> str:
    if seconds >= 86400:
        return counted(round(seconds / 86400), "day")
    for unit, size in (("h", 3600), ("min", 60)):
        if seconds >= size:
            return f"{seconds / size:.0f} {unit}"
    return f"{max(0.0, seconds):.0f} s"


def show_knobs(owner: Engine | Front, version: str | None, stream: TextIO) -> None:
    """Print the knobs of an engine of that version, or of a front: defaults, and what each does."""
    stream.write(_called(owner, version, stream))
    if not owner.knobs:
        stream.write("It has no settings of its own: all are the engine's.\n")
        return
    for knob in owner.knobs:
        heading = f"{knob.name}={show(default(knob, version))}    {accepts(knob)}"
        heading = wrapped(heading, stream, rest=" " * 8)
        stream.write(f"\n{heading}{_indented(knob.does, stream)}")
    more = f"`dyno knobs {owner.name} KNOB` says when to turn one and what it costs."
    stream.write("\n" + line(more, stream))


def _called(owner: Engine | Front, version: str | None, stream: TextIO) -> str:
    """Name an engine with its version, or say that the defaults are those of the newest known."""
    install = getattr(owner, "install", None)  # a front has none
    if install is None or version is not None:
        return f"{owner.name} {version or ''}".rstrip() + "\n"
    words = (
        f"{owner.name}, not installed here: these are the newest defaults that we know; {install}"
    )
    return wrapped(words, stream, rest="    ")


def show_knob(
    owner: Engine | Front,
    name: str,
    version: str | None,
    stream: TextIO,
    *,
    gave: Sequence[Gave] | None = None,
) -> None:
    """Print all that is known of one knob of an engine, of that version, or of a front.

    Args:
        owner: the engine or front.
        name: of the knob.
        version: of the engine; None: it is not known.
        stream: to print to.
        gave: what it gave in studies; None: nobody has looked.

    Raises:
        UsageError: there is no such knob.
    """
    by_name = {knob.name: knob for knob in owner.knobs}
    if name not in by_name:
        raise UsageError(
            f"{owner.name}: no knob '{name}'.{nearest(name.rpartition('.')[2], by_name)}"
        )
    knob = by_name[name]
    known = default(knob, version)
    share = known if isinstance(known, float) else None
    removed = f"; removed in {knob.until}" if knob.until else ""
    facts = {
        "what it does": knob.does,
        "when to turn it": knob.turn,
        "what it trades": knob.trades,
        "takes": accepts(knob),
        "default": ", ".join(f"{show(value)} (from {lowest})" for lowest, value in knob.defaults)
        + removed,
        "bites only when": f"{knob.needs[0]}={show(knob.needs[1])}" if knob.needs else "always",
        "does not go with": knob.conflicts or "nothing that we know",
        "may change the tokens": "yes" if knob.alters_output else "no",
        "source": knob.source,
    }
    stream.write(_called(owner, version, stream) + f"\n{knob.name} ({knob.layer})\n")
    stream.writelines(f"  {title}\n" + _indented(words, stream) for title, words in facts.items())
    if same := elsewhere(owner.name, knob, share):
        stream.write("  the same\n")
        stream.writelines(_indented(words, stream) for words in same)
    if gave is not None:
        stream.write("  what it gave in your studies\n")
        stream.writelines(_gave_lines(gave, stream))


def _gave_lines(gave: Sequence[Gave], stream: TextIO) -> list[str]:
    """Say what a knob gave, the newest study first."""
    if not gave:
        return [_indented("nothing yet: no study of this folder has taken it back", stream)]
    lines = []
    for one in gave:
        effects = {
            key: told({**effect, "mean": effect.get("ratio")}, titles.unit(key))
            for key, effect in one.effect.items()
        }
        said = ", ".join(f"{titles.title(key)} {words}" for key, words in effects.items() if words)
        noise = "; within the noise" if one.matters is False else ""
        change = f"{show(one.before)} → {show(one.after)}"
        lines.append(_indented(f"{change}: {said or 'no ratio'}{noise}", stream))
        engine = f"{one.engine} {one.engine_version}".strip()
        where = f"{one.model} on {one.hardware}, {engine}, {one.front}, at {one.level}"
        pairs = "" if one.pairs is None else f", {counted(one.pairs, 'pair')} of runs"
        lines.append(wrapped(f"{where}{pairs}: {one.study}", stream, first=" " * 6, rest=" " * 6))
    return lines


def _indented(words: str, stream: TextIO) -> str:
    return wrapped(words, stream, first="    ", rest="    ")


def show_facts(facts: Mapping[str, Any], doubts: Sequence[str], stream: TextIO) -> None:
    """Print the facts of this machine, and what is doubtful about measuring on it."""
    stream.writelines(
        line(f"{_label(name)}: {_fact(name, value)}", stream) for name, value in facts.items()
    )
    stream.writelines(line(f"! {doubt}", stream) for doubt in doubts)


def _label(name: str) -> str:
    """Return what a person calls a key of the document: "cores usable", "memory"."""
    return name.removesuffix("_bytes").replace("_", " ")


def _fact(name: str, value: Any) -> str:
    """Write a fact in a line: mappings as pairs, lists with commas, bytes as GiB."""
    if isinstance(value, Mapping):
        pairs = value.items()
        return ", ".join(f"{_label(key)} {_fact(key, part)}" for key, part in pairs) or "none"
    if isinstance(value, list | tuple):
        return ", ".join(_fact(name, part) for part in value) or "none"
    if value is None:
        return "unknown"
    if name.endswith("_bytes"):
        return f"{value / 2**30:.1f} GiB"
    return f"{value:.2f}" if isinstance(value, float) else str(value)
