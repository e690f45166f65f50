"""What a level delivered of what was asked, from its records."""

from typing import Any

import msgspec
import numpy as np
import pytest

from llmdyno.records.columns import Window
from llmdyno.records.entries import LevelEnded, Record
from llmdyno.results.delivered import Asked, asked_of, delivered_part, of_rounds
from llmdyno.results.load_checks import about_speed
from llmdyno.results.window import steady_window
from llmdyno.units import Lengths
from results.run_facts import MS, SECOND, level_facts, record

TEN_S = Window(start_ns=0, end_ns=10 * SECOND, steady=True, method="-")


def of_lengths(lengths: list[int], asked: Lengths | None) -> dict[str, Any]:
    records = [
        record(n, 100 * n, gaps_ns=(MS,) * length, outcome="completed")
        for n, length in enumerate(lengths)
    ]
    cut = record(99, 0, gaps_ns=(MS,), outcome="cut")
    facts = level_facts(*records, cut, seconds=10)
    part: dict[str, Any] = delivered_part(facts, TEN_S, Asked(osl=asked))["output_tokens"]
    return part


def test_equal_lengths_are_missed_by_each_answer() -> None:
    asked = Lengths("fixed", 40)

    assert of_lengths([40] * 9, asked)["missed_by"] == 0
    assert of_lengths([20, 60] * 9, asked) == {
        "mean": 40,
        "asked": 40,
        "missed_by": 0.5,
        "noise": 0,
    }
    assert of_lengths([30] * 9, asked)["missed_by"] == 0.25
    assert of_lengths([30] * 9, None) == {"mean": 30, "asked": None}


def test_lengths_of_a_data_sets_own_are_missed_by_each_answer() -> None:
    """No flag says how long they are: each request's record does."""
    records = [
        record(n, 100 * n, gaps_ns=(MS,) * made, outcome="completed", asked_tokens=asked)
        for n, (made, asked) in enumerate([(20, 20), (60, 60), (30, 60), (60, 60)])
    ]
    facts = level_facts(*records, seconds=10)

    assert delivered_part(facts, TEN_S, Asked())["output_tokens"] == {
        "mean": 42.5,
        "asked": 50,
        "missed_by": 0.15,
        "noise": 0.0,
    }


@pytest.mark.parametrize("text", ["uniform", "normal", "lognormal"])
def test_drawn_lengths_are_within_their_noise(text: Any) -> None:
    import random

    asked = Lengths(text, 20, 60) if text == "uniform" else Lengths(text, 60, 15)
    rng = random.Random(1)
    for _ in range(20):
        part = of_lengths([asked.draw(rng) for _ in range(50)], asked)
        assert part["missed_by"] <= part["noise"] < 0.2


def test_what_was_asked_is_read_from_old_and_new_specs() -> None:
    spec = {"workload": {"osl": {"shape": "fixed", "a": 48}}, "load": {"think_s": [1.0, 5.0]}}

    assert asked_of(spec) == Asked(osl=Lengths("fixed", 48), think_s=3.0)
    assert asked_of({}) == asked_of({"workload": {"osl": None}}) == Asked()


def test_requests_that_were_due_and_not_sent_lower_the_rate() -> None:
    records = [record(n, 200 * n, due_ns=100 * n * MS) for n in range(50)]
    facts = level_facts(*records, seconds=10, users=None, arrival="constant", rate=10.0)
    unsent = LevelEnded(level=0, end_ns=10 * SECOND, full_until_ns=10 * SECOND, unsent=50)
    facts = msgspec.structs.replace(facts, ended=unsent)

    assert delivered_part(facts, TEN_S, Asked())["rate"] == {
        "asked": 10.0,
        "due": 10.0,
        "sent": 5.0,
        "not_sent": 50,
    }
    assert delivered_part(facts, TEN_S, Asked())["in_flight"] is None


def test_a_request_that_is_sent_after_the_load_fell_is_none_of_the_rate() -> None:
    records = [record(n, 100 * n + (9000 if n > 40 else 0), due_ns=100 * n * MS) for n in range(50)]
    facts = level_facts(*records, seconds=10, users=None, arrival="constant", rate=10.0)

    assert delivered_part(facts, TEN_S, Asked())["rate"]["not_sent"] == 9


def test_users_in_flight_are_counted_with_their_time_to_think() -> None:
    # Three of four users: 40 ms for a request, 40 ms to think, each at another moment.
    records = [
        record(3 * n + user, 80 * n + 20 * user, user=user) for n in range(100) for user in range(3)
    ]
    facts = level_facts(*records, seconds=8, users=4)
    window = Window(start_ns=0, end_ns=8 * SECOND, steady=True, method="-")

    part = delivered_part(facts, window, Asked(think_s=0.04))["in_flight"]

    assert part["users"] == 4
    assert part["expected"] == pytest.approx(2)
    assert part["peak"] == 2  # the third starts when the first ends
    assert part["mean"] == pytest.approx(1.5, abs=0.01)


def trend(ttft_ms: Any, **facts: Any) -> dict[str, Any] | None:
    records = [
        record(n, 100 * n, gaps_ns=(round(ms * MS), MS), input_tokens=100, **facts)
        for n, ms in enumerate(ttft_ms)
    ]
    level = level_facts(*records, seconds=10)
    part: dict[str, Any] | None = delivered_part(level, TEN_S, Asked())["ttft_trend"]
    return part


def test_a_growing_ttft_has_a_trend_and_an_even_one_has_none() -> None:
    rng = np.random.default_rng(0)

    growing = trend(np.linspace(100, 9000, 90) * rng.lognormal(0, 0.2, 90))
    even = trend(500 * rng.lognormal(0, 0.5, 90))

    assert growing is not None
    assert even is not None
    assert growing["tau"] > 0.8
    assert growing["last_ms"] > 5 * growing["first_ms"]
    assert growing["input_tau"] == 0
    assert abs(even["tau"]) < 0.8
    assert trend([500.0] * 39) is None


def test_of_several_rounds_the_worst_counts() -> None:
    rounds = [
        {
            "output_tokens": {"mean": 48, "asked": 48, "missed_by": off, "noise": 0.0},
            "rate": {"due": 10.0, "sent": sent},
            "in_flight": None,
            "speed": {"before": 100.0, "after": 10.0 * sent, "t": 9.0},
            "standstill": None if tau is None else {"total_s": 10 * tau},
            "ttft_trend": None if tau is None else {"tau": tau},
        }
        for off, sent, tau in [(0.0, 10.0, None), (0.2, 9.9, 0.9), (0.1, 7.0, 0.1)]
    ]

    found = of_rounds(rounds)

    assert found["output_tokens"]["missed_by"] == 0.2
    assert found["speed"]["after"] == 70
    assert found["standstill"]["total_s"] == 9
    assert (found["rate"]["sent"], found["in_flight"], found["ttft_trend"]["tau"]) == (7, None, 0.9)


def test_a_ramp_is_no_trend() -> None:
    records = [record(n, 100 * n, gaps_ns=(20 * (n + 1) * MS,)) for n in range(90)]
    facts = level_facts(*records, seconds=10, ramp_s=9.9)
    window = steady_window(facts)

    assert not window.steady
    assert delivered_part(facts, window, Asked())["ttft_trend"] is None


def speed_of(gaps_ms: list[int]) -> dict[str, Any] | None:
    """Return what is told of 20 s of one user; a request of ten tokens has the gap of its time."""
    records: list[Record] = []
    now_ms = 0
    while now_ms < 20_000:
        gap_ms = gaps_ms[now_ms * len(gaps_ms) // 20_000]
        records.append(
            record(
                len(records),
                now_ms,
                gaps_ns=(gap_ms * MS,) * 10,
                end_ns=10 * gap_ms * MS,
                outcome="completed",
            )
        )
        now_ms += 10 * gap_ms
    facts = level_facts(*records, seconds=20)
    part: dict[str, Any] | None = delivered_part(facts, steady_window(facts), Asked())["speed"]
    return part


def test_a_server_that_becomes_slower_in_the_middle_is_told() -> None:
    told = speed_of([20, 20, 60, 60, 60])

    assert told is not None
    assert told["at_s"] == pytest.approx(8, abs=0.6)
    assert told["before"] == pytest.approx(50, rel=0.05)
    assert told["after"] == pytest.approx(1000 / 60, rel=0.05)
    assert about_speed({"delivered": {"speed": told}, "window": {"start_s": 8.0}})


def test_a_steady_server_has_not_changed_its_speed() -> None:
    told = speed_of([20, 21] * 20)

    assert told is not None
    assert not about_speed({"delivered": {"speed": told}})
    # Nor has one whose change is beyond all chance, but small.
    assert not about_speed({"delivered": {"speed": speed_of([20, 22])}})


def test_a_first_answer_that_takes_long_is_no_change_of_speed() -> None:
    assert speed_of([1000]) is None  # of twenty seconds the first ten are its answer


def test_stretches_are_not_shorter_than_an_answer() -> None:
    assert speed_of([200]) is not None  # nine answers of 2 s after the first
    assert speed_of([300]) is None  # five of 3 s: too few to tell a change of the server's


@pytest.mark.parametrize(("level_s", "tells"), [(15, False), (20, True)])
def test_slow_and_quick_answers_are_no_change_of_speed(level_s: int, *, tells: bool) -> None:
    """One user's answers of 2 s, each of a speed of its own: by chance slow ones come together."""
    rng = np.random.default_rng(4)

    def level() -> dict[str, Any]:
        records: list[Record] = []
        for n in range(level_s // 2):
            tokens = max(2, round(20 * np.exp(0.5 * rng.normal())))
            gaps_ns = (2 * SECOND // tokens,) * tokens
            records.append(record(n, 2000 * n, gaps_ns=gaps_ns, end_ns=2 * SECOND))
        facts = level_facts(*records, seconds=level_s)
        return {"delivered": delivered_part(facts, steady_window(facts), Asked())}

    levels = [level() for _ in range(200)]

    assert all((one["delivered"]["speed"] is not None) is tells for one in levels)
    assert sum(bool(about_speed(one)) for one in levels) <= 2
