"""The tables of a study."""

from llmdyno import report
from report.page_text import words
from report_samples import GUIDE, study


def test_failed_trials_are_told_with_their_class() -> None:
    text = words(report.study_page(study(), GUIDE))
    assert "failed out-of-memory: std::bad_alloc while loading the model" in text
    assert "2 of 25 trials failed" in text
    assert "predicted-infeasible does-not-fit: needs 64 GB of 24 GB" in text
