"""What a study found, in the sentences of its page."""

from pathlib import Path

from llmdyno.cli.told import guide_of, key_findings
from llmdyno.report import study_markdown
from report_samples import study


def test_the_terminal_has_the_sentences_of_the_page(tmp_path: Path) -> None:
    document = study()

    told = key_findings(document)

    assert len(told) == 3
    page = study_markdown(document, guide_of(document), tmp_path, "charts")
    bare = page.replace("\\", "")  # which stand before what would be a mark of Markdown's
    assert [f"{number}. {one}" in bare for number, one in enumerate(told, 1)] == [True] * 3


def test_the_guide_has_the_knobs_of_engine_and_front() -> None:
    guide = guide_of({"engine": "timed.engine", "front": "triton"})

    assert {"itl_ms", "mode", "lossy", "idle"} < guide.keys()
    assert "triton_max_batch_size" in guide
