"""A command in a terminal of 80 columns, recorded and drawn as an SVG that plays by itself.

python dev/recording.py record demo.cast -- dyno tune --engine openvino --model tiny --quick
python dev/recording.py draw demo.cast docs/images/demo.svg

The recording is an asciicast of version 2, which other players read, too. `draw` needs pyte (extra
`pictures`): it plays the recording on a terminal of its own and writes each new screen as a frame.
"""

import argparse
import codecs
import fcntl
import json
import os
import pty
import struct
import sys
import termios
import time
from collections.abc import Iterator
from html import escape
from itertools import pairwise
from pathlib import Path

COLUMNS, ROWS = 80, 24
# The picture takes so long; the last screen stays, the pause between two is at most so long.
PLAYS_S, STAYS_S, PAUSE_MAX_S = 24.0, 8.0, 0.9
FRAMES_MAX = 90
_CELL_PX, _LINE_PX, _EDGE_PX = 8.4, 18, 14
_INK, _PAPER = "#d7dde5", "#151a21"
_COLOURS = {
    "black": "#4b5563", "red": "#ff7b72", "green": "#56d364", "brown": "#e3b341",
    "blue": "#79c0ff", "magenta": "#d2a8ff", "cyan": "#76e3ea", "white": "#f0f3f6",
}  # fmt: skip

Screen = list[str]  # a line's SVG each


def record(target: Path, command: list[str]) -> int:
    """Run a command in a terminal and write what it printed, and when; return its exit status."""
    began_s = time.monotonic()
    child, terminal = pty.fork()
    if child == 0:
        # Here, or the command may ask for its width before there is one.
        size = struct.pack("HHHH", ROWS, COLUMNS, 0, 0)
        fcntl.ioctl(1, termios.TIOCSWINSZ, size)
        os.environ["TERM"] = "xterm-256color"
        os.execvp(command[0], command)  # noqa: S606  # a terminal's child starts so
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    with target.open("w") as file:
        file.write(json.dumps({"version": 2, "width": COLUMNS, "height": ROWS}) + "\n")
        while printed := _read(terminal):
            os.write(sys.stdout.fileno(), printed)
            event = [round(time.monotonic() - began_s, 3), "o", decoder.decode(printed)]
            file.write(json.dumps(event) + "\n")
    _, status = os.waitpid(child, 0)
    return os.waitstatus_to_exitcode(status)


def _read(terminal: int) -> bytes:
    try:
        return os.read(terminal, 65536)
    except OSError:  # Linux says so when the command has closed its end
        return b""


def screens(recording: Path, typed: str) -> Iterator[tuple[float, Screen]]:
    """Return each screen with its time in seconds, after the command that was typed."""
    import pyte

    head, *events = (json.loads(line) for line in recording.read_text().splitlines())
    screen = pyte.Screen(head["width"], head["height"])
    stream = pyte.Stream(screen)
    screen.set_mode(pyte.modes.LNM)
    stream.feed(f"\x1b[32m$\x1b[0m {typed}\n" if typed else "")
    yield 0.0, _lines(screen)
    screen.reset_mode(pyte.modes.LNM)
    for at_s, _, text in events:
        stream.feed(text)
        yield at_s, _lines(screen)


def _lines(screen: "pyte.Screen") -> Screen:  # type: ignore[name-defined]  # noqa: F821
    """Return the lines of a screen as SVG: runs of cells that look alike are one piece."""
    lines = []
    for row in range(screen.lines):
        cells = [screen.buffer[row][column] for column in range(screen.columns)]
        while cells and not cells[-1].data.strip():
            cells.pop()
        pieces: list[tuple[str, str]] = []
        for cell in cells:
            look = _look(cell.fg, bold=cell.bold)
            if pieces and pieces[-1][0] == look:
                pieces[-1] = (look, pieces[-1][1] + cell.data)
            else:
                pieces.append((look, cell.data))
        lines.append(
            "".join(f"<tspan{look}>{escape(text)}</tspan>" if look else escape(text)
                    for look, text in pieces)
        )  # fmt: skip
    return lines


def _look(colour: str, *, bold: bool) -> str:
    name = colour.removeprefix("bright")
    shown = _COLOURS.get(name) or (f"#{name}" if len(name) == 6 and name != "default" else "")
    fill = f' fill="{shown}"' if shown else ""
    return f'{fill} font-weight="bold"' if bold else fill


def timed(found: list[tuple[float, Screen]]) -> list[tuple[float, Screen]]:
    """Return the screens that differ with the times at which they are shown, from 0 on.

    Pauses are cut, all of it is hurried to PLAYS_S, and of too many frames some are left out.
    """
    kept = [found[0]]
    for at_s, screen in found[1:]:
        if screen != kept[-1][1]:
            kept.append((at_s, screen))
    step = max(1, -(-len(kept) // FRAMES_MAX))
    kept = [kept[0], *kept[step:-1:step], kept[-1]] if len(kept) > 1 else kept
    speed = max(1.0, (kept[-1][0] - kept[0][0]) / PLAYS_S)
    shown_s, played = 0.0, [(0.0, kept[0][1])]
    for (before_s, _), (at_s, screen) in pairwise(kept):
        shown_s += min(PAUSE_MAX_S, max(0.04, (at_s - before_s) / speed))
        played.append((shown_s, screen))
    return played


def draw(frames: list[tuple[float, Screen]], says: str) -> str:
    """Return the SVG: its lines are written once each and shown in the frames that have them.

    Where motion is not wanted, and in viewers that do not animate, the last screen stands still.
    """
    whole_s = frames[-1][0] + STAYS_S
    rows = max(row for _, screen in frames for row, line in enumerate(screen, 1) if line)
    width, height = COLUMNS * _CELL_PX + 2 * _EDGE_PX, rows * _LINE_PX + 2 * _EDGE_PX
    parts, styles = [], []
    for row in range(rows):
        for start, end, line in _stretches(frames, row):
            last = end == len(frames)
            if not line:
                continue
            name = f"f{start}-{end}"
            place = f'x="{_EDGE_PX}" y="{_EDGE_PX + row * _LINE_PX + 13}"'
            parts.append(f'<text class="{name}{"" if last else " past"}" {place}>{line}</text>')
            styles.append(_style(name, frames, start, end, whole_s))
    body, style = "\n".join(parts), "\n".join(dict.fromkeys(styles))
    return f"""<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:g} {height}" role="img">
<title>{escape(says)}</title>
<style>
text {{ font: 14px ui-monospace, 'DejaVu Sans Mono', Menlo, Consolas, monospace; fill: {_INK}; white-space: pre }}
.past {{ visibility: hidden }}
@media (prefers-reduced-motion: no-preference) {{
{style}
}}
</style>
<rect width="100%" height="100%" rx="8" fill="{_PAPER}"/>
{body}
</svg>
"""  # noqa: E501


def _stretches(frames: list[tuple[float, Screen]], row: int) -> Iterator[tuple[int, int, str]]:
    """Return in which frames, from and up to, a line of the screen stays the same."""
    start = 0
    for number in range(1, len(frames) + 1):
        ended = number == len(frames)
        if ended or frames[number][1][row] != frames[start][1][row]:
            yield start, number, frames[start][1][row]
            start = number


def _style(
    name: str, frames: list[tuple[float, Screen]], start: int, end: int, whole_s: float
) -> str:
    begin = 100 * frames[start][0] / whole_s
    until = 100.0 if end == len(frames) else 100 * frames[end][0] / whole_s
    steps = [f"{begin:.2f}%{{visibility:visible}}"]
    if begin:
        steps.insert(0, "0%{visibility:hidden}")
    if until < 100.0:
        steps.append(f"{until:.2f}%,to{{visibility:hidden}}")
    return (
        f"@keyframes {name}{{{''.join(steps)}}}"
        f".{name}{{animation:{name} {whole_s:.2f}s step-end infinite}}"
    )


def main() -> int:
    """Record, or draw, as the command line says."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    modes = parser.add_subparsers(required=True, dest="mode")
    recording = modes.add_parser("record")
    recording.add_argument("cast", type=Path)
    recording.add_argument("command", nargs="+")
    drawing = modes.add_parser("draw")
    drawing.add_argument("cast", type=Path)
    drawing.add_argument("picture", type=Path)
    drawing.add_argument("--typed", default="make demo", help="the line after the prompt")
    given = parser.parse_args()
    if given.mode == "record":
        return record(given.cast, given.command)
    frames = timed(list(screens(given.cast, given.typed)))
    given.picture.write_text(draw(frames, f"A terminal: {given.typed}"))
    return 0


if __name__ == "__main__":
    sys.exit(main())
