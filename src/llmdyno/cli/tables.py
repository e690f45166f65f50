"""The generated parts of docs/: knobs, metrics, keys of TOML files, faults, doubts.

python -m llmdyno.cli.tables docs

Pages that hold nothing else are written whole. In a page that people write, what stands between
`<!-- generated: NAME -->` and `<!-- end -->` is written anew.
"""

import re
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from llmdyno import files, plugins, store
from llmdyno.cli.flags import QUICK, study_flags
from llmdyno.cli.plan import plan_flags
from llmdyno.cli.reference import as_toml, markdown_table
from llmdyno.engines import Engine
from llmdyno.faults import FAULTS
from llmdyno.flag import Field
from llmdyno.fronts import Front
from llmdyno.knobs import Knob, accepts, show
from llmdyno.results.doubts import CODES
from llmdyno.results.metrics import BY_NAME, Metric
from llmdyno.serve.equivalents import elsewhere

Owner = Engine | Front

_GENERATED = "This page is generated (`make docs`) from {source}.\n"
_REGION = re.compile(r"(<!-- generated: ([a-z]+) -->\n).*?(<!-- end -->)", re.DOTALL)

_KNOBS = """# Knobs

A knob is one setting of an engine or a front. `dyno serve --set NAME=VALUE` sets one, `dyno tune`
searches them, and `dyno knobs ENGINE NAME` says on the terminal what stands here. Names are the
engine's own.
"""

_METRICS = """# Metrics

Each metric is a row of one table. The definitions are printed beside the numbers, too;
[how they are measured](bench.md#what-is-measured) and [the method](method.md) say more.

An SLO or an objective is written `NAME:STATISTIC`, as in `--slo 'ttft:p99<2s'` and
`--objective ttft:p99`.
"""

_KEYS = """# Keys of TOML files

`dyno tune study.toml` and `dyno plan plan.toml` read these keys. A flag on the command line wins
over the file. Durations are written as on the command line, `"30s"`; a list may be one,
`users = [10, 50]`, or a text, `"10,50"`.
"""


def owners() -> dict[str, Owner]:
    """Return the engines and fronts that have knobs, by name."""
    found: dict[str, Owner] = {
        name: plugins.load(kind, name)
        for kind in ("engines", "fronts")
        for name in plugins.names(kind)
    }
    return {name: owner for name, owner in found.items() if owner.knobs}


def pages() -> dict[str, str]:
    """Return the pages that are generated whole, by their path in docs/."""
    found = {f"knobs/{name}.md": _knobs_page(owner) for name, owner in owners().items()}
    found["knobs/index.md"] = _knobs_index(owners())
    found["metrics.md"] = _metrics_page(BY_NAME.values())
    found["keys.md"] = _keys_page()
    return {path: f"{text.rstrip()}\n" for path, text in found.items()}


def regions(text: str) -> str:
    """Return a page with its generated regions written anew.

    Raises:
        KeyError: a region has a name that is none of ours.
    """
    return _REGION.sub(lambda found: f"{found[1]}{_REGIONS[found[2]]()}{found[3]}", text)


def write(folder: Path) -> None:
    """Write what is generated into docs/.

    Raises:
        OSError: a page cannot be read or written.
    """
    for name, text in pages().items():
        store.make_folder((folder / name).parent)
        store.write_atomically(folder / name, text.encode())
    for path in sorted(folder.rglob("*.md")):
        text = files.text(path)
        if (renewed := regions(text)) != text:
            store.write_atomically(path, renewed.encode())


def _knobs_index(every: Mapping[str, Owner]) -> str:
    rows = [
        (f"[`{name}`]({name}.md)", str(len(owner.knobs)), _count_of_searched(owner.knobs))
        for name, owner in every.items()
    ]
    return (
        _KNOBS + "\n" + markdown_table(("engine or front", "knobs", "with a range to search"), rows)
    )


def _count_of_searched(knobs: Iterable[Knob]) -> str:
    return str(sum(1 for knob in knobs if knob.search))


def _knobs_page(owner: Owner) -> str:
    source = f"the rows of `{owner.name}`'s table of knobs"
    parts = [f"# Knobs of `{owner.name}`\n", _GENERATED.format(source=source)]
    parts += [_knob(owner, knob) for knob in owner.knobs]
    return "\n".join(parts)


def _knob(owner: Owner, knob: Knob) -> str:
    """Return what a page says of a knob: a heading, what it does, and a list of facts."""
    known = knob.defaults[0][1]
    facts = {
        "When to turn it": knob.turn,
        "What it trades": knob.trades,
        "Takes": f"{accepts(knob)}.",
        "Default": _defaults(knob),
        "Searched": _searched(knob),
        "Takes effect only with": f"{knob.needs[0]}={show(knob.needs[1])}." if knob.needs else "",
        "Does not go with": knob.conflicts,
        "In other engines": "; ".join(
            elsewhere(owner.name, knob, known if isinstance(known, float) else None)
        ),
        "Source": knob.source,
    }
    lines = [f"## `{knob.name}`\n", f"{_prose(knob.does)}\n"]
    lines += [f"- **{title}:** {_prose(words)}" for title, words in facts.items() if words]
    return "\n".join(lines) + "\n"


def _defaults(knob: Knob) -> str:
    every = ", ".join(
        f"{'the engine decides' if value is None else show(value)} (from {lowest})"
        for lowest, value in knob.defaults
    )
    return f"{every}; removed in {knob.until}." if knob.until else f"{every}."


def _searched(knob: Knob) -> str:
    """Say what `dyno tune` tries of a knob, and when."""
    if not knob.search:
        return "never; set it yourself."
    tried = ", ".join(show(value) for value in knob.search)
    if knob.kind in {"int", "float"}:
        low, high = knob.search[0], knob.search[-1]
        tried = f"{show(low)} to {show(high)}" + (", in ratios" if knob.search_log else "")
        if knob.search_multiple > 1:
            tried += f", multiples of {knob.search_multiple}"
    if knob.alters_output:
        return f"{tried}; only with --allow-altered-output, because the tokens may change."
    return f"{tried}."


def _metrics_page(every: Iterable[Metric]) -> str:
    parts = [_METRICS, _GENERATED.format(source="`src/llmdyno/results/metrics.py`")]
    return "\n".join([*parts, *(_metric(row) for row in every)])


def _metric(row: Metric) -> str:
    """Return what the page says of a metric: a heading, its definition, and a list of facts."""
    doubts = [code for code, found in CODES.items() if row.name in found.metrics]
    needs = {
        "an SLO on a latency of one request": row.needs_slo,
        "`--price`": row.needs_price,
        "an open loop": row.open_loop,
        "counters of energy on the server's machine": "energy" in row.rests_on,
    }
    wanted = " and ".join(words for words, needed in needs.items() if needed)
    facts = {
        "On the command line": f"`{row.flag}`",
        "Unit": row.unit,
        "Better": row.better,
        "Statistics": ", ".join(f"`{name}`" for name in row.statistics),
        "Needs": wanted,
        "Doubts that spoil it": ", ".join(f"[`{code}`](doubts.md)" for code in doubts),
    }
    lines = [f"## {row.title}\n", f"`{row.name}`\n", f"{_prose(row.definition)}\n"]
    lines += [f"- **{title}:** {words}" for title, words in facts.items() if words]
    return "\n".join(lines) + "\n"


def _keys_page() -> str:
    """Return the page of keys: a section for each file that is read, and the profile."""
    return "\n".join(
        [
            _KEYS,
            _GENERATED.format(source="the specs of `dyno tune` and `dyno plan`"),
            "## A study: `dyno tune study.toml`\n",
            _key_table(study_flags(in_file=True)),
            "`dyno tune --quick` is this file:\n",
            as_toml(QUICK),
            "## A prediction: `dyno plan plan.toml`\n",
            _key_table(plan_flags(in_file=True)),
        ]
    )


def _key_table(fields: Iterable[Field]) -> str:
    rows = [
        (
            f"`{one.key}`",
            f"`{one.option}`" if one.flag.tune == "flag" else "",
            one.help,
            one.shown_default,
        )
        for one in fields
    ]
    return markdown_table(("key", "flag", "what it is for", "default"), rows)


def _metric_rows() -> str:
    rows = [(f"`{row.name}`", row.title, row.unit, row.definition) for row in BY_NAME.values()]
    return markdown_table(("metric", "what it is", "unit", "definition"), rows)


def _fault_rows() -> str:
    named = [(f"`{name}`", meaning) for name, meaning in FAULTS.items()]
    numbered = [
        ("`http-NNN`", "the server answered with status NNN"),
        (
            "`grpc-NAME`",
            "the server answered with that gRPC status, e.g. `grpc-resource-exhausted`",
        ),
    ]
    return markdown_table(("class", "what it means"), [*named, *numbered])


def _doubt_rows() -> str:
    rows = [
        (f"`{code}`", row.meaning, ", ".join(f"`{name}`" for name in row.metrics))
        for code, row in CODES.items()
    ]
    return markdown_table(("code", "what it means", "metrics"), rows)


_REGIONS: Mapping[str, Callable[[], str]] = {
    "doubts": _doubt_rows,
    "faults": _fault_rows,
    "metrics": _metric_rows,
}


def _prose(words: str) -> str:
    """Return a text as Markdown that shows it as it is."""
    return re.sub(r"([*<\[\]])", r"\\\1", words)


def main(arguments: Sequence[str]) -> None:
    """Write what is generated into the folder of the documents, docs/."""
    write(Path(arguments[0]))


if __name__ == "__main__":
    main(sys.argv[1:])
