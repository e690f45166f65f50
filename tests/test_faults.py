"""The table of error classes: each is tried here, no other is named, the page says the same."""

import re
from pathlib import Path

import pytest

from llmdyno.faults import FAULTS, grpc_fault, http_fault, is_too_long, meaning

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


TOO_LONG = """\
The prompt's 600 tokens and the 4 to make exceed max_num_batched_tokens=512, and dynamic_split_fuse
This model's maximum is 100 tokens, prompt and output together; 100 in the prompt and 1 to make
This model's maximum context length is 4096 tokens. However, you requested 5000 tokens
The decoder prompt (length 5000) is longer than the maximum model length of 4096.
The input (5000 tokens) is longer than the model's context length (4096 tokens).
Requested token count exceeds the model's maximum context length of 4096 tokens.
Input validation error: `inputs` must have less than 1024 tokens. Given: 1201
Input validation error: `inputs` tokens + `max_new_tokens` must be <= 2048. Given: 1201
The sum of prompt length (5000), max_tokens (10) should not exceed max_seq_len (4096)
the request exceeds the available context size, try increasing it
Request prompt has 5000 tokens in total, larger than the model input length limit 4096.
"""


@pytest.mark.parametrize("words", TOO_LONG.splitlines())
def test_a_refusal_for_its_length_is_known_by_its_words(words: str) -> None:
    assert is_too_long("http-400", words)
    assert not is_too_long("reset", words)


@pytest.mark.parametrize(
    "words",
    [
        "'max_tokens': Expected `int` >= 1.",
        "'prompt': it is empty; one token at least is needed.",
        "The model 'long' does not exist here; this server has 'tiny'.",
        "Rate limit reached.",
        "'stop': Expected `array` of length <= 4.",
        "",
    ],
)
def test_a_refusal_for_something_else_is_not_one_for_its_length(words: str) -> None:
    assert not is_too_long("http-400", words)
