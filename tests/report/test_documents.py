"""Documents of another kind are refused; the command line starts without the report."""

import sys
from subprocess import run
from typing import Any

import pytest

from llmdyno import report
from llmdyno.errors import StorageError
from report_samples import summary


@pytest.mark.parametrize(
    ("make", "document"),
    [
        (report.run_page, {"schema": "llmdyno.study/1"}),
        (report.run_page, {}),
        (lambda document: report.study_page(document, {}), {"schema": "llmdyno.summary/1"}),
        (
            lambda document: report.compare_page(summary(), document),
            {"schema": "llmdyno.summary/9"},
        ),
    ],
)
def test_a_document_of_another_kind_is_refused_by_name(make: Any, document: Any) -> None:
    with pytest.raises(StorageError, match=r"schema is .* but this page is made of 'llmdyno\."):
        make(document)


def test_the_command_line_starts_without_the_report() -> None:
    probe = (
        "import sys, llmdyno.cli.app;"
        " sys.exit(any(name.split('.')[0] in {'altair', 'vl_convert'} for name in sys.modules))"
    )
    assert run([sys.executable, "-c", probe], check=False).returncode == 0
