"""The documents as tests read them: their blocks of code, and the commands in these."""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import msgspec

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
# Titles of blocks, as the reader sees them. Blocks without one run here, in order.
ONCE = "once"  # an installation
ANOTHER_TERMINAL = "in another terminal"  # runs until the page's end
NEEDS_GPU, NEEDS_SERVER = "needs a GPU", "needs your server"
ENDS_WITH = "ends with "  # ... and the exit status

_FENCE = re.compile(r'^ *```(\w*)(?: title="(.*)")?$')


class Block(msgspec.Struct, frozen=True):
    """A block of code: its language, its title, and its lines."""

    language: str
    title: str
    lines: tuple[str, ...]


def pages() -> list[str]:
    """Return the pages that people write commands in, by their path from the root."""
    found = {path.relative_to(ROOT) for path in DOCS.rglob("*.md")}
    return ["README.md", *sorted(map(str, found - {Path("docs/commands.md")}))]


def blocks(page: str) -> Iterator[Block]:
    """Yield the blocks of a page: fenced ones, and each run of lines indented by four."""
    fence: re.Match[str] | None = None
    kept: list[str] = []
    for line in [*(ROOT / page).read_text().splitlines(), ""]:
        if fence is not None:
            if line.strip() == "```":
                yield Block(fence[1], fence[2] or "", tuple(kept))
                fence, kept = None, []
            else:
                kept.append(line)
        elif line.startswith("    "):
            kept.append(line[4:])
        else:
            if kept:
                yield Block("", "", tuple(kept))
                kept = []
            fence = _FENCE.match(line)
    assert fence is None, f"{page}: a block does not end"


def lines(page: str) -> list[str]:
    """Return the lines of a page's blocks that call `dyno`."""
    return [line for block in blocks(page) for line in block.lines if calls(line)]


def calls(line: str) -> list[list[str]]:
    """Return the arguments of each `dyno` that a line of shell calls."""
    if not re.match(r"(\w+=\S* |echo .*\| )?dyno ", line):
        return []
    lexer = shlex.shlex(line, posix=True, punctuation_chars=";|<>&")
    lexer.whitespace_split = True
    found: list[list[str]] = []
    words: list[str] | None = None
    for word in lexer:
        if word == "dyno" and words is None:
            words = []
            found.append(words)
        elif set(word) <= set(";|<>&"):
            words = None
        elif words is not None:
            words.append(word)
    return found
