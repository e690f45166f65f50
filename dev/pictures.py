"""README's pictures and the sentence under them: of one demo, run now or before.

make pictures                        runs `make demo`'s study, seven minutes on two quiet cores
python dev/pictures.py STUDY CAST    draws a study that is there, with its recording
"""

import argparse
import json
import re
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import recording
from llmdyno.machine.environment import describe
from llmdyno.report import study_images
from llmdyno.results import stacks, verdicts
from llmdyno.terminal.closing import closing_lines

ROOT = Path(__file__).parent.parent
IMAGES = ROOT / "docs" / "images"
DEMO = ("dyno", "tune", "--engine", "openvino", "--model", "tiny", "--quick")
BEGIN, END = "<!-- of `make pictures` -->\n", "<!-- end -->\n"


class PictureError(Exception):
    """The demo shows nothing that README could say."""


def run_demo(folder: Path) -> tuple[Path, Path]:
    """Run the demo in a terminal; return the folder of its study and the recording.

    Raises:
        PictureError: the demo failed.
    """
    study, cast = folder / "demo", folder / "demo.cast"
    status = recording.record(cast, [*DEMO, "--out", str(study)])
    if status:
        raise PictureError(f"the demo ended with {status}")
    return study, cast


def caption(study: Mapping[str, Any]) -> str:
    """Return what stands under the pictures: what ran where, what was gained, how sure that is.

    Raises:
        PictureError: the study has not shown that its winner is better.
    """
    lines = closing_lines(study)
    if not lines:
        raise PictureError("the demo has shown no better config: run it on a quiet machine")
    machine = study["baseline"]["summary"]["environment"]["cpu"]
    cores, model = machine["cores_usable"], machine["model"]
    rate, ttft, settings = lines
    stacks_of = study.get("combinations") and stacks.conclusion(study)
    basis = stacks_of or f"{study['engine']} {study['engine_version']} against its own defaults"
    pairs = verdicts.confirmed(study).basis
    return (
        f"*One run of `make demo` with {study['spec']['trials']} trials on {cores} cores ({model}):"
        f" {basis}, {pairs}.*\n\n"
        f"- **{rate}**\n- **{ttft}**\n- {settings}\n"
    )


def with_caption(readme: str, said: str) -> str:
    """Return README with the caption between its two marks.

    Raises:
        PictureError: the marks are not there.
    """
    found, count = re.subn(
        f"{re.escape(BEGIN)}.*?{re.escape(END)}",
        lambda _: f"{BEGIN}{said}{END}",
        readme,
        flags=re.DOTALL,
    )
    if count != 1:
        raise PictureError(f"README.md has {count} places for the caption")
    return found


def draw(folder: Path, cast: Path) -> list[Path]:
    """Draw the charts and the terminal, and write the caption; return the pictures."""
    study = json.loads((folder / "study.json").read_text())
    readme = ROOT / "README.md"
    text = with_caption(readme.read_text(), caption(study))
    # On the terminal the study lies where `make demo` puts it.
    shown = cast.with_suffix(".shown")
    shown.write_text(cast.read_text().replace(str(folder), f"studies/{folder.name}"))
    frames = recording.timed(list(recording.screens(shown, "make demo")))
    terminal = IMAGES / "demo.svg"
    terminal.write_text(recording.draw(frames, "The terminal of make demo, from its start to"
                                               " its last three lines"))  # fmt: skip
    readme.write_text(text)
    return [terminal, *study_images(study, IMAGES)]


def main() -> int:
    """Run the demo, if none is given, and draw it."""
    parser = argparse.ArgumentParser(description="README's pictures, of one demo.")
    parser.add_argument("study", type=Path, nargs="?", help="its folder; else it is run now")
    parser.add_argument("cast", type=Path, nargs="?", help="its recording")
    given = parser.parse_args()
    if (given.study is None) != (given.cast is None):
        parser.error("name both the study and its recording, or neither")
    if given.study is None and (describe()["load_average"] or [0.0])[0] > 1.0:
        print("pictures: this machine is busy, the figures will be worse.", file=sys.stderr)
    try:
        with tempfile.TemporaryDirectory() as scratch:
            study, cast = (given.study, given.cast) if given.study else run_demo(Path(scratch))
            for picture in draw(study, cast):
                print(f"{picture.relative_to(ROOT)}: {picture.stat().st_size / 1e3:,.0f} kB")
    except PictureError as error:
        print(f"pictures: {error}.", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
