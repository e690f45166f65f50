"""What the names after `dyno compare` stand for: runs, rounds of runs, studies, imports, baselines.

A study by itself is its baseline against its winner; beside others it stands for its winner.
"""

from collections.abc import Sequence
from pathlib import Path

from llmdyno import store
from llmdyno.errors import UsageError
from llmdyno.results import baselines, conclusions, verdicts
from llmdyno.results.comparison import Decided
from llmdyno.results.documents import Document, items, number, part, text
from llmdyno.results.likeness import Difference, rounds_that_differ
from llmdyno.results.sides import Side, Start
from llmdyno.results.slo import parse_objective
from llmdyno.store import HELD, JOURNAL, LEDGER, STUDY, SUMMARY


def read_sides(names: Sequence[str]) -> tuple[Side, list[Side], Decided | None]:
    """Return what the others are compared with, the others, and what a study by itself found.

    Raises:
        UsageError: there are too few names, one of them is of nothing, its runs are not alike, or
            a run would be compared with itself.
        StorageError: a run cannot be read.
    """
    if len(names) == 1:
        folder = store.find(names[0])
        if not _is_study(folder):
            raise UsageError(
                f"dyno compare {names[0]}: name a second run to compare it with, or one study."
            )
        return _arms(names[0], folder)
    sides = [None if name.startswith(baselines.PREFIX) else _side(name) for name in names]
    like = next((side for side in sides if side is not None), None)
    if like is None:
        raise UsageError("dyno compare: name a run to compare with the baselines.")
    read = [
        _baseline(name, like) if side is None else side
        for name, side in zip(names, sides, strict=True)
    ]
    for after in read[1:]:
        if twice := _in_both(read[0].starts, after.starts):
            raise UsageError(
                f"dyno compare {read[0].name} {after.name}: the run {twice} is in both; name"
                " another one to compare it with."
            )
    return read[0], read[1:], None


def _in_both(some: Sequence[Start], others: Sequence[Start]) -> str:
    """Return the id of a run that is among both, be it as a copy; empty: none is."""
    known = {_identity(start) for start in some}
    return next((start.run for start in others if _identity(start) in known), "")


def _identity(start: Start) -> tuple[str, str]:
    """Return what tells a run from others; another tool may not have said when it began."""
    began = text(start.summary, "started")
    return start.run, began or str(start.folder.resolve())


def runs_of(name: str) -> list[Start]:
    """Return the runs that a name stands for, which may not be a study's.

    Raises:
        UsageError: it is a study's or of nothing, or its runs are not alike.
        StorageError: a run cannot be read.
    """
    side = _side(name)
    if side.kind == "study":
        raise UsageError(f"{name}: is a study; name one of its runs.")
    return list(side.starts)


def _baseline(name: str, like: Side) -> Side:
    folders = baselines.find(name.removeprefix(baselines.PREFIX), like.first.summary)
    starts = [Start(folder) for folder in folders]
    return Side(name, "run" if len(starts) == 1 else "rounds of runs", starts)


def _side(name: str) -> Side:
    path = Path(name)
    if path.is_file() and not any((path.parent / file).exists() for file in HELD):
        return _foreign(name, path)
    if "," in name and not path.exists():
        return _rounds(name, [store.find(one.strip()) for one in name.split(",") if one.strip()])
    folder = store.find(name)
    if _is_study(folder):
        study = _study(folder)
        arm = "before" if verdicts.confirmed(study).stays else "after"
        starts = _confirmed(folder, study, arm) or [_arm(folder, study, "best")]
        return Side(name, "study", starts)
    if any((folder / file).exists() for file in (JOURNAL, SUMMARY)):
        start = Start(folder)
        return Side(name, "import" if start.is_imported else "run", [start])
    inner = [
        one
        for one in sorted(folder.iterdir())
        if one.is_dir() and any((one / file).exists() for file in (JOURNAL, SUMMARY))
    ]
    if not inner:
        raise UsageError(f"{name}: holds neither a run nor a study.")
    return _rounds(name, inner)


def _rounds(name: str, folders: Sequence[Path]) -> Side:
    """Return equal runs as one side.

    Raises:
        UsageError: they are not equal, or one is there twice.
    """
    side = Side(name, "rounds of runs", [Start(folder) for folder in folders])
    for place, start in enumerate(side.starts):
        if _in_both(side.starts[:place], [start]):
            raise UsageError(
                f"{name}: the run {start.run} is there twice; it is one observation: name it once."
            )
    if unlike := rounds_that_differ(side):
        raise UsageError(
            f"{name}: its runs are not rounds of one another: {unlike}; name one of them."
        )
    return side


def _foreign(name: str, path: Path) -> Side:
    """Return another tool's file as it is, without storing it."""
    from llmdyno.importers import import_file

    return Side(name, "import", [Start(path, import_file(path))])


def _is_study(folder: Path) -> bool:
    return any((folder / file).exists() for file in (LEDGER, STUDY))


def _study(folder: Path) -> Document:
    """Read a study's document; of one that did not end, derive it.

    Raises:
        UsageError: its ledger is empty.
        StorageError: it cannot be read.
    """
    if (folder / STUDY).exists():
        return store.read_document(folder / STUDY)
    from llmdyno.tune.combined_study import document_of
    from llmdyno.tune.ledger import Ledger

    ledger = Ledger(folder)
    if ledger.began is None:
        raise UsageError(f"{folder}: its ledger is empty.")
    return document_of(folder, ledger)[0]


def _arms(name: str, folder: Path) -> tuple[Side, list[Side], Decided]:
    """Return baseline and winner of a study, by its confirmation if it has one."""
    study = _study(folder)
    before, after = (_confirmed(folder, study, arm) for arm in ("before", "after"))
    if not before or not after:
        before, after = ([_arm(folder, study, arm)] for arm in ("baseline", "best"))
    found = verdicts.confirmed(study)
    objective = parse_objective(text(study, "objective") or "token_rate")
    word = found.word if found.word in {*verdicts.OPENINGS, "not confirmed"} else "not confirmed"
    decided = Decided(
        key=(objective.metric, objective.stat),
        at=found.level,
        word=word,  # type: ignore[arg-type]
        said=text(study, "outcome", "said") or conclusions.conclusion(study),
        settings=_settings(study),
        doubts=items(study, "doubts"),
        stays=bool(_in_both(before, after)),
    )
    other = "equal" if found.is_equal else "compared" if found.stays else "best"
    sides = (Side(f"{name} baseline", "study", before), Side(f"{name} {other}", "study", after))
    return sides[0], [sides[1]], decided


def _confirmed(folder: Path, study: Document, arm: str) -> list[Start]:
    """Return the runs of one arm in the pairs of a confirmation that are whole and still there."""
    by_pair: dict[float | None, dict[str, Document]] = {}
    for run in items(part(study, "confirmation"), "runs"):
        if text(run, "state") in {"", "measured"}:
            by_pair.setdefault(number(run, "pair"), {})[text(run, "arm")] = run
    whole = [two for two in by_pair.values() if len(two) == 2 and _in_one_place(two)]
    folders = [folder / text(two[arm], "run") for two in whole]
    if not all(any((one / file).exists() for file in (JOURNAL, SUMMARY)) for one in folders):
        return []
    return [Start(one) for one in folders]


def _in_one_place(two: dict[str, Document]) -> bool:
    return two["before"].get("place") == two["after"].get("place")


def _arm(folder: Path, study: Document, arm: str) -> Start:
    """Return the run of a study's baseline or winner.

    Raises:
        UsageError: it was not measured.
    """
    summary = part(study, arm, "summary")
    if not summary:
        raise UsageError(f"{folder}: its {arm} was not measured; there is nothing to compare.")
    run = folder / "runs" / text(summary, "run")
    return Start(run) if (run / JOURNAL).exists() else Start(run, summary)


def _settings(study: Document) -> list[Difference]:
    """Return in which settings the winner, or what is no better, differs from the baseline."""
    from llmdyno.knobs import show

    before, after = (part(study, arm, "config") for arm in ("baseline", "best"))
    if (found := verdicts.confirmed(study)).stays:
        after = found.config
    told = [
        (name, *(show(side[name]) if name in side else "the default" for side in (before, after)))
        for name in dict.fromkeys([*before, *after])
        if before.get(name) != after.get(name)
    ]
    return [
        Difference(kind="settings", name=name, before=old, after=new) for name, old, new in told
    ]
