"""Doubts as lines for people: one line a code, however many levels it is said of.

The document has each doubt of each level; a person reads the same sentence with other numbers only
once.
"""

import re
from collections import Counter
from collections.abc import Sequence

from llmdyno.results.doubts import Doubt

# A number that stands alone: not the 99 of "p99" and not the 500 of "http-500".
_NUMBER = re.compile(r"(?<![\w.-])\d[\d,]*(?:\.\d+)?(?![\w-])")


def sentences(found: Sequence[Doubt]) -> list[str]:
    """Return a sentence for each code, in the order in which the codes come first.

    Where the levels' sentences differ in numbers alone, the numbers are ranges. Where they differ
    in words, it is that of the last level, the highest load as a rule.
    """
    said: Counter[tuple[str, str | None]] = Counter()
    groups: dict[tuple[str, int], list[Doubt]] = {}
    for doubt in found:
        # A level's second doubt of a code, and what is said of the whole run, stand by themselves.
        groups.setdefault((doubt.code, said[doubt.code, doubt.at]), []).append(doubt)
        said[doubt.code, doubt.at] += 1
    return [_sentence(group) for group in groups.values()]


def _sentence(group: Sequence[Doubt]) -> str:
    last = group[-1]
    if len(group) == 1:
        return last.sentence
    names = _names([doubt.at or "" for doubt in group])
    words = {_NUMBER.sub("#", doubt.text) for doubt in group}
    if len(words) > 1:
        return f"{names}, in the words for {last.at}: {last.text}"
    columns = iter(zip(*(_NUMBER.findall(doubt.text) for doubt in group), strict=True))
    return f"{names}: {_NUMBER.sub(lambda _: _range(next(columns)), last.text)}"


def _range(written: Sequence[str]) -> str:
    """Write the numbers of several levels as one: as it stands, or from the least to the most."""
    if len(set(written)) == 1:
        return written[0]
    ordered = sorted(written, key=lambda one: float(one.replace(",", "")))
    return f"{ordered[0]} to {ordered[-1]}"


def _names(names: Sequence[str]) -> str:
    """Write the names of levels: "10, 50 and 100 users"."""
    users = [re.fullmatch(r"([\d,]+) users?", name) for name in names]
    if all(users):
        counts = [match[1] for match in users if match is not None]
        return f"{', '.join(counts[:-1])} and {counts[-1]} users"
    return f"{', '.join(names[:-1])} and {names[-1]}"
