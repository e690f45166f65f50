"""`dyno record`: what it refuses, each in a sentence."""

from collections.abc import Callable
from typing import Any

import pytest


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--listen", "9000"), "--listen 9000: write HOST:PORT"),
        (("--listen", "127.0.0.1:99999"), "write HOST:PORT"),
        (("--url", "grpc://h:1"), "gRPC cannot be recorded"),
        (("--out", "nowhere/t.jsonl"), "--out nowhere/t.jsonl: cannot be written"),
        (("--hash-key", "k" * 65), "--hash-key: has 65 bytes"),
        (("--tokenizer", "none.json"), "--tokenizer none.json: cannot be read"),
    ],
)
def test_wrong_usage_is_said_before_anything_starts(
    arguments: tuple[str, str], words: str, dyno: Callable[..., Any]
) -> None:
    given = {"--url": "http://127.0.0.1:9", "--out": "t.jsonl", arguments[0]: arguments[1]}

    done = dyno("record", *(part for pair in given.items() for part in pair))

    assert done.returncode == 2
    assert words in done.stderr
    assert done.stderr.count("\n") == 1
