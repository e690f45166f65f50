import random
import statistics

import pytest

from llmdyno.errors import UsageError
from llmdyno.units import counted, lengths, price_per_h, seconds, seconds_between, show_seconds


@pytest.mark.parametrize(
    ("text", "value_s"),
    [("20s", 20.0), ("5m", 300.0), ("250ms", 0.25), ("1h", 3600.0), ("1.5", 1.5), ("10us", 1e-5)],
)
def test_durations(text: str, value_s: float) -> None:
    assert seconds(text, "--ramp") == pytest.approx(value_s)


@pytest.mark.parametrize("text", ["", "fast", "-5s", "5 days", "1e3s", "nan"])
def test_a_wrong_duration_names_the_field_and_the_value(text: str) -> None:
    with pytest.raises(UsageError, match=r"--ramp .*write a duration such as 20s"):
        seconds(text, "--ramp")


@pytest.mark.parametrize("text", ["-1s", "1s-", "-", "1s-2s-3s", "5s-1s"])
def test_a_wrong_pause_names_the_whole_value(text: str) -> None:
    with pytest.raises(UsageError, match=f"^--think-time {text}: "):
        seconds_between(text, "--think-time")


@pytest.mark.parametrize("text", ["20s", "5m", "250ms", "1h", "1.5s", "0s"])
def test_durations_are_shown_as_they_are_typed(text: str) -> None:
    assert show_seconds(seconds(text, "-")) == text


def test_lengths_draw_from_their_distribution() -> None:
    rng = random.Random(1)

    def mean(text: str) -> float:
        return statistics.mean(lengths(text, "--osl").draw(rng) for _ in range(20_000))

    assert mean("128") == 128
    assert mean("64-256") == pytest.approx(160, rel=0.02)
    assert mean("normal:128,32") == pytest.approx(128, rel=0.02)
    assert mean("lognormal:128,64") == pytest.approx(128, rel=0.02)


def test_lengths_stay_within_bounds() -> None:
    rng = random.Random(2)
    drawn = [lengths("3-5", "--osl").draw(rng) for _ in range(500)]
    assert {3, 4, 5} == set(drawn)
    assert min(lengths("normal:2,5", "--osl").draw(rng) for _ in range(500)) == 1


@pytest.mark.parametrize("text", ["0", "-3", "256-64", "normal:128", "gauss:1,2", "12.5", "a-b"])
def test_wrong_lengths_are_refused(text: str) -> None:
    with pytest.raises(UsageError, match="--osl"):
        lengths(text, "--osl")


@pytest.mark.parametrize("text", ["10000001", "5-99999999999999", "normal:9,1" + "0" * 400])
def test_lengths_that_no_machine_has_room_for_are_refused(text: str) -> None:
    with pytest.raises(UsageError, match=f"^--isl {text}: must be at most 10,000,000.$"):
        lengths(text, "--isl")


@pytest.mark.parametrize("text", ["128", "64-256", "normal:128,32", "lognormal:128,64"])
def test_lengths_are_shown_as_they_are_typed(text: str) -> None:
    assert str(lengths(text, "--osl")) == text


def test_a_price_is_an_hours() -> None:
    assert price_per_h("3.50/h", "--price") == 3.5
    assert price_per_h("2 / h", "--price") == 2.0


@pytest.mark.parametrize("text", ["3.50", "3.50/d", "-1/h", "0/h", "h", "1e400/h"])
def test_another_price_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match=r"--price .*: write a price an hour above 0"):
        price_per_h(text, "--price")


def test_one_thing_is_singular() -> None:
    said = [counted(n, "request") for n in (0, 1, 1.0, 0.7, 2, 1500)]

    assert said == [
        *("0 requests", "1 request", "1 request", "1 request", "2 requests", "1,500 requests")
    ]
    assert counted(1, "query", "queries") == "1 query"
    assert counted(2, "query", "queries") == "2 queries"
