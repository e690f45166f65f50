"""What a study over engines and fronts found of each combination, for all who tell of it."""

import msgspec

from llmdyno.results import wording
from llmdyno.results.configs import set_anew
from llmdyno.results.documents import Document, items, number, part, text
from llmdyno.units import counted


class Told(msgspec.Struct, frozen=True, kw_only=True):
    """A combination in words; a value that there is not is "-"."""

    name: str  # "vllm behind triton"
    version: str  # of the engine
    baseline: str
    best: str
    slo: str  # of the best: "met", "missed", "-"
    trials: str  # "5, 1 failed", and which hosts were left out: "5, without host 2"
    outcome: str  # the best config, or why it is left out


def combinations(study: Document) -> list[Told]:
    """Return what came of each combination, in the order in which the user named them."""
    return [_told(one) for one in items(study, "combinations")]


def conclusion(study: Document) -> str:
    """Say which combination is the best, and what it was proven against; empty: it has none."""
    found = items(study, "combinations")
    if not found:
        return ""
    worked = [one for one in found if part(one, "baseline")]
    if not worked:
        return "No combination could be measured."
    first, best = part(study, "baseline"), part(study, "best")
    among = counted(len(worked), "combination")
    out = len(found) - len(worked)
    among += f" ({out} left out)" if out else ""
    against = f"the baseline of {named(first)}"
    if (best.get("config"), named(best)) == (first.get("config"), named(first)):
        return f"Of {among}, none is shown to beat {against}."
    return f"Best of {among}: {named(best)}, told against {against}."


def replaced(study: Document) -> str:
    """Say what took the place of what, "vllm behind native → sglang behind native".

    Empty: baseline and winner are of one combination.
    """
    before, after = part(study, "baseline"), part(study, "best")
    if not text(before, "engine") or not text(after, "engine") or named(before) == named(after):
        return ""
    return f"{named(before)} → {named(after)}"


def own_baseline(study: Document) -> Document:
    """Return the baseline's config of the winner's own engine and front.

    What another engine sets is no setting that the winner has changed.
    """
    return baseline_of(study, part(study, "best"))


def baseline_of(study: Document, measured: Document) -> Document:
    """Return the baseline's config of the engine and front that a trial or a run is of."""
    for one in items(study, "combinations"):
        if named(one) == named(measured) and part(one, "baseline"):
            return part(one, "baseline", "config")
    return part(study, "baseline", "config")


def engines(study: Document) -> list[str]:
    """Return the engines that were compared, with their versions; empty: the study has one."""
    told = [
        f"{text(one, 'engine')} {text(one, 'engine_version')}".strip()
        for one in items(study, "combinations")
        if part(one, "baseline")
    ]
    found = list(dict.fromkeys(told))
    return found if len(found) > 1 else []


def named(one: Document) -> str:
    """Return what a combination is called: "vllm behind triton"."""
    return f"{text(one, 'engine')} behind {text(one, 'front')}"


def _told(one: Document) -> Told:
    failed, trials = number(one, "failed"), number(one, "trials") or 0
    best = part(one, "best")
    config, base = part(best, "config"), part(one, "baseline", "config")
    why = text(one, "why")
    as_it_was = "its baseline" if base else "all defaults"
    outcome = f"{text(one, 'state')}: {why}".strip(": ")
    if best:
        outcome = set_anew(config, base) or as_it_was
    without = [text(out, "device") for out in items(part(one, "lanes"), "left_out")]
    winner = "best of all: " if text(one, "state") == "best" else ""
    return Told(
        name=named(one),
        version=text(one, "engine_version") or wording.ABSENT,
        baseline=_value(part(one, "baseline")),
        best=_value(best),
        slo={True: "met", False: "missed"}.get(best.get("slo_met"), "-"),  # type: ignore[arg-type]
        trials=f"{trials:g}"
        + (f", {failed:g} failed" if failed else "")
        + (f", without {', '.join(without)}" if without else ""),
        outcome=f"{winner}{outcome}",
    )


def _value(of: Document) -> str:
    value = number(of, "value")
    return "-" if value is None else wording.significant(value)
