"""What was run, on what, and how it was asked: for a person, before the facts in full.

The facts themselves, every key of them, stand folded below; here are those that a reader asks for.
"""

from collections import Counter

from llmdyno.report import documents
from llmdyno.report.documents import Document, Run
from llmdyno.report.tables import Cell, Column, Row, Table
from llmdyno.results import stacks
from llmdyno.units import counted, show_seconds

_GIB = 2**30


def table(study: Document, runs: tuple[Run, ...]) -> Table | None:
    """Return the table of what was run on what, or None if nothing of it is known."""
    asked = documents.part(runs[0].summary, "spec") if runs else {}
    asked = asked or documents.part(study, "spec")
    rows = [
        ("Model", model(study, runs)),
        ("Engine", engine(study)),
        ("Engines compared", ", ".join(stacks.engines(study))),
        ("Front", documents.text(study, "front")),
        ("Hardware", hardware(study, runs)),
        ("Software", software(study, runs)),
        ("Workload", workload(asked).removeprefix("workload ")),
        ("Load", load(study, runs).removeprefix("load: ")),
        ("SLOs", ", ".join(documents.texts(study, "slo"))),
        ("When", documents.text(runs[0].summary, "started") if runs else ""),
    ]
    made = tuple(Row(heads=((name, 1),), cells=(Cell(said),)) for name, said in rows if said)
    if not made:
        return None
    of = "study" if study else "run"
    columns: tuple[Column, ...] = (("What", "text"), (f"Of this {of}", "text"))
    return Table(caption=f"The subject of this {of}", columns=columns, rows=made)


def what(study: Document, runs: tuple[Run, ...]) -> str:
    """Say what was run in a sentence."""
    named = [model(study, runs), f"on {engine(study)}" if engine(study) else ""]
    front = documents.text(study, "front")
    named += [f"behind {front}"] if front else []
    asked = documents.part(runs[0].summary, "spec") if runs else documents.part(study, "spec")
    replaced = stacks.replaced(study)
    before = f"baseline and winner: {replaced}" if replaced else ""
    compared = stacks.engines(study)
    among = f"engines compared: {', '.join(compared)}" if compared else ""
    rest = (among, before, workload(asked), load(study, runs))
    told = [one[0].upper() + one[1:] for one in rest if one]
    return ". ".join(one for one in (" ".join(filter(None, named)), *told) if one) + "."


def on_what(study: Document, runs: tuple[Run, ...]) -> str:
    """Say on which machine and software it ran."""
    told = [one for one in (hardware(study, runs), software(study, runs)) if one]
    return "; ".join(told) + "." if told else "Not known: the machine was not written down."


def model(study: Document, runs: tuple[Run, ...]) -> str:
    """Return the model's name."""
    own = documents.text(study, "model")
    return own or next((documents.text(run.summary, "spec", "model") for run in runs), "")


def engine(study: Document) -> str:
    """Return the engine with its version."""
    version = documents.text(study, "engine_version")
    return f"{documents.text(study, 'engine')} {version}".strip()


def hardware(study: Document, runs: tuple[Run, ...]) -> str:
    """Say which machine it was: its GPUs, processor and memory."""
    facts = _environment(study, runs)
    gpus = Counter(
        (documents.text(gpu, "name"), documents.text(gpu, "driver"))
        for gpu in documents.items(facts, "gpus")
    )
    told = [
        f"{count} x {name}" + (f" (driver {driver})" if driver else "")
        for (name, driver), count in gpus.items()
    ]
    cores = documents.number(facts, "cpu", "cores_usable")
    cpu = documents.text(facts, "cpu", "model")
    if cpu:
        told.append(cpu + (f", {counted(cores, 'core')}" if cores else ""))
    memory = documents.number(facts, "memory_bytes")
    told += [f"{memory / _GIB:,.0f} GiB of memory"] if memory else []
    known = bool(told)
    return ", ".join([*told, *(() if gpus or not known else ("no GPU",))])


def software(study: Document, runs: tuple[Run, ...]) -> str:
    """Say with which versions it ran."""
    facts = _environment(study, runs)
    dyno = documents.text(facts, "llmdyno")
    told = [f"llmdyno {dyno}"] if dyno else []
    told += [f"{name} {version}" for name, version in documents.part(facts, "packages").items()]
    told += [documents.text(facts, key) for key in ("python", "os")]
    kernel = documents.text(facts, "kernel")
    return ", ".join([one for one in told if one] + ([f"kernel {kernel}"] if kernel else []))


def workload(spec: Document) -> str:
    """Say what was asked: "workload chat: answers of 256 tokens, 2-6 turns, seed 0"."""
    asked = documents.part(spec, "workload")
    if not asked:
        return ""
    told = []
    for key, before, after in (
        ("isl", "prompts of", "tokens"),
        ("osl", "answers of", "tokens"),
    ):
        length = _length(documents.part(asked, key))
        told += [f"{before} {length} {after}"] if length else []
    dataset = documents.text(asked, "dataset")
    told += [f"prompts of {dataset}"] if dataset else []
    told += ["a system prompt"] if documents.text(asked, "system_prompt") else []
    told += ["all prompts differ"] if asked.get("unique") is True else []
    seed = documents.number(asked, "seed")
    told += [] if seed is None else [f"seed {seed:g}"]
    name = f"workload {documents.text(asked, 'name')}".strip()
    return f"{name}: {', '.join(told)}" if told else name


def _length(asked: Document) -> str:
    shape, low = documents.text(asked, "shape"), documents.number(asked, "a")
    high = documents.number(asked, "b")
    if low is None:
        return ""
    if shape == "uniform":
        return f"{low:g} to {high:g}"
    if shape in {"normal", "lognormal"}:
        return f"{low:g} ± {high:g} ({shape})"
    return f"{low:g}"


def load(study: Document, runs: tuple[Run, ...]) -> str:
    """Say how it was asked: the levels, how long each was, and how trials were shorter."""
    spec = documents.part(runs[0].summary, "spec", "load") if runs else {}
    spec = spec or documents.part(study, "spec", "load")
    names = documents.level_names(runs)
    told = [", ".join(names)] if names else []
    for key, said in (("duration_s", "{} a level"), ("ramp_s", "{} of it a ramp")):
        value = documents.number(spec, key)
        if value:
            told.append(said.format(show_seconds(value)))
    trial = documents.number(study, "spec", "trial_duration_s")
    told += [f"trials of {show_seconds(trial)}"] if trial else []
    lanes = documents.texts(study, "lanes", "devices")
    told += [f"{len(lanes)} trials at once ({'; '.join(lanes)})"] if len(lanes) > 1 else []
    return f"load: {', '.join(told)}" if told else ""


def _environment(study: Document, runs: tuple[Run, ...]) -> Document:
    sides = [documents.part(run.summary, "environment") for run in runs]
    return next((one for one in sides if one), documents.part(study, "environment"))
