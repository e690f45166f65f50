"""Sessions: the turns that are asked one after the other, and how a data set's rows become them.

A row holds a prompt under one of the usual names (Dolly's, OpenOrca's, Alpaca's), which is a
session of one turn, or a conversation, which is a session of its questions in order. What stands in
the history of later turns depends on the form:

    messages        OpenAI's form of a request: the answers that the row has recorded are sent
    conversations   ShareGPT's form of a talk: the model under test answers in its own words

Where such a row lacks one of the answers, they are the model's own. What a row holds and no
request carries is counted (`DataSet.notes`).
"""

from collections import Counter
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path

import msgspec

from llmdyno import plugins
from llmdyno.errors import UsageError
from llmdyno.spec import CHAT_OUTPUT_TOKENS
from llmdyno.units import counted
from llmdyno.workload import _rows, dataset
from llmdyno.workload.dataset import Row

_LENGTH_KEYS = (
    *("max_tokens", "output_tokens", "output_length", "output_tokens_count"),
    *("max_completion_tokens", "max_output_tokens", "max_new_tokens"),
)
# The length of an answer is estimated from its text where the data set has no length. English has
# about so many.
_CHARACTERS_PER_TOKEN = 4

# What a row may hold that no request carries: how it is said of one row, and of several.
UNUSED: Mapping[str, tuple[str, str]] = {
    "empty": ("is empty and left out", "are empty and left out"),
    "unasked": ("holds no question and is left out", "hold no question and are left out"),
    "textless": (
        "holds no text but images or other parts, and is left out",
        "hold no text but images or other parts, and are left out",
    ),
    "images": ("holds images: only its text is sent", "hold images: only their text is sent"),
    "audio": ("holds audio: only its text is sent", "hold audio: only their text is sent"),
    "parts": (
        "holds parts that are no text: only its text is sent",
        "hold parts that are no text: only their text is sent",
    ),
    "tools": (
        "holds turns of tools, which are not sent",
        "hold turns of tools, which are not sent",
    ),
    "systems": (
        "holds several system prompts: only the first is sent",
        "hold several system prompts: only the first is sent",
    ),
    "greetings": (
        "begins with an answer, which is not sent",
        "begin with an answer, which is not sent",
    ),
    "turns": (
        "is a conversation: only its first question is sent; --workload sessions sends all",
        "are conversations: only their first questions are sent; --workload sessions sends all",
    ),
}


class Item(msgspec.Struct, frozen=True, kw_only=True):
    """One request of a workload, before an endpoint and a model are chosen."""

    number: int  # equal numbers of a run are equal prompts, unless every prompt is new
    prompt: str
    system_prompt: str = ""
    max_tokens: int | None = None
    exact_length: bool = False
    session: int = -1  # which session of the level it belongs to; -1: it stands alone
    turn: int = 0
    history: tuple[tuple[str, str], ...] = ()  # questions of the turns before, and their answers


Session = tuple[Item, ...]


class DataSet(msgspec.Struct, frozen=True, kw_only=True):
    """A data set's sessions, and how many of its rows hold what no request carries."""

    name: str
    sessions: tuple[Session, ...]
    rows: int
    unused: Mapping[str, int]  # by the names of UNUSED

    def notes(self, *, in_turns: bool) -> list[str]:
        """Say what is not sent, a sentence a kind.

        Args:
            in_turns: whether all turns of a conversation are asked, or only its first.
        """
        return [
            f"--dataset {self.name}: {said}."
            for said in _said(self.unused, self.rows, left_out={"turns"} if in_turns else set())
        ]


def _said(unused: Mapping[str, int], rows: int, left_out: set[str]) -> list[str]:
    return [
        f"{unused[kind]:,} of {counted(rows, 'row')} {words[unused[kind] != 1]}"
        for kind, words in UNUSED.items()
        if unused.get(kind) and kind not in left_out
    ]


def sessions_of(name: str, system_prompt: str, *, own_lengths: bool) -> list[Session]:
    """Return a data set's sessions; a row with a single prompt is a session of one turn.

    Args:
        name: a file, or hf:org/name.
        system_prompt: for rows that have none.
        own_lengths: ask for answers of exactly as many tokens as the data set's have.

    Raises:
        UsageError: the data set cannot be read, or holds no prompts; says which line and why.
    """
    return list(read(name, system_prompt, own_lengths=own_lengths).sessions)


def read(name: str, system_prompt: str, *, own_lengths: bool) -> DataSet:
    """Return a data set, read anew only if it has changed since; arguments as `sessions_of`.

    Raises:
        UsageError: as `sessions_of`.
    """
    path = Path(name)
    changed_ns = path.stat().st_mtime_ns if path.is_file() else 0
    return _read(name, system_prompt, own_lengths, changed_ns)


@lru_cache(maxsize=1)
def _read(name: str, system_prompt: str, own_lengths: bool, _changed_ns: int) -> DataSet:
    found: list[Session] = []
    unused: Counter[str] = Counter()
    number = rows = 0
    for place, row in dataset.rows(name):
        rows += 1
        where = f"--dataset {name}, {place.name}"
        try:
            asked = _rows.read_row(row)
        except ValueError as error:
            raise UsageError(_trace_told(name, row) or f"{where}: {error}.") from error
        unused.update(asked.unused)
        opened = _rows.opened(row)
        session = tuple(
            Item(
                number=number + place_in_session,
                prompt=turn.prompt,
                system_prompt=asked.system_prompt or system_prompt,
                max_tokens=_length(opened, turn.answer, where, own=own_lengths),
                exact_length=own_lengths,
                history=asked.history(place_in_session),
            )
            for place_in_session, turn in enumerate(asked.turns)
        )
        number += len(session)
        if session:
            found.append(session)
    if not found:
        why = "; ".join(_said(unused, rows, left_out=set()))
        raise UsageError(f"--dataset {name}: holds no prompts{f': {why}' if why else ''}.")
    return DataSet(name=name, sessions=tuple(found), rows=rows, unused=dict(unused))


def _trace_told(name: str, row: Row) -> str:
    """Say that a data set without prompts is a trace; "" if it is none."""
    for kind in plugins.names("workload.traces"):
        if plugins.load("workload.traces", kind).recognises(row.keys()):
            return (
                f"--dataset {name}: is a trace ({kind}), which has times and lengths but no"
                " prompts; replay it with --arrival trace."
            )
    return ""


def _length(row: Row, answer: str, where: str, *, own: bool) -> int:
    for key in _LENGTH_KEYS:
        if row.get(key) is None or row[key] == "":
            continue
        try:
            length = int(float(row[key]))
        except (TypeError, ValueError, OverflowError):
            length = 0
        if length < 1:
            raise UsageError(
                f"{where}: {key} is {row[key]!r}; must be a whole number of at least 1."
            )
        return length
    if not own:
        return CHAT_OUTPUT_TOKENS
    if not answer:
        raise UsageError(
            f"{where}: --dataset-osl needs an answer or its length, under any of"
            f" {', '.join((*_LENGTH_KEYS, *_rows.ANSWER_KEYS))}."
        )
    return max(1, round(len(answer) / _CHARACTERS_PER_TOKEN))
