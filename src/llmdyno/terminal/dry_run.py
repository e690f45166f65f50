"""The plan of a study in the terminal: its steps, what they cost, what is searched and expected."""

from collections.abc import Mapping
from typing import Any, TextIO

from llmdyno.knobs import show
from llmdyno.results import wording
from llmdyno.results.configs import described
from llmdyno.results.limit_words import left_out
from llmdyno.results.wording import significant
from llmdyno.terminal.tables import Cell, Heading, console, line, show_table
from llmdyno.units import counted

Document = Mapping[str, Any]

_VALUES_SHOWN = 6  # of a knob; more are told by their ends


def show_dry_run(document: Document, stream: TextIO) -> None:
    """Print what a study would do, what that costs, and what its confirmation can find."""
    out = console(stream)
    slo = f", under {' and '.join(document['slo'])}" if document["slo"] else ""
    stream.write(
        line(
            f"Nothing was started. {document['engine']} behind {document['front']},"
            f" {document['model']}: {document['objective']} at {document['compared_at']}{slo}.",
            stream,
        )
    )
    words = {"step", "what"}
    headings = [
        Heading(name, of_words=name in words) for name in ("step", "runs", "minutes", "what")
    ]
    rows = [
        [*map(Cell, (one["phase"], f"{one['runs']}", f"{one['minutes']:.1f}", one["what"]))]
        for one in document["phases"]
    ]
    rows.append([Cell("in all"), Cell(""), Cell(f"{document['minutes']:.1f}"), Cell("")])
    show_table(out, headings, rows)
    sentences = (*_lanes(document), *_costs(document), *_found(document["confirmation"]))
    stream.writelines(line(said, stream) for said in sentences)
    for stack in document["stacks"]:
        _show_stack(stack, stream)
    stream.writelines(
        line(f"Left out: {one['engine']} behind {one['front']}: {one['why']}", stream)
        for one in document["left_out"]
    )
    stream.flush()


def _lanes(document: Document) -> list[str]:
    """Say where trials run at once."""
    lanes = document["lanes"]
    if not lanes:
        return []
    where = ", ".join(lanes)
    return [f"Trials run {len(lanes)} at once, on {where}; all that decides runs alone."]


def _costs(document: Document) -> list[str]:
    """Say what it costs beside time, and whether the budget is enough."""
    found = []
    budget = document["budget"]
    if document["money"] is not None:
        ends = "" if budget is None or budget["enough"] else " without the budget"
        several = document["machines"] > 1
        whose = "price of each machine" if several else "machine's price"
        held = f", the hosts' until the trials end{ends and ','}" * several
        found.append(f"At the {whose} that is {document['money']:g}{held}{ends}.")
    if budget is not None:
        found.append(_budget(budget, document["machines"]))
    return found


def _budget(budget: Document, machines: int) -> str:
    """Say what a budget has time for, and by how much the proof goes beyond it."""
    each = " of each machine" if machines > 1 else ""
    said = f"The budget of {budget['minutes']:g} minutes{each}"
    if budget["enough"]:
        return f"{said} is enough for all of it: {counted(budget['trials'], 'trial')}."
    count, over = budget["pairs"], budget["over_minutes"]
    if budget["trials"] or not count:
        said += f" has time for {counted(budget['trials'], 'trial')}."
    else:  # what goes on has no trial to come
        said += " is less than all of it takes."
    if not count:
        return said
    come, end = ("comes", "ends") if count == 1 else ("come", "end")
    said += f" Then {come} the {counted(count, 'pair')} of the proof"
    said += f", which {end} {over:g} minutes after the budget does." if over else "."
    return (
        said
        if budget["money"] is None
        else f"{said} That costs about {budget['money']:g}{' for all' * bool(each)}."
    )


def _found(confirmation: Document) -> list[str]:
    """Say what the pairs can find."""
    pairs = counted(confirmation["pairs"], "pair")
    said = (
        f"Equal runs are taken to lie {wording.share(confirmation['noise'], 1)} apart. {pairs} then"
        f" find a difference of {wording.share(confirmation['detects'])} in 80 of 100 cases"
    )
    if confirmation["detects"] > 0.10:
        needed = counted(confirmation["pairs_for_10_percent"], "pair")
        said += f"; one of 10 % needs {needed}"
    return [f"{said}."]


def _show_stack(stack: Document, stream: TextIO) -> None:
    """Print what a start costs, what is tried first, and the space."""
    cost, search = stack["start_cost_s"], stack["search"]
    known = f"as in {cost['known_from']}" if cost["known_from"] else "a guess: none was seen here"
    name = f"{stack['engine']} behind {stack['front']}"
    takes = f"a build takes {cost['build']:g} s, a start {cost['start']:g} s ({known})"
    lines = ["", f"{name}: {takes}."]
    if stack["engine_version"] is None:
        lines.append(
            f"  {stack['engine']} is not installed here: its settings are those of the newest"
            " version that we know. The study itself needs it."
        )
    names = {
        "given": "candidate",
        "foreseen": "foreseen",
        "learnt": "from an earlier study",
        "known_good": "the engine's own",
    }
    for kind, name in names.items():
        lines += [f"  first ({name}): {described(config)}" for config in stack["starts"][kind]]
    points = counted(search["points"], "config")
    lines.append(f"  {points}, searched by {search['sampler']}:")
    lines += [
        f"    {knob['name']}: {_values(knob['values'])} [{show(knob['default'])}]"
        for knob in search["knobs"]
    ]
    looked, refused = search["infeasible"]["looked_at"], search["infeasible"]["refused"]
    if refused:
        lines.append(f"  {refused} of {counted(looked, 'config')} looked at cannot work:")
        lines += [f"    {one['count']} as: {one['why']}" for one in search["infeasible"]["whys"]]
    lines += [
        f"  predicted: {significant(one['token_rate'])} tok/s ({significant(one['ci80'][0])} to"
        f" {significant(one['ci80'][1])}), {described(one['config'])}"
        f"{f'. {unknown}' if (unknown := left_out(one['not_simulated'])) else ''}"
        for one in stack["expected"]
    ]
    stream.writelines(line(said, stream) for said in lines)


def _values(values: list[Any]) -> str:
    """Write a knob's values, of many only the ends and how many there are."""
    if len(values) <= _VALUES_SHOWN:
        return ", ".join(show(value) for value in values)
    set_to = [value for value in values if value is not None]
    own = ", or the engine's own choice" if None in values else ""
    return f"{show(set_to[0])} to {show(set_to[-1])}, {len(set_to)} values{own}"
