"""What a person types to go on with a study."""

import shlex
from pathlib import Path

from llmdyno.store import LEDGER, STACKS


def resume(folder: Path, *options: str) -> str:
    """Return the command that goes on with a study.

    Args:
        folder: of the study, or of one combination of a study over several: that is part of it.
        options: more of the command.
    """
    return shlex.join(["dyno", "tune", "--resume", str(whole_of(folder)), *options])


def whole_of(folder: Path) -> Path:
    """Return the folder of the study that one is a combination of; else the folder itself."""
    whole = folder.resolve().parent.parent
    if folder.resolve().parent.name != STACKS or not (whole / LEDGER).exists():
        return folder
    return folder.parent.parent if folder.parent.name == STACKS else whole
