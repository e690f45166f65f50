"""Doubts of a confirmation's pairs: what befell them that their ratio does not show.

Two runs of a pair are to differ in their config alone. A stop between them, a run that failed and
was made again, and a run that has doubts of its own are other differences.
"""

from collections import Counter
from collections.abc import Sequence

from llmdyno.results.documents import Document, items, number, part, text, texts
from llmdyno.results.lost import of_level, together
from llmdyno.units import counted

STOPPED = "dyno-stopped"  # of a step; a run's own summary does not know of it
# Of the codes of a run's own doubts those that tell of a fault. A short window or few requests are
# in every run alike, and the interval knows of them.
FAULTS = (
    *("failed-requests", "too-long-requests", "stopped-early", "interrupted", "client-bound"),
    *("rate-not-delivered", "users-not-reached", "server-not-ours-alone", "gpu-throttled"),
    *("several-models", "changed-speed", "stood-still", STOPPED),
)
# Likewise, if they are in fewer than half of the runs: a standstill makes them there. In the others
# the server may work so.
_ODD = ("held-back-stream", "no-steady-window")
_ARMS = {"before": "baseline", "after": "tuned"}

Finding = tuple[str, str]  # code and text


def find(confirmation: Document) -> list[Finding]:
    """Return what befell the pairs of a confirmation; of an older one nothing is known."""
    measured = [run for run in items(confirmation, "runs") if text(run, "state") == "measured"]
    return [
        *_torn(measured),
        *_repeated(measured),
        *_unsteady(confirmation, measured),
        *_renamed(measured),
        *_doubtful(measured),
    ]


def _torn(runs: Sequence[Document]) -> list[Finding]:
    sittings: dict[float | None, set[str]] = {}
    for run in runs:
        sittings.setdefault(number(run, "pair"), set()).add(text(run, "sitting"))
    torn = sum(len(found) > 1 for found in sittings.values())
    if not torn:
        return []
    said = (
        f"Of {torn} of {counted(len(sittings), 'pair')} one run was measured before the study was"
        " stopped and the other after that: what changed meanwhile is in their ratio."
    )
    return [("torn-pairs", said)]


def _repeated(runs: Sequence[Document]) -> list[Finding]:
    failed = [(run, classes) for run in runs if (classes := texts(run, "failed_before"))]
    if not failed:
        return []
    told = [
        f"{_arm(run)} in pair {(number(run, 'pair') or 0) + 1:g} ({', '.join(classes)})"
        for run, classes in failed
    ]
    said = (
        f"{counted(len(failed), 'run')} of the pairs failed and {_were(len(failed))} made again:"
        f" {'; '.join(told)}."
    )
    return [("repeated-runs", said)]


def _unsteady(confirmation: Document, runs: Sequence[Document]) -> list[Finding]:
    """Doubt a config that fails now and then, which a second try hides."""
    in_pairs = Counter(text(run, "arm") for run in runs for _ in texts(run, "failed_before"))
    told = []
    for arm, name in _ARMS.items():
        made = number(confirmation, "starts", arm, "made") or 0
        failed = texts(part(confirmation, "starts", arm), "failed")
        if len(failed) > 1 or (failed and not in_pairs[arm]):
            told.append(f"the {name} in {len(failed)} of {made:g} ({', '.join(failed)})")
    if not told:
        return []
    said = (
        f"Starts failed that worked when they were tried again: {'; '.join(told)}. It may be so in"
        " operation, too."
    )
    return [("failing-starts", said)]


def _renamed(runs: Sequence[Document]) -> list[Finding]:
    """Doubt pairs in which one stack names another model in some runs, where one was asked."""
    named: dict[tuple[str, ...], Counter[tuple[str, str]]] = {}
    for run in runs:
        for asked in part(run, "answered_by"):
            names = " and ".join(f"'{name}'" for name in sorted(part(run, "answered_by", asked)))
            of = (text(run, "engine"), text(run, "front"), asked)
            named.setdefault(of, Counter())[_arm(run), names] += 1
    found = []
    for (*_, asked), counts in named.items():
        if len({names for _, names in counts}) == 1:
            continue
        told = [
            f"{names} in {counted(runs_of, 'run')} of the {arm}"
            for (arm, names), runs_of in counts.items()
        ]
        said = (
            f"Where '{asked}' was asked, the answers name {'; '.join(told)}. The runs of the pairs"
            " were not served the same model: their ratio tells nothing of the settings."
        )
        found.append(("several-models", said))
    return found


def _doubtful(runs: Sequence[Document]) -> list[Finding]:
    of_arm = Counter(_arm(run) for run in runs)
    found = Counter((code, _arm(run)) for run in runs for code in set(texts(run, "doubts")))
    odd = [code for code in _ODD if 2 * sum(found[code, arm] for arm in of_arm) < len(runs)]
    told = [
        f"{code} in {found[code, arm]} of {counted(of_arm[arm], 'run')} of the {arm}"
        f"{_lost(runs, arm) if code == 'failed-requests' else ''}"
        for code in (*FAULTS, *odd)
        for arm in _ARMS.values()
        if found[code, arm]
    ]
    if not told:
        return []
    return [("doubtful-pairs", f"Runs of the pairs have doubts of their own: {'; '.join(told)}.")]


def _lost(runs: Sequence[Document], arm: str) -> str:
    """Say which share of an arm's requests failed; empty: an older study does not tell."""
    lost = together(of_level(run) for run in runs if _arm(run) == arm).lost
    return f" ({100 * lost:.3g} % of its requests)" if lost else ""


def _arm(run: Document) -> str:
    return _ARMS.get(text(run, "arm"), "")


def _were(count: int) -> str:
    return "was" if count == 1 else "were"
