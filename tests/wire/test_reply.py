import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmdyno.wire.reply import Reply, by_read, count_tokens


def _reply(sizes: list[int], total: int, running: list[int] | None = None) -> Reply:
    return Reply(
        stamps_ns=list(range(len(sizes))),
        texts=["x" * size for size in sizes],
        output_tokens=total,
        usage_after=running or [],
    )


def test_without_usage_a_chunk_is_a_token_and_says_so() -> None:
    assert count_tokens(_reply([3, 4, 5], -1)) == ([1, 1, 1], "chunks")


def test_as_many_chunks_as_tokens_is_one_each() -> None:
    assert count_tokens(_reply([3, 9], 2)) == ([1, 1], "usage")


def test_running_usage_is_taken_as_it_is() -> None:
    assert count_tokens(_reply([1, 1, 90], 6, [2, 5, 6])) == ([2, 3, 1], "usage")


def test_final_usage_is_spread_in_proportion_to_the_text() -> None:
    assert count_tokens(_reply([16, 16, 16, 8], 14)) == ([4, 4, 4, 2], "usage")


@given(
    sizes=st.lists(st.integers(1, 40), min_size=1, max_size=30),
    total=st.integers(1, 200),
)
def test_no_token_is_lost_or_made_up(sizes: list[int], total: int) -> None:
    tokens, _ = count_tokens(_reply(sizes, total))

    assert total == sum(tokens)
    assert tokens[0] >= 1
    assert min(tokens) >= 0


def test_chunks_of_one_read_are_one_read() -> None:
    gaps_ns, tokens = by_read([110, 130, 130, 160], [1, 1, 2, 1], sent_ns=100)

    assert gaps_ns == (10, 20, 30)
    assert tokens == (1, 3, 1)


def test_a_read_without_a_whole_token_joins_the_next_gap() -> None:
    assert by_read([110, 130, 160], [1, 0, 1], sent_ns=100) == ((10, 50), ())


def test_one_token_a_read_is_left_out() -> None:
    assert by_read([110, 130], [1, 1], sent_ns=100) == ((10, 20), ())


@pytest.mark.parametrize("total", [0, -1])
def test_a_usage_of_nothing_beside_text_is_not_believed(total: int) -> None:
    assert count_tokens(_reply([3, 3], total)) == ([1, 1], "chunks")
