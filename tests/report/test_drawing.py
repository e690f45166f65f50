"""Charts as data and as images."""

from pathlib import Path

from llmdyno import report
from llmdyno.report import drawing
from report_samples import level, study, summary


def test_a_long_run_keeps_every_sample() -> None:
    document = summary([level(10, rate=400, ttft_ms=500, duration_s=40_000)])
    page = report.run_page(document)
    assert len(document["levels"][0]["samples"]) == 8000
    assert page.count('"in_flight": 10') >= 7990


def test_images_are_png_of_twice_the_size(tmp_path: Path) -> None:
    paths = report.study_images(study(), tmp_path / "images")
    assert [path.name for path in paths] == ["token_rate_by_users.png", "ttft_by_users.png"]
    for path in paths:
        content = path.read_bytes()
        assert content.startswith(b"\x89PNG\r\n\x1a\n")
        width_px = int.from_bytes(content[16:20], "big")
        assert width_px > 2 * drawing.WIDTH_PX


def test_there_are_no_images_of_nothing(tmp_path: Path) -> None:
    assert report.study_images({"schema": "llmdyno.study/1"}, tmp_path) == []
