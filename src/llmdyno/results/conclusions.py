"""How a study ended and who meets its SLOs, in sentences: of study.json, for all who tell of it."""

import shlex
from collections.abc import Sequence
from typing import Any

from llmdyno.results import quality, stacks, verdicts, wording
from llmdyno.results.configs import described
from llmdyno.results.documents import Document, items, number, part, text, texts
from llmdyno.results.metrics import BY_NAME
from llmdyno.results.pair_doubts import STOPPED
from llmdyno.results.slo import parse_objective
from llmdyno.results.titles import title, unit
from llmdyno.units import counted

# Kinds of a group of knobs that the winner's reader need not know to use it.
_NO_INTERACTION = frozenset({"independent", "no effect", "slo", "unknown"})
_NOTHING_TRIED = {"budget": "the budget ended", "hand": "the trials were ended by hand"}
# Doubts that belong beside a verdict: without them it sounds surer than it is.
_OF_PAIRS = frozenset(
    {
        *("torn-pairs", "repeated-runs", "failing-starts", "several-models", "doubtful-pairs"),
        "changed-baseline",
    }
)
_OF_NO_WINNER = frozenset({"doubtful-trials", STOPPED})  # where nothing was better, by such trials
NOTHING_BETTER = "No config that was tried did better than the baseline, which stays."


def conclusion(study: Document) -> str:
    """Say in a sentence or two what a study found, or why it found nothing.

    Args:
        study: its document; "outcome" may lack its "said".
    """
    return " ".join(one for one in (_ending(study), passed_over(study), of_slo(study)) if one)


def started(study: Document) -> list[Document]:
    """Return the trials but for those that no server was started for: they cannot work."""
    trials = items(study, "trials")
    return [trial for trial in trials if text(trial, "state") != "predicted-infeasible"]


def stands_alone(study: Document) -> bool:
    """Tell whether the conclusion says it all, as there are no whole pairs that decide."""
    found = verdicts.confirmed(study)
    decided = text(part(study, "outcome"), "state") in {"", "confirmed"}
    return not (decided and found.pairs and part(study, "confirmation", "ratio"))


def best_so_far(study: Document) -> str:
    """Say which trial was the best one when a study ended early; empty: none, or it did not."""
    if text(part(study, "outcome"), "state") not in {"unfinished", "stopped"}:
        return ""
    values = {
        value: trial.get("id")
        for trial in items(study, "trials")
        if trial.get("state") == "measured" and trial.get("slo_met") is not False
        if (value := number(trial, "value")) is not None
    }
    if not values:
        return ""
    objective = parse_objective(text(study, "objective"))
    metric = BY_NAME[objective.metric]
    best = (min if metric.better == "lower" else max)(values)
    meets = ", which meets the SLOs" if texts(study, "slo") else ""
    return (
        f"The best so far is trial {values[best]}{meets}: {objective} {wording.significant(best)}"
        f" {metric.unit} in one run, which proves nothing yet."
    )


def _ending(study: Document) -> str:
    outcome = part(study, "outcome")
    state = text(outcome, "state")
    tried = number(outcome, "tried") or 0
    if state == "stopped":
        kind = text(study, "stopped", "class") or "it failed"
        why = f"as the machine is at fault ({kind}): {text(study, 'stopped', 'why')}"
        found = verdicts.confirmed(study)
        if found.word in verdicts.OPENINGS and found.pairs:  # it stopped in the ablation
            return f"{decided(study)} The study stopped after that, {why}"
        return f"Not confirmed: the study stopped, {why}"
    if state == "nothing tried":
        why = _NOTHING_TRIED.get(text(outcome, "ended_by"), "nothing could be")
        return f"Nothing was tried: {why}. The baseline stays."
    if state == "rejected":
        return f"The baseline stays: {_rejections(study)}."
    found = verdicts.confirmed(study)
    if state == "unfinished" or (found.pairs and found.word not in verdicts.OPENINGS):
        return _unfinished(study, found, tried)
    if not found.pairs:
        none_works = number(outcome, "measured") == 0 and not number(outcome, "pruned")
        return _none_measured(tried) if none_works else NOTHING_BETTER
    return decided(study)


def decided(study: Document) -> str:
    """Say what whole pairs have shown, and why the baseline stays where both are equal."""
    found = verdicts.confirmed(study)
    gain = f", {found.gain}" if found.gain else ""
    stays = f": {found.stays}; compared was {compared(study)}" if found.stays else ""
    return f"{found.opening} at {found.level}{gain} ({found.basis}){stays}."


def compared(study: Document) -> str:
    """Name the config that was told against the baseline, with its combination if it has one."""
    told = part(study, "confirmation")
    of = f" of {stacks.named(told)}" if text(told, "engine") else ""
    return f"{described(part(told, 'config'))}{of}"


def _none_measured(tried: float) -> str:
    return (
        f"Not confirmed: of {counted(tried, 'trial')} none could be measured. The baseline stays."
    )


def _unfinished(study: Document, found: verdicts.Confirmed, tried: float) -> str:
    if not part(study, "baseline"):
        return "Not confirmed: the baseline was not measured."
    if found.pairs:
        gain = f", {found.gain}" if found.gain else ""
        pairs = counted(found.pairs, "whole pair")
        do = "does" if found.pairs == 1 else "do"
        more = "" if text(study, "outcome", "state") != "unfinished" else _goes_on(study)
        return f"Not confirmed: {pairs} at {found.level} {do} not decide{gain}{more}."
    trials = number(part(study, "outcome"), "trials")
    of = f" of {trials:g}" if trials else ""
    after = f"after {tried:g}{of} trials" if tried != trials else "before any pair was whole"
    return f"Not confirmed: the study ended {after}{_goes_on(study)}."


def _goes_on(study: Document) -> str:
    """Say after a semicolon with which command an unfinished study goes on."""
    return f"; dyno tune --resume {shlex.quote(_place(study))} goes on with it"


def _rejections(study: Document) -> str:
    told = []
    for one in items(study, "rejected"):
        whose = (
            f"{text(one, 'engine')} behind {text(one, 'front')}, " if text(one, "engine") else ""
        )
        told.append(f"{whose}{described(part(one, 'config'))} {text(one, 'why')}")
    return "; ".join(told)


def passed_over(study: Document) -> str:
    """Say which configs looked better than the winner and are none, and why; else empty.

    Where no config has won, the ending says it.
    """
    is_told = text(study, "outcome", "state") == "rejected"
    return "" if is_told or not items(study, "rejected") else f"Passed over: {_rejections(study)}."


def unproven(study: Document) -> str:
    """Say that a study hands over settings which are not shown to be better; empty: it does not."""
    changed = part(study, "best", "config") != part(study, "baseline", "config") or (
        text(study, "best", "engine") != text(study, "baseline", "engine")
        or text(study, "best", "front") != text(study, "baseline", "front")
    )
    known = part(study, "best") and part(study, "baseline")
    word = verdicts.confirmed(study).word
    if known and changed and word == "no difference":
        return _unshown(study)
    if not known or not changed or word != "not confirmed":
        return ""
    said = "these settings are not confirmed; what the trials showed of them may be luck."
    if text(study, "outcome", "state") in {"unfinished", "stopped"}:
        said += f" dyno tune --resume {shlex.quote(_place(study))} goes on with the study."
    return said


def _unshown(study: Document) -> str:
    """Say what who has the settings of a study without a difference can do."""
    found = verdicts.confirmed(study)
    times = f" ({found.times}, {found.basis})" if found.times else ""
    where = (
        "those of the baseline"
        if text(study, "best", "engine") == text(study, "baseline", "engine")
        and text(study, "best", "front") == text(study, "baseline", "front")
        else f"{text(study, 'baseline', 'engine')} behind {text(study, 'baseline', 'front')}"
    )
    baseline = described(part(study, "baseline", "config"))
    pairs = 2 * found.pairs
    more = ["--resume", _place(study), "--pairs", f"{pairs:g}"]
    if number(study, "spec", "confirm_until") is not None:
        most = max(pairs, number(study, "spec", "max_pairs") or 0)
        more += ["--max-pairs", f"{most:g}"]
    return (
        f"these settings are not shown to be better than {where}, {baseline}{times}. Without"
        f" another reason for them keep the baseline; dyno tune {shlex.join(more)} measures more"
        " pairs."
    )


def remarks(study: Document) -> list[str]:
    """Return what belongs beside a verdict: who else looked good, SLOs, output, where it ran."""
    found = [] if stands_alone(study) else [passed_over(study), of_slo(study)]
    found += _ended_by_hand(part(study, "outcome"))
    found.append(of_patience(study))
    found.append(withdrawn(study))
    found += interactions(study)
    found += quality.of_study(study)
    moves = texts(study, "moves")
    if moves:
        found.append(f"Not all of it was measured in one place: {'; '.join(moves)}.")
    beside_it = _OF_PAIRS | (_OF_NO_WINNER if stands_alone(study) else frozenset())
    trials = items(study, "trials")
    failed = sum(text(trial, "state") == "failed" for trial in trials)
    if stands_alone(study) and 2 * failed >= len(trials):  # "no config beats it" says little then
        beside_it |= {"failed-trials"}
    found += [text(one, "text") for one in items(study, "doubts") if text(one, "code") in beside_it]
    beside = texts(study, "beside")
    if beside:
        found.append(f"{wording.studies_beside(beside)}.")
    return [one for one in found if one]


def _ended_by_hand(outcome: Document) -> list[str]:
    """Say after how many trials a person had enough of them, if one had."""
    tried, trials = number(outcome, "tried"), number(outcome, "trials")
    if text(outcome, "ended_by") != "hand" or not tried or trials is None:
        return []
    return [f"The trials were ended by hand after {tried:g} of {trials:g}."]


def of_patience(study: Document) -> str:
    """Say that the trials ended before all were tried, as a next one did not pay; else empty."""
    outcome = part(study, "outcome")
    if text(outcome, "ended_by") != "patience":
        return ""
    tried, trials = number(outcome, "tried") or 0, number(outcome, "trials") or 0
    gain = number(outcome, "expected_gain")
    why = (
        "the last ones were no better"
        if gain is None
        else f"the next one was expected to gain {wording.share(gain, 1)}"
    )
    return f"The trials ended after {tried:g} of {trials:g}: {why}."


def withdrawn(study: Document) -> str:
    """Say which trials were begun, or were to be measured once more, and were not; else empty."""
    left = items(study, "withdrawn")
    if not left:
        return ""
    named = "; ".join(
        f"trial {text(one, 'id')}{_of_stack(one)}, {described(part(one, 'config'))}"
        + (f" (failed beside others: {text(one, 'failed')})" if text(one, "failed") else "")
        for one in left
    )
    return f"Not measured to the end, as {text(left[0], 'why')}: {named}."


def _of_stack(one: Document) -> str:
    """Say of which combination a trial is, if the study has several; else empty."""
    return f" of {stacks.named(one)}" if text(one, "engine") else ""


def interactions(study: Document) -> list[str]:
    """Return a sentence for each group of knobs whose effects are not each their own."""
    return [
        text(one, "why")
        for one in items(study, "interactions")
        if text(one, "kind") not in _NO_INTERACTION
    ]


def of_slo_setting(study: Document, row: Document) -> str:
    """Say of a row of the ablation that the SLOs hang on its setting; empty: they do not."""
    return of_slo_runs(study, row) if part(row, "slo_met").get("decides") else ""


def of_slo_runs(study: Document, row: Document) -> str:
    """Say in how many runs of a row of the ablation the SLOs were met, with its setting or not."""
    met = part(row, "slo_met")
    wanted = " and ".join(texts(study, "slo"))
    without, whole = _share(met.get("without") or []), _share(met.get("with") or [])
    return f"{wanted} is met in {whole}, without it in {without}"


def of_slo(study: Document) -> str:
    """Say who meets a study's SLOs; empty: it has none, or an older version judged them not."""
    outcome = part(study, "slo_outcome")
    if not outcome:
        return ""
    wanted = " and ".join(texts(study, "slo"))
    if not outcome.get("met_by_some"):
        return f"No config that was tried meets {wanted}{_nearest(part(outcome, 'nearest'))}."
    baseline, tuned = outcome.get("baseline_meets") or [], outcome.get("tuned_meets") or []
    if not tuned or text(study, "outcome", "state") == "rejected":
        said = "meets" if baseline and all(baseline) else "misses"
        return f"The baseline {said} {wanted}{_faster(study, part(outcome, 'faster'))}."
    if all(tuned) or not any(tuned):
        verb, other = ("meets", "misses") if all(tuned) else ("misses", "meets")
        if all(baseline) == all(tuned) and any(baseline) == any(tuned):
            return f"Tuned {verb} {wanted}, as the baseline does."
        if all(baseline) or not any(baseline):
            return f"Tuned {verb} {wanted}, which the baseline {other}{_at_the_price(study)}."
    return f"Tuned meets {wanted} in {_share(tuned)}, the baseline in {_share(baseline)}."


def misses_slo(study: Document) -> bool:
    """Tell whether what a study hands over missed its SLOs in some run: winner, else baseline."""
    outcome = part(study, "slo_outcome")
    if not outcome:
        return False
    rejected = text(study, "outcome", "state") == "rejected"
    stays = rejected or bool(verdicts.confirmed(study).stays)
    tuned = [] if stays else outcome.get("tuned_meets") or []
    return not all(tuned or outcome.get("baseline_meets") or [])


def _at_the_price(study: Document) -> str:
    """Say beside an SLO what happened to the objective: "; 0.75 times the token rate"."""
    times = verdicts.confirmed(study).times
    return f"; {times}" if times else ""


def _faster(study: Document, faster: Document) -> str:
    """Say which trial had a better value than the baseline, and is passed over for the SLOs."""
    if not faster:
        return ""
    of = parse_objective(text(study, "objective"))
    values = (wording.significant(number(faster, name)) for name in ("value", "baseline"))
    said = " against ".join(values)
    return (
        f"; {described(part(faster, 'config'))} had the better {title(of.key)} in its trial,"
        f" {said} {unit(of.key)}, and misses it"
    )


def _nearest(nearest: Document) -> str:
    if not nearest:
        return ""
    values, units = part(nearest, "values"), part(nearest, "units")
    said = ", ".join(
        f"{expr} at {wording.significant(value)} {units.get(expr) or ''}".rstrip()
        for expr, value in values.items()
    )
    return f"; nearest: {described(part(nearest, 'config'))} ({said})"


def _share(met: Sequence[Any]) -> str:
    return f"{sum(map(bool, met))} of {counted(len(met), 'run')}"


def _place(study: Document) -> str:
    """Return what --resume finds a study by: its folder, of an older document its name."""
    return text(study, "dir") or text(study, "study")
