"""How late writes were: quantiles of a histogram, to ten microseconds."""

from llmdyno.streamer.lateness import Lateness


def test_nothing_counted_says_nothing() -> None:
    assert Lateness().in_ms() == {"p50": None, "p99": None, "max": 0.0}
    assert Lateness().writes == 0


def test_quantiles_are_the_upper_edges_of_their_buckets() -> None:
    late = Lateness()
    for _ in range(98):
        late.add(123_000)
    late.add(5_000_000)
    late.add(7_000_001)

    assert late.in_ms() == {"p50": 0.13, "p99": 5.01, "max": 7.000001}
    assert late.writes == 100


def test_more_than_a_second_is_counted_as_one_and_told_as_it_is() -> None:
    late = Lateness()
    late.add(3_000_000_000)

    assert late.in_ms() == {"p50": 1000.0, "p99": 1000.0, "max": 3000.0}
