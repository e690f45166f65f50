"""README's pictures: they are there, they say what README says, and they play by themselves."""

import json
import re
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from llmdyno.terminal.closing import closing_lines
from pictures import PictureError, caption, with_caption
from recording import FRAMES_MAX, PLAYS_S, STAYS_S, Screen, draw, record, screens, timed
from report_samples import study

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
DEMO = ROOT / "docs" / "images" / "demo.svg"
SPACE = "{http://www.w3.org/2000/svg}"


def shown(svg: str, *, at_the_end: bool = False) -> list[str]:
    """Return the lines of text in a picture, in any frame or in the last one."""
    lines = ET.fromstring(svg).iter(f"{SPACE}text")  # noqa: S314  # our own file
    return [
        "".join(line.itertext())
        for line in lines
        if not at_the_end or "past" not in line.attrib["class"]
    ]


def test_every_picture_of_readme_is_there_and_says_what_it_is() -> None:
    pictures = re.findall(r'<img src="([^"]+)"[^>]*alt="([^"]+)"', README)

    assert len(pictures) >= 3
    assert pictures[0][0] == "docs/images/demo.svg"
    assert all((ROOT / path).is_file() and len(alt) > 20 for path, alt in pictures)


def test_the_terminal_is_small_and_fetches_nothing() -> None:
    text = DEMO.read_text()

    assert len(text) < 300_000
    assert not re.search(r"href|src=|url\(|@import|<script|<image", text)
    assert "make demo" in shown(text)[0]


def test_readme_quotes_the_lines_that_the_terminal_ends_with() -> None:
    caption = README.split("<!-- of `make pictures` -->")[1].split("<!-- end -->")[0]
    quoted = [line.strip("-* ") for line in caption.splitlines() if line.startswith("- ")]
    ended = " ".join(" ".join(shown(DEMO.read_text(), at_the_end=True)).split())

    assert [line.split(":")[0].split(" at ")[0] for line in quoted] == [
        "Token rate",
        "TTFT p50",
        "Settings",
    ]
    assert all(line in ended for line in quoted)
    assert ended.endswith("report.html")


def test_the_caption_has_the_studys_own_lines() -> None:
    document = study() | {"spec": {"trials": 11}}
    said = with_caption(README, caption(document))

    assert all(line in said for line in closing_lines(document))
    assert "6 interleaved pairs" in said
    assert "`make demo` with 11 trials" in said
    assert with_caption(said, caption(document)) == said


def test_a_study_that_shows_nothing_gets_no_picture() -> None:
    document = study()
    document["confirmation"]["verdict"] = "no difference"

    with pytest.raises(PictureError, match="has shown no better config"):
        caption(document)
    with pytest.raises(PictureError, match="0 places"):
        with_caption("no marks", "said")


def test_what_a_command_prints_in_a_terminal_is_recorded(tmp_path: Path) -> None:
    cast = tmp_path / "a.cast"
    script = "import os; print(os.get_terminal_size().columns, os.isatty(1)); raise SystemExit(3)"

    assert record(cast, [sys.executable, "-c", script]) == 3

    head, *events = map(json.loads, cast.read_text().splitlines())
    assert (head["version"], head["width"]) == (2, 80)
    assert "".join(text for _, _, text in events) == "80 True\r\n"
    assert all(at_s >= 0 and kind == "o" for at_s, kind, _ in events)


def test_equal_screens_are_one_frame_pauses_are_cut_and_all_is_hurried() -> None:
    found = [(0.0, ["a"]), (1.0, ["a"]), (200.0, ["b"]), (201.0, ["c"]), (480.0, ["d"])]

    frames = timed(found)

    assert [screen for _, screen in frames] == [["a"], ["b"], ["c"], ["d"]]
    times = [at_s for at_s, _ in frames]
    assert times[0] == 0.0
    assert times == sorted(times)
    assert times[-1] < 3.0


def test_of_many_screens_some_are_left_out_but_never_the_last() -> None:
    found: list[tuple[float, Screen]] = [(float(at), [str(at)]) for at in range(1000)]

    frames = timed(found)

    assert len(frames) <= FRAMES_MAX + 2
    assert frames[-1][1] == ["999"]
    assert frames[-1][0] <= PLAYS_S * 1.2


def test_a_line_that_stays_is_written_once_and_the_last_screen_stands_still() -> None:
    svg = draw([(0.0, ["stays", "old", ""]), (2.0, ["stays", "new &lt;", ""])], "A terminal")

    assert shown(svg) == ["stays", "old", "new <"]
    assert shown(svg, at_the_end=True) == ["stays", "new <"]
    # "old" is seen for the first 2 s of 2 s and of those that the last screen stays.
    assert f"{200 / (2 + STAYS_S):.2f}%,to{{visibility:hidden}}" in svg


def test_a_terminal_plays_what_was_recorded(tmp_path: Path) -> None:
    pytest.importorskip("pyte")
    cast = tmp_path / "a.cast"
    events = [[0.1, "o", "one\r\ntwo"], [0.2, "o", "\r\x1b[2K\x1b[1m<3>\x1b[0m\r\n"]]
    head = {"version": 2, "width": 80, "height": 24}
    cast.write_text("\n".join(map(json.dumps, [head, *events])))

    *_, (_, before), (at_s, last) = screens(cast, "make it")

    assert (before[1], before[2]) == ("one", "two")
    assert at_s == 0.2
    assert last[2] == '<tspan font-weight="bold">&lt;3&gt;</tspan>'
    assert last[0].endswith(" make it")
