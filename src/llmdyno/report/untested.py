"""What a study has not tested, so that nobody reads more into it than it holds."""

from collections.abc import Mapping, Sequence

from llmdyno.knobs import Knob
from llmdyno.report import documents
from llmdyno.report.documents import Document, Run
from llmdyno.results import findings, stacks, verdicts
from llmdyno.results.study_doubts import effective
from llmdyno.units import counted


def of_study(study: Document, runs: tuple[Run, ...], guide: Mapping[str, Knob]) -> list[str]:
    """Return in sentences what was left out: settings, loads, prompts, machines, answers."""
    said = [_settings(study, guide), *_loads(study, runs), *_places(study, runs)]
    compared = documents.part(study, "quality", "comparison")
    scores = documents.part(study, "quality", "lm_eval")
    if not compared and not documents.items(scores, "tasks"):
        said.append("Whether the answers are as good: they were not compared.")
    said += _single_effects(study)
    return [one for one in said if one]


def untried(study: Document, guide: Mapping[str, Knob]) -> list[str]:
    """Return the names of the guide's settings that have one value in all that was measured.

    The guide is of the winner's engine and front: what others had set does not count.
    """
    version = documents.text(study, "engine_version") or None
    of = stacks.named(documents.part(study, "best") or documents.part(study, "baseline"))
    trials = [one for one in documents.items(study, "trials") if stacks.named(one) == of]
    configs = [stacks.own_baseline(study), *(documents.part(one, "config") for one in trials)]
    return [
        name
        for name in guide
        if len({repr(effective(config, name, guide, version)) for config in configs}) <= 1
    ]


def _settings(study: Document, guide: Mapping[str, Knob]) -> str:
    left = untried(study, guide)
    if not left:
        return ""
    said = f"{len(left)} of {counted(len(guide), 'setting')}, which kept one value throughout"
    searchable = [name for name in left if guide[name].search]
    if not searchable:
        return f"{said}."
    return f"{said}: among them {len(searchable)} that can be searched, {_listed(searchable)}."


def _loads(study: Document, runs: tuple[Run, ...]) -> list[str]:
    names = documents.level_names(runs)
    if not names:
        return []
    said = [f"Other loads than {_listed(names)}, and other prompts than this workload's."]
    level = findings.level_of(study)
    single = [name for name in names if name != level]
    repeated = documents.items(documents.part(study, "confirmation"), "levels")
    if verdicts.confirmed(study).pairs and single and len(repeated) < len(names):
        said.append(
            f"Repeats at {_listed(single)}: only {level} was measured in pairs; the other levels"
            " have one run of each."
        )
    return said


def _places(study: Document, runs: tuple[Run, ...]) -> list[str]:
    where = [documents.part(run.summary, "environment") for run in runs]
    gpus = {documents.text(g, "name") for one in where for g in documents.items(one, "gpus")}
    cpus = {documents.text(one, "cpu", "model") for one in where}
    machine = _listed(sorted(gpus or cpus - {""}))
    said = [f"Other machines than {machine}."] if machine else []
    engine, front = documents.text(study, "engine"), documents.text(study, "front")
    if engine and not documents.items(study, "combinations"):
        said.append(f"Other engines and fronts than {engine} behind {front or 'its own server'}.")
    return said


def _single_effects(study: Document) -> list[str]:
    best = documents.part(study, "best")
    changed = best and stacks.own_baseline(study) != documents.part(best, "config")
    if changed and not documents.items(study, "ablation"):
        return ["What each changed setting gives by itself."]
    return []


def _listed(names: Sequence[str]) -> str:
    return " and ".join(one for one in (", ".join(names[:-1]), *names[-1:]) if one)
