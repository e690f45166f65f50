"""Doubts as lines for people: a line a code, with the levels and the ranges of their numbers."""

from llmdyno.results.doubts import Doubt
from llmdyno.results.grouping import sentences


def doubt(code: str, at: str | None, text: str) -> Doubt:
    return Doubt(code=code, level=None, at=at, metrics=(), text=text)


def test_the_same_words_are_said_once_of_all_levels() -> None:
    found = [
        doubt("few-requests", "10 users", "70 requests completed (fewer than 100)."),
        doubt("short-window", "10 users", "the window is 8.5 s long."),
        doubt("few-requests", "50 users", "9 requests completed (fewer than 100)."),
        doubt("few-requests", "1,000 users", "85 requests completed (fewer than 100)."),
    ]

    assert sentences(found) == [
        "10, 50 and 1,000 users: 9 to 85 requests completed (fewer than 100).",
        "10 users: the window is 8.5 s long.",
    ]


def test_other_words_are_those_of_the_last_level() -> None:
    found = [
        doubt("failed-requests", "poisson 1/s", "1 request failed (http-500 1)."),
        doubt("failed-requests", "poisson 2/s", "7 requests failed (http-503 7)."),
    ]

    assert sentences(found) == [
        "poisson 1/s and poisson 2/s, in the words for poisson 2/s: 7 requests failed (http-503 7)."
    ]


def test_the_names_of_things_are_no_numbers() -> None:
    found = [
        doubt("a", "1 user", "p99 is 1,500 ms, with http-500 and 3.5x."),
        doubt("a", "2 users", "p99 is 900 ms, with http-500 and 3.5x."),
    ]

    assert sentences(found) == ["1 and 2 users: p99 is 900 to 1,500 ms, with http-500 and 3.5x."]


def test_what_is_said_of_the_run_or_twice_of_a_level_stands_by_itself() -> None:
    found = [
        doubt("server-note", "10 users", "one."),
        doubt("server-note", "10 users", "two."),
        doubt("imported-file", None, "three."),
        doubt("imported-file", None, "four."),
    ]

    assert sentences(found) == ["10 users: one.", "10 users: two.", "three.", "four."]
