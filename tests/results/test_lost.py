"""Requests that fail: which side loses more of them, beyond chance."""

import pytest

from llmdyno.results.lost import Losses, Requests, loses, of_level, together


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        (Requests(0, 300), Requests(30, 270), True),
        (Requests(30, 270), Requests(0, 300), False),
        (Requests(30, 270), Requests(36, 264), False),  # chance
        (Requests(0, 10_000), Requests(90, 9_910), False),  # below 1 %
        (Requests(0, 300), Requests(2, 298), False),
        (Requests(0, 300), Requests(300, 0), True),
        (Requests(0, 4), Requests(4, 0), True),  # few, and none is answered any more
        (Requests(0, 1), Requests(1, 0), False),
        (Requests(), Requests(5, 0), False),  # nothing is known of one side
    ],
)
def test_who_loses_more(old: Requests, new: Requests, expected: bool) -> None:
    assert loses(old, new) == expected
    verdict = Losses(at="2 users", before=old, after=new).verdict
    assert (verdict == "worse") == expected
    assert (Losses(at="2 users", before=new, after=old).verdict == "better") == expected


def test_what_a_summary_says_of_its_requests() -> None:
    counted = {"requests": {"completed": 9, "failed": 1, "cut": 3}}

    assert of_level(counted) == (1, 9)
    assert of_level({"requests": {"completed": 9, "failed": None}}) == (0, 9)
    assert of_level({}) == Requests()
    assert together([Requests(1, 9), Requests(2, 8)]) == (3, 17)
