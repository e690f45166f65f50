"""The table of error classes: each is tried here, no other is named, the page says the same."""

import re
from pathlib import Path

import pytest

from llmdyno.faults import FAULTS, grpc_fault, http_fault, meaning

ROOT = Path(__file__).parent.parent
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
    folder = ROOT / "tests" / "faults"
    tests = "".join(path.read_text() for path in folder.glob("test_*.py"))

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


@pytest.mark.parametrize(
    ("status", "fault"),
    [
        ("1", "grpc-cancelled"),
        ("14", "grpc-unavailable"),
        ("16", "grpc-unauthenticated"),
        ("0", "grpc-unknown"),
        ("17", "grpc-unknown"),
        ("-1", "grpc-unknown"),
        ("", "grpc-unknown"),
    ],
)
def test_a_grpc_status_is_a_class_by_its_name(status: str, fault: str) -> None:
    assert grpc_fault(status) == fault
    name = fault.removeprefix("grpc-").upper()
    assert meaning(fault) == f"the server answered with gRPC status {name}"


def test_ok_is_no_class() -> None:
    assert not meaning("grpc-ok")
