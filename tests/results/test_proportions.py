"""Ratios in words, over all that a ratio can be."""

import math
import re

import pytest

from llmdyno.results.proportions import judged, worded

TTFT, RATE = "ttft_ms_p50", "token_rate"


@pytest.mark.parametrize(
    ("ratio", "of_time", "of_rate"),
    [
        (0.001, "1,000 times shorter", "1,000 times lower"),
        (0.0158, "63 times shorter", "63 times lower"),
        (0.1, "10 times shorter", "10 times lower"),
        (0.212, "4.7 times shorter", "4.7 times lower"),
        (0.5, "half as long", "half as high"),
        (0.67, "a third shorter", "a third lower"),
        (0.75, "a quarter shorter", "a quarter lower"),
        (0.9, "10 % shorter", "10 % lower"),
        (0.993, "0.7 % shorter", "0.7 % lower"),
        (0.998, "the same", "the same"),
        (1, "the same", "the same"),
        (1.004, "the same", "the same"),
        (1.0149, "1 % longer", "1 % higher"),
        (1.12, "12 % longer", "12 % higher"),
        (1.334, "a third longer", "a third higher"),
        (1.5, "50 % longer", "50 % higher"),
        (1.9, "90 % longer", "90 % higher"),
        (1.97, "twice as long", "twice as high"),
        (2.0, "twice as long", "twice as high"),
        (3.108, "3.1 times as long", "3.1 times as high"),
        (9.97, "10 times as long", "10 times as high"),
        (63.4, "63 times as long", "63 times as high"),
        (1000, "1,000 times as long", "1,000 times as high"),
        (0, "down to zero", "down to zero"),
    ],
)
def test_a_ratio_is_said_as_people_say_it(ratio: float, of_time: str, of_rate: str) -> None:
    assert worded(ratio, TTFT) == of_time
    assert worded(ratio, RATE) == of_rate


@pytest.mark.parametrize(
    ("ratio", "bounds", "said"),
    [
        (0.0158, (0.0145, 0.0172), "63 times shorter (58 to 69)"),
        (0.97, (0.95, 1.03), "3 % shorter (5 % shorter to 3 % longer)"),
        (1.33, (1.28, 1.39), "a third longer (28 % to 39 %)"),
        (1.9, (1.7, 2.3), "90 % longer (70 % longer to 2.3 times as long)"),
        (0.45, (0.4, 0.55), "2.2 times shorter (1.8 to 2.5)"),
        (3.11, (2.79, 3.42), "3.1 times as long (2.8 to 3.4)"),
        (2.0, (1.997, 2.003), "twice as long (2 times as long)"),
        (3.9, (1.92, 7.9), "3.9 times as long (1.9 to 7.9)"),
        (3.9, (0.9, 7.9), "3.9 times as long (10 % shorter to 7.9 times as long)"),
        (2.0, (1.9, 2.2), "twice as long (90 % longer to 2.2 times as long)"),
        (2.04, (2.01, 2.2), "twice as long (2 to 2.2 times)"),
        (0.5, (0.4, 0.45), "half as long (2.2 to 2.5 times shorter)"),
        (1.02, (1.001, 1.04), "2 % longer (the same to 4 % longer)"),
        (1.0, (1.0, 1.0), "the same (the same)"),
        (0.516, (0.438, 0.608), "48 % shorter (39 % to 56 %)"),
        (0.67, (0.45, 0.8), "a third shorter (20 % to 55 %)"),
        (0.5, (0.45, 0.55), "half as long (45 % to 55 % shorter)"),
        (0.6, (0.004, 0.9), "40 % shorter (10 % to 99.6 %)"),
        (0.3, (-0.1, 0.7), "3.3 times shorter (at most 30 % shorter)"),
    ],
)
def test_an_interval_says_both_ends(ratio: float, bounds: tuple[float, float], said: str) -> None:
    assert worded(ratio, TTFT, bounds) == said


@pytest.mark.parametrize("ratio", [None, math.nan, math.inf, -1.0])
def test_what_is_no_ratio_has_no_words(ratio: float | None) -> None:
    assert worded(ratio, TTFT) == ""


def test_words_grow_with_the_ratio_and_never_show_a_digit_of_nothing() -> None:
    sizes: list[float] = []
    for step in range(-300, 301):
        ratio = 10 ** (step / 100)
        said = worded(ratio, RATE)
        assert said == "the same" or ("lower" in said) == (ratio < 1) or said == "half as high"
        assert not re.search(r"(?<![.\d])(?:0 %|[01] times)|e[+-]\d|\.0\b", said), said
        found = re.match(r"([\d,.]+) times", said)
        sizes.append(float(found[1].replace(",", "")) if found else 0.0)
    falling, rising = sizes[:250], sizes[350:]
    assert falling == sorted(falling, reverse=True)
    assert rising == sorted(rising)


def test_an_interval_without_finite_ends_is_none() -> None:
    assert worded(2.0, RATE, (1.0, math.inf)) == "twice as high (no interval)"


def test_a_difference_that_is_not_shown_is_said_to_be_none() -> None:
    assert judged(0.97, TTFT, (0.95, 1.03)).startswith("not shown to differ: 3 % shorter (")
    assert judged(0.97, TTFT, (0.95, 0.99)) == "3 % shorter (1 % to 5 %)"
    assert judged(0.97, TTFT) == "3 % shorter"
    assert judged(None, TTFT, (0.95, 1.03)) == ""
