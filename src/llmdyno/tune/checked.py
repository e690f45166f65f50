"""What a study has asked of its quality gate so far: its quality.json, and what is told of it."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import msgspec

from llmdyno import store
from llmdyno.knobs import Value
from llmdyno.quality.answers import Answers
from llmdyno.quality.gate import SCHEMA
from llmdyno.quality.lm_eval import Scores
from llmdyno.results.quality import sentences

if TYPE_CHECKING:
    from llmdyno.tune.runner import Runner  # a reader of a study loads no benchmark

QUALITY = "quality.json"

T = TypeVar("T")


class Checked(msgspec.Struct, frozen=True, kw_only=True):
    """A config that was compared with the baseline, by its answers or by lm-eval's tasks."""

    config: dict[str, Value]
    document: dict[str, Any]
    refused: bool = False
    scores: Scores | None = None  # in lm-eval's tasks; None: it has none, or a version kept none
    place: int = 0  # of the study, where it gave these
    engine: str = ""  # of a study over several, and front; empty: the study has one
    front: str = ""

    def is_of(self, config: Mapping[str, Value], stack: tuple[str, str]) -> bool:
        """Tell whether it is this config of this engine and front."""
        return self.config == config and (self.engine, self.front) == stack


class Kept(msgspec.Struct, kw_only=True):
    """The content of a study's quality.json: what was asked, and what came of each config."""

    version: int = 1
    baseline: Answers | None = None
    checked: list[Checked] = []
    scores: Scores | None = None  # the baseline's, of lm-eval's tasks
    # The place of the study, as `Ledger.place` has it, where the baseline gave these.
    baseline_place: int = 0
    scores_place: int = 0
    examined: list[Checked] = []  # by lm-eval; "why" in a document says why there are no scores


def read(folder: Path) -> Kept:
    """Return what a study has asked so far; nothing where there is no such file.

    Raises:
        StorageError: the file cannot be read.
    """
    path = folder / QUALITY
    if not path.exists():
        return Kept()
    return msgspec.convert(store.read_json(path), Kept)


def write(folder: Path, kept: Kept) -> None:
    """Write what a study has asked so far.

    Raises:
        StorageError: it cannot be written.
    """
    store.write_json(folder / QUALITY, msgspec.to_builtins(kept))


def keep(folder: Path, of: Literal["checked", "examined"], new: Checked) -> None:
    """Write what came of a config, in place of what had come of it before.

    Raises:
        StorageError: it cannot be read or written.
    """
    kept = read(folder)
    stack = (new.engine, new.front)
    others = [one for one in getattr(kept, of) if not one.is_of(new.config, stack)]
    write(folder, msgspec.structs.replace(kept, **{of: [*others, new]}))


def in_one_place(baseline: "Runner", other: "Runner", ask: Callable[[], T]) -> T:
    """Return what the baseline says where the other will be asked next; both look around first.

    Args:
        baseline: serves what the other is compared with.
        other: serves the other.
        ask: returns what the baseline has said, or says now, in the study's place.

    Raises:
        DynoError: an engine was replaced by another version, and the study may not go on so.
    """
    while True:
        baseline.look_around()
        said, place = ask(), baseline.ledger.place
        other.look_around()
        if baseline.ledger.place == place:
            return said


def told(
    folder: Path, winner: Mapping[str, Value] | None, stack: tuple[str, str] = ("", "")
) -> dict[str, Any] | None:
    """Return the "quality" of a study's document: of its winner, and of whom it has refused.

    Args:
        folder: of the study.
        winner: its config; None: there is none.
        stack: its engine and front, in a study over several.
    """
    kept = read(folder)
    wins = [winner is not None and one.is_of(winner, stack) for one in kept.checked]
    refused = [
        {"config": one.config, "said": sentences(one.document)[:1], **_of(one)}
        for one, is_winner in zip(kept.checked, wins, strict=True)
        if one.refused and not is_winner
    ]
    documents = (one.document for one, won in zip(kept.checked, wins, strict=True) if won)
    own = next(documents, None)
    examined = (
        one.document for one in kept.examined if winner is not None and one.is_of(winner, stack)
    )
    exam = next(examined, None)
    if own is None and exam is None and not refused:
        return None
    return {
        **(own or {"schema": SCHEMA, "comparison": None, "verdict": None}),
        "refused": refused,
        **({} if exam is None else {"lm_eval": exam}),
    }


def _of(one: Checked) -> dict[str, str]:
    return {"engine": one.engine, "front": one.front} if one.engine else {}
