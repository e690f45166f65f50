"""The table of error classes: each is tried here, no other is named, the page says the same."""

import re
from pathlib import Path

import pytest

from llmdyno.faults import FAULTS, http_fault, meaning

ROOT = Path(__file__).parent.parent.parent
SOURCE = ROOT / "src" / "llmdyno"

# How the source names a class.
NAMING = re.compile(
    r"(?:ConnectError\(|_finish\(|give_up[(,] ?|_break_off\(|\n +return |"
    r'reply\.error(?:, reply\.detail)? = )"([\w-]+)"(?:\)|,|\n)'
)


def test_the_source_names_no_class_that_is_not_in_the_table() -> None:
    files = [
        *(SOURCE / "wire").glob("*.py"),
        *(SOURCE / "load").glob("*.py"),
        *(SOURCE / "endpoints").glob("*.py"),
    ]
    named = {name for path in files for name in NAMING.findall(path.read_text())}

    assert named >= {"timeout", "dns", "truncated", "bad-json", "stream-error", "refused"}
    assert named <= {*FAULTS, "cut"}


def test_each_class_is_brought_about_by_a_test() -> None:
    tests = "".join(
        path.read_text()
        for path in Path(__file__).parent.glob("test_*.py")
        if path.name != "test_table.py"
    )

    assert [fault for fault in FAULTS if f'"{fault}"' not in tests] == []


@pytest.mark.parametrize(
    ("fault", "sentence"),
    [
        ("timeout", "the response did not end within --timeout"),
        (http_fault(429), "the server answered with status 429 (Too Many Requests)"),
        (http_fault(999), "the server answered with status 999"),
        ("nonsense", ""),
        ("http-", ""),
    ],
)
def test_what_a_class_means(fault: str, sentence: str) -> None:
    assert meaning(fault) == sentence


def test_the_page_has_the_table() -> None:
    page = (ROOT / "docs" / "faults.md").read_text()

    assert dict(re.findall(r"^\| `([a-z-]+)` \| (.+) \|$", page, re.MULTILINE)) == FAULTS
