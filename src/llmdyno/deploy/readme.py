"""README.md of a bundle: what it serves, how to start it, and the figures that speak for it."""

import json
import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from llmdyno import __version__
from llmdyno.deploy.dockerfile import WHEELS
from llmdyno.deploy.kubernetes import CLAIM_GIB
from llmdyno.deploy.plan import BundlePlan
from llmdyno.deploy.script import BUILD
from llmdyno.knobs import show
from llmdyno.results import conclusions, findings, titles, verdicts
from llmdyno.results.documents import level_name, short_loads
from llmdyno.results.slo import HEADLINES, parse_objective, read_stat
from llmdyno.results.wording import short
from llmdyno.units import counted


def text(plan: BundlePlan, files: tuple[str, ...], study: Mapping[str, Any] | None) -> str:
    """Return the README of a bundle that has these files."""
    version = f" {plan.engine_version}" if plan.engine_version else ""
    settings = ", ".join(f"`{name}={show(value)}`" for name, value in plan.config.items())
    served = f"Served by {plan.engine}{version} behind the front {plan.front}"
    said = settings or "all settings at their defaults"
    if plan.engine_args:
        said += f" and `{shlex.join(plan.engine_args)}`"
    parts = [
        f"# {plan.model}",
        f"{served}, with {said}. Written by llmdyno.",
        *([f"**Mind:** {plan.unproven}"] if plan.unproven else []),
        *([_figures(study)] if study else []),
        *(f"**Mind:** {doubt}" for doubt in plan.launch.doubts),
        *_needs(plan),
        *_ways(plan, files),
    ]
    return "\n\n".join(parts) + "\n"


def _needs(plan: BundlePlan) -> list[str]:
    parts = []
    if plan.links:
        links = "\n".join(f"- `{place}`" for place in plan.links)
        parts.append(
            "These are links to what lies on the machine that wrote this; copy the bundle with"
            f" what they point to (`cp -rL`, `tar -ch`, `rsync -L`):\n\n{links}"
        )
    if plan.built and "artifact" not in plan.links:
        parts.append(
            f"`bash {BUILD} artifact` builds what is served; do that where it will run, on the same"
            " GPU and with the same release of the engine."
        )
    if plan.secrets:
        parts.append(f"Secrets are read from the environment: {_listed(plan.secrets)}.")
    return parts


def _ways(plan: BundlePlan, files: tuple[str, ...]) -> list[str]:
    ways = []
    if "serve.sh" in files:
        ways.append(
            f"    ./serve.sh                          # here; needs {plan.engine}: {plan.install}\n"
            "    HOST=0.0.0.0 ./serve.sh             # for everybody who can reach this machine"
        )
    if "compose.yaml" in files:
        ways.append(f"{'    docker compose up --wait':<39} # on this machine's loopback")
    if "kubernetes.yaml" in files:
        image = plan.image
        if image is not None and image.made:
            ways.append(
                f"{f'    docker build -t {plan.image_name} .':<39} # push it, and name it in"
                " kubernetes.yaml"
            )
        if plan.secrets:
            lines = "".join(f"{name}=%s\\n" for name in plan.secrets)
            values = " ".join(f'"${name}"' for name in plan.secrets)
            ways.append(
                f"    printf '{lines}' {values} |\n"
                f"      kubectl create secret generic {plan.name} --from-env-file=/dev/stdin"
            )
        ways.append("    kubectl apply -f kubernetes.yaml")
    notes = []
    if "kubernetes.yaml" in files and (plan.hub or plan.places):
        notes.append(
            f"The claim of {CLAIM_GIB} GiB in kubernetes.yaml is a guess: set what the model takes."
            + (f" Put {_listed(plan.places)} into it." if plan.places else "")
        )
    made = "Dockerfile" in files and plan.image is not None and "llmdyno" in str(plan.image)
    if made or ("serve.sh" in files and "llmdyno" in plan.install):
        notes.append(
            f"llmdyno {__version__} need not be in a package index: pip takes its wheel from a"
            f" folder `{WHEELS}` in this one. `make packages` in llmdyno's checkout builds it, into"
            " `dist`."
        )
    checked = [name for name in ("compose.yaml", "kubernetes.yaml") if name in files]
    if checked:
        notes.append(
            f"{_listed(tuple(checked))}: checked against the published schemas, not run by us."
        )
    return ["## To serve it", "\n".join(ways), *notes, *_check(plan, files)]


def _check(plan: BundlePlan, files: tuple[str, ...]) -> list[str]:
    """Return what asks the server whether it is up, and for an answer."""
    url = f"http://127.0.0.1:{plan.port}"
    lines = [f"    curl -f {url}{plan.launch.health_path}    # succeeds once it is up"]
    if plan.launch.probe is not None:
        path, body = plan.launch.probe
        said = shlex.join(
            ("curl", f"{url}{path}", "-H", "Content-Type: application/json", "-d", json.dumps(body))
        )
        lines.append(f"    {said}")
    if "kubernetes.yaml" in files:
        forward = f"kubectl port-forward service/{plan.name} {plan.port}:{plan.port}"
        lines.insert(0, f"    {forward}    # brings a cluster's server here, first")
    return ["## Whether it works", "\n".join(lines)]


def _figures(study: Mapping[str, Any]) -> str:
    """Return what the study has found: each config at each level, and the verdict.

    Where the baseline stays there is one config to show, and what was compared with it is named.
    """
    before, after = study["baseline"], study["best"]
    if before is None or after is None:
        return f"The study {study['study']} was not finished: there are no figures."
    found = verdicts.confirmed(study)
    if findings.stands(study):
        once = f"One run of the baseline, which is served, at each level{_compared(study)}:"
        table = _table(("",), [before], str(study.get("objective") or ""))
    else:
        once = "One run of each config at each level:"
        table = _table(("before", "after"), [before, after], str(study.get("objective") or ""))
    gain = f", {found.times}" if found.times else ""
    if conclusions.stands_alone(study):
        verdict = conclusions.conclusion(study)
    elif found.stays:
        verdict = conclusions.decided(study)
    else:
        pairs = counted(found.pairs, "interleaved pair")
        opening = "Confirmed in" if found.word == "better" else "In"
        moved = f" ({found.moved})" if found.moved else ""
        verdict = f"{opening} {pairs} at {found.level}{moved}: {found.word}{gain}."
    verdict = " ".join([verdict, *conclusions.remarks(study), f"From the study {study['study']}."])
    return "\n".join(["## What was measured", "", once, "", *table, "", verdict])


def _compared(study: Mapping[str, Any]) -> str:
    """Say what was compared with a baseline that stays."""
    found = verdicts.confirmed(study)
    if found.pairs:
        pairs = counted(found.pairs, "interleaved pair")
        return f"; compared with it, in {pairs} at {found.level}, was {conclusions.compared(study)}"
    tried = len(study["trials"])
    were = "was" if tried == 1 else "were"
    return f"; {counted(tried, 'trial')} {were} compared with it, in one run each" if tried else ""


def _table(names: tuple[str, ...], sides: Sequence[Mapping[str, Any]], objective: str) -> list[str]:
    """Return a row for each level, with the columns of each side under its name."""
    columns = [(HEADLINES[0], "tokens/s", ""), (HEADLINES[1], "TTFT p50", ", ms")]
    if objective and (sought := parse_objective(objective)) not in HEADLINES:
        unit = titles.unit(objective)
        columns.append((sought, titles.title(objective), f", {unit}" if unit else ""))
    head, loads = short_loads(sides[0]["summary"]["levels"])
    heads = [head]
    for _, what, unit in columns:
        heads += [f"{what} {names[0]}".rstrip() + unit, *names[1:]]
    rows = [f"| {' | '.join(heads)} |", "|" + "---|" * len(heads)]
    for levels in zip(*(side["summary"]["levels"] for side in sides), strict=False):
        cells = [loads[level_name(levels[0])]]
        for one, _, _ in columns:
            cells += [_number(read_stat(level, one.metric, one.stat)) for level in levels]
        rows.append("| " + " | ".join(cells) + " |")
    return rows


def _number(value: float | None) -> str:
    return "-" if value is None else short(value)


def _listed(names: tuple[str, ...]) -> str:
    return ", ".join(f"`{name}`" for name in names)
