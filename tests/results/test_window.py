"""The window that counts: after the ramp and the transient, or the whole of a short level."""

from llmdyno.results.window import steady_window, whole_level
from results.run_facts import SECOND, level_facts, record


def steady(seconds: int, from_s: float = 0.0, every_ms: int = 50) -> list[float]:
    return [from_s * 1000 + n * every_ms for n in range(int((seconds - from_s) * 1000 / every_ms))]


def test_it_begins_after_the_ramp_and_ends_when_the_load_falls() -> None:
    sent_ms = steady(20)
    facts = level_facts(
        *(record(n, at) for n, at in enumerate(sent_ms)), seconds=20, ramp_s=4, users=2
    )

    window = steady_window(facts)

    assert window.steady
    assert 4 * SECOND <= window.start_ns <= 12 * SECOND
    assert window.end_ns == 20 * SECOND


def test_it_leaves_out_a_transient() -> None:
    """Nothing comes for six seconds, then the rate is steady."""
    sent_ms = steady(30, from_s=6)
    facts = level_facts(*(record(n, at) for n, at in enumerate(sent_ms)), seconds=30)

    assert 5.5 * SECOND <= steady_window(facts).start_ns <= 8 * SECOND


def test_a_single_user_has_no_ramp() -> None:
    sent_ms = steady(20)
    facts = level_facts(
        *(record(n, at) for n, at in enumerate(sent_ms)), seconds=20, ramp_s=10, users=1
    )

    assert steady_window(facts).start_ns < 10 * SECOND


def test_a_level_with_few_first_tokens_counts_whole() -> None:
    facts = level_facts(*(record(n, 100 * n) for n in range(4)), seconds=2)

    window = steady_window(facts)

    assert not window.steady
    assert (window.start_ns, window.end_ns) == (0, 2 * SECOND)
    assert whole_level(facts).length_s == 2
