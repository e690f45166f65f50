"""How to measure it again: the files and commands with which a run's or a study's page ends.

They are written from what was asked, not from what was typed: a study's file, its profile and its
flags have become one spec. What has its default is left out, as the version that has these defaults
stands beside the commands.
"""

import json
import shlex
from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

from llmdyno.errors import UsageError
from llmdyno.flag import (
    CONFIG,
    CONFIGS,
    FILE_TEXT,
    NUMBER,
    PAUSE,
    PRICE,
    SECONDS,
    TEXTS,
    TRUTH,
    WHOLE,
    Field,
    own_fields,
)
from llmdyno.knobs import show
from llmdyno.results import findings
from llmdyno.results.documents import part, text, texts
from llmdyno.results.slo import Objective, Slo
from llmdyno.spec import Bench, Load
from llmdyno.tune.spec import BUDGET, Study
from llmdyno.tune.spend import Spend, show_budget

STUDY_FILE, PROMPT_FILE = "study.toml", "system-prompt.txt"
_NATIVE = (WHOLE, NUMBER, TRUTH)  # a TOML file has these as what they are


class Block(msgspec.Struct, frozen=True):
    """Something to type, and what it does. Its fields are the keys of a page's "repeat"."""

    what: str
    text: str


def with_repeat(document: Mapping[str, Any]) -> dict[str, Any]:
    """Return a run's or a study's document with "repeat", its blocks; none: it is not known how."""
    blocks = of_study(document) if "trials" in document else of_run(document)
    return {**document, "repeat": msgspec.to_builtins(blocks)}


def of_study(study: Mapping[str, Any]) -> list[Block]:
    """Return how a study is repeated, and how its winner is served."""
    try:
        spec = msgspec.convert(study.get("spec"), Study)
    except (msgspec.ValidationError, UsageError):  # one without a spec, or of another version
        return []
    blocks = [
        *_prompt(spec.workload.system_prompt),
        Block(f"Write the study's file, {STUDY_FILE}:", _heredoc(STUDY_FILE, study_file(spec))),
        Block("Run the whole study again:", f"dyno tune {STUDY_FILE}"),
    ]
    if part(study, "best"):
        words = ["dyno", "serve", "--engine", text(study, "engine")]
        words += ["--front", text(study, "front"), "--model", spec.model]
        words += [f"--engine-arg={word}" for word in texts(study, "engine_args")]
        for name, value in part(study, "best", "config").items():
            words += ["--set", f"{name}={show(value)}"]
        what = "the baseline, which stands" if findings.stands(study) else "the winner alone"
        blocks.append(Block(f"Serve {what}:", _command(words)))
    return blocks


def of_run(summary: Mapping[str, Any]) -> list[Block]:
    """Return how a run is repeated; nothing of one that another tool made."""
    if part(summary, "imported"):
        return []
    try:
        spec = msgspec.convert(summary.get("spec"), Bench)
    except (msgspec.ValidationError, UsageError):  # one of another version
        return []
    words = ["dyno", "bench", "--url", spec.url]
    for field, value in _asked(spec, Bench(url=spec.url)):
        if field.name not in _excluded(spec.load, of_trace="duration"):
            words += _words(field, value)
    return [*_prompt(spec.workload.system_prompt), Block("Run it again:", _command(words))]


def study_file(spec: Study) -> str:
    """Return the TOML file that `dyno tune` reads as this spec."""
    lines, tables = [], []
    always = {"engine", "front", "model", "objective", "users", "seed"}
    excluded = _excluded(spec.load, of_trace="requests")
    excluded |= {"max_pairs"} if spec.pairs_fixed else set()
    excluded |= {"arrival"} if spec.load.has_own_times else set()  # the workload says so
    excluded |= {"users"} if spec.load.is_open else set()
    for field, value in _asked(spec, Study(), always):
        if field.name in excluded:
            continue
        if field.flag.kind is CONFIG:
            tables += ["", f"[{field.key}]", *_table(value)]
        elif field.flag.kind is CONFIGS:
            for one in value:
                tables += ["", f"[[{field.key}]]", *_table(one)]
        elif field.flag.tune != "never":
            lines.append(f"{field.key} = {_toml(_written(field, value))}")
    return "\n".join([*lines, *tables, ""])


def _excluded(load: Load, *, of_trace: str) -> set[str]:
    """Return the flags that a load makes no use of, and whoever reads them refuses.

    Args:
        load: may be of an older version, which refused less.
        of_trace: does not say how much of a trace is asked: in a run requests do, in a study times.
    """
    names = {"think_time"} if load.is_open else set()
    if load.arrival == "trace":
        return names | {"users", "ramp", of_trace}
    return names | ({"duration", "trial_duration"} if load.requests is not None else set())


def _asked(
    spec: msgspec.Struct, default: msgspec.Struct, always: frozenset[str] | set[str] = frozenset()
) -> Iterator[tuple[Field, Any]]:
    """Yield each flag whose value is not its default, those of the parts too; a name once."""
    seen: set[str] = set()
    flags = own_fields(type(spec), default)
    own = {field.attribute: field for field in flags}
    for field in msgspec.structs.fields(spec):
        value, standard = getattr(spec, field.name), getattr(default, field.name)
        flag = own.get(field.name)
        if flag is not None:
            if flag.name not in seen and (value != standard or flag.name in always):
                yield flag, value
            seen.add(flag.name)
        elif isinstance(value, msgspec.Struct):
            for inner, inside in _asked(value, standard, always):
                if inner.name not in own:
                    yield inner, inside


def _written(field: Field, value: Any) -> Any:
    """Return a value the way a file gives it: a text, or a number, a truth or a list as it is."""
    kind = field.flag.kind
    if kind is FILE_TEXT:
        return PROMPT_FILE
    if kind in _NATIVE:
        return value
    if kind is TEXTS:
        return list(value)
    if kind is BUDGET and isinstance(value, Spend):
        return show_budget(value)
    if kind in {SECONDS, PAUSE, BUDGET}:
        ends = value if isinstance(value, tuple) else (value,)
        return "-".join(f"{_decimal(end)}s" for end in ends)
    if kind is PRICE:
        return f"{_decimal(value)}/h"
    return _text(value)


def _text(value: Any) -> Any:
    """Write a value of the other kinds: names, counts, rates, shares, SLOs, lengths."""
    if isinstance(value, bool):  # a permission without a share
        return value
    if isinstance(value, float):
        return _decimal(value)
    if isinstance(value, tuple):
        return ",".join(str(_text(one)) for one in value)
    if isinstance(value, Slo):
        return value.expr
    return str(value) if not isinstance(value, Objective) else f"{value}"


def _decimal(value: float) -> str:
    """Write a number in full, without an exponent."""
    return f"{value:.12f}".rstrip("0").rstrip(".")


def _words(field: Field, value: Any) -> list[str]:
    """Return a flag as words of a command line."""
    if isinstance(value, bool):
        return [field.option if value else f"--no-{field.option.removeprefix('--')}"]
    written = _written(field, value)
    return [
        word
        for one in (written if isinstance(written, list) else [written])
        for word in (field.option, _decimal(one) if isinstance(one, float) else str(one))
    ]


def _table(config: Mapping[str, Any]) -> list[str]:
    return [f"{_key(name)} = {_toml(value)}" for name, value in config.items()]


def _key(name: str) -> str:
    return name if name.replace("_", "").replace("-", "").isalnum() else _toml(name)


def _toml(value: Any) -> str:
    """Write a value as TOML, whose texts, numbers and lists of texts are JSON's."""
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def _prompt(system_prompt: str) -> list[Block]:
    if not system_prompt:
        return []
    return [Block("Write the system prompt:", _heredoc(PROMPT_FILE, system_prompt))]


def _heredoc(name: str, content: str) -> str:
    mark = "END"
    while mark in content.splitlines():
        mark += "_"
    return f"cat > {name} <<'{mark}'\n{content.rstrip()}\n{mark}"


def _command(words: list[str]) -> str:
    """Join a command line, a flag with its value a line, so that none is wider than a page."""
    lines: list[list[str]] = [[]]
    for word in words:
        if word.startswith("--"):
            lines.append([])
        lines[-1].append(shlex.quote(word))
    return " \\\n    ".join(" ".join(line) for line in lines)
