"""Whatever a document lacks reads as None or as empty."""

from typing import Any

import pytest

from llmdyno.results import documents

DOCUMENT: dict[str, Any] = {
    "a": {"b": {"n": 1.5, "inf": float("inf"), "yes": True, "ci": [1, 2], "text": "t"}},
    "list": [{"x": 1}, 3, {"x": 2}],
    "words": ["one", 2],
}


def test_what_is_there_is_read() -> None:
    assert documents.number(DOCUMENT, "a", "b", "n") == 1.5
    assert documents.interval(DOCUMENT, "a", "b", "ci") == (1, 2)
    assert documents.text(DOCUMENT, "a", "b", "text") == "t"
    assert documents.texts(DOCUMENT, "words") == ["one", "2"]
    assert documents.items(DOCUMENT, "list") == [{"x": 1}, {"x": 2}]


@pytest.mark.parametrize("path", [("a", "b", "inf"), ("a", "b", "yes"), ("a", "x", "n"), ("list",)])
def test_what_is_no_number_is_none(path: tuple[str, ...]) -> None:
    assert documents.number(DOCUMENT, *path) is None
    assert documents.interval(DOCUMENT, *path) is None


@pytest.mark.parametrize(
    ("level", "name"),
    [
        ({"users": 1}, "1 user"),
        ({"users": 1000, "arrival": "closed"}, "1,000 users"),
        ({"users": None, "arrival": "poisson", "rate": 2.0}, "poisson 2/s"),
        ({"users": 3, "arrival": "trace", "rate": None}, "trace arrivals, 3 users"),
        ({}, "level"),
    ],
)
def test_a_level_is_called_by_its_load(level: dict[str, Any], name: str) -> None:
    assert documents.level_name(level) == name
