"""Result files as text, however they were saved, and places in them."""

import re
from collections.abc import Sequence
from pathlib import Path

from llmdyno import files
from llmdyno.errors import StorageError, UsageError


def read_text(path: Path) -> str:
    """Return a file's text, unpacked and without a byte order mark.

    Raises:
        StorageError: the file cannot be read.
        UsageError: it holds no text; the sentence says what it is instead.
    """
    try:
        return files.text(path)
    except files.FileError as error:
        failure = StorageError if getattr(error.__cause__, "errno", None) else UsageError
        raise failure(f"{path}: {error}.") from error


def numbered_lines(text: str) -> list[tuple[int, str]]:
    """Return the lines that are not blank, with their numbers from 1.

    A line ends at a line feed alone: JSON may hold U+2028 or U+0085 in a text.
    """
    lines = enumerate(text.split("\n"), 1)
    return [(number, line.strip()) for number, line in lines if line.strip()]


def place(text: str, offset: int) -> str:
    """Return where an offset is, as an editor counts: "line 2, column 151"."""
    line = text.count("\n", 0, offset) + 1
    column = offset - text.rfind("\n", 0, offset)
    return f"line {line}, column {column}"


def shortened(names: Sequence[str], most: int = 8) -> str:
    """Return names as a list for a sentence: the first few, each of a bearable length."""
    shown = [re.sub(r"\s+", " ", name)[:40] for name in names[:most]]
    return ", ".join(shown) + (", …" if len(names) > most else "")
