"""docs/documents.md has every key that a run's and a study's document have."""

import re
from pathlib import Path

import lab
from documents import DOCS
from llmdyno import store
from llmdyno.results.summary import summarise
from llmdyno.serve.stack import load_stack
from llmdyno.tune.ledger import Ledger
from llmdyno.tune.study import study_document


def test_every_key_of_the_documents_has_a_row(tmp_path: Path) -> None:
    lab.make(tmp_path)
    summary = summarise(tmp_path / lab.RUN / store.JOURNAL)
    folder = tmp_path / lab.STUDY
    study = study_document(folder, Ledger(folder), load_stack(lab.ENGINE, "native", "m", ()))
    _, run_rows, level_rows, study_rows, trial_rows, _history = (
        set(re.findall(r"`(\w+)`", "\n".join(re.findall(r"^\| (.+?) \|", part, re.MULTILINE))))
        for part in (DOCS / "documents.md").read_text().split("\n## ")
    )

    assert set(summary) <= run_rows
    assert set(summary["levels"][0]) <= level_rows
    assert set(study) <= study_rows
    assert set(study["trials"][0]) <= trial_rows
