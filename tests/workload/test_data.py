"""The texts that come with the package: what `dyno bench` asks when no data set is given."""

from collections import Counter
from importlib import resources

import msgspec
import pytest


class Row(msgspec.Struct, forbid_unknown_fields=True):
    prompt: str
    topic: str


@pytest.fixture
def rows() -> list[Row]:
    raw = (resources.files("llmdyno.workload") / "data" / "chat.jsonl").read_bytes()
    return msgspec.json.Decoder(Row).decode_lines(raw)


def test_the_prompts_are_many_and_all_different(rows: list[Row]) -> None:
    assert len(rows) >= 240
    assert len({row.prompt for row in rows}) == len(rows)
    # Nor do they begin alike: a prefix cache would make the server look faster than it is.
    assert len({row.prompt[:40] for row in rows}) == len(rows)


def test_the_prompts_are_as_long_as_people_write_them(rows: list[Row]) -> None:
    # Languages without blanks between words are left to the test of characters.
    words = [len(row.prompt.split()) for row in rows if row.topic != "multilingual"]

    assert min(words) >= 20
    assert max(words) <= 150
    assert 35 <= sum(words) / len(words) <= 60
    assert min(len(row.prompt) for row in rows) >= 60


def test_the_topics_are_mixed_from_the_start(rows: list[Row]) -> None:
    assert len(Counter(row.topic for row in rows)) >= 10
    assert len({row.topic for row in rows[:40]}) >= 8


def test_some_prompts_are_not_ascii(rows: list[Row]) -> None:
    assert sum(not row.prompt.isascii() for row in rows) >= 20


def test_the_system_prompt_has_about_five_hundred_tokens() -> None:
    text = (resources.files("llmdyno.workload") / "data" / "system_prompt.txt").read_text("utf-8")

    assert 380 <= len(text.split()) <= 400
