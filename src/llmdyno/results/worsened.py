"""What is worse in a winner than in the baseline, whatever the objective says of it."""

from llmdyno.results import titles, wording
from llmdyno.results.documents import Document, levels, number, part
from llmdyno.results.metrics import BY_NAME
from llmdyno.results.proportions import worded

_WORSE = 1.1  # times; single runs differ by less without a cause


def what_got_worse(study: Document) -> list[str]:
    """Say for each level which metrics are clearly worse in the winner's full run."""
    baseline, best = (levels(part(study, arm, "summary")) for arm in ("baseline", "best"))
    found = {name: _worse(old, best[name]) for name, old in baseline.items() if name in best}
    return [f"at {name} {wording.listed(worse)}" for name, worse in found.items() if worse]


def _worse(old: Document, new: Document) -> list[str]:
    said = []
    for row in BY_NAME.values():
        for stat in ("p50", "p99") if row.observe is not None else ("mean",):
            before, after = (number(level, row.name, stat) for level in (old, new))
            if not before or after is None:
                continue
            worse = after / before if row.better == "lower" else before / max(after, 1e-12)
            if worse > _WORSE:
                key = row.name if row.rate else f"{row.name}_{stat}"
                said.append(f"the {titles.in_words(key)} is {worded(after / before, key)}")
    return said
